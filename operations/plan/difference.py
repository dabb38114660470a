"""What differs between a host as it should be and as it is: pure, and the reason for every change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from operations.plan import ownership
from operations.plan.artifacts.artifact import Artifact
from operations.plan.artifacts.keys import differing
from operations.plan.catalog.package_names import CONFLICTING_PACKAGES
from operations.plan.errors import PlanError
from operations.plan.exposure import door, exporters, firewall, gateway, network
from operations.plan.machine import daemon_json, selinux
from operations.plan.machine.disks import root_growth
from operations.plan.machine.local_disks import local_plan
from operations.plan.machine.packages import PACKAGE_KEYS, same_version, wanted_packages
from operations.plan.machine.version_locks import LOCK_LIST, all_locks, rules, with_locks
from operations.plan.monitoring import textfile
from operations.plan.observed.observed import LoadedGateway, Observed, StoredArtifact
from operations.plan.release import Release

EMPTY = hashlib.sha256(b"").hexdigest()
_NO_GATEWAY = LoadedGateway()

# whose rows a file's difference is among
FileStage = Literal["packages", "network", "service", "front", "gateway", "door", "monitoring"]


@dataclass(frozen=True)
class ExpectedFile:
    """A file that the tool writes beside the release, as it should be: the SHA-256 of its text."""

    stage: FileStage
    path: str
    digest: str


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be."""

    stage: str
    what: str
    found: str
    wanted: str


Rows = Iterator[Difference]


def difference(
    release: Release,
    observed: Observed,
    files: Sequence[ExpectedFile],
    gateway_loaded: LoadedGateway = _NO_GATEWAY,
) -> list[Difference]:
    """
    Everything that differs, in the order of the stages.

    + release: what the host should be
    + observed: what it is
    + files: those that the tool writes beside the release, as they should be
    + gateway_loaded: what the gateway's unit should have written down; empty where there is none

    An empty list means that the host is converged: nothing is run on it.
    """
    rows = [row for stage in _STAGES for row in stage(release, observed, files)]
    return [
        *rows,
        *_door(release, observed, files),
        *_gateway(release, observed, files, gateway_loaded),
        *_monitoring(release, observed, files),
    ]


def _storage(release: Release, observed: Observed, _: Sequence[ExpectedFile]) -> Rows:
    root, settings = observed.root, release.settings
    if settings.grow_root_file_system and (steps := root_growth(root)):
        grown = f"{', '.join(steps)} grown, on a disk of {_gib(root.disk_size)}"
        yield Difference("storage", "root file system", _gib(root.size), grown)
    local = local_plan(settings, observed.data_root, observed.local)
    if local and local.steps:
        yield Difference("storage", "local disks", local.found, local.wanted)


def _ownership(release: Release, observed: Observed, _: Sequence[ExpectedFile]) -> Rows:
    exposed = sorted(observed.exposed.items())
    for path, found in exposed[: ownership.ROWS]:
        yield Difference("ownership", ownership.shown(path), ownership.said(found), ownership.WANTED)
    if len(exposed) > ownership.ROWS:
        yield Difference("ownership", f"{len(exposed) - ownership.ROWS} more", "alike", ownership.WANTED)


def _packages(release: Release, observed: Observed, files: Sequence[ExpectedFile]) -> Rows:
    yield from _files("packages", files, observed)
    for path in PACKAGE_KEYS:
        # its content is the vendor's, and compared by its fingerprint where it is fetched
        if observed.file_digests.get(path, EMPTY) == EMPTY:
            yield Difference("packages", path, "absent", "the vendor's package key")
    for name in CONFLICTING_PACKAGES:
        if found := observed.packages.get(name):
            yield Difference("packages", name, found[0], "absent: it conflicts with containerd.io")
    for name, version in wanted_packages(release.settings, observed.os_major).items():
        installed = observed.packages.get(name, ())
        if not installed or (version is not None and not any(same_version(version, v) for v in installed)):
            yield Difference(
                "packages", name, ", ".join(installed) or "not installed", version or "installed"
            )
    locks = with_locks(observed.version_locks, all_locks(release.settings, observed.os_major))
    if locks != list(observed.version_locks):
        lacking = [line for line in rules(locks) if line not in observed.version_locks]
        surplus = [line for line in rules(observed.version_locks) if line not in locks]
        what = f"lacks {lacking[-1]}" if lacking else f"holds {surplus[-1]}" if surplus else "in disorder"
        should = "locks of what the inventory pins" if release.settings.version_lock else "no lock of ours"
        yield Difference("packages", LOCK_LIST, what, should)


