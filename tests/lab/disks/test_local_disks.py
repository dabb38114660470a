"""Local disks as an array that holds the data root, on a real md driver: created, found after a boot, never overwritten.

A script takes systemd's place and mounts what the unit says; udev is absent, so each boot finds a stopped array.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from operations.facts.disks import LocalStorage
from operations.plan.errors import PlanError
from operations.plan.inventory.settings import Settings as HostSettings
from operations.plan.machine.local_disks import ARRAY_FILE, LocalPlan, local_plan, mount_unit
from operations.plan.observed.observed import DataRoot, LocalDisks
from operations.storage import local_disks_mounted
from tests.lab.disks.machine import VirtualMachine
from tests.lab.settings import from_environment
from tests.operations.harness import Host, commands_of, text_of
from tests.unit.builders import settings

pytestmark = pytest.mark.lab

PATH = "/var/lib/tritonhost"
Seen = tuple[DataRoot, LocalDisks]


class Site:
    """The machine, read and changed with the same scripts as a host."""

    def __init__(self, machine: VirtualMachine, level: str = "raid0", erase: bool = False) -> None:
        self.machine = machine
        self.settings: HostSettings = settings(local_disks=level, local_disks_erase=erase)

    def run(self, *scripts: str) -> list[subprocess.CompletedProcess[str]]:
        """Run scripts on the machine, and after them the fact's script."""
        return self.machine.run(*scripts, LocalStorage().command(path=PATH))

    def booted(self, *scripts: str) -> Seen:
        """What is seen after a cold start."""
        self.machine.stop()
        return self.seen(*scripts)

    def seen(self, *scripts: str) -> Seen:
        *before, done = self.run(*scripts)
        for script in before:
            assert script.returncode == 0, script.stdout + script.stderr
        return self.read(done)

    def read(self, done: subprocess.CompletedProcess[str]) -> Seen:
        seen: Seen = LocalStorage().process(done.stdout.splitlines())
        return seen

    def plan(self, seen: Seen) -> LocalPlan:
        plan = local_plan(self.settings, *seen)
        assert plan is not None
        return plan

    def script(self, seen: Seen) -> str:
        [command] = commands_of(local_disks_mounted, Host({LocalStorage: seen}), settings=self.settings)
        return text_of(command)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[VirtualMachine]:
    with VirtualMachine(tmp_path, from_environment().cache, [400, 400]) as machine:
        yield machine


@pytest.mark.requirement("R16")
@pytest.mark.parametrize("level", [pytest.param("raid0", marks=pytest.mark.smoke), "raid10"])
def test_array_is_made_once_and_found_after_each_boot(machine: VirtualMachine, level: str) -> None:
    site = Site(machine, level)
    bare = site.seen()
    assert site.plan(bare).steps == ("create", "file system", "mount", "mark")
    assert site.plan(bare).found == "new: nothing on nvme0n1, nvme1n1"

    made = site.seen(site.script(bare), f"echo kept >{PATH}/file")
    assert site.plan(made).steps == ()
    assert (made[0].mount, made[0].type, made[0].marked) == (PATH, "xfs", True)
    uuid = made[1].signatures["nvme0n1"][0].uuid.replace("-", "")
    assert uuid in (machine.root / ARRAY_FILE[1:]).read_text("utf-8").replace(":", "")

    # not mounted yet, and the empty mount point is not used as the data root
    booted = site.booted()
    assert (booted[0].mount, booted[0].marked, booted[0].entries) == ("/", False, False)
    assert site.plan(booted).steps == ("assemble", "file system", "mount", "mark")
    *_, kept, done = site.run(site.script(booted), f"cat {PATH}/file")
    assert kept.stdout == "kept\n"
    assert site.plan(site.read(done)).steps == ()
    assert site.read(done)[1].signatures["nvme0n1"] == made[1].signatures["nvme0n1"]

    # under another name, as the kernel chooses one if none was given
    renamed = site.booted("mdadm --assemble /dev/md77 /dev/nvme0n1 /dev/nvme1n1")
    plan = site.plan(renamed)
    assert (plan.device, plan.steps) == ("md77", ("mount", "mark"))
    *_, kept, done = site.run(site.script(renamed), f"cat {PATH}/file")
    assert kept.stdout == "kept\n"


