"""Disks: a GPT image per host, cloned copy-on-write from one base image inside an xfs file system with reflinks.

The kernel may have no GPT parser, so partitions are always announced by `partx`, never by `losetup --partscan`.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.lab.settings import Settings
from tests.lab.shell import LabError, attempt, run, say

ROOT_PARTITION = 2


def loops_of(image: Path) -> list[str]:
    """Loop devices whose backing file is `image`, even if that file is deleted."""
    listed = json.loads(
        run("losetup", "--list", "--json", "--output", "NAME,BACK-FILE") or '{"loopdevices": []}'
    )
    return [
        entry["name"]
        for entry in listed["loopdevices"]
        if (entry["back-file"] or "").removesuffix(" (deleted)") == str(image)
    ]


def loops_under(folder: Path) -> list[str]:
    listed = json.loads(
        run("losetup", "--list", "--json", "--output", "NAME,BACK-FILE") or '{"loopdevices": []}'
    )
    return [
        entry["name"]
        for entry in listed["loopdevices"]
        if (entry["back-file"] or "").startswith(f"{folder}/")
    ]


def attach(image: Path) -> str:
    """A loop device over `image` with its partitions announced."""
    for _ in range(20):
        result = attempt("losetup", "--find", "--show", image)
        if result.returncode == 0:
            break
        time.sleep(
            0.05
        )  # several hosts start at once: another may have taken the device between find and set
    else:
        raise LabError(f"no loop device for {image}: {result.stderr.strip()}")
    device = result.stdout.strip()
    attempt("partx", "--delete", device)
    run("partx", "--add", device)
    return device


def loops_on(device: str) -> list[str]:
    """
    Loop devices whose backing file is on the file system of `device` itself.

    They outlive the mount namespace that they were made in, and then their file has no path here.
    """
    number = Path("/sys/block", Path(device).name, "dev").read_text().strip()
    listed = json.loads(run("losetup", "--list", "--json", "--output", "NAME,BACK-MAJ:MIN"))
    return [
        entry["name"] for entry in listed["loopdevices"] if (entry["back-maj:min"] or "").strip() == number
    ]


def detach(device: str) -> None:
    """
    Remove the device and its partitions, and loop devices over files that are on it.

    A stale partition would break the next use of that device.
    """
    name = Path(device).name
    for inner in loops_on(device):
        detach(inner)
    for _ in range(100):
        if not list(Path("/sys/block", name).glob(f"{name}p*")):
            break
        if attempt("partx", "--delete", device).returncode != 0:
            time.sleep(0.05)
    attempt("losetup", "--detach", device)
    for _ in range(100):
        backing = Path("/sys/block", name, "loop/backing_file")
        if not backing.exists():
            return
        time.sleep(0.05)
    raise LabError(f"{device} is held by {_holders(name)}, which copied its mount: end that, then try again")


def _holders(device: str) -> str:
    """Processes in whose mount namespace a file system of the device is mounted."""
    found = []
    for table in Path("/proc").glob("[0-9]*/mountinfo"):
        with suppress(OSError):
            if f"/dev/{device}" in table.read_text():
                found.append(f"{table.parent.name} ({(table.parent / 'comm').read_text().strip()})")
    return f"process {', '.join(found[:3])}" if found else "a process in another mount namespace"


def mounts_under(folder: Path) -> list[Path]:
    """Mount points at and inside `folder`, innermost first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == str(folder) or point.startswith(f"{folder}/"):
            found.append(Path(point))
    return sorted(found, key=lambda point: len(point.parts), reverse=True)


def unmount(point: Path) -> None:
    """Unmount everything at and inside `point`."""
    for _ in range(200):
        inside = mounts_under(point)
        if not inside:
            return
        if attempt("umount", inside[0]).returncode != 0:
            time.sleep(0.05)
    raise LabError(f"{mounts_under(point)[0]} stays busy: see `fuser -vm` for who holds it")


@contextmanager
def mounted(image: Path, point: Path) -> Iterator[Path]:
    """The root partition of `image`, mounted at `point` for the length of the block."""
    device = attach(image)
    try:
        point.mkdir(parents=True, exist_ok=True)
        run("mount", "-o", "nouuid", f"{device}p{ROOT_PARTITION}", point)
        try:
            yield point
        finally:
            unmount(point)
    finally:
        detach(device)


def format_image(image: Path, settings: Settings) -> None:
    """A GPT disk with a boot partition and an xfs root partition that leaves room to grow into."""
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(settings.disk << 20)
    run("sgdisk", "--new=1:0:+100M", "--typecode=1:ef00", f"--new=2:0:+{settings.root}M", image)
    device = attach(image)
    try:
        run("mkfs.xfs", "-q", "-f", "-m", "reflink=1", f"{device}p{ROOT_PARTITION}")
    finally:
        detach(device)


def share_mounts(settings: Settings) -> None:
    """Share the mounts of the state folder, so that an unmount also takes effect in every host's mount namespace.

    A host that starts gets a copy of all mounts of the machine, hidden under its own root. Unless the copies follow
    the original, one host would keep another host's disk in use as long as it runs.
    """
    inside = mounts_under(settings.state)
    if inside and settings.state not in inside:
        raise LabError(
            f"{inside[0]} is mounted but {settings.state} is not, expected both or neither: `down` first"
        )
    if not inside:
        run("mount", "--bind", settings.state, settings.state)
    run("mount", "--make-shared", settings.state)


def mount_pool(settings: Settings) -> None:
    """Mount the file system of all host disks; make it again if it cannot be mounted."""
    point = settings.pool_mount
    if point in mounts_under(point):
        return
    point.mkdir(parents=True, exist_ok=True)
    for device in loops_of(settings.pool_image):
        detach(device)
    if (
        settings.pool_image.exists()
        and attempt("mount", "-o", "loop", settings.pool_image, point).returncode == 0
    ):
        return
    if settings.pool_image.exists():
        say(f"{settings.pool_image} cannot be mounted, making it again")
    settings.pool_image.parent.mkdir(parents=True, exist_ok=True)
    fresh = settings.pool_image.with_suffix(".new")
    with fresh.open("wb") as file:
        file.truncate(settings.pool << 20)
    run("mkfs.xfs", "-q", "-f", "-m", "reflink=1", fresh)
    fresh.replace(settings.pool_image)
    run("mount", "-o", "loop", settings.pool_image, point)


def remove_all(settings: Settings) -> None:
    """No mount and no loop device of the lab exists; host disks are deleted, base images stay in the cache."""
    pool = settings.pool_mount
    for point in mounts_under(settings.state):
        if point not in (pool, settings.state):
            unmount(point)
    for device in loops_under(pool):
        detach(device)
    if mounts_under(pool):
        for image in pool.glob("h*.img"):
            image.unlink()
        attempt("fstrim", pool)  # returns the space of deleted disks to the machine
        unmount(pool)
    for device in loops_of(settings.pool_image):
        try:
            detach(device)
        except LabError as error:  # the kernel frees the device when that process ends
            say(str(error))
    unmount(settings.state)


def clone(source: Path, target: Path) -> None:
    """`target` is a copy-on-write copy of `source`, complete or absent."""
    unfinished = target.with_suffix(".part")
    run("cp", "--reflink=always", source, unfinished)
    os.replace(unfinished, target)
