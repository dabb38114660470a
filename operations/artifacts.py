"""Artifacts and images that a host must have: made on the host, or received from another host of the run that has them."""

from __future__ import annotations

import hashlib
import re
import secrets
import shlex
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from urllib.parse import quote

import gevent
from gevent.lock import BoundedSemaphore
from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations.facts.artifacts import ArtifactState, ImageId
from operations.facts.host_state import read_manifest
from operations.plan.artifacts.artifact import DIRECTORIES, Artifact, ServingImage, Work, partial_path
from operations.plan.artifacts.sharing import UNIT, End, Exchange
from operations.plan.inventory.services import machine_of
from operations.plan.inventory.settings import Settings
from operations.plan.inventory.share_settings import ShareSettings
from operations.plan.observed.observed import Observed
from operations.pyinfra_patches import data_of
from operations.remote.detached import LOST, done, run_and_follow, said, shell
from operations.remote.refusal import Failed
from operations.scripts import HOST_SCRIPTS, archive, host_script

# a receiver compares what it has before it asks for the next file: an engine of 100 GB takes minutes
IDLE_SECONDS = 900
OPEN_SECONDS = 6 * 3600
POLL_SECONDS = 0.5
ANSWER_SECONDS = 15
# Hosts that left out what is needed for a making give way to the one that has it.
GIVE_WAY_SECONDS = 2.0
# Large, and of no use where what is made from it is received; the others are needed for checks, or by several.
LEFT_OUT = ("checkpoint", "onnx")
# a checkout of sources is links and small files, and every host has its own way to the repository
IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")
WRONG = "expected SHA-256"  # of a file, or of an image: what the giver has is not what it says
SHARED_KINDS = frozenset(DIRECTORIES) - {"source", "release"}


@operation()
def artifact(wanted: Artifact, unless: Artifact | None = None) -> Generator[FunctionCommand, None, None]:
    """
    The artifact is at its path, complete: its manifest is there and every file has the size and time it records.

    + wanted: what to make, and how
    + unless: an artifact that makes this one superfluous where it is complete

    Made by a transient unit named after the artifact's key, so that two runs never make it twice. Where the inventory shares
    artifacts, a host of the run that has it gives it to the others.
    """
    if unless is not None and host.get_fact(ArtifactState, path=unless.path).complete:
        host.noop(f"{unless.kind} {unless.key} is complete without it")
        return
    if host.get_fact(ArtifactState, path=wanted.path).complete:
        host.noop(f"{wanted.kind} {wanted.key} is complete")
        return
    yield FunctionCommand(obtained, (wanted, unless), {})


@operation()
def image(wanted: ServingImage) -> Generator[FunctionCommand, None, None]:
    """
    The docker engine holds the image under its tag, which is named after the hash of what it is made from.

    + wanted: what to build or pull, and how
    """
    if host.get_fact(ImageId, tag=wanted.tag):
        host.noop(f"image {wanted.tag} is here")
        return
    yield FunctionCommand(obtained, (wanted,), {})


# --- from another host


@dataclass(frozen=True)
class _Giver:
    """Where a host's artifacts are had in this run, and by whom."""

    url: str
    certificate: str
    private_key: str = field(repr=False)
    token: str = field(repr=False)


class _Members:
    """The hosts of this process's one run that share, by machine."""

    def __init__(self) -> None:
        self.exchange = Exchange()
        self.hosts: dict[str, Host] = {}
        self.settings: dict[str, Settings] = {}
        self.givers: dict[str, _Giver] = {}
        self.starting: dict[str, BoundedSemaphore] = {}
        # by machine and unit: what is needed to make that, and was left out because another host makes it
        self.left_out: dict[tuple[str, str], list[Artifact | ServingImage]] = {}


_members = _Members()


def take_part(host: Host, settings: Settings, observed: Observed) -> None:
    """The host gives the others what it has, and receives what it lacks; nothing where the inventory shares nothing."""
    if settings.share is None:
        return
    machine = machine_of(host.name)
    _members.exchange.join(machine, observed.gpus[0].driver if observed.gpus else "")
    _members.hosts.setdefault(machine, host)
    _members.settings.setdefault(machine, settings)
    for (kind, key), stored in observed.artifacts.items():
        if kind in SHARED_KINDS and not stored.problem:
            _members.exchange.has(f"tritonhost-{kind}-{key}", machine)
    for key, identity in observed.image_records.items():
        if identity in observed.images.values():
            _members.exchange.has(f"tritonhost-image-{key}", machine)


