"""Whether the disks and the memory of a host hold what a deploy makes."""

from __future__ import annotations

from collections.abc import Mapping

from operations.plan.machine.disks import root_growth
from operations.plan.observed.health import Verdict
from operations.plan.observed.observed import Observed
from operations.plan.preflight.check import Check, Checks, Subject
from operations.plan.preflight.shortages import data_space, needed_together, on_local_disks_to_come
from operations.plan.units import gib

# in the place of a mount point, while there is none
LOCAL_DISKS = "the local disks to be mounted"
# What a root file system has, at the least, of its disk once it is grown: boot partitions and records take the rest.
GROWN_SHARE = 0.9
# Estimates of the forecast: less than this share of one is too little to begin with.
CLEARLY_TOO_LITTLE = 0.8
INODES_FAILED, INODES_WARNING = 10_000, 200_000


def of_space(subject: Subject) -> Checks:
    health, observed, release = subject.health, subject.observed, subject.release
    wanted = needed_together((release, *subject.beside), observed) if release and observed else None
    data = health.disks.get(subject.settings.data_root)
    docker = health.disks.get(health.docker_root)
    if not data or not docker or observed is None:
        yield Check("disk space", "not checked", "the file systems were not read")
    elif release is None or wanted is None:
        yield Check(
            "disk space", "not checked", f"{gib(data.free)} free on {data.mount}; what it takes is not known"
        )
    else:
        places: dict[str, dict[str, int]] = {}
        free = {space.mount: space.free for space in (data, docker)}
        mount = data.mount
        if on_local_disks_to_come(release, observed):
            mount = LOCAL_DISKS
            free[mount] = data_space(release, observed, subject.shape)
        for kind, size in wanted[0].items():
            place = docker.mount if kind == "image" else mount
            # of an array that is there and not mounted, nobody knows what is free
            if place != LOCAL_DISKS or free[place]:
                places.setdefault(place, {})[kind] = size
        yield _disk(subject, observed, free, places)
    spaces = {space.mount: space for space in health.disks.values() if space.inodes}
    few = {mount: space.inodes_free for mount, space in spaces.items() if space.inodes_free < INODES_WARNING}
    if not health.disks:
        yield Check("inodes", "not checked", "the file systems were not read")
    elif few:
        found = ", ".join(f"{mount}: {number} free" for mount, number in few.items())
        # a repair that makes nothing large is not held up
        makes = wanted is None or any(wanted[0].values())
        verdict: Verdict = "failed" if makes and min(few.values()) < INODES_FAILED else "warning"
        then = "remove small files, or make room: xfs takes inodes from what is free"
        yield Check("inodes", verdict, found, f"{INODES_WARNING} or more", then)
    else:
        yield Check("inodes", "ok", "enough on each file system")
    total = sum(health.memory.get(part, 0) for part in ("MemTotal", "SwapTotal"))
    if not health.memory.get("MemTotal") or wanted is None:
        found = f"{gib(total)}; what a build takes is not known" if total else "/proc/meminfo was not read"
        yield Check("host memory", "not checked", found)
    elif total < wanted[1]:
        # an estimate of a peak, and the kernel makes room: said, and not refused
        then = "where the work ends with exit code 137, take a larger shape or add swap"
        expected = f"about {gib(wanted[1])} to convert and build"
        yield Check("host memory", "warning", f"{gib(total)} with swap", expected, then)
    else:
        yield Check("host memory", "ok", f"{gib(total)} with swap")


def _disk(
    subject: Subject, observed: Observed, free: dict[str, int], places: Mapping[str, Mapping[str, int]]
) -> Check:
    grown = 0
    if subject.settings.grow_root_file_system and observed.root.disk_size and root_growth(observed.root):
        # the run grows it before it needs it
        grown = max(0, int(observed.root.disk_size * GROWN_SHARE) - observed.root.size)
        if "/" in free:
            free = {**free, "/": free["/"] + grown}
    found, expected = [], []
    worst: Verdict = "ok"
    for mount, sizes in places.items():
        total = sum(sizes.values())
        after = " after growing" if mount == "/" and grown else ""
        found.append(f"{gib(free[mount])} free on {mount}{after}")
        parts = ", ".join(f"{kind} {gib(size)}" for kind, size in sizes.items())
        expected.append(f"about {gib(total)} on {mount} ({parts})")
        if free[mount] < total * CLEARLY_TOO_LITTLE:
            worst = "failed"
        elif free[mount] < total and worst == "ok":
            worst = "warning"
    then = "a larger boot volume, or data_root on a larger file system"
    if worst == "ok":
        return Check("disk space", worst, "; ".join(found) or "nothing is to be made")
    return Check("disk space", worst, "; ".join(found), "; ".join(expected), then)