def _container_runtime(release: Release, observed: Observed, _: Sequence[ExpectedFile]) -> Rows:
    try:
        settings = daemon_json.parse(observed.daemon_json)
    except PlanError as error:
        yield Difference("container runtime", daemon_json.PATH, str(error), "valid JSON")
        return
    if not daemon_json.has_nvidia_runtime(settings):
        yield Difference(
            "container runtime", "nvidia runtime in daemon.json", "absent", daemon_json.NVIDIA_RUNTIME
        )
    for key in daemon_json.missing(settings, release.docker_settings):
        wanted = release.docker_settings[key]
        yield Difference(
            "container runtime", f"{key} in daemon.json", str(settings.get(key, "absent")), str(wanted)
        )
    if daemon_json.UNREAD in observed.file_digests:
        yield Difference(
            "container runtime",
            daemon_json.PATH,
            "written, and docker was not restarted since",
            "read by docker",
        )
    yield from _unit("container runtime", "docker.service", observed)


def _selinux(release: Release, observed: Observed, _: Sequence[ExpectedFile]) -> Rows:
    found = observed.selinux
    if not release.selinux or found is None:
        return
    for name in selinux.missing_booleans(release.settings, found.booleans):
        yield Difference("selinux", name, "off", "on")
    for what, context in (("rule for", found.rule), ("label of", found.label)):
        if context is not None and selinux.type_of(context) != selinux.TYPE:
            yield Difference("selinux", f"{what} {release.data_root}", context, selinux.TYPE)


def _network(release: Release, observed: Observed, files: Sequence[ExpectedFile]) -> Rows:
    guard = release.guard
    yield from _files("network", files, observed)
    rules = next((file for file in files if file.path == guard.rules_path), None)
    loaded = observed.guard
    if rules and loaded.digest != rules.digest:
        found = "changed since it was loaded" if loaded.changed else _digest(loaded.digest)
        yield Difference("network", f"nftables table {guard.table}", found, f"{rules.path}, loaded")
    yield from _unit("network", guard.unit, observed)
    ours = firewall.ours(release.settings, observed.firewall)
    wanted = firewall.wanted(release.settings, release.ports, observed.firewall)
    for scope, zone, rule in sorted(wanted - ours):
        yield Difference("network", f"firewalld, {scope}, {zone}", "absent", rule)
    for scope, zone, rule in sorted(ours - wanted):
        yield Difference("network", f"firewalld, {scope}, {zone}", rule, "absent")


def _artifacts(release: Release, observed: Observed, _: Sequence[ExpectedFile]) -> Rows:
    if release.source:
        yield from _artifact(release.source, observed)
    for image in release.images:
        stage, found, recorded = f"{image.name} image", observed.images.get(image.tag), observed.image_records
        if found is None:
            yield Difference(stage, image.title, "absent", image.tag)
        elif image.key not in recorded:
            yield Difference(stage, image.title, "its id is not recorded", found)
        elif found != recorded[image.key]:
            yield Difference(stage, image.title, f"{image.tag} is {found}", recorded[image.key])
    for step in release.steps:
        # A checkpoint is only needed to build the engine from; a complete engine does without.
        if not (step.unless and _complete(step.unless, observed)):
            yield from _artifact(step.artifact, observed)


def _artifact(artifact: Artifact, observed: Observed) -> Rows:
    stored = observed.artifacts.get((artifact.kind, artifact.key))
    if stored is None:
        yield Difference(artifact.kind, artifact.key, _why_new(artifact, observed), "complete")
    elif stored.problem:
        yield Difference(artifact.kind, artifact.key, stored.problem, "complete")


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


def _release(release: Release, observed: Observed, _: Sequence[ExpectedFile]) -> Rows:
    stored = observed.artifacts.get(("release", release.id))
    if stored is None:
        yield Difference("model repository", f"release {release.id}", "absent", "complete")
    elif observed.current == release.id:
        for path in sorted({*observed.release_manifest, *observed.release_digests}):
            found, wanted = observed.release_digests.get(path), observed.release_manifest.get(path)
            if found != wanted:
                yield Difference("model repository", path, _digest(found), _digest(wanted))
    if observed.current == release.id and not observed.verdicts.get(release.id):
        # a run that lost its connection, or was killed, while it asked: nobody knows yet whether it answers rightly
        yield Difference("release", "verdict", "not proven yet", "its golden answers")
    if observed.current != release.id:
        yield Difference("release", "current", observed.current or "absent", release.id)


