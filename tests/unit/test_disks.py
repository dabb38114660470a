"""The root file system's layers, from what a kernel with LVM printed (tests/lab/disks), and what is grown of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from operations.plan.errors import PlanError
from operations.plan.machine.disks import (
    FILE_SYSTEM,
    LOGICAL,
    PARTITION,
    VOLUME,
    root_file_system,
    root_growth,
)
from operations.plan.observed.observed import RootFileSystem
from operations.scripts import host_functions
from tests.unit.stubs import Stubs

GIB = 2**30
EVERYTHING = (PARTITION, VOLUME, LOGICAL, FILE_SYSTEM)

# captured: a disk of 6 GiB, its partition 3 grown, nothing above it
LVM = """/dev/mapper/ocivolume-root xfs 1866465280
dm-1 lvm 1933574144
nvme0n1p3 part 6378470912
nvme0n1 disk 6442450944
nvme0n1p1 2048 20480 1
nvme0n1p2 22528 102400 2
nvme0n1p3 124928 12457951 3
  /dev/nvme0n1p3|ocivolume|2143289344|0|6378470912
""".splitlines()


def changed(*pairs: tuple[str, str]) -> list[str]:
    text = "\n".join(LVM)
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text.splitlines()


def plain(
    size: int, device: str = "nvme0n1p3", kind: str = "ext4", partition: int = 97, disk: int = 100
) -> list[str]:
    """A root partition of an NVMe disk, in GiB; it is the last of three."""
    first = 2 * GIB // 512
    return [
        f"/dev/{device} {kind} {size * GIB}",
        f"{device} part {partition * GIB}",
        f"nvme0n1 disk {disk * GIB}",
        f"nvme0n1p1 2048 {first - 2048} 1",
        f"{device} {first} {partition * GIB // 512} 3",
    ]


@pytest.mark.parametrize("at", range(len(LVM) + 1))
def test_unknown_line_changes_nothing(at: int) -> None:
    odd = "WARNING: devices file is missing"
    assert root_file_system([*LVM[:at], odd, *LVM[at:]]) == root_file_system(LVM)


def test_lvm_layers_are_read() -> None:
    root = root_file_system(LVM)
    assert (root.layers, root.disk, root.partition, root.number) == (
        ("lvm", "part", "disk"),
        "nvme0n1",
        "nvme0n1p3",
        "3",
    )
    assert (root.device_size, root.disk_size) == (1933574144, 6442450944)
    assert root.room == 0
    assert [(v.name, v.group, v.free) for v in root.volumes] == [("/dev/nvme0n1p3", "ocivolume", 0)]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], RootFileSystem("", "", 0, 0)),
        (["overlay overlay x"], RootFileSystem("", "", 0, 0)),
        (["/dev/sda3 xfs 5"], RootFileSystem("/dev/sda3", "xfs", 5, 0)),
        (["/dev/sda3[/root] btrfs 5"], RootFileSystem("/dev/sda3", "btrfs", 5, 0)),
        (
            ["/dev/sda3 xfs 5", "sda3 part 6", "sda disk 9"],
            RootFileSystem("/dev/sda3", "xfs", 5, 9, 6, ("part", "disk"), "sda", "sda3"),
        ),
        (
            ["/dev/loop0 ext4 5", "loop0 loop 9"],
            RootFileSystem("/dev/loop0", "ext4", 5, 9, 9, ("loop",), "loop0"),
        ),
    ],
)
def test_root_file_system(lines: list[str], found: RootFileSystem) -> None:
    assert root_file_system(lines) == found


@pytest.mark.parametrize(
    ("lines", "steps"),
    [
        # another volume of the group has the rest of its space: nothing is free to grow into
        (changed(("xfs 1866465280", "xfs 1900000000"), ("|6378470912", "|2147483648")), ()),
        (LVM, (VOLUME, LOGICAL, FILE_SYSTEM)),
        (changed(("2143289344|0", "6375342080|4232052736")), (LOGICAL, FILE_SYSTEM)),
        (changed(("2143289344|0", "6375342080|0"), ("lvm 1933574144", "lvm 6165626880")), (FILE_SYSTEM,)),
        (changed(("124928 12457951", "124928 4194304")), EVERYTHING),
        # plain, on a disk whose names oci-growfs cannot read
        (plain(94), ()),
        (plain(40), (FILE_SYSTEM,)),
        (plain(40, partition=41), (PARTITION, FILE_SYSTEM)),
        (plain(94, disk=200), (PARTITION, FILE_SYSTEM)),
        # something else follows the partition
        ([*plain(40, partition=41), f"nvme0n1p4 {43 * GIB // 512} {GIB // 512} 4"], ()),
        # nothing could be read of it, or it is on no disk
        ([], ()),
        (["overlay overlay 5"], ()),
        # a whole disk
        ([f"/dev/vdb xfs {40 * GIB}", f"vdb disk {100 * GIB}"], (FILE_SYSTEM,)),
    ],
)
def test_each_layer_is_compared_with_the_one_below(lines: list[str], steps: tuple[str, ...]) -> None:
    assert root_growth(root_file_system(lines)) == steps


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (
            [*LVM, "  /dev/sdb|ocivolume|107369988096|0|107374182400"],
            "root file system: found volume group ocivolume on /dev/nvme0n1p3, /dev/sdb, expected one physical volume, to "
            "grow it; grow it by hand, or set grow_root_file_system = False",
        ),
        (
            changed(("124928 12457951", "124928 4194304"), ("/dev/nvme0n1p3|ocivolume", "/dev/sdb|data")),
            "found /dev/mapper/ocivolume-root, and no physical volume on nvme0n1p3, expected one that `pvs` names",
        ),
        (
            [*LVM[:2], "dm-2 lvm 1933574144", *LVM[2:]],
            "found /dev/mapper/ocivolume-root on other logical volumes: thin, cached or mirrored",
        ),
        (
            plain(40, kind="btrfs"),
            "found btrfs on /dev/nvme0n1p3, which could be larger, expected xfs or ext4",
        ),
        (
            [f"/dev/mapper/root xfs {40 * GIB}", f"dm-0 crypt {90 * GIB}", *plain(40)[1:]],
            "found /dev/mapper/root on crypt, which could be larger, expected a partition or LVM on a disk",
        ),
        (
            [f"/dev/md126 xfs {40 * GIB}", f"md126 raid1 {90 * GIB}", *plain(40)[1:]],
            "found /dev/md126 on raid1, which could be larger",
        ),
    ],
)
def test_root_growth_refuses_unsupported_layouts(lines: list[str], complaint: str) -> None:
    with pytest.raises(PlanError) as refused:
        root_growth(root_file_system(lines))
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    "lines",
    [
        plain(94, kind="btrfs"),
        [
            *changed(("1866465280", "1900000000"), ("|6378470912", "|2147483648")),
            "  /dev/sdb|ocivolume|9|0|9",
        ],
    ],
)
def test_root_growth_ignores_unsupported_layouts_that_are_full(lines: list[str]) -> None:
    assert root_growth(root_file_system(lines)) == ()


def test_group_on_two_disks_grows_only_its_file_system() -> None:
    lines = changed(("2143289344|0", "6375342080|0"), ("lvm 1933574144", "lvm 6165626880"))
    assert root_growth(root_file_system([*lines, "  /dev/sdb|ocivolume|9|0|9"])) == (FILE_SYSTEM,)


def root_disk(stubs: Stubs, **environment: str) -> subprocess.CompletedProcess[str]:
    return stubs.run(host_functions("disks.sh") + "\nroot_disk", **environment)


def test_root_file_system_of_this_machine_is_read(stubs: Stubs) -> None:
    # the tools of this machine, where / is a mount that they can see: a chroot's need not be one
    seen = subprocess.run(
        ["findmnt", "--noheadings", "--output", "SOURCE", "/"], capture_output=True, text=True
    )
    if seen.returncode:
        stubs.add("findmnt", "echo overlay")
    done = root_disk(stubs)
    assert (done.returncode, done.stderr) == (0, "")
    assert root_file_system(done.stdout.splitlines()).source


def test_disk_is_rescanned_before_its_size_is_read(stubs: Stubs, tmp_path: Path) -> None:
    device = tmp_path / "sda/device"
    device.mkdir(parents=True)
    (device / "rescan").write_text("", "utf-8")
    stubs.add("findmnt", "echo /dev/sda3")
    stubs.add("lsblk", "echo sda disk")
    stubs.add("dd", f"[ ! -s {device}/rescan ] && echo first >{tmp_path}/read")
    script = host_functions("disks.sh").replace("/sys/class/block", str(tmp_path)) + "\nroot_disk"
    assert stubs.run(script).returncode == 0
    assert (device / "rescan").read_text("utf-8") == "1\n"
    assert (tmp_path / "read").exists(), "the news comes with the answer to a read"
