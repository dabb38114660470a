"""Where the data root is, whether it may be there, and which of the host's local disks should hold it.

Local NVMe devices are empty when an instance is made and after it was moved, so this tool keeps on them only what can be
made again. A disk with a signature that is not this tool's holds someone's data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from operations.plan.catalog.shapes import Shape
from operations.plan.errors import PlanError
from operations.plan.inventory.settings import Settings
from operations.plan.observed.observed import BlockDevice, DataRoot, Directory, LocalDisks, Signature

# Of the array and of the file system: xfs has room for 12 characters.
LABEL = "tritonhost"
ARRAY = f"/dev/md/{LABEL}"
ARRAY_FILE = "/etc/mdadm.conf.d/tritonhost.conf"
# Exists from before the first write until the file system is made. It has the UUID of the new array, or of the one disk's
# file system: a disk with that UUID holds no data, even if older signatures show. mdadm reads only *.conf there.
UNFINISHED = "/etc/mdadm.conf.d/tritonhost.unfinished"
# In the root of the file system: an empty mount point does not have it.
SENTINEL = ".tritonhost-data"
# OCI's block volumes, the boot volume among them, are SCSI devices; the shape's own disks are NVMe namespaces.
_LOCAL = re.compile(r"nvme[0-9]+n1")
# A device over a fabric (tcp, rdma, fc, loop) has the same kind of name, and belongs to another machine.
_OF_THIS_HOST = "pcie"
# the first steps of plans that make everything on the disks again
_MAKING = (("clear",), ("create",), ("file system",))
_UNREAD = "nothing that wipefs could read"
_ASK_WIPEFS = "see dmesg and `wipefs` of it on the host; a disk with faults has to be replaced"
_STICKY = 0o1000
_HIDDEN = 'or set local_disks = "none"'


@dataclass(frozen=True)
class LocalPlan:
    """What to do with the local disks: `steps` in order, of clear, create, assemble, file system, mount, mark."""

    level: str  # of the array; empty for a disk alone
    disks: tuple[str, ...]  # the kernel's names
    device: str  # of the file system, as the kernel names it; empty while there is none
    steps: tuple[str, ...]
    found: str
    wanted: str


# --- what the host says


def data_root(lines: Sequence[str]) -> DataRoot:
    """Parses files/host/disks.sh's lines of a name, a tab and a value; `mount` has findmnt's four values."""
    told = dict(line.split("\t", 1) for line in lines if "\t" in line)
    mount, source, kind, options = [*told.get("mount", "").split(" "), "", "", ""][:4]
    return DataRoot(
        kind=told.get("kind", ""),
        resolved=told.get("resolved", ""),
        mount=mount,
        source=source,
        type=kind,
        options=tuple(options.split(",")) if options else (),
        entries=bool(told.get("entries")),
        marked=bool(told.get("marked")),
        directories=tuple(map(_directory, filter(None, told.get("owners", "").split("\t")))),
    )


def _directory(text: str) -> Directory:
    """mode:user:path"""
    mode, user, path = text.split(":", 2)
    return Directory(path, int(mode, 8), user)


def local_disks(lines: Sequence[str]) -> LocalDisks:
    """Parses lsblk's JSON, and files/host/disks.sh's lines of a word, a tab and a value."""
    # a tool may print warnings before or after its JSON
    listed = "\n".join(line for line in lines if "\t" not in line)
    text = listed[listed.find("{") : listed.rfind("}") + 1] if "{" in listed else ""
    told = [line.split("\t") for line in lines if "\t" in line]
    signatures: dict[str, tuple[Signature, ...]] = {row[1]: () for row in told if row[0] == "read"}
    for row in told:
        if row[0] == "signature" and row[1] in signatures:
            # offset,uuid,label,type
            fields = [*row[2].split(","), "", "", ""]
            signatures[row[1]] += (Signature(fields[3], fields[2], fields[1]),)
    reached = {row[1]: row[2] for row in told if row[0] == "transport"}
    devices = [_device(row, reached) for row in json.loads(text)["blockdevices"]] if text else []
    holders = [(row[1], row[2]) for row in told if row[0] == "holder"]
    return LocalDisks(
        devices=tuple(_with_holders(device, holders) for device in devices),
        signatures=signatures,
        written=frozenset(row[1] for row in told if row[0] == "written"),
        unit=dict(row[1].split("=", 1) for row in told if row[0] == "unit" and "=" in row[1]),
        array_file="\n".join(row[1] for row in told if row[0] == "array"),
        unfinished=next((row[1] for row in told if row[0] == "unfinished"), ""),
    )


def _device(row: Mapping[str, Any], reached: Mapping[str, str]) -> BlockDevice:
    return BlockDevice(
        name=row["kname"],
        type=row["type"] or "",
        size=int(row["size"] or 0),  # text until util-linux 2.33
        transport=reached.get(row["kname"], ""),
        mounts=(row["mountpoint"],) if row.get("mountpoint") else (),
        children=tuple(_device(child, reached) for child in row.get("children", ())),
    )


def _with_holders(device: BlockDevice, holders: Sequence[tuple[str, str]]) -> BlockDevice:
    """A disk with the devices on it that the kernel lists and lsblk does not, such as an array that could not start."""
    seen = {child.name for child in _all(device)}
    more = [name for disk, name in holders if disk == device.name and name not in seen]
    added = [BlockDevice(name, "md" if name.startswith("md") else "device") for name in more]
    return replace(device, children=(*device.children, *added)) if added else device


def mount_unit(path: str) -> str:
    """systemd's name of the mount unit of a path, as `systemd-escape --path --suffix=mount` gives it."""
    escaped = re.sub(r"[^A-Za-z0-9:_./]|^\.", lambda found: f"\\x{ord(found[0]):02x}", path.strip("/"))
    return f"{escaped.replace('/', '-')}.mount"