def _service(release: Release, observed: Observed, files: Sequence[ExpectedFile]) -> Rows:
    unit = f"{release.settings.service_name}.service"
    yield from _files("service", files, observed)
    known = observed.units.get(unit, {})
    if known.get("NeedDaemonReload") == "yes" or known.get("LoadState", "loaded") not in (
        "loaded",
        "not-found",
    ):
        yield Difference("service", unit, "changed on disk", "reloaded by systemd")
    yield from _unit("service", unit, observed)
    yield from running_problems(release, observed)
    yield from _front(release, observed, files)


def _front(release: Release, observed: Observed, files: Sequence[ExpectedFile]) -> Rows:
    name = release.settings.service_name
    front, beside = f"{name}-front.service", f"{name}-next.service"
    yield from _files("front", files, observed)
    if release.fronted:
        yield from _unit("front", front, observed)
    elif observed.units.get(front, {}).get("ActiveState") == "active":
        yield Difference("front", front, "active", "stopped: the inventory has no front")
    if observed.units.get(beside, {}).get("ActiveState") in ("active", "activating"):
        yield Difference("front", beside, "left by a swap that was interrupted", "stopped")


def _door(release: Release, observed: Observed, files: Sequence[ExpectedFile]) -> Rows:
    unit = f"{door.service(release.settings.service_name)}.service"
    found = observed.units.get(unit, {})
    if release.door is None:
        if found.get("ActiveState") in ("active", "activating") or found.get("UnitFileState") == "enabled":
            yield Difference(
                "door", unit, found.get("ActiveState", "enabled"), "stopped: the inventory has no door"
            )
        return
    yield from _files("door", files, observed)
    yield from _unit("door", unit, observed)
    if found.get("ActiveState") == "active" and observed.door != release.door.key:
        yield Difference("door", f"container {release.door.service}", "of other options", "run with its own")


def _gateway(
    release: Release, observed: Observed, files: Sequence[ExpectedFile], loaded: LoadedGateway
) -> Rows:
    service = gateway.service(release.settings.service_name)
    directory = gateway.directory(release.settings.state_root)
    unit = f"{service}.service"
    if release.gateway is None:
        found = observed.units.get(unit, {})
        if found.get("ActiveState") in ("active", "activating") or found.get("UnitFileState") == "enabled":
            yield Difference(
                "gateway",
                unit,
                found.get("ActiveState", "enabled"),
                "stopped: the inventory has no gateway",
            )
        if directory in observed.gateway_modes:
            yield Difference("gateway", directory, "left of a gateway", "absent")
        return
    for file in files:
        if file.stage == "gateway" and observed.file_digests.get(file.path) != file.digest:
            # what its digest is, is not said: two of the files hold secrets
            yield Difference(
                "gateway",
                file.path,
                "another content" if file.path in observed.file_digests else "absent",
                "the inventory's",
            )
    if (left := f"{directory}/{gateway.FRESH}") in observed.gateway_modes:
        yield Difference("gateway", left, "left by a run that was interrupted", "absent")
    for path, mode in gateway.modes(directory).items():
        found_mode = observed.gateway_modes.get(path)
        if found_mode and found_mode != mode:
            yield Difference("gateway", path, f"mode:user:group {found_mode}", str(mode))
    yield from _unit("gateway", unit, observed)
    if observed.units.get(unit, {}).get("ActiveState") == "active" and observed.gateway != loaded:
        found_text = (
            "not what its files say" if observed.gateway.key == release.gateway.key else "of other options"
        )
        yield Difference("gateway", f"container {service}", found_text, "run with its files")


def _monitoring(release: Release, observed: Observed, files: Sequence[ExpectedFile]) -> Rows:
    yield from _exporters(release, observed)
    settings = release.settings
    unit = textfile.unit(settings.service_name)
    timer = observed.units.get(f"{unit}.timer", {})
    if settings.monitoring is None:
        units = [f"/etc/systemd/system/{unit}.{kind}" for kind in ("timer", "service")]
        for path in (*units, *textfile.own_paths(settings)):
            if path in observed.file_digests:
                yield Difference("monitoring", path, "left of the metrics", "absent")
        return
    yield from _files("monitoring", files, observed)
    for name in (f"{unit}.timer", f"{unit}.service"):
        if observed.units.get(name, {}).get("NeedDaemonReload") == "yes":
            yield Difference("monitoring", name, "changed on disk", "reloaded by systemd")
    if (found := (timer.get("UnitFileState"), timer.get("ActiveState"))) != ("enabled", "active"):
        shown = " ".join(word or "absent" for word in found)
        yield Difference("monitoring", f"{unit}.timer", shown, "enabled active")