def test_run_interrupted_before_mkfs_is_completed(machine: VirtualMachine) -> None:
    site = Site(machine)
    bare = site.seen()
    without = site.script(bare).replace("file system\nmount\nmark", "")
    array = site.seen(without)
    assert site.plan(array).steps == ("clear", "create", "file system", "mount", "mark")
    # an array of this tool that is empty and not recorded as unfinished
    forgotten = (array[0], replace(array[1], unfinished=""))
    assert site.plan(forgotten).steps == ("file system", "mount", "mark")
    stopped = site.booted("rm /etc/mdadm.conf.d/tritonhost.unfinished")
    assert site.plan(stopped).steps[0] == "assemble"
    assert site.plan(site.seen(site.script(stopped))).steps == ()


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        # old data of the disks is visible in the array
        ('            wipefs --quiet --all "$device" ||\n', "            exit 0 ||\n"),
        # the file system is complete, but the record that says otherwise still exists
        ("                finish\n", "                exit 0\n"),
    ],
    ids=["after mdadm", "after mkfs"],
)
def test_power_loss_while_formatting_is_repaired_by_next_run(
    machine: VirtualMachine, line: str, instead: str
) -> None:
    site = Site(machine, erase=True)
    site.seen(site.script(site.seen()), f"echo old >{PATH}/file")
    wiped = site.booted("wipefs --quiet --all /dev/nvme0n1", "wipefs --quiet --all /dev/nvme1n1")
    script = site.script(wiped)
    assert script.count(line) == 1
    begun = site.seen(script.replace(line, instead))
    assert [(s.type, s.label) for name, [s] in begun[1].signatures.items() if name.startswith("md")] == [
        ("xfs", "tritonhost")
    ]
    assert site.plan(begun).steps == ("clear", "create", "file system", "mount", "mark")
    stopped = site.booted()
    assert site.plan(stopped).steps == site.plan(begun).steps
    assembled = "mdadm --assemble /dev/md77 /dev/nvme0n1 /dev/nvme1n1"
    *_, listed, done = site.run(assembled, site.script(stopped), f"ls -A {PATH}")
    assert listed.stdout == ".tritonhost-data\n"
    made = site.read(done)
    assert (site.plan(made).steps, made[1].unfinished) == ((), "")


def test_lost_disks_are_reported_and_rebuilt(machine: VirtualMachine) -> None:
    site = Site(machine)
    site.seen(site.script(site.seen()))
    for number in range(2):
        machine.replace(number, 400)
    lost = site.seen()
    assert site.plan(lost).found == "new, and what was on them before is gone: nothing on nvme0n1, nvme1n1"
    assert site.plan(lost).wanted.endswith("everything is made again")
    assert site.plan(site.seen(site.script(lost), f"echo old >{PATH}/file")).steps == ()

    # one of two disks: the tool does not guess
    machine.replace(1, 400)
    with pytest.raises(PlanError, match="nothing on nvme1n1, and an array of this tool on nvme0n1"):
        site.plan(site.seen())
    # after the command that the message gives, half of the old file system is on the other disk
    wiped = site.seen("wipefs --quiet --all /dev/nvme0n1")
    with pytest.raises(
        PlanError, match="/dev/nvme0n1: found something other than zeros, without a signature"
    ):
        site.plan(wiped)
    site = Site(machine, erase=True)
    *_, listed, done = site.run(site.script(wiped), f"ls -A {PATH}")
    assert listed.stdout == ".tritonhost-data\n"
    assert site.plan(site.read(done)).steps == ()


@pytest.mark.requirement("R16")
def test_disk_with_unsigned_data_is_refused_and_unchanged(
    machine: VirtualMachine,
) -> None:
    site = Site(machine)
    bare = site.seen()
    # like a database on the raw device, or a disk that is encrypted without a header
    raw = (
        "head -c 2097152 /dev/urandom >/tmp/raw && dd if=/tmp/raw of=/dev/nvme1n1 bs=1M seek=176 2>/dev/null"
    )
    kept = "cksum </tmp/raw; dd if=/dev/nvme1n1 bs=1M skip=176 count=2 2>/dev/null | cksum"
    acted, done, *_ = reversed(site.run(raw, site.script(bare)))
    [refusal] = [line for line in done.stderr.splitlines() if line.startswith("local disks: ")]
    assert (done.returncode, "found something other than zeros on /dev/nvme1n1" in refusal) == (65, True)
    taken = site.read(acted)
    assert taken[1].written == frozenset({"nvme1n1"})
    assert taken[1].signatures["nvme1n1"] == ()
    assert {d.name: d.transport for d in taken[1].devices if d.name.startswith("nvme")} == {
        **{"nvme0n1": "pcie", "nvme1n1": "pcie"},
    }
    with pytest.raises(PlanError, match="/dev/nvme1n1: found something other than zeros, without a"):
        site.plan(taken)
    [sums, _] = site.run(kept)
    first, second = sums.stdout.splitlines()
    assert first == second


