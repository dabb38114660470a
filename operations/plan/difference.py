"""What differs between a host as it should be and as it is: pure, and the reason for every change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from operations.plan import daemon_json, firewall, gateway, network, selinux
from operations.plan.artifacts import Artifact
from operations.plan.disks import root_growth
from operations.plan.errors import PlanError
from operations.plan.keys import differing
from operations.plan.local_disks import local_plan
from operations.plan.observed import Observed, StoredArtifact
from operations.plan.packages import CONFLICTING_PACKAGES, PACKAGE_KEYS, same_version, wanted_packages
from operations.plan.release import Release
from operations.plan.version_locks import LOCK_LIST, all_locks, rules, with_locks

EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be."""

    stage: str
    what: str
    found: str
    wanted: str


def difference(
    release: Release, observed: Observed, file_digests: Mapping[str, str], gateway_loaded: str = ""
) -> list[Difference]:
    """
    Everything that differs, in the order of the stages.

    + release: what the host should be
    + observed: what it is
    + file_digests: path -> sha256 of the files the tool writes beside the release, as they should be
    + gateway_loaded: what the gateway's unit should have written down; empty where there is none

    An empty list means that the host is converged: nothing is run on it.
    """
    rows = [row for stage in _STAGES for row in stage(release, observed, file_digests)]
    return [Difference(*row) for row in (*rows, *_gateway(release, observed, file_digests, gateway_loaded))]


Rows = Iterator[tuple[str, str, str, str]]


def _storage(release: Release, observed: Observed, _: Mapping[str, str]) -> Rows:
    root, settings = observed.root, release.settings
    if settings.grow_root_file_system and (steps := root_growth(root)):
        grown = f"{', '.join(steps)} grown, on a disk of {_gib(root.disk_size)}"
        yield "storage", "root file system", _gib(root.size), grown
    local = local_plan(settings, observed.data_root, observed.local)
    if local and local.steps:
        yield "storage", "local disks", local.found, local.wanted


def _packages(release: Release, observed: Observed, digests: Mapping[str, str]) -> Rows:
    for path, digest in digests.items():
        if path.startswith(("/etc/yum.repos.d/", "/etc/pki/")):
            yield from _file("packages", path, digest, observed)
    for path in PACKAGE_KEYS:
        # its content is the vendor's, and compared by its fingerprint where it is fetched
        if observed.file_digests.get(path, EMPTY) == EMPTY:
            yield "packages", path, "absent", "the vendor's package key"
    for name in CONFLICTING_PACKAGES:
        if found := observed.packages.get(name):
            yield "packages", name, found[0], "absent: it conflicts with containerd.io"
    for name, version in wanted_packages(release.settings, observed.os_major).items():
        installed = observed.packages.get(name, ())
        if not installed or (version is not None and not any(same_version(version, v) for v in installed)):
            yield "packages", name, ", ".join(installed) or "not installed", version or "installed"
    locks = with_locks(observed.version_locks, all_locks(release.settings, observed.os_major))
    if locks != list(observed.version_locks):
        lacking = [line for line in rules(locks) if line not in observed.version_locks]
        surplus = [line for line in rules(observed.version_locks) if line not in locks]
        what = f"lacks {lacking[-1]}" if lacking else f"holds {surplus[-1]}" if surplus else "in disorder"
        should = "locks of what the inventory pins" if release.settings.version_lock else "no lock of ours"
        yield "packages", LOCK_LIST, what, should


def _container_runtime(release: Release, observed: Observed, _: Mapping[str, str]) -> Rows:
    try:
        settings = daemon_json.parse(observed.daemon_json)
    except PlanError as error:
        yield "container runtime", daemon_json.PATH, str(error), "valid JSON"
        return
    if not daemon_json.has_nvidia_runtime(settings):
        yield "container runtime", "nvidia runtime in daemon.json", "absent", daemon_json.NVIDIA_RUNTIME
    for key in daemon_json.missing(settings, release.docker_settings):
        wanted = release.docker_settings[key]
        yield "container runtime", f"{key} in daemon.json", str(settings.get(key, "absent")), str(wanted)
    if daemon_json.UNREAD in observed.file_digests:
        yield (
            "container runtime",
            daemon_json.PATH,
            "written, and docker was not restarted since",
            "read by docker",
        )
    yield from _unit("container runtime", "docker.service", observed)


def _selinux(release: Release, observed: Observed, _: Mapping[str, str]) -> Rows:
    found = observed.selinux
    if not release.selinux:
        return
    for name in selinux.missing_booleans(release.settings, found):
        yield "selinux", name, "off", "on"
    for key, what in (("rule", "rule for"), ("label", "label of")):
        if key in found and selinux.type_of(found[key]) != selinux.TYPE:
            yield "selinux", f"{what} {release.data_root}", found[key], selinux.TYPE


