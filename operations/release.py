"""Releases: `current` points to the one that serves, `previous` to the one before it.

pyinfra -y inventories/oci.py operations.release.status      # what is there
pyinfra -y inventories/oci.py operations.release.bill_of_materials   # build/sbom-HOST.json: CycloneDX, here
pyinfra -y inventories/oci.py operations.release.rollback    # serve the previous one; needs nothing but SSH
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Generator, Iterator, Sequence
from ipaddress import IPv4Address

import gevent
from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations.facts.provenance import Provenance
from operations.facts.releases import (
    LinkedReleases,
    ReleaseDocuments,
    ReleaseLinks,
    Stored,
    StoredNames,
    StoredReleases,
)
from operations.lock import hold
from operations.plan import PlanError
from operations.plan.artifacts.artifact import DIRECTORIES
from operations.plan.artifacts.images import (
    dcgm_exporter_image,
    door_image,
    gateway_image,
    node_exporter_image,
)
from operations.plan.audit import bill_of_materials as plan_bill_of_materials
from operations.plan.audit.provenance import images, packages
from operations.plan.drain import NOTICED_SECONDS
from operations.plan.exposure import exporters
from operations.plan.exposure.network import LED, guard, unit
from operations.plan.inventory.settings import Settings, from_host_data
from operations.plan.paths import PROJECT
from operations.plan.profile.tables import Golden
from operations.plan.release import Release
from operations.plan.serving.compile_cache import DIRECTORY as CACHES
from operations.plan.serving.garbage import garbage, unread
from operations.plan.serving.servers import Server
from operations.pyinfra_patches import data_of
from operations.remote import host_files
from operations.remote.detached import LOST, done, log_lost, printed, shell
from operations.remote.load_balancers import released_script
from operations.remote.refusal import Failed, refuse
from operations.scripts import host_script
from operations.server.control import answered, judged, start

BUILD = PROJECT / "build"  # on the controller; git ignores it
STATUS = "TRITONHOST_STATUS"  # names a file that gets what `status` prints as JSON, one line a host


def switch_script(settings: Settings, release_id: str) -> str:
    """The shell text that switches, for this operation and for a rollback."""
    places = {"DATA_ROOT": settings.data_root, "STATE_ROOT": settings.state_root}
    return host_script("switch_release.sh", {**places, "RELEASE": release_id})


def link_script(settings: Settings, link: str, release_id: str) -> str:
    """The shell text that points another link to a release: that of a server beside the one that stays."""
    place, target = shlex.quote(settings.state_root), f"{settings.to_data_root}releases/{release_id}"
    return f"cd {place} && ln -sfn {target} .{link}.new && mv -T .{link}.new {link}"


def switched(host: Host, settings: Settings, release_id: str) -> None:
    """`current` points to a release. Raises Failed, and then it points where it did."""
    done(host, switch_script(settings, release_id), lines=3)


def put_back(host: Host, settings: Settings, release_id: str) -> None:
    """A release that is on the host is current again and serves. Raises Failed."""
    switched(host, settings, release_id)
    start(host, settings)
    # with the front that it was started with; start_server.sh has stopped it for one that had none
    front = f"{settings.service_name}-front.service"
    shell(
        host, f"! [ -e {settings.state_root}/current/serve-next ] || systemctl enable --quiet --now {front}"
    )


@deploy("Release")
def collect(release: Release) -> None:
    """After the release was proven: a failing one still needs what was there before."""
    settings = release.settings
    artifacts = [f"{DIRECTORIES[a.kind]}/{a.key}" for a in release.artifacts]
    collected(
        name="Remove what no kept release needs",
        data_root=settings.data_root,
        state_root=settings.state_root,
        keep=settings.keep_releases,
        in_use=[
            *artifacts,
            *(image.tag for image in release.images),
            *([f"{CACHES}/{release.cache.key}"] if release.cache else []),
        ],
        of=settings.service_name,
        beside=settings.beside,
    )


@operation()
def collected(
    data_root: str, state_root: str, keep: int, in_use: list[str], of: str = "", beside: Sequence[str] = ()
) -> Generator[StringCommand, None, None]:
    """
    Of the releases, `current`, `previous` and the newest proven ones are there, and what they are made of; no others.

    + data_root: where `releases` is
    + state_root: where the two links are
    + keep: how many releases stay, those two among them
    + in_use: directory/key and image tags that stay besides: what this run made
    + of, beside: the service, and the others of its host, which remove their own releases
    """
    links = host.get_fact(ReleaseLinks, state_root=state_root)
    linked = host.get_fact(LinkedReleases, data_root=data_root)
    stored = host.get_fact(StoredReleases, data_root=data_root)
    names = host.get_fact(StoredNames, data_root=data_root)
    directories, images = garbage(stored, links, names, keep, in_use, linked, beside, of)
    if unknown := unread(stored, names):
        logger.warning(
            f"{host.print_prefix}nothing is removed: {', '.join(unknown)} cannot be read, and may need it"
        )
    if not directories and not images:
        host.noop("nothing to remove")
        return
    given = {"DATA_ROOT": data_root, "DIRECTORIES": "\n".join(directories), "IMAGES": "\n".join(images)}
    yield StringCommand(host_script("remove_artifacts.sh", given), _timeout=600)


@operation()
def status() -> Generator[FunctionCommand, None, None]:
    """Changes nothing: prints every release of the host, and what became of it."""
    yield from _with_settings(_status_commands)


def _status_commands(settings: Settings) -> Iterator[FunctionCommand]:
    links = host.get_fact(ReleaseLinks, state_root=settings.state_root)
    stored = host.get_fact(StoredReleases, data_root=settings.data_root)
    rows = [
        {
            "release": release.id,
            "role": next((name for name in ("current", "previous") if links.get(name) == release.id), ""),
            "model": release.model,
            "image": release.stack,
            "verdict": release.verdict.text if release.verdict else "not judged",
        }
        for release in sorted(stored, key=lambda release: -release.made)
        if not settings.services or release.service == settings.service_name or release.id in links.values()
    ]
    # as a command, because an operation itself is run twice: once to plan, once to act
    yield FunctionCommand(_say, (rows,), {})


def _say(state: State, host: Host, rows: list[dict[str, str]]) -> bool:
    heads = {"release": "release", "role": "", "model": "model", "image": "image", "verdict": "verdict"}
    lines = [
        f"{host.print_prefix}{row['release']:18}{row['role']:10}{row['model']:24}{row['image']:8}{row['verdict']}"
        for row in (heads, *rows)
    ]
    logger.info("\n".join(lines))
    if place := os.environ.get(STATUS):
        with open(place, "a", encoding="utf-8") as file:
            file.write(json.dumps({"host": host.name, "releases": rows}) + "\n")
    return True


@operation()
def bill_of_materials() -> Generator[FunctionCommand, None, None]:
    """Change nothing on the host; describe its running release in build/sbom-HOST.json on this machine, CycloneDX 1.6."""
    yield from _with_settings(_bill_commands)


def _bill_commands(settings: Settings) -> Iterator[FunctionCommand]:
    current = host.get_fact(ReleaseLinks, state_root=settings.state_root).get("current", "")
    documents = host.get_fact(ReleaseDocuments, path=f"{settings.data_root}/releases/{current}")
    if not current or documents is None:
        yield refuse(
            f"bill of materials: found {f'no provenance.json in release {current}' if current else 'no release'}, "
            "expected one that this version wrote; deploy, and run again"
        )
        return
    release, provenance = documents
    before = [gateway_image(settings, settings.gateway.image)] if settings.gateway else []
    before += [door_image(settings, settings.door.image)] if settings.door else []
    of_host = exporters.wanted(settings)
    before += [node_exporter_image(settings, of_host.node.image)] if of_host.node else []
    before += [dcgm_exporter_image(settings, of_host.dcgm.image)] if of_host.dcgm else []
    images_before = {image.tag: dict(image.inputs) for image in before}
    release = {**release, "images": {**release["images"], **images_before}}
    # rpms and images as they are now: since the release was written, the distribution's packages may have been updated,
    # and a lost image may have been built again
    found = host.get_fact(Provenance, tags=sorted(release["images"]), directories=[])
    if found is None:
        return  # it could not be read, and pyinfra has said so and failed the host
    provenance = {**provenance, "images": {**provenance["images"], **images(found)}}
    bill = plan_bill_of_materials.bill_of_materials(release, provenance, packages(found), found.os_version)
    yield FunctionCommand(_write_bill, (json.dumps(bill, indent=2, sort_keys=True) + "\n",), {})


def _write_bill(state: State, host: Host, text: str) -> bool:
    BUILD.mkdir(exist_ok=True)
    place = BUILD / f"sbom-{host.name.replace('/', '+')}.json"
    place.write_text(text, encoding="utf-8")
    logger.info(f"{host.print_prefix}bill of materials: {place.relative_to(BUILD.parent)}")
    return True


@operation()
def rollback() -> Generator[FunctionCommand, None, None]:
    """
    The previous release serves, and gives its own golden answer; the one before this is not tried again by itself.

    Reaches nothing but the host: everything a kept release needs is on it.
    """
    yield from _with_settings(_rollback_commands)


def _rollback_commands(settings: Settings) -> Iterator[FunctionCommand]:
    links = host.get_fact(ReleaseLinks, state_root=settings.state_root)
    stored = {release.id: release for release in host.get_fact(StoredReleases, data_root=settings.data_root)}
    previous = stored.get(links.get("previous", ""))
    if previous is None:
        yield refuse("rollback: found no previous release, expected one that was proven; see release.status")
        return
    yield FunctionCommand(hold, ("rollback by hand",), {})
    yield FunctionCommand(_roll_back, (settings, links.get("current", ""), previous), {})


def _roll_back(state: State, host: Host, settings: Settings, current: str, previous: Stored) -> bool:
    try:
        if open_to := open_past_the_gateway(host, settings, previous.id):
            logger.error(
                f"{host.print_prefix}rollback: found release {previous.id} on {open_to}, without TLS and keys, expected one "
                "behind the gateway; where that is meant, take gateway out of the inventory; nothing was stopped"
            )
            return False
        try:
            # before: the guard would keep people from it
            _led_past(host, settings, previous.id)
        except Failed as problem:
            logger.error(f"{host.print_prefix}rollback: {problem}; nothing was stopped")
            return False
        if settings.gateway:
            _left(host, settings)
        put_back(host, settings, previous.id)
        requests = [Golden.model_validate(request) for request in previous.golden]
        server = Server(settings.service_name, "current", previous.address, (0, previous.grpc_port, 0))
        answered(host, server, requests)
        if settings.gateway:
            done(host, released_script(settings))
    except LOST as error:
        log_lost(host, f"rollback to {previous.id}", settings.service_name, error)
        return False
    except Failed as problem:
        logger.error(
            f"{host.print_prefix}release {previous.id}: {problem}; current points to it all the same"
        )
        return False
    logger.info(f"{host.print_prefix}release {previous.id} serves again, in the place of {current}")
    judged(host, settings, current, "withdrawn", "rolled back by hand")
    return True


def _left(host: Host, settings: Settings) -> None:
    """No load balancer sends a new request. Raises Failed."""
    assert settings.gateway
    if (
        printed(done(host, released_script(settings, leave=True)), "left") == "yes"
        and settings.gateway.proxies
    ):
        gevent.sleep(NOTICED_SECONDS)


def open_past_the_gateway(host: Host, settings: Settings, release_id: str) -> str:
    """
    The address that a release publishes its ports on, where the inventory has a gateway and people would get past it.

    Asked of the release's own files: it was made before there was a gateway.
    """
    return "" if settings.gateway is None else _open(host, settings, release_id)[0]


def _open(host: Host, settings: Settings, release_id: str) -> tuple[str, tuple[int, ...]]:
    """The address over which people reach a release's own ports, and those ports; nothing of one that is on the loopback."""
    serve = shlex.quote(f"{settings.data_root}/releases/{release_id}/serve")
    _, output = shell(host, f"grep -o -e '--publish=[0-9.]*:[0-9]*' {serve} 2>/dev/null | sort -u")
    places = [line.partition("=")[2].partition(":") for line in output if line.startswith("--publish=")]
    found = [(address, int(port)) for address, _, port in places if not IPv4Address(address).is_loopback]
    return (found[0][0] if found else "", tuple(port for _, port in found))


def _led_past(host: Host, settings: Settings, release_id: str) -> None:
    """
    The guard of a host whose gateway led lets people reach a release from before it again.

    The inventory has no gateway any more, and no run has said so to the host yet. Raises Failed.
    """
    _, ports = _open(host, settings, release_id)
    if settings.gateway or len(ports) != 3:
        return
    path, text = host_files.paths(settings).guard_rules, host_files.guard_rules(guard(settings, ports))
    variables = {
        "FILE": path,
        "UNIT": unit(settings.service_name),
        "SHA256": host_files.digest(text),
    }
    load = host_script("load_guard.sh", variables)
    led = f"grep -qxF {shlex.quote(LED)} {path} 2>/dev/null || exit 0"
    done(host, f"{led}\n{load}", stdin=text, silent="guard: no answer")


def _with_settings(commands: Callable[[Settings], Iterator[FunctionCommand]]) -> Iterator[FunctionCommand]:
    """
    What `commands` yields for the current host's settings, or the refusal of settings that are not valid.

    Not planned for: none of these operations needs a profile.
    """
    try:
        settings = from_host_data(data_of(host), host.name)
    except PlanError as error:
        yield refuse(str(error))
        return
    yield from commands(settings)