# --- what may be

IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs", "hugetlbfs")
# By the kernel's names: file systems and shares of Windows, and object stores mounted through FUSE
WITHOUT_OWNERS = (
    *("vfat", "msdos", "exfat", "ntfs*", "fuseblk", "cifs", "smb*"),
    *("fuse.sshfs", "fuse.s3fs", "fuse.rclone"),
)


def check_data_root(path: str, place: DataRoot, ours: bool = False) -> None:
    """
    Refuse an unsuitable data root, before anything is written there. Raises PlanError.

    + ours: this host was deployed with it; if its owner or mode has changed since, the run repairs it

    noexec is suitable: nothing below the data root is executed, because /bin/sh reads the scripts of a release.
    """
    if place.kind and place.kind != "directory":
        raise PlanError(f"data_root {path}", place.kind, "a directory", "set another data_root")
    if place.resolved and place.resolved != path:
        # systemd waits for the mount of the path in the unit, not for the mount of the link's target
        found, then = f"a symbolic link to {place.resolved}", f'set data_root = "{place.resolved}"'
        raise PlanError(f"data_root {path}", found, "a path without symbolic links", then)
    found = f"{place.type}, mounted at {place.mount}"
    if place.type in IN_MEMORY:
        raise PlanError(
            f"data_root {path}", found, "a disk: memory is empty after a boot", "set another data_root"
        )
    if any(fnmatchcase(place.type, pattern) for pattern in WITHOUT_OWNERS):
        raise PlanError(
            f"data_root {path}",
            found,
            "a file system that keeps owners and modes, because root runs files on it",
            "set another data_root",
        )
    if open_to := _open_to(path, place.directories, ours):
        directory, found = open_to
        # root runs a release's scripts from there
        raise PlanError(
            f"data_root {path}",
            f"{found} at {directory}",
            "owner root and no write permission for others on every directory from / on",
            f"look at what is in {directory}, then: chown root {directory} && chmod go-w {directory}; or set another data_root",
        )
    if "ro" in place.options:
        source = f"{place.source}, mounted read-only at {place.mount}"
        raise PlanError(
            f"data_root {path}", source, "a file system that can be written to", "see dmesg, or remount it"
        )