def _exporters(release: Release, observed: Observed) -> Rows:
    settings = release.settings
    there = {one.kind: one for one in release.exporters}
    for kind in (exporters.NODE, exporters.DCGM):
        name, wanted = exporters.service(settings.service_name, kind), there.get(kind)
        state = observed.units.get(f"{name}.service", {}).get("ActiveState")
        if wanted:
            yield from _unit("monitoring", f"{name}.service", observed)
            if state == "active" and observed.exporters.get(name) != wanted.key:
                yield Difference("monitoring", f"container {name}", "of other options", "run with its own")
            continue
        for path in exporters.own_paths(settings.service_name, settings.state_root, kind):
            if path in observed.file_digests:
                yield Difference("monitoring", path, "left of an exporter", "absent")


def running_problems(release: Release, observed: Observed) -> Rows:
    """Why the serving container is not this release, whatever its unit says: the reasons for a restart."""
    container = observed.container
    if container is None or not container.running:
        yield Difference(
            "service",
            "container",
            "not running" if container else "absent",
            f"running release {release.id}",
        )
        return
    running = container.labels.get("tritonhost.release", "a container that is not ours")
    if running != release.id:
        yield Difference("service", "running release", running, release.id)
        return
    image = observed.image_records.get(release.image.key)
    if image and container.image_id != image:
        yield Difference("service", "running image", container.image_id, image)
    alone = network.network(release.settings.service_name)
    if container.networks != {alone}:
        # on any other one the guard would not know its packets
        yield Difference(
            "service", "networks", ", ".join(sorted(container.networks)) or "none", f"{alone} alone"
        )
    directories = (release.path, *release.mounts)
    inodes = " ".join(observed.inodes.get(path, "?") for path in directories)
    if "?" not in inodes and container.labels.get("tritonhost.mounts") != inodes:
        yield Difference(
            "service",
            "served directories",
            "replaced since the server started",
            "those the server has open",
        )
    for model, url in release.ready_urls.items():
        status = observed.ready.get(url, "000")
        if status != "200":
            yield Difference("service", f"{model} ready", "no answer" if status == "000" else status, "200")


def _database(release: Release, observed: Observed, files: Sequence[ExpectedFile]) -> Rows:
    database = release.database
    if database is None:
        return
    unit = f"{database.service}.service"
    yield from _unit("database", unit, observed)
    version = observed.database.version
    wanted = max(database.migrations)
    # a newer one was made by a newer checkout, and leaves this release working (forward-only migrations)
    if version is None or version < wanted:
        found = "not known" if version is None else str(version)
        yield Difference("database", "schema version", found, str(wanted))
    yield from empty_encoders(release, observed)


def empty_encoders(release: Release, observed: Observed) -> Rows:
    """The release's encoders of which no document has a vector: nothing can be found until one is put in."""
    names = set(release.database.encoders.values()) if release.database else set()
    for name in sorted(names):
        if not observed.database.vectors.get(name):
            yield Difference("database", f"vectors of {name}", "none", "the profile's documents")


def _unit(stage: str, unit: str, observed: Observed) -> Rows:
    found = observed.units.get(unit, {})
    if found.get("UnitFileState") != "enabled":
        yield Difference(stage, unit, found.get("UnitFileState") or "absent", "enabled")
    if found.get("ActiveState") != "active":
        yield Difference(stage, unit, found.get("ActiveState") or "absent", "active")


def _files(stage: FileStage, files: Sequence[ExpectedFile], observed: Observed) -> Rows:
    for file in files:
        found = observed.file_digests.get(file.path)
        if file.stage == stage and found != file.digest:
            yield Difference(stage, file.path, _digest(found), _digest(file.digest))


def _digest(value: str | None) -> str:
    return f"sha256 {value[:12]}" if value else "absent"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


_STAGES = (
    *(
        _storage,
        _ownership,
        _packages,
        _selinux,
        _container_runtime,
        _artifacts,
        _release,
        _network,
        _database,
        _service,
    ),
)
