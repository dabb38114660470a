"""What differs between a host as it should be and as it is: pure, and the reason for every change."""

from __future__ import annotations

from collections.abc import Sequence

from operations.plan import ownership
from operations.plan.artifacts.artifact import Artifact
from operations.plan.artifacts.keys import differing, digest
from operations.plan.difference_rows import (
    Difference,
    ExpectedFile,
    Rows,
    docker_rows,
    file_rows,
    guard_rows,
    image_rows,
    key_rows,
    opening_rows,
    package_rows,
    program_rows,
    shown_digest,
    unit_rows,
)
from operations.plan.exposure import door, exporters, firewall, gateway, network
from operations.plan.machine import selinux, wave
from operations.plan.machine.disks import root_growth
from operations.plan.machine.local_disks import local_plan
from operations.plan.machine.packages import PACKAGE_KEYS, wanted_packages
from operations.plan.machine.version_locks import all_locks
from operations.plan.monitoring import textfile
from operations.plan.observed.observed import LoadedGateway, Observed, StoredArtifact
from operations.plan.release import Release

_NO_GATEWAY = LoadedGateway()


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
    settings, os_major = release.settings, observed.os_major
    yield from file_rows("packages", files, observed)
    yield from key_rows(PACKAGE_KEYS, observed)
    locks = all_locks(settings, os_major)
    yield from package_rows(wanted_packages(settings, os_major), locks, settings.version_lock, observed)


def _wave(release: Release, observed: Observed, _: Sequence[ExpectedFile]) -> Rows:
    wanted = release.settings.wave
    if wanted:
        drivers = {gpu.driver for gpu in observed.gpus}
        driver = drivers.pop() if len(drivers) == 1 else ""
        for what, found, should in wave.rows(
            wanted, observed.os_major, observed.packages, driver, observed.kernel
        ):
            yield Difference(wave.STAGE, what, found, should)


def _container_runtime(release: Release, observed: Observed, _: Sequence[ExpectedFile]) -> Rows:
    yield from docker_rows(release.docker_settings, observed)


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
    yield from file_rows("network", files, observed)
    yield from guard_rows(release.guard, files, observed)
    ours = firewall.ours(release.settings, observed.firewall)
    yield from opening_rows(firewall.wanted(release.settings, release.ports, observed.firewall), ours)


def _artifacts(release: Release, observed: Observed, _: Sequence[ExpectedFile]) -> Rows:
    if release.source:
        yield from _artifact(release.source, observed)
    yield from image_rows(release.images, observed)
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
                yield Difference("model repository", path, shown_digest(found), shown_digest(wanted))
    if observed.current == release.id and not observed.verdicts.get(release.id):
        # a run that lost its connection, or was killed, while it asked: nobody knows yet whether it answers rightly
        yield Difference("release", "verdict", "not proven yet", "its golden answers")
    if observed.current != release.id:
        yield Difference("release", "current", observed.current or "absent", release.id)


def _service(release: Release, observed: Observed, files: Sequence[ExpectedFile]) -> Rows:
    unit = f"{release.settings.service_name}.service"
    yield from file_rows("service", files, observed)
    known = observed.units.get(unit, {})
    if known.get("NeedDaemonReload") == "yes" or known.get("LoadState", "loaded") not in (
        "loaded",
        "not-found",
    ):
        yield Difference("service", unit, "changed on disk", "reloaded by systemd")
    yield from unit_rows("service", unit, observed)
    yield from running_problems(release, observed)
    yield from _front(release, observed, files)


def _front(release: Release, observed: Observed, files: Sequence[ExpectedFile]) -> Rows:
    name = release.settings.service_name
    front, beside = f"{name}-front.service", f"{name}-next.service"
    yield from file_rows("front", files, observed)
    if release.fronted:
        yield from unit_rows("front", front, observed)
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
    yield from file_rows("door", files, observed)
    yield from unit_rows("door", unit, observed)
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
    yield from unit_rows("gateway", unit, observed)
    released = observed.file_digests.get(gateway.released(release.settings.state_root))
    if observed.current == release.id and released != digest(gateway.released_text(release.id)):
        # a run that ended while it had the host out of the load balancers, or before it had decided
        found_text = "another release" if released else "none: load balancers send nothing here"
        if released == digest(gateway.released_text(release.id, canary=True)):
            found_text = gateway.CANARY
        yield Difference("gateway", "release for load balancers", found_text, release.id)
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
    yield from file_rows("monitoring", files, observed)
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
        wanted = there.get(kind)
        if wanted:
            yield from program_rows(wanted, observed)
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
    yield from unit_rows("database", unit, observed)
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


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


_STAGES = (
    *(
        _storage,
        _ownership,
        _wave,
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