def _of_the_host(local: LocalDisks) -> tuple[list[BlockDevice], str]:
    """
    The NVMe devices of the host itself by name, and a note of those that are reached over a network.

    Raises PlanError if there is none.
    """
    found = [d for d in local.devices if _LOCAL.fullmatch(d.name) and d.type == "disk" and not _of_system(d)]
    disks = [disk for disk in found if disk.transport in ("", _OF_THIS_HOST)]
    elsewhere = ", ".join(f"{d.name}, which is reached over {d.transport}" for d in found if d not in disks)
    if not disks:
        raise PlanError(
            "local_disks",
            f"no local NVMe device{' but ' if elsewhere else ''}{elsewhere}",
            "at least one",
            'take a shape with some, or set it to "none"',
        )
    # lsblk lists them in the kernel's order, which changes from boot to boot
    return sorted(disks, key=lambda disk: (len(disk.name), disk.name)), elsewhere


def _check_held(disks: Sequence[BlockDevice], ours: Sequence[str], local: LocalDisks, erase: bool) -> None:
    """
    Refuse disks that hold something that is not this tool's.

    + ours: the names of those that are its own
    + erase: whether something without a signature may go

    Raises PlanError.
    """
    for disk in disks:
        if disk.name not in local.signatures:
            raise PlanError(f"local_disks: /dev/{disk.name}", _UNREAD, "its signatures", _ASK_WIPEFS)
        if disk.name in ours:
            continue
        if found := _held(disk, local):
            raise PlanError(
                f"local_disks: /dev/{disk.name}",
                found,
                "a disk that carries nothing, or what this tool made",
                f"save its data and run `{_emptied(disk.name)}` on the host, {_HIDDEN}",
            )
        if disk.name in local.written and not erase:
            raise PlanError(
                f"local_disks: /dev/{disk.name}",
                "something other than zeros, without a signature",
                "an empty disk: this may be a database's, or encrypted",
                f"look whose it is; then run `blkdiscard /dev/{disk.name}` on the host, or set local_disks_erase = True, {_HIDDEN}",
            )


def local_plan(settings: Settings, place: DataRoot, local: LocalDisks) -> LocalPlan | None:
    """
    What to do so that the host's local disks hold the data root; None if the inventory does not want it.

    + settings: `local_disks` and `data_root`
    + place: where the data root is
    + local: the host's block devices

    Raises PlanError if a disk holds something that is not this tool's, if the data root would hide files, or if the
    array is not the inventory's.
    """
    if settings.local_disks == "none":
        return None
    disks, elsewhere = _of_the_host(local)
    if settings.local_disks == "raid10" and len(disks) < 2:
        raise PlanError("local_disks", f"raid10 and {disks[0].name} alone", "two disks or more", "set raid0")
    names = tuple(disk.name for disk in disks)
    level = settings.local_disks if len(disks) > 1 else ""
    made = f"{level or 'one disk'}, xfs, mounted at {settings.data_root}"
    begun = [disk for disk in disks if _unfinished(disk, local, level)]
    if begun and not any(_held(disk, local) for disk in disks if disk not in begun):
        _check_place(settings, place, None)
        steps: tuple[str, ...] = ("clear", *(("create",) if level else ()), "file system", "mount", "mark")
        found = f"begun on {', '.join(disk.name for disk in begun)} by a run that was interrupted"
        return LocalPlan(level, names, "", steps, found, f"{made}; everything is made again")
    ours = [disk.name for disk in disks if _holds_ours(disk, local, level)]
    _check_held(disks, ours, local, settings.local_disks_erase)
    if ours and len(ours) < len(disks):
        raise PlanError(
            "local_disks",
            f"nothing on {', '.join(n for n in names if n not in ours)}, and an array of this tool on {', '.join(ours)}",
            "one array over all of them",
            f"add them with `mdadm --manage {ARRAY} --add`"
            if level == "raid10"
            else "it cannot be read without them: stop the service, `mdadm --stop` it, `wipefs --all` and `blkdiscard` its disks, and "
            "everything is made again",
        )
    device = _holder(disks, level)
    _check_place(settings, place, device)
    if not ours:
        lost = (
            "new, and what was on them before is gone" if local.unit.get("LoadState") == "loaded" else "new"
        )
        steps = (*(("create",) if level else ()), "file system", "mount", "mark")
        found = f"{lost}: nothing on {', '.join(names)}{'; left out: ' if elsewhere else ''}{elsewhere}"
        return LocalPlan(level, names, "", steps, found, f"{made}; everything is made again")
    if device is None or device.type == "md":
        steps = ("assemble", "file system", "mount", "mark")
        return LocalPlan(level, names, "", steps, f"an array on {', '.join(names)} that is stopped", made)
    if level and device.type != level:
        then = f'set local_disks = "{device.type}", or stop the service, stop the array, `wipefs --all` and `blkdiscard` its disks'
        raise PlanError("local_disks", f"{device.type} on {', '.join(names)}", level, then)
    return _existing(settings, place, local, LocalPlan(level, names, device.name, (), "", made))