def _network(release: Release, observed: Observed, digests: Mapping[str, str]) -> Rows:
    guard = release.guard
    for path, digest in digests.items():
        if path.endswith("-guard.nft"):
            yield from _file("network", path, digest, observed)
            if observed.guard != digest:
                found = (
                    _digest(observed.guard) if observed.guard != "changed" else "changed since it was loaded"
                )
                yield "network", f"nftables table {guard.table}", found, f"{path}, loaded"
    yield from _unit("network", guard.unit, observed)
    ours = firewall.ours(release.settings, observed.firewall)
    wanted = firewall.wanted(release.settings, release.ports, observed.firewall)
    for scope, zone, rule in sorted(wanted - ours):
        yield "network", f"firewalld, {scope}, {zone}", "absent", rule
    for scope, zone, rule in sorted(ours - wanted):
        yield "network", f"firewalld, {scope}, {zone}", rule, "absent"


def _artifacts(release: Release, observed: Observed, _: Mapping[str, str]) -> Rows:
    if release.source:
        yield from _artifact(release.source, observed)
    for image in release.images:
        stage, found, recorded = f"{image.name} image", observed.images.get(image.tag), observed.image_records
        if found is None:
            yield stage, image.title, "absent", image.tag
        elif image.key not in recorded:
            yield stage, image.title, "its id is not recorded", found
        elif found != recorded[image.key]:
            yield stage, image.title, f"{image.tag} is {found}", recorded[image.key]
    for step in release.steps:
        # A checkpoint is only needed to build the engine from; a complete engine does without.
        if not (step.unless and _complete(step.unless, observed)):
            yield from _artifact(step.artifact, observed)


def _artifact(artifact: Artifact, observed: Observed) -> Rows:
    stored = observed.artifacts.get((artifact.kind, artifact.key))
    if stored is None:
        yield artifact.kind, artifact.key, _why_new(artifact, observed), "complete"
    elif stored.problem:
        yield artifact.kind, artifact.key, stored.problem, "complete"


def _complete(artifact: Artifact, observed: Observed) -> bool:
    stored = observed.artifacts.get((artifact.kind, artifact.key))
    return stored is not None and not stored.problem


def nearest(artifact: Artifact, stored: list[StoredArtifact]) -> list[str]:
    """The inputs that differ from the stored artifact of the same kind that shares most of them."""
    reasons = [differing(artifact.inputs, other.inputs) for other in stored if other.kind == artifact.kind]
    return min(reasons, key=len, default=[])


def _why_new(artifact: Artifact, observed: Observed) -> str:
    changed = nearest(artifact, list(observed.artifacts.values()))
    return f"other inputs: {'; '.join(changed)}" if changed else "absent"


def _release(release: Release, observed: Observed, _: Mapping[str, str]) -> Rows:
    stored = observed.artifacts.get(("release", release.id))
    if stored is None:
        yield "model repository", f"release {release.id}", "absent", "complete"
    elif observed.current == release.id:
        for path in sorted({*observed.release_manifest, *observed.release_digests}):
            found, wanted = observed.release_digests.get(path), observed.release_manifest.get(path)
            if found != wanted:
                yield "model repository", path, _digest(found), _digest(wanted)
    if observed.current == release.id and not observed.verdicts.get(release.id):
        # a run that lost its connection, or was killed, while it asked: nobody knows yet whether it answers rightly
        yield "release", "verdict", "not proven yet", "its golden answers"
    if observed.current != release.id:
        yield "release", "current", observed.current or "absent", release.id


def _service(release: Release, observed: Observed, digests: Mapping[str, str]) -> Rows:
    unit = f"{release.settings.service_name}.service"
    for path, digest in digests.items():
        if path.startswith("/etc/systemd/"):
            yield from _file("service", path, digest, observed)
    known = observed.units.get(unit, {})
    if known.get("NeedDaemonReload") == "yes" or known.get("LoadState", "loaded") not in (
        "loaded",
        "not-found",
    ):
        yield "service", unit, "changed on disk", "reloaded by systemd"
    yield from _unit("service", unit, observed)
    yield from running_problems(release, observed)
    yield from _front(release, observed, digests)


def _front(release: Release, observed: Observed, digests: Mapping[str, str]) -> Rows:
    name = release.settings.service_name
    front, beside = f"{name}-front.service", f"{name}-next.service"
    for path, digest in digests.items():
        if path.endswith("-front.cfg"):
            yield from _file("front", path, digest, observed)
    if release.fronted:
        yield from _unit("front", front, observed)
    elif observed.units.get(front, {}).get("ActiveState") == "active":
        yield "front", front, "active", "stopped: the inventory has no front"
    if observed.units.get(beside, {}).get("ActiveState") in ("active", "activating"):
        yield "front", beside, "left by a swap that was interrupted", "stopped"


