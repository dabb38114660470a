"""Growing the root file system on LVM and on a plain partition, from each half-done state, on a real kernel.

The test uses chroot into the file system on the disk: findmnt and lsblk report there what they report on a host.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyinfra.api.command import FunctionCommand

from operations.facts.disks import RootDisk
from operations.plan.errors import PlanError
from operations.plan.machine.disks import COVERED, FILE_SYSTEM, LOGICAL, PARTITION, VOLUME, root_growth
from operations.plan.observed.observed import RootFileSystem
from operations.storage import root_grown
from tests.lab.disks.machine import VirtualMachine
from tests.lab.settings import from_environment
from tests.operations.harness import Host, commands_of, text_of

pytestmark = pytest.mark.lab

# Oracle's layout, but smaller: boot partitions, then a volume group with the root volume and one for diagnostics
LAYOUT = (
    "sgdisk --new=1:0:+10M --new=2:0:+50M --new=3:0:+2G /dev/nvme0n1 >/dev/null "
    "&& partx --update /dev/nvme0n1\n"
)
LVM = (
    "pvcreate -q /dev/nvme0n1p3 && vgcreate -q ocivolume /dev/nvme0n1p3 "
    "&& lvcreate -q -y -Zn -Wn -L 200M -n oled ocivolume "
    "&& lvcreate -q -y -Zn -Wn -l +100%FREE -n root ocivolume && vgmknodes -q\n"
)
# mounted once after a start, and left mounted like a root file system
INSIDE = """
if [ ! -e /tmp/root ]; then
    vgchange -q --activate y >/dev/null 2>&1; vgmknodes -q >/dev/null 2>&1
    partx --update /dev/nvme0n1 2>/dev/null
    mkdir /tmp/root && mount {device} /tmp/root || exit 9
    cd /tmp/root && mkdir -p usr etc proc sys dev run tmp
    [ -h bin ] || cp -P /bin /sbin /lib /lib64 .
    for folder in usr etc proc sys dev run; do mount -o bind /$folder $folder; done
fi
cd / && exec chroot /tmp/root sh /proc/self/fd/3 3<<'END'
{script}
END
"""
PLAIN, LOGICAL_VOLUME = "/dev/nvme0n1p3", "/dev/mapper/ocivolume-root"


def inside(device: str, script: str) -> str:
    return INSIDE.format(device=device, script=script)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[VirtualMachine]:
    with VirtualMachine(tmp_path, from_environment().cache, [6144, 2048]) as machine:
        yield machine


def look(machine: VirtualMachine, device: str, *before: str) -> RootFileSystem:
    """The fact about the root file system, read after other scripts on the same machine."""
    *prepared, done = machine.run(*before, inside(device, RootDisk().command()))
    for script in prepared:
        assert script.returncode == 0, script.stdout + script.stderr
    root: RootFileSystem = RootDisk().process(done.stdout.splitlines())
    assert root.source == device, done.stdout + done.stderr
    return root


def grow(machine: VirtualMachine, device: str, root: RootFileSystem) -> RootFileSystem:
    command, check = commands_of(root_grown, Host({RootDisk: root}))
    assert isinstance(check, FunctionCommand)
    return look(machine, device, inside(device, text_of(command)))


# without growpart, whose newer versions also resize the physical volume
TABLE = "sgdisk --delete=3 --new=3:124928:0 /dev/nvme0n1 >/dev/null && partx --update /dev/nvme0n1\n"
HALF = {
    "nothing yet": ("", (PARTITION, VOLUME, LOGICAL, FILE_SYSTEM)),
    "the partition alone": (TABLE, (VOLUME, LOGICAL, FILE_SYSTEM)),
    "and the physical volume": (
        f"{TABLE} pvresize -q /dev/nvme0n1p3\n",
        (LOGICAL, FILE_SYSTEM),
    ),
    "all but the file system": (
        f"{TABLE} pvresize -q /dev/nvme0n1p3 && lvextend -q -l +100%FREE ocivolume/root\n",
        (FILE_SYSTEM,),
    ),
}


@pytest.mark.requirement("R09")
@pytest.mark.parametrize(
    ("kind", "done"),
    [
        pytest.param("xfs", "nothing yet", marks=pytest.mark.smoke),
        *(("xfs", done) for done in HALF if done != "nothing yet"),
        ("ext4", "nothing yet"),
        ("ext4", "all but the file system"),
    ],
)
def test_half_grown_lvm_root_is_grown(machine: VirtualMachine, kind: str, done: str) -> None:
    script, steps = HALF[done]
    small = look(machine, LOGICAL_VOLUME, LAYOUT + LVM + f"mkfs.{kind} -q {LOGICAL_VOLUME}\n{script}")
    assert (small.type, root_growth(small)) == (kind, steps)
    root = grow(machine, LOGICAL_VOLUME, small)
    assert root.size > small.size * 2
    assert root.size >= COVERED * root.device_size
    assert root_growth(root) == ()


@pytest.mark.requirement("R09")
@pytest.mark.parametrize(
    ("kind", "script"),
    [
        pytest.param("xfs", "", id="xfs, nothing yet"),
        pytest.param("xfs", TABLE, id="xfs, the partition alone"),
        pytest.param("ext4", "", id="ext4, nothing yet", marks=pytest.mark.smoke),
        pytest.param("ext4", TABLE, id="ext4, the partition alone"),
    ],
)
def test_half_grown_partition_root_is_grown(machine: VirtualMachine, kind: str, script: str) -> None:
    small = look(machine, PLAIN, LAYOUT + f"mkfs.{kind} -q {PLAIN}\n{script}")
    assert root_growth(small) == ((FILE_SYSTEM,) if script else (PARTITION, FILE_SYSTEM))
    root = grow(machine, PLAIN, small)
    assert root.size >= COVERED * root.disk_size - 2**27
    assert root_growth(root) == ()


@pytest.mark.requirement("R10")
def test_a_volume_that_is_enlarged_later_is_grown_again(machine: VirtualMachine) -> None:
    full = LAYOUT.replace("+2G", "0") + LVM + f"mkfs.xfs -q {LOGICAL_VOLUME}\n"
    assert root_growth(look(machine, LOGICAL_VOLUME, full)) == ()
    machine.enlarge(0, 9216)
    larger = look(machine, LOGICAL_VOLUME)
    assert root_growth(larger) == (PARTITION, VOLUME, LOGICAL, FILE_SYSTEM)
    assert root_growth(grow(machine, LOGICAL_VOLUME, larger)) == ()
    # the disk itself has the new size
    machine.stop()
    assert root_growth(look(machine, LOGICAL_VOLUME)) == ()


@pytest.mark.requirement("R10")
def test_volume_group_on_two_disks_is_refused(machine: VirtualMachine) -> None:
    two = "pvcreate -q /dev/nvme1n1 && vgextend -q ocivolume /dev/nvme1n1\n"
    root = look(machine, LOGICAL_VOLUME, LAYOUT + LVM + f"mkfs.xfs -q {LOGICAL_VOLUME}\n{two}")
    with pytest.raises(
        PlanError,
        match=r"found volume group ocivolume on /dev/nvme0n1p3, /dev/nvme1n1, expected one physical",
    ):
        root_growth(root)


@pytest.mark.requirement("R10")
def test_unsupported_file_system_is_refused(machine: VirtualMachine) -> None:
    root = look(machine, PLAIN, LAYOUT + f"mkfs.ext3 -q {PLAIN}\n")
    with pytest.raises(
        PlanError, match="found ext3 on /dev/nvme0n1p3, which could be larger, expected xfs or"
    ):
        root_growth(root)