@pytest.mark.requirement("R16")
@pytest.mark.parametrize(
    ("script", "found"),
    [
        pytest.param("mkfs.ext4 -q -L mine /dev/nvme1n1", "ext4 mine", marks=pytest.mark.smoke),
        ("pvcreate -q /dev/nvme1n1", "LVM2_member"),
        ("sgdisk --new=1:0:0 /dev/nvme1n1 && partx --update /dev/nvme1n1", "gpt, PMBR, part nvme1n1p1"),
        (
            "mdadm --create /dev/md/0 --name=0 --homehost=hpc --metadata=1.2 --level=0 --force --raid-devices=1 "
            "/dev/nvme1n1 </dev/null",
            "linux_raid_member hpc:0, raid0 md0",
        ),
    ],
    ids=["ext4", "LVM", "partition", "another array"],
)
def test_disk_with_foreign_data_is_refused_and_unchanged(
    machine: VirtualMachine, script: str, found: str
) -> None:
    site = Site(machine)
    bare = site.seen()
    taken = site.seen(script)
    with pytest.raises(PlanError) as refused:
        site.plan(taken)
    assert f"local_disks: /dev/nvme1n1: found {found}, expected a disk that carries nothing" in str(
        refused.value
    )
    # the script checks again, in case the disk was written after the fact was read
    acted, done = site.run(site.script(bare))
    assert acted.returncode == 65
    assert "found a signature on /dev/nvme1n1, expected none" in acted.stderr
    assert site.read(done)[1].signatures["nvme1n1"] == taken[1].signatures["nvme1n1"]
    assert site.read(done)[1].signatures["nvme0n1"] == ()


def test_single_disk_needs_no_array(tmp_path: Path) -> None:
    with VirtualMachine(tmp_path, from_environment().cache, [400]) as machine:
        _one_disk_alone(Site(machine))


def _one_disk_alone(site: Site) -> None:
    bare = site.seen()
    assert site.plan(bare).steps == ("file system", "mount", "mark")
    made = site.seen(site.script(bare), f"echo kept >{PATH}/file")
    assert site.plan(made).steps == ()
    booted = site.booted()
    assert site.plan(booted).steps == ("mount", "mark")
    *_, kept, done = site.run(site.script(booted), f"cat {PATH}/file")
    assert (kept.stdout, site.plan(site.read(done)).steps) == ("kept\n", ())


def test_data_root_with_files_is_refused_before_mounting(machine: VirtualMachine) -> None:
    site = Site(machine)
    bare = site.seen()
    filled = site.seen(f"mkdir -p {PATH}/engines")
    with pytest.raises(PlanError, match=f"data_root {PATH}: found files on .*, expected an empty directory"):
        site.plan(filled)
    acted, _ = site.run(site.script(bare))
    assert acted.returncode == 65
    assert "found files in /var/lib/tritonhost, expected an empty directory" in acted.stderr
    assert (machine.root / f"{PATH[1:]}/engines").is_dir()


def test_other_raid_level_is_refused(machine: VirtualMachine) -> None:
    site = Site(machine)
    made = site.seen(site.script(site.seen()))
    other = Site(machine, "raid10")
    with pytest.raises(PlanError, match="found raid0 on nvme0n1, nvme1n1, expected raid10"):
        other.plan(made)


def test_mount_unit_name_matches_systemd_escape() -> None:
    for path in (PATH, "/mnt/local-nvme/x_y", "/.data/a.b"):
        done = subprocess.run(
            ["systemd-escape", "--path", "--suffix=mount", path], capture_output=True, text=True, check=True
        )
        assert mount_unit(path) == done.stdout.strip()