def _gateway(release: Release, observed: Observed, digests: Mapping[str, str], loaded: str) -> Rows:
    service = gateway.service(release.settings.service_name)
    directory = gateway.directory(release.settings.data_root)
    unit = f"{service}.service"
    if release.gateway is None:
        found = observed.units.get(unit, {})
        if found.get("ActiveState") in ("active", "activating") or found.get("UnitFileState") == "enabled":
            yield (
                "gateway",
                unit,
                found.get("ActiveState", "enabled"),
                "stopped: the inventory has no gateway",
            )
        if directory in observed.gateway_modes:
            yield "gateway", directory, "left of a gateway", "absent"
        return
    for path, digest in digests.items():
        if path.startswith(f"{directory}/") and observed.file_digests.get(path) != digest:
            # what its digest is, is not said: two of the files hold secrets
            yield (
                "gateway",
                path,
                "another content" if path in observed.file_digests else "absent",
                "the inventory's",
            )
    if (left := f"{directory}/{gateway.FRESH}") in observed.gateway_modes:
        yield "gateway", left, "left by a run that was interrupted", "absent"
    for path, mode in gateway.modes(directory).items():
        found_mode = observed.gateway_modes.get(path)
        if found_mode and found_mode != mode:
            yield "gateway", path, f"mode:user:group {found_mode}", mode
    yield from _unit("gateway", unit, observed)
    key, _, _ = observed.gateway.partition(" ")
    if observed.units.get(unit, {}).get("ActiveState") == "active" and observed.gateway != loaded:
        found_text = "not what its files say" if key == release.gateway.key else "of other options"
        yield "gateway", f"container {service}", found_text, "run with its files"


def running_problems(release: Release, observed: Observed) -> Rows:
    """Why the serving container is not this release, whatever its unit says: the reasons for a restart."""
    container = observed.container
    if container is None or not container.running:
        yield (
            "service",
            "container",
            "not running" if container else "absent",
            f"running release {release.id}",
        )
        return
    running = container.labels.get("tritonhost.release", "a container that is not ours")
    if running != release.id:
        yield "service", "running release", running, release.id
        return
    image = observed.image_records.get(release.image.key)
    if image and container.image_id != image:
        yield "service", "running image", container.image_id, image
    alone = network.network(release.settings.service_name)
    if container.networks != {alone}:
        # on any other one the guard would not know its packets
        yield "service", "networks", ", ".join(sorted(container.networks)) or "none", f"{alone} alone"
    directories = (release.path, *release.mounts)
    inodes = " ".join(observed.inodes.get(path, "?") for path in directories)
    if "?" not in inodes and container.labels.get("tritonhost.mounts") != inodes:
        yield (
            "service",
            "served directories",
            "replaced since the server started",
            "those the server has open",
        )
    for model, url in release.ready_urls.items():
        status = observed.ready.get(url, "000")
        if status != "200":
            yield "service", f"{model} ready", "no answer" if status == "000" else status, "200"


def _database(release: Release, observed: Observed, digests: Mapping[str, str]) -> Rows:
    database = release.database
    if database is None:
        return
    unit = f"{database.service}.service"
    yield from _unit("database", unit, observed)
    state = observed.database
    wanted = str(max(database.migrations))
    # a newer one was made by a newer checkout, and leaves this release working (forward-only migrations)
    if not state.get("version", "").isdecimal() or int(state["version"]) < int(wanted):
        yield "database", "schema version", state.get("version") or "not known", wanted
    yield from empty_encoders(release, observed)


def empty_encoders(release: Release, observed: Observed) -> Rows:
    """The release's encoders of which no document has a vector: nothing can be found until one is put in."""
    names = set(release.database.encoders.values()) if release.database else set()
    for name in sorted(names):
        if not observed.database.get(f"vectors:{name}"):
            yield "database", f"vectors of {name}", "none", "the profile's documents"


def _unit(stage: str, unit: str, observed: Observed) -> Rows:
    found = observed.units.get(unit, {})
    if found.get("UnitFileState") != "enabled":
        yield stage, unit, found.get("UnitFileState") or "absent", "enabled"
    if found.get("ActiveState") != "active":
        yield stage, unit, found.get("ActiveState") or "absent", "active"


def _file(stage: str, path: str, digest: str, observed: Observed) -> Rows:
    found = observed.file_digests.get(path)
    if found != digest:
        yield stage, path, _digest(found), _digest(digest)


def _digest(value: str | None) -> str:
    return f"sha256 {value[:12]}" if value else "absent"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


_STAGES = (
    *(_storage, _packages, _selinux, _container_runtime, _artifacts, _release, _network, _database, _service),
)
