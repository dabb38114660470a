"""Local disks as an array that holds the data root, on a real md driver: made, found again after a boot, never overwritten.

The disks are ubdb and ubdc and called nvme0n1 and nvme1n1 here: the kernel of the user-mode machine gives no other names.
systemd is played by a script that mounts what the unit says; udev is not there, so that each boot finds a stopped array.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from operations.facts.disks import LocalStorage
from operations.plan.errors import PlanError
from operations.plan.local_disks import ARRAY_FILE, LocalPlan, local_plan, mount_unit
from operations.plan.observed import DataRoot, LocalDisks
from operations.plan.settings import Settings as HostSettings
from operations.storage import local_disks_mounted
from tests.lab.disks.machine import UserModeMachine
from tests.lab.settings import from_environment
from tests.operations.harness import Host, commands_of, text_of
from tests.unit.builders import settings

pytestmark = pytest.mark.lab

PATH = "/var/lib/tritonhost"
NAMES = {"nvme0n1": "ubdb", "nvme1n1": "ubdc"}
Seen = tuple[DataRoot, LocalDisks]


class Site:
    """The machine, asked and acted on as a host is."""

    def __init__(self, folder: Path, disks: int = 2, level: str = "raid0") -> None:
        self.machine = UserModeMachine(folder, from_environment().cache, [64, *[400] * disks])
        self.settings: HostSettings = settings(local_disks=level)

    def boot(self, *scripts: str) -> list[subprocess.CompletedProcess[str]]:
        """Scripts in one boot, the last of them a look."""
        translated = []
        for script in (*scripts, LocalStorage().command(path=PATH)):
            for ours, theirs in NAMES.items():
                script = script.replace(ours, theirs)
            translated.append(script.replace("nvme*n1", "ubd[b-z]"))
        return self.machine.boot(*translated)

    def seen(self, *scripts: str) -> Seen:
        *before, done = self.boot(*scripts)
        for script in before:
            assert script.returncode == 0, script.stdout + script.stderr
        return self.read(done)

    def read(self, done: subprocess.CompletedProcess[str]) -> Seen:
        text = done.stdout
        for ours, theirs in NAMES.items():
            text = text.replace(theirs, ours)
        seen: Seen = LocalStorage().process(text.splitlines())
        return seen

    def plan(self, seen: Seen) -> LocalPlan:
        plan = local_plan(self.settings, *seen)
        assert plan is not None
        return plan

    def script(self, seen: Seen) -> str:
        [command] = commands_of(local_disks_mounted, Host({LocalStorage: seen}), settings=self.settings)
        return text_of(command)


@pytest.mark.parametrize("level", ["raid0", "raid10"])
def test_an_array_is_made_once_and_found_again_after_each_boot(tmp_path: Path, level: str) -> None:
    site = Site(tmp_path, level=level)
    bare = site.seen()
    assert site.plan(bare).steps == ("create", "file system", "mount", "mark")
    assert site.plan(bare).found == "new: nothing on nvme0n1, nvme1n1"

    made = site.seen(site.script(bare), f"echo kept >{PATH}/file")
    assert site.plan(made).steps == ()
    assert (made[0].mount, made[0].type, made[0].marked) == (PATH, "xfs", True)
    uuid = made[1].signatures["nvme0n1"][0].uuid.replace("-", "")
    assert uuid in (site.machine.root / ARRAY_FILE[1:]).read_text("utf-8").replace(":", "")

    # nothing of it is mounted yet, and nobody takes the empty mount point for the data root
    booted = site.seen()
    assert (booted[0].mount, booted[0].marked, booted[0].entries) == ("/", False, False)
    assert site.plan(booted).steps == ("assemble", "file system", "mount", "mark")
    *_, kept, done = site.boot(site.script(booted), f"cat {PATH}/file")
    assert kept.stdout == "kept\n"
    assert site.plan(site.read(done)).steps == ()
    assert site.read(done)[1].signatures["nvme0n1"] == made[1].signatures["nvme0n1"]

    # under another name, as the kernel chooses one where nobody named it
    renamed = site.seen("mdadm --assemble /dev/md77 /dev/nvme0n1 /dev/nvme1n1")
    plan = site.plan(renamed)
    assert (plan.device, plan.steps) == ("md77", ("mount", "mark"))
    *_, kept, done = site.boot(
        "mdadm --assemble /dev/md77 /dev/nvme0n1 /dev/nvme1n1", site.script(renamed), f"cat {PATH}/file"
    )
    assert kept.stdout == "kept\n"


def test_a_run_that_ended_before_the_file_system_is_gone_on_with(tmp_path: Path) -> None:
    site = Site(tmp_path)
    bare = site.seen()
    without = site.script(bare).replace("file system\nmount\nmark", "")
    array = site.seen(without)
    assert site.plan(array).steps == ("clear", "create", "file system", "mount", "mark")
    # an array of ours that nobody calls unfinished, and that holds nothing
    forgotten = (array[0], replace(array[1], unfinished=""))
    assert site.plan(forgotten).steps == ("file system", "mount", "mark")
    stopped = site.seen("rm /etc/mdadm.conf.d/tritonhost.unfinished")
    assert site.plan(stopped).steps[0] == "assemble"
    assert site.plan(site.seen(site.script(stopped))).steps == ()


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        # what was on the disks before shows through
        ('            wipefs --quiet --all "$device" ||\n', "            exit 0 ||\n"),
        # the file system is whole, and what says that it is not has not gone yet
        ("                finish\n", "                exit 0\n"),
    ],
    ids=["after mdadm", "after mkfs"],
)
def test_power_that_fails_while_it_is_made_leaves_what_the_next_run_makes_anew(
    tmp_path: Path, line: str, instead: str
) -> None:
    site = Site(tmp_path)
    site.seen(site.script(site.seen()), f"echo old >{PATH}/file")
    wiped = site.seen("wipefs --quiet --all /dev/nvme0n1", "wipefs --quiet --all /dev/nvme1n1")
    script = site.script(wiped)
    assert script.count(line) == 1
    begun = site.seen(script.replace(line, instead))
    assert [(s.type, s.label) for name, [s] in begun[1].signatures.items() if name.startswith("md")] == [
        ("xfs", "tritonhost")
    ]
    assert site.plan(begun).steps == ("clear", "create", "file system", "mount", "mark")
    stopped = site.seen()
    assert site.plan(stopped).steps == site.plan(begun).steps
    assembled = "mdadm --assemble /dev/md77 /dev/nvme0n1 /dev/nvme1n1"
    *_, listed, done = site.boot(assembled, site.script(stopped), f"ls -A {PATH}")
    assert listed.stdout == ".tritonhost-data\n"
    made = site.read(done)
    assert (site.plan(made).steps, made[1].unfinished) == ((), "")


def test_lost_disks_are_said_and_made_anew(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.seen(site.script(site.seen()))
    for image in site.machine.images[1:]:
        image.unlink()
        with image.open("wb") as file:
            file.truncate(400 << 20)
    lost = site.seen()
    assert site.plan(lost).found == "new, and what was on them before is gone: nothing on nvme0n1, nvme1n1"
    assert site.plan(lost).wanted.endswith("everything is made anew")
    assert site.plan(site.seen(site.script(lost), f"echo old >{PATH}/file")).steps == ()

    # one of two: nothing is guessed
    image = site.machine.images[2]
    image.unlink()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    with pytest.raises(PlanError, match="nothing on nvme1n1, and an array of this tool on nvme0n1"):
        site.plan(site.seen())
    # done what the line says, half of the old file system is on the disk that was left
    wiped = site.seen("wipefs --quiet --all /dev/nvme0n1")
    *_, listed, done = site.boot(site.script(wiped), f"ls -A {PATH}")
    assert listed.stdout == ".tritonhost-data\n"
    assert site.plan(site.read(done)).steps == ()


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("mkfs.ext4 -q -L mine /dev/nvme1n1", "ext4 mine"),
        ("pvcreate -q /dev/nvme1n1", "LVM2_member"),
        ("sgdisk --new=1:0:0 /dev/nvme1n1 && partx --update /dev/nvme1n1", "gpt, PMBR, part nvme1n11"),
        (
            "mdadm --create /dev/md/0 --name=0 --homehost=hpc --metadata=1.2 --level=0 --force --raid-devices=1 "
            "/dev/nvme1n1 </dev/null",
            "linux_raid_member hpc:0, raid0 md0",
        ),
    ],
    ids=["ext4", "LVM", "partition", "another array"],
)
def test_somebody_s_data_is_refused_and_left(tmp_path: Path, script: str, found: str) -> None:
    site = Site(tmp_path)
    bare = site.seen()
    taken = site.seen(script)
    with pytest.raises(PlanError) as refused:
        site.plan(taken)
    assert f"local_disks: /dev/nvme1n1: found {found}, expected a disk that carries nothing" in str(
        refused.value
    )
    # and where it was written after the look, the script looks again
    acted, done = site.boot(site.script(bare))
    assert acted.returncode == 65
    assert "found a signature on /dev/ubdc, expected none" in acted.stderr
    assert site.read(done)[1].signatures["nvme1n1"] == taken[1].signatures["nvme1n1"]
    assert site.read(done)[1].signatures["nvme0n1"] == ()


def test_one_disk_alone_is_no_array(tmp_path: Path) -> None:
    site = Site(tmp_path, disks=1)
    bare = site.seen()
    assert site.plan(bare).steps == ("file system", "mount", "mark")
    made = site.seen(site.script(bare), f"echo kept >{PATH}/file")
    assert site.plan(made).steps == ()
    booted = site.seen()
    assert site.plan(booted).steps == ("mount", "mark")
    *_, kept, done = site.boot(site.script(booted), f"cat {PATH}/file")
    assert (kept.stdout, site.plan(site.read(done)).steps) == ("kept\n", ())


def test_files_on_the_disk_below_are_never_hidden(tmp_path: Path) -> None:
    site = Site(tmp_path)
    bare = site.seen()
    filled = site.seen(f"mkdir -p {PATH}/engines")
    with pytest.raises(PlanError, match=f"data_root {PATH}: found files on .*, expected an empty directory"):
        site.plan(filled)
    acted, _ = site.boot(site.script(bare))
    assert acted.returncode == 65
    assert "found files in /var/lib/tritonhost, expected an empty directory" in acted.stderr
    assert (site.machine.root / f"{PATH[1:]}/engines").is_dir()


def test_the_other_level_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path)
    made = site.seen(site.script(site.seen()))
    other = Site(tmp_path / "unused", level="raid10")
    with pytest.raises(PlanError, match="found raid0 on nvme0n1, nvme1n1, expected raid10"):
        other.plan(made)


def test_the_unit_s_name_is_systemd_s() -> None:
    for path in (PATH, "/mnt/local-nvme/x_y", "/.data/a.b"):
        done = subprocess.run(
            ["systemd-escape", "--path", "--suffix=mount", path], capture_output=True, text=True, check=True
        )
        assert mount_unit(path) == done.stdout.strip()