def obtained(state: State, host: Host, work: Artifact | ServingImage, unless: Artifact | None = None) -> bool:
    """
    The work's result is on the host: received from another host that has it, or made here. False where neither was possible; one
    line says why.

    + unless: an artifact that makes this one superfluous: another host that makes this one makes that one too, and gives it
    """
    machine, exchange = machine_of(host.name), _members.exchange
    if not exchange.takes_part(machine) or exchange.hosts < 2 or not _shared(work):
        return run_and_follow(state, host, work)
    if _at_work(host, work):
        exchange.makes(work.unit, machine)
        if _made(state, host, work, log=logger.warning):
            return True
        if not _answers(host):
            return False
    elif unless is not None and (other := _leaves_out(work, machine)):
        logger.info(f"{host.print_prefix}{work.title}: left out, {other} makes {unless.title} of it")
        _members.left_out.setdefault((machine, unless.unit), []).append(work)
        return True
    if (machine, work.unit) in _members.left_out:
        gevent.sleep(GIVE_WAY_SECONDS)
    told = ""
    while True:
        turn = exchange.next(work.unit, machine)
        if turn.do == "make":
            return _made(state, host, work)
        if turn.do == "fetch":
            if _fetched(state, host, work, turn.other):
                return True
            if not _answers(host):
                return False
            continue
        if turn.do == "give up":
            logger.error(
                f"{host.print_prefix}{work.title}: found that it failed on two hosts, last on {turn.other}, expected {work.result}; "
                "it was not tried here; see that host's lines"
            )
            return False
        if told != turn.other:
            told = turn.other
            logger.info(
                f"{host.print_prefix}{work.title}: waits for {told}, which makes it or gives it to others"
            )
        gevent.sleep(POLL_SECONDS)


def _leaves_out(work: Artifact | ServingImage, machine: str) -> str:
    """The other host for whose sake it need not be made here; empty: none."""
    large = isinstance(work, Artifact) and work.kind in LEFT_OUT
    return _members.exchange.elsewhere(work.unit, machine) if large else ""


def _shared(work: Artifact | ServingImage) -> bool:
    if isinstance(work, ServingImage):
        return work.name == "serving"
    return work.kind in SHARED_KINDS and work.checksums


def _at_work(host: Host, work: Work) -> bool:
    """Whether an earlier run's work on it goes on: that is followed."""
    return shell(host, f"systemctl is-active --quiet {work.unit}.service")[0]


def _made(state: State, host: Host, work: Work, log: Callable[[str], None] = logger.error) -> bool:
    machine = machine_of(host.name)
    well, theirs = False, False
    try:
        # the host that had made them is gone
        needed = _members.left_out.get((machine, work.unit), [])
        well = all(obtained(state, host, each) for each in needed) and run_and_follow(
            state, host, work, log=log
        )
        theirs = not well and _answers(host)
    finally:
        _members.exchange.made(work.unit, machine, well, theirs)
    return well


def _answers(host: Host) -> bool:
    try:
        return shell(host, ":", timeout=ANSWER_SECONDS)[0]
    except LOST:
        return False


def _fetched(state: State, host: Host, work: Artifact | ServingImage, giver: str) -> bool:
    machine = machine_of(host.name)
    began = time.monotonic()
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        logger.warning(line)

    end: End = "own"
    try:
        try:
            received = _received(host, work, giver)
        except (*LOST, Failed, PyinfraError) as error:
            end = "way"
            log(f"{host.print_prefix}{work.title}: {giver} gave nothing: {error or type(error).__name__}")
        else:
            # what a receive_….sh says of the giver begins with the giver's name
            refused = f"{work.title}: {giver}: "
            if run_and_follow(state, host, received, log=log):
                end = "well"
            elif any(refused in line for line in lines):
                end = "giver" if any(WRONG in line for line in lines) else "way"
        if end == "way" and not _answers(_members.hosts[giver]):
            end = "giver"  # which is gone: that says nothing of the network
    finally:
        _members.exchange.fetched(work.unit, machine, giver, end)
    seconds = time.monotonic() - began
    if end == "well":
        logger.info(f"{host.print_prefix}{work.title}: received from {giver} in {seconds:.0f} s")
    else:
        logger.warning(f"{host.print_prefix}{work.title}: not received from {giver}: another way is taken")
    return end == "well"