def space_to_come(settings: Settings, place: DataRoot, local: LocalDisks, shape: Shape | None) -> int:
    """
    Bytes that the data root will have on the local disks that this run sets up; 0 if that is not known.

    + shape: the host's, if known; its size is used if the host shows as many disks, otherwise the disks' own size

    Not known for an existing array that is not mounted: its free space was not measured.
    """
    try:
        plan = local_plan(settings, place, local)
    except PlanError:
        return 0  # another check refuses it
    if plan is None or plan.device or plan.steps[:1] not in _MAKING:
        return 0
    total = sum(device.size for device in local.devices if device.name in plan.disks)
    if shape and shape.local_nvme.count == len(plan.disks):
        total = round(shape.local_nvme.total_tb * 10**12)
    return total // 2 if plan.level == "raid10" else total


def _existing(settings: Settings, place: DataRoot, local: LocalDisks, plan: LocalPlan) -> LocalPlan:
    """The array, or the disk, exists: what is missing on it."""

    def lacking(found: str, *steps: str) -> LocalPlan:
        return LocalPlan(plan.level, plan.disks, plan.device, steps, found, plan.wanted)

    device = plan.device
    if device not in local.signatures:
        raise PlanError(f"local_disks: /dev/{device}", _UNREAD, "its signatures", _ASK_WIPEFS)
    signatures = local.signatures[device]
    if not signatures:
        return lacking(f"{device} without a file system", "file system", "mount", "mark")
    uuid = signatures[0].uuid
    if {(s.type, s.label) for s in signatures} != {("xfs", LABEL)}:
        found = ", ".join(_named(s) for s in signatures)
        then = f"save its data and run `{_emptied(device)}`, {_HIDDEN}"
        raise PlanError(f"local_disks: /dev/{device}", found, "the file system that this tool made", then)
    if place.mount != settings.data_root:
        return lacking(f"{device}, not mounted", "mount", "mark")
    if not place.marked:
        return lacking(f"{device}, without {SENTINEL}", "mark")
    if any(_same(s.uuid, local.unfinished) for name in (device, *plan.disks) for s in local.signatures[name]):
        return lacking(f"{device}, mounted, which {UNFINISHED} calls unfinished", "mount")
    unit = local.unit
    if unit.get("What") != f"/dev/disk/by-uuid/{uuid}" or unit.get("UnitFileState") != "enabled":
        return lacking(f"{device}, not mounted at boot", "mount")
    member = local.signatures[plan.disks[0]][0].uuid.replace("-", "") if plan.level else ""
    if member not in local.array_file.replace(":", ""):
        return lacking(f"{device}, which {ARRAY_FILE} does not name", "mount")
    return plan


