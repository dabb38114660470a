"""The root file system's growth on LVM and on a plain partition, left half done in every way, on a real kernel.

A root of its own is made by chroot into the file system on the disk: findmnt and lsblk there say what they say on a host.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pyinfra.api.command import FunctionCommand

from operations.facts.disks import RootDisk
from operations.plan.disks import COVERED, FILE_SYSTEM, LOGICAL, PARTITION, VOLUME, root_growth
from operations.plan.errors import PlanError
from operations.plan.observed import RootFileSystem
from operations.storage import root_grown
from tests.lab.disks.machine import UserModeMachine
from tests.lab.settings import from_environment
from tests.operations.harness import Host, commands_of, text_of

pytestmark = pytest.mark.lab

# Oracle's layout, in small: boot partitions, then a volume group with a volume for diagnostics beside the root's
LAYOUT = (
    "sgdisk --new=1:0:+10M --new=2:0:+50M --new=3:0:+2G /dev/ubda >/dev/null && partx --update /dev/ubda\n"
)
LVM = (
    "pvcreate -q /dev/ubda3 && vgcreate -q ocivolume /dev/ubda3 && lvcreate -q -y -Zn -Wn -L 200M -n oled ocivolume "
    "&& lvcreate -q -y -Zn -Wn -l +100%FREE -n root ocivolume && vgmknodes -q\n"
)
INSIDE = """
vgchange -q --activate y >/dev/null 2>&1; vgmknodes -q >/dev/null 2>&1
partx --update /dev/ubda 2>/dev/null
mkdir -p /tmp/root && mount {device} /tmp/root || exit 9
cd /tmp/root && mkdir -p usr opt etc proc sys dev run tmp jobs
for link in bin sbin lib lib64; do [ -e $link ] || cp -P /$link $link; done
for folder in usr opt etc proc sys dev run jobs; do mount --bind /$folder $folder; done
cat >/jobs/inside <<'END'
{script}
END
chroot . sh /jobs/inside
code=$?
cd / && umount -R /tmp/root
exit $code
"""
PLAIN, LOGICAL_VOLUME = "/dev/ubda3", "/dev/mapper/ocivolume-root"


def inside(device: str, script: str) -> str:
    return INSIDE.format(device=device, script=script)


@pytest.fixture
def machine(tmp_path: Path) -> UserModeMachine:
    return UserModeMachine(tmp_path, from_environment().cache, [6144, 2048])


def look(machine: UserModeMachine, device: str, *before: str) -> RootFileSystem:
    *prepared, done = machine.boot(*before, inside(device, RootDisk().command()))
    for script in prepared:
        assert script.returncode == 0, script.stderr
    root: RootFileSystem = RootDisk().process(done.stdout.splitlines())
    assert root.source == device, done.stdout + done.stderr
    return root


def grow(machine: UserModeMachine, device: str, root: RootFileSystem) -> RootFileSystem:
    command, check = commands_of(root_grown, Host({RootDisk: root}))
    assert isinstance(check, FunctionCommand)
    [done] = machine.boot(inside(device, text_of(command)))
    assert done.returncode == 0, done.stdout + done.stderr
    return look(machine, device)


# not by growpart, which resizes the physical volume as well where it is of a newer version
TABLE = "sgdisk --delete=3 --new=3:124928:0 /dev/ubda >/dev/null && partx --update /dev/ubda\n"
HALF = {
    "nothing yet": ("", (PARTITION, VOLUME, LOGICAL, FILE_SYSTEM)),
    "the partition alone": (TABLE, (VOLUME, LOGICAL, FILE_SYSTEM)),
    "and the physical volume": (
        f"{TABLE} pvresize -q /dev/ubda3\n",
        (LOGICAL, FILE_SYSTEM),
    ),
    "all but the file system": (
        f"{TABLE} pvresize -q /dev/ubda3 && lvextend -q -l +100%FREE ocivolume/root\n",
        (FILE_SYSTEM,),
    ),
}


@pytest.mark.parametrize(
    ("kind", "done"),
    [*(("xfs", done) for done in HALF), ("ext4", "nothing yet"), ("ext4", "all but the file system")],
)
def test_what_was_left_half_grown_on_lvm_is_grown(machine: UserModeMachine, kind: str, done: str) -> None:
    script, steps = HALF[done]
    small = look(machine, LOGICAL_VOLUME, LAYOUT + LVM + f"mkfs.{kind} -q {LOGICAL_VOLUME}\n{script}")
    assert (small.type, root_growth(small)) == (kind, steps)
    root = grow(machine, LOGICAL_VOLUME, small)
    assert root.size > small.size * 2
    assert root.size >= COVERED * root.device_size
    assert root_growth(root) == ()


@pytest.mark.parametrize("script", ["", TABLE], ids=["nothing yet", "the partition alone"])
@pytest.mark.parametrize("kind", ["xfs", "ext4"])
def test_what_was_left_half_grown_on_a_partition_is_grown(
    machine: UserModeMachine, kind: str, script: str
) -> None:
    small = look(machine, PLAIN, LAYOUT + f"mkfs.{kind} -q {PLAIN}\n{script}")
    assert root_growth(small) == ((FILE_SYSTEM,) if script else (PARTITION, FILE_SYSTEM))
    root = grow(machine, PLAIN, small)
    assert root.size >= COVERED * root.disk_size - 2**27
    assert root_growth(root) == ()


def test_a_volume_that_is_enlarged_later_is_grown_again(machine: UserModeMachine) -> None:
    full = LAYOUT.replace("+2G", "0") + LVM + f"mkfs.xfs -q {LOGICAL_VOLUME}\n"
    assert root_growth(look(machine, LOGICAL_VOLUME, full)) == ()
    machine.enlarge(0, 9216)
    larger = look(machine, LOGICAL_VOLUME)
    assert root_growth(larger) == (PARTITION, VOLUME, LOGICAL, FILE_SYSTEM)
    assert root_growth(grow(machine, LOGICAL_VOLUME, larger)) == ()


def test_a_group_on_two_disks_is_refused_and_left(machine: UserModeMachine) -> None:
    two = "pvcreate -q /dev/ubdb && vgextend -q ocivolume /dev/ubdb\n"
    root = look(machine, LOGICAL_VOLUME, LAYOUT + LVM + f"mkfs.xfs -q {LOGICAL_VOLUME}\n{two}")
    with pytest.raises(
        PlanError, match=r"found volume group ocivolume on /dev/ubda3, /dev/ubdb, expected one physical"
    ):
        root_growth(root)


def test_a_file_system_of_another_kind_is_refused(machine: UserModeMachine) -> None:
    root = look(machine, PLAIN, LAYOUT + f"mkfs.ext3 -q {PLAIN}\n")
    with pytest.raises(PlanError, match="found ext3 on /dev/ubda3, which could be larger, expected xfs or"):
        root_growth(root)
