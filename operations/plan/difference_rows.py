"""Rows of a table of differences that hosts which serve and monitoring servers have alike: pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from operations.plan.artifacts.artifact import ServingImage
from operations.plan.catalog.package_names import CONFLICTING_PACKAGES
from operations.plan.errors import PlanError
from operations.plan.exposure import network
from operations.plan.exposure.host_program import HostProgram
from operations.plan.machine import daemon_json
from operations.plan.machine.packages import same_version
from operations.plan.machine.version_locks import LOCK_LIST, rules, with_locks
from operations.plan.observed.firewall import Rule
from operations.plan.observed.observed import Observed

EMPTY = hashlib.sha256(b"").hexdigest()

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


def key_rows(paths: Sequence[str], observed: Observed) -> Rows:
    """The vendors' package keys that are not there."""
    for path in paths:
        # its content is the vendor's, and compared by its fingerprint where it is fetched
        if observed.file_digests.get(path, EMPTY) == EMPTY:
            yield Difference("packages", path, "absent", "the vendor's package key")


def package_rows(
    wanted: Mapping[str, str | None],
    locks: Mapping[str, str],
    locked: bool,
    observed: Observed,
    conflicting: Sequence[str] = CONFLICTING_PACKAGES,
) -> Rows:
    """
    Packages, and dnf's locks of them.

    + wanted: name -> [epoch:]version-release; None: any version
    + locks: name -> its line
    + locked: whether the inventory wants locks
    + conflicting: those that docker does without
    """
    for name in conflicting:
        if found := observed.packages.get(name):
            yield Difference("packages", name, found[0], "absent: it conflicts with containerd.io")
    for name, version in wanted.items():
        installed = observed.packages.get(name, ())
        if not installed or (version is not None and not any(same_version(version, v) for v in installed)):
            yield Difference(
                "packages", name, ", ".join(installed) or "not installed", version or "installed"
            )
    lines = with_locks(observed.version_locks, locks)
    if lines != list(observed.version_locks):
        lacking = [line for line in rules(lines) if line not in observed.version_locks]
        surplus = [line for line in rules(observed.version_locks) if line not in lines]
        what = f"lacks {lacking[-1]}" if lacking else f"holds {surplus[-1]}" if surplus else "in disorder"
        should = "locks of what the inventory pins" if locked else "no lock of ours"
        yield Difference("packages", LOCK_LIST, what, should)


def docker_rows(wanted: Mapping[str, Any], observed: Observed, nvidia: bool = True) -> Rows:
    """
    Docker's settings and its unit.

    + wanted: of daemon.json
    + nvidia: whether docker is to know NVIDIA's runtime
    """
    try:
        settings = daemon_json.parse(observed.daemon_json)
    except PlanError as error:
        yield Difference("container runtime", daemon_json.PATH, str(error), "valid JSON")
        return
    if nvidia and not daemon_json.has_nvidia_runtime(settings):
        yield Difference(
            "container runtime", "nvidia runtime in daemon.json", "absent", daemon_json.NVIDIA_RUNTIME
        )
    for key in daemon_json.missing(settings, wanted):
        yield Difference(
            "container runtime", f"{key} in daemon.json", str(settings.get(key, "absent")), str(wanted[key])
        )
    if daemon_json.UNREAD in observed.file_digests:
        yield Difference(
            "container runtime",
            daemon_json.PATH,
            "written, and docker was not restarted since",
            "read by docker",
        )
    yield from unit_rows("container runtime", "docker.service", observed)


def guard_rows(guard: network.Guard, files: Sequence[ExpectedFile], observed: Observed) -> Rows:
    """The guard's rules in the kernel, and its unit."""
    rules = next((file for file in files if file.path == guard.rules_path), None)
    loaded = observed.guard
    if rules and loaded.digest != rules.digest:
        found = "changed since it was loaded" if loaded.changed else shown_digest(loaded.digest)
        yield Difference("network", f"nftables table {guard.table}", found, f"{rules.path}, loaded")
    yield from unit_rows("network", guard.unit, observed)


def opening_rows(wanted: frozenset[Rule], ours: frozenset[Rule]) -> Rows:
    """Rules of firewalld. `ours`: those that have our mark."""
    for scope, zone, rule in sorted(wanted - ours):
        yield Difference("network", f"firewalld, {scope}, {zone}", "absent", rule)
    for scope, zone, rule in sorted(ours - wanted):
        yield Difference("network", f"firewalld, {scope}, {zone}", rule, "absent")


def image_rows(images: Iterable[ServingImage], observed: Observed) -> Rows:
    """Images that docker does not have, or that nobody made."""
    for image in images:
        stage, found, recorded = f"{image.name} image", observed.images.get(image.tag), observed.image_records
        if found is None:
            yield Difference(stage, image.title, "absent", image.tag)
        elif image.key not in recorded:
            yield Difference(stage, image.title, "its id is not recorded", found)
        elif found != recorded[image.key]:
            yield Difference(stage, image.title, f"{image.tag} is {found}", recorded[image.key])


def program_rows(program: HostProgram, observed: Observed) -> Rows:
    """The unit of a program beside the server, and what runs in it."""
    yield from unit_rows("monitoring", f"{program.service}.service", observed)
    active = observed.units.get(f"{program.service}.service", {}).get("ActiveState") == "active"
    if active and observed.exporters.get(program.service) != program.key:
        yield Difference("monitoring", f"container {program.service}", "of other options", "run with its own")


def unit_rows(stage: str, unit: str, observed: Observed) -> Rows:
    """A unit that does not run, or not after a boot."""
    found = observed.units.get(unit, {})
    if found.get("UnitFileState") != "enabled":
        yield Difference(stage, unit, found.get("UnitFileState") or "absent", "enabled")
    if found.get("ActiveState") != "active":
        yield Difference(stage, unit, found.get("ActiveState") or "absent", "active")


def file_rows(stage: FileStage, files: Sequence[ExpectedFile], observed: Observed) -> Rows:
    """The files of a stage that are not as they should be."""
    for file in files:
        found = observed.file_digests.get(file.path)
        if file.stage == stage and found != file.digest:
            yield Difference(stage, file.path, shown_digest(found), shown_digest(file.digest))


def shown_digest(value: str | None) -> str:
    """A SHA-256 as a row has it."""
    return f"sha256 {value[:12]}" if value else "absent"