def _check_place(settings: Settings, place: DataRoot, device: BlockDevice | None) -> None:
    mounted = place.mount == settings.data_root
    if mounted and (device is None or place.source.rpartition("/")[2] != device.name):
        found = f"{place.source}, mounted at {settings.data_root}"
        raise PlanError("local_disks", found, "the local disks there", f"unmount it, {_HIDDEN}")
    elsewhere = [mount for mount in (device.mounts if device else ()) if mount != settings.data_root]
    if elsewhere:
        unit = mount_unit(elsewhere[0])
        then = f"stop the service and run `systemctl disable --now '{unit}'`"
        raise PlanError("local_disks", f"mounted at {elsewhere[0]}", f"at {settings.data_root}", then)
    if not mounted and place.entries:
        raise PlanError(
            f"data_root {settings.data_root}",
            f"files on {place.source or 'another file system'}",
            "an empty directory, or none: the local disks would hide them",
            f"stop the service and move or remove them, {_HIDDEN}",
        )


def _of_system(disk: BlockDevice) -> bool:
    """Whether it holds the system: the boot volume of a host that boots from NVMe."""
    mounts = [mount for device in _all(disk) for mount in device.mounts]
    return any(mount == "/" or mount.startswith("/boot") for mount in mounts)


def _all(device: BlockDevice) -> Iterator[BlockDevice]:
    yield device
    for child in device.children:
        yield from _all(child)


def _holder(disks: Sequence[BlockDevice], level: str) -> BlockDevice | None:
    """The device for the file system: the array, or the one disk."""
    if not level:
        return disks[0]
    return next((child for disk in disks for child in disk.children), None)


def _holds_ours(disk: BlockDevice, local: LocalDisks, level: str) -> bool:
    signatures = local.signatures.get(disk.name, ())
    if level:
        named = [s.type == "linux_raid_member" and s.label.rpartition(":")[2] == LABEL for s in signatures]
        return bool(named) and all(named) and all(child.name.startswith("md") for child in disk.children)
    return {(s.type, s.label) for s in signatures} == {("xfs", LABEL)} and not disk.children


def _unfinished(disk: BlockDevice, local: LocalDisks, level: str) -> bool:
    """Whether it carries only what a run of this tool began, and is not in use since."""
    signatures = local.signatures.get(disk.name, ())
    kind = "linux_raid_member" if level else "xfs"
    below = [device for device in _all(disk) if device is not disk]
    return (
        bool(signatures)
        and all(s.type == kind and _same(s.uuid, local.unfinished) for s in signatures)
        and all(level and device.name.startswith("md") for device in below)
        and not any(device.mounts for device in _all(disk))
    )


def _same(uuid: str, other: str) -> bool:
    return bool(uuid) and uuid.replace("-", "") == other.replace("-", "")


def _held(disk: BlockDevice, local: LocalDisks) -> str:
    """What a disk holds; empty if it has no signature, no partition, no device and no mount."""
    if disk.name not in local.signatures:
        return _UNREAD
    signatures = [_named(s) for s in local.signatures[disk.name]]
    below = [f"{d.type} {d.name}" for d in _all(disk) if d is not disk]
    mounts = [f"mounted at {mount}" for device in _all(disk) for mount in device.mounts]
    return ", ".join(dict.fromkeys([*signatures, *below, *mounts]))


def _emptied(name: str) -> str:
    """The commands that empty a disk; newer versions of blkdiscard refuse a disk with a signature."""
    return f"wipefs --all /dev/{name} && blkdiscard /dev/{name}"


def _named(signature: Signature) -> str:
    return f"{signature.type} {signature.label}".strip()


def _open_to(path: str, directories: Sequence[Directory], ours: bool) -> tuple[str, str] | None:
    """The first directory from / to the data root that is not root's alone, and whose it is; None where there is none."""
    for number, found in enumerate(directories):
        if ours and found.path == path:
            continue
        # everybody may make files in it, and nobody may rename what is root's: the next one, where that is there
        sticky = found.mode & _STICKY and found.path != path and number + 1 < len(directories)
        if found.user != "0" or (found.mode & 0o022 and not sticky):
            return found.path, f"user {found.user}, mode {found.mode:o}"
    return None