def _received(host: Host, work: Artifact | ServingImage, giver: str) -> Artifact | ServingImage:
    """The work that receives it. Raises Failed where the giver does not have it, or does not serve."""
    peer, settings = _members.hosts[giver], _members.settings[giver]
    serving = _serving(giver, _address(machine_of(host.name)))
    limit = _limit(_members.settings[machine_of(host.name)])
    files = {"peer.pem": serving.certificate, "token": f"Authorization: {serving.token}\n"}
    here = f"/run/tritonhost/{work.unit}"
    if isinstance(work, ServingImage):
        # the record comes after the making: of what this run has made, the tag is the one that was just given
        record, asked = (
            shlex.quote(work.record(settings.data_root)),
            "docker image inspect --format '{{.Id}}'",
        )
        output = done(peer, f"cat {record} 2>/dev/null || {asked} {work.tag}", timeout=ANSWER_SECONDS)
        identity = next((line for line in output if IMAGE_ID.fullmatch(line)), "")
        if not identity:
            raise Failed(f"found {said(output)[:200]}, expected the id of {work.tag}")
        url = f"{serving.url}/images/{work.name}/{work.key}"
        files["receive_image.sh"] = "@files/host/receive_image.sh"
        words = (work.tag, identity, url, giver, limit)
        return replace(
            work, commands=(("sh", f"{here}/receive_image.sh", *words),), files=files, needs_token=False
        )
    place = work.path.replace(work.data_root, settings.data_root, 1)
    output = done(peer, f"cat {shlex.quote(place)}/manifest.json", timeout=ANSWER_SECONDS)
    # sudo may say something in front of it
    text = "\n".join(output)
    manifest = read_manifest(text[text.find("{") :]) if "{" in text else None
    if manifest is None or (manifest["kind"], manifest["key"]) != (work.kind, work.key):
        raise Failed(f"found no manifest of {work.title} in {place}")
    if odd := [name for name in manifest["files"] if not name.isprintable()]:
        raise Failed(f"found {len(odd)} file names with control characters in the manifest of {work.title}")
    lines = [
        "\t".join((file["sha256"], str(file["size"]), name, quote(name)))
        for name, file in sorted(manifest["files"].items())
    ]
    files |= {
        "list": "".join(f"{line}\n" for line in lines),
        "receive_files.sh": "@files/host/receive_files.sh",
    }
    url = f"{serving.url}/files/{DIRECTORIES[work.kind]}/{work.key}"
    command = ("sh", f"{here}/receive_files.sh", partial_path(work.path), url, giver, limit)
    return replace(work, commands=(command,), files=files, needs_token=False, resumable=True)


def _limit(settings: Settings) -> str:
    """The bytes a second of a transfer, as curl is told."""
    share = settings.share or ShareSettings()
    return str(share.transfer_mbit * 125_000)


def _address(machine: str) -> str:
    """Where the others reach a host."""
    host, share = _members.hosts[machine], _members.settings[machine].share
    return (share and share.address) or str(data_of(host).get("ssh_hostname") or host.name)


def _serving(giver: str, receiver: str) -> _Giver:
    """
    The giver serves its artifacts to this receiver: started where it does not yet.

    Raises Failed where it cannot.
    """
    peer, settings = _members.hosts[giver], _members.settings[giver]
    with _members.starting.setdefault(giver, BoundedSemaphore(1)):
        known = _members.givers.get(giver)
        if known is None:
            known = _members.givers[giver] = _giver(giver)
        variables = {
            "UNIT": UNIT,
            "DATA_ROOT": settings.data_root,
            "ADDRESS": _address(giver),
            "PORT": known.url.rpartition(":")[2],
            "IDLE": str(IDLE_SECONDS),
            "KINDS": " ".join(sorted(DIRECTORIES[kind] for kind in SHARED_KINDS)),
            "RECEIVER": receiver,
            "OPEN": str(OPEN_SECONDS),
            "CERTIFICATE": hashlib.sha256(known.certificate.encode()).hexdigest(),
        }
        sent = {
            "share.py": (HOST_SCRIPTS / "share.py").read_text(encoding="utf-8"),
            "certificate.pem": known.certificate,
            "key.pem": known.private_key,
            "token": known.token,
        }
        done(peer, host_script("start_share.sh", variables), stdin=archive(sent), timeout=60)
        return known


def _giver(machine: str) -> _Giver:
    from operations.intake import one_run  # the library that makes certificates takes a tenth of a second

    address = _address(machine)
    certificate, private_key = one_run.certificate(address)
    port = (_members.settings[machine].share or ShareSettings()).port
    return _Giver(f"https://{address}:{port}", certificate, private_key, secrets.token_hex(32))
