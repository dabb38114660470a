"""The root file system and the layers under it: whether each fills the one below, and what is to be grown."""

from __future__ import annotations

from collections.abc import Sequence

from operations.plan.errors import PlanError
from operations.plan.observed.observed import PhysicalVolume, RootFileSystem

# Less than this is not worth a change: partitions are aligned, and volume groups keep their records.
WORTH = 2**30
# A file system's own data takes the rest: about 2.5 % of ext4, at most 2 GiB of xfs.
COVERED = 0.95
GROWABLE = ("xfs", "ext4")
PARTITION, VOLUME, LOGICAL, FILE_SYSTEM = (
    "partition",
    "physical volume",
    "logical volume",
    "file system",
)
_SECTOR = 512
# GPT's second table is at the end of the disk: 33 sectors.
_TABLE = 33
_BY_HAND = "grow it by hand, or set grow_root_file_system = False"


def root_file_system(lines: Sequence[str]) -> RootFileSystem:
    """
    Parses the output of files/host/disks.sh: findmnt's line for /, lsblk's lines of the device under it down to the disk
    (name, type, bytes), the partitions of that disk (name, first sector, sectors, number) and LVM's physical volumes.
    """
    # a tool may print warnings before or after its answer
    split = [line.split() for line in lines]
    first = next((n for n, row in enumerate(split) if len(row) == 3 and row[2].isdigit()), None)
    if first is None:
        return RootFileSystem("", "", 0, 0)
    fields, rows = split[first], split[first + 1 :]
    below = [row for row in rows if len(row) == 3 and row[2].isdigit()]
    disks = [row for row in below if row[1] in ("disk", "loop")]
    parts = [row for row in below if row[1] == "part"]
    partition = parts[0][0] if parts else ""
    table = {row[0]: row[3] for row in rows if len(row) == 4 and row[1].isdigit() and row[2].isdigit()}
    return RootFileSystem(
        # btrfs names a subvolume after the device
        source=fields[0].partition("[")[0],
        type=fields[1],
        size=int(fields[2]),
        disk_size=int(disks[0][2]) if disks else 0,
        device_size=int(below[0][2]) if below else 0,
        layers=tuple(row[1] for row in below),
        disk=disks[0][0] if disks else "",
        partition=partition,
        number=table.get(partition, ""),
        room=_room(rows, partition, int(disks[0][2])) if disks else 0,
        volumes=tuple(_volume(line) for line in lines[first + 1 :] if line.count("|") == 4),
    )


def _room(rows: list[list[str]], partition: str, disk_size: int) -> int:
    """The bytes between a partition's end and what follows it."""
    spans = {
        r[0]: (int(r[1]), int(r[1]) + int(r[2]))
        for r in rows
        if len(r) == 4 and r[1].isdigit() and r[2].isdigit()
    }
    if partition not in spans:
        return 0
    start, end = spans[partition]
    following = [first for first, _ in spans.values() if first > start]
    return max(0, (min(following, default=disk_size // _SECTOR - _TABLE) - end) * _SECTOR)


def _volume(line: str) -> PhysicalVolume:
    name, group, size, free, device_size = (part.strip() for part in line.split("|"))
    return PhysicalVolume(name, group, *(int(n) if n.isdigit() else 0 for n in (size, free, device_size)))


def root_volume(root: RootFileSystem) -> PhysicalVolume | None:
    """The physical volume of LVM on the root file system's partition or disk."""
    device = f"/dev/{root.partition or root.disk}"
    return next((volume for volume in root.volumes if volume.name == device), None)


def root_growth(root: RootFileSystem) -> tuple[str, ...]:
    """
    The layers to grow, from the disk upwards; empty if the root file system covers its disk.

    Each layer is compared with the one below it, not only the file system with the disk. So what an interrupted run left
    half grown is found, and space that a volume group has given to another volume (Oracle's images have `oled`) is not
    wanted back. Raises PlanError if something could be grown but this tool does not change such a layout.
    """
    if not root.source or not root.disk_size:
        return ()
    steps = _steps(root)
    if not steps:
        return ()
    if unknown := set(root.layers) - {"lvm", "part", "disk", "loop"}:
        found = f"{root.source} on {', '.join(sorted(unknown))}, which could be larger"
        raise PlanError("root file system", found, "a partition or LVM on a disk", _BY_HAND)
    if root.layers.count("lvm") > 1:
        found = f"{root.source} on other logical volumes: thin, cached or mirrored"
        raise PlanError("root file system", found, "a plain logical volume, to grow it", _BY_HAND)
    if root.type not in GROWABLE:
        found = f"{root.type} on {root.source}, which could be larger"
        raise PlanError("root file system", found, " or ".join(GROWABLE), _BY_HAND)
    if "lvm" in root.layers and steps != (FILE_SYSTEM,):
        volume = root_volume(root)
        if volume is None:
            found = f"{root.source}, and no physical volume on {root.partition or root.disk}"
            raise PlanError("root file system", found, "one that `pvs` names", _BY_HAND)
        names = [other.name for other in root.volumes if other.group == volume.group]
        if len(names) > 1:
            found = f"volume group {volume.group} on {', '.join(names)}"
            # the root file system would take all free space of the group, which may be on another disk
            raise PlanError("root file system", found, "one physical volume, to grow it", _BY_HAND)
    if PARTITION in steps and not root.number:
        raise PlanError("root file system", f"{root.partition} without a number", "a partition", _BY_HAND)
    return steps


def _steps(root: RootFileSystem) -> tuple[str, ...]:
    steps = []
    if root.room >= WORTH:
        steps.append(PARTITION)
    if "lvm" in root.layers:
        volume = root_volume(root)
        group = [other for other in root.volumes if volume and other.group == volume.group]
        if steps or (volume and volume.device_size - volume.size >= WORTH):
            steps.append(VOLUME)
        if steps or sum(other.free for other in group) >= WORTH:
            steps.append(LOGICAL)
    if steps or root.size < (root.device_size or root.disk_size) * COVERED:
        steps.append(FILE_SYSTEM)
    return tuple(steps)
