"""dnf's version locks, which keep `dnf update` from changing the packages that the inventory pins."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from operations.plan.catalog.package_names import CONFLICTING_PACKAGES
from operations.plan.inventory.settings import Settings
from operations.plan.machine.packages import runtime_packages, tool_packages

# read by the plugin packages.LOCK_PLUGIN: https://dnf-plugins-core.readthedocs.io/en/latest/versionlock.html
LOCK_LIST = "/etc/dnf/plugins/versionlock.list"
_BEGIN = "# tritonhost: begin, the versions that the inventory pins: changes are overwritten, edit the inventory instead"
_END = "# tritonhost: end"


def tool_locks(settings: Settings, os_major: str) -> dict[str, str]:
    """Package name -> its lock, for the tools that are pinned."""
    return locks_of(tool_packages(settings, os_major)) if settings.version_lock else {}


def all_locks(settings: Settings, os_major: str) -> dict[str, str]:
    """
    Package name -> its lock, for everything that is pinned, and exclusions of what conflicts with docker.

    Empty if the inventory wants no locks.
    """
    if not settings.version_lock:
        return {}
    away = {name: f"!{name}" for name in CONFLICTING_PACKAGES}
    return {
        **away,
        **locks_of(runtime_packages(settings, os_major)),
        **tool_locks(settings, os_major),
    }


def locks_of(versions: Mapping[str, str | None]) -> dict[str, str]:
    """Package name -> its lock, of those that are pinned."""
    return {name: f"{name}-{version}.*" for name, version in versions.items() if version}


def with_locks(found: Sequence[str], locks: Mapping[str, str], keep: bool = False) -> list[str]:
    """
    The list's lines with these locks, and without other locks of the same packages.

    + found: the lines as they are; those of other packages stay
    + locks: package name -> its line
    + keep: keep our locks of further packages; otherwise they count as leftovers of an earlier inventory

    A line is recognised by its package, not only by the comments around ours: `dnf versionlock delete` rewrites the list
    without comments. Two locks of one package would allow both versions.
    """
    ours, others = _parted(found)
    kept = [line for line in ours if not _of_any(locks, line)] if keep else []
    others = [line for line in others if not _of_any(locks, line)]
    while others and not others[-1].strip():
        others.pop()
    block = sorted({*locks.values(), *kept})
    return [*others, _BEGIN, *block, _END] if block else others


def rules(lines: Sequence[str]) -> list[str]:
    """The list's lines without its comments."""
    return [line for line in lines if line.strip() and not line.startswith("#")]


def is_of(name: str, line: str) -> bool:
    """Whether a line of the list locks or excludes versions of this package."""
    version = r"(-([0-9]+:)?[0-9*][^ ]*)?"
    return bool(re.fullmatch(rf"!?([0-9]+:)?{re.escape(name)}{version}(\.[a-z0-9_*]+)?", line.strip()))


def _of_any(names: Collection[str], line: str) -> bool:
    return any(is_of(name, line) for name in names)


def _parted(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our lines and the others."""
    ours: list[str] = []
    others: list[str] = []
    inside = False
    for line in (line.rstrip() for line in lines):
        if line in (_BEGIN, _END):
            inside = line == _BEGIN
        elif not inside:
            others.append(line)
        else:
            ours.append(line)
    return rules(ours), others
