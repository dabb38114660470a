"""Where the data root may be, and which disks are made to hold it: decisions, on what lsblk and wipefs really print."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operations.plan.difference import difference
from operations.plan.errors import PlanError
from operations.plan.machine.local_disks import (
    check_data_root,
    data_root,
    local_disks,
    local_plan,
    mount_unit,
)
from operations.plan.machine.packages import tool_packages
from operations.plan.observed.observed import DataRoot, LocalDisks
from operations.remote import host_files
from operations.scripts import host_functions
from tests.unit.builders import FILES, converged, release, settings
from tests.unit.stubs import Stubs

PATH = "/var/lib/tritonhost"
HERE = DataRoot("directory", PATH, "/", "/dev/sda3", "xfs", ("rw", "relatime"))
MOUNTED = DataRoot("directory", PATH, PATH, "/dev/md127", "xfs", ("rw", "noatime"), True, True)
MEMBER = "0x1000,c1ce55d8-e085-7a5f-7f19-db441ceb4cea,any:tritonhost,linux_raid_member"
OURS = "0x0,0bf95c96-1acc-4ae8-8e3f-a2f1f45e8a5e,tritonhost,xfs"
UNIT = [
    "unit\tLoadState=loaded",
    "unit\tWhat=/dev/disk/by-uuid/0bf95c96-1acc-4ae8-8e3f-a2f1f45e8a5e",
    "unit\tUnitFileState=enabled",
]
ARRAY = "array\tARRAY /dev/md/tritonhost UUID=c1ce55d8:e0857a5f:7f19db44:1ceb4cea"

Tree = dict[str, Any]


def device(
    name: str, kind: str = "disk", mount: str | None = None, children: list[Tree] | None = None
) -> Tree:
    """One of lsblk's, as util-linux 2.32 prints it: sizes are text."""
    row: Tree = {
        "name": name,
        "kname": name,
        "type": kind,
        "size": "3200631791616",
        "tran": None,
        "mountpoint": mount,
    }
    return {**row, "children": children} if children else row


SYSTEM = device("sda", children=[device("sda3", "part", "/")])


def look(
    *devices: Tree, signatures: dict[str, list[str]] | None = None, more: list[str] | None = None
) -> LocalDisks:
    """The host with its boot volume and these devices; each of them is read, those named carry something."""
    told = signatures or {}
    names = {child["name"] for top in devices for child in (top, *top.get("children", []))}
    lines = json.dumps({"blockdevices": [SYSTEM, *devices]}, indent=3).splitlines()
    for name in sorted(names):
        lines += [f"read\t{name}", *(f"signature\t{name}\t{text}" for text in told.get(name, []))]
    return local_disks([*lines, *(more or [])])


def array(mount: str | None = None, level: str = "raid0") -> list[Tree]:
    return [device(name, children=[device("md127", level, mount)]) for name in ("nvme0n1", "nvme1n1")]


MEMBERS = {"nvme0n1": [MEMBER], "nvme1n1": [MEMBER], "md127": [OURS]}
BLANK = look(device("nvme0n1"), device("nvme1n1"))
SERVING = look(*array(PATH), signatures=MEMBERS, more=[*UNIT, ARRAY])


def steps(local: LocalDisks, place: DataRoot = HERE, level: str = "raid0") -> tuple[str, ...]:
    plan = local_plan(settings(local_disks=level), place, local)
    assert plan is not None
    return plan.steps


def complaint(local: LocalDisks, place: DataRoot = HERE, level: str = "raid0") -> str:
    with pytest.raises(PlanError) as refused:
        local_plan(settings(local_disks=level), place, local)
    return str(refused.value)


def test_inventory_without_local_disks_has_no_plan() -> None:
    assert (
        local_plan(settings(), HERE, look(device("nvme0n1"), signatures={"nvme0n1": ["0x0,,,xfs"]})) is None
    )


@pytest.mark.parametrize("level", ["raid0", "raid10"])
def test_empty_disks_become_an_array(level: str) -> None:
    plan = local_plan(settings(local_disks=level), HERE, BLANK)
    assert plan is not None
    assert (plan.level, plan.disks, plan.device) == (level, ("nvme0n1", "nvme1n1"), "")
    assert plan.steps == ("create", "file system", "mount", "mark")
    assert plan.wanted == f"{level}, xfs, mounted at {PATH}; everything is made again"


WRITTEN = look(device("nvme0n1"), device("nvme1n1"), more=["written\tnvme1n1"])


def test_unsigned_disk_with_data_is_refused_unless_erase_is_set() -> None:
    said = complaint(WRITTEN)
    assert said.startswith(
        "local_disks: /dev/nvme1n1: found something other than zeros, without a signature, "
    )
    assert "blkdiscard /dev/nvme1n1" in said and "local_disks_erase = True" in said
    erased = local_plan(settings(local_disks="raid0", local_disks_erase=True), HERE, WRITTEN)
    assert erased is not None and erased.steps == ("create", "file system", "mount", "mark")
    # what bears a signature is never one of those
    told = look(device("nvme0n1"), signatures={"nvme0n1": ["0x0,u,mine,xfs"]})
    with pytest.raises(PlanError, match="found xfs mine"):
        local_plan(settings(local_disks="raid0", local_disks_erase=True), HERE, told)


def test_network_disk_is_excluded_by_name() -> None:
    both = [device("nvme0n1"), device("nvme1n1")]
    far = "transport\tnvme1n1\ttcp"
    plan = local_plan(
        settings(local_disks="raid0"), HERE, look(*both, more=["transport\tnvme0n1\tpcie", far])
    )
    assert plan is not None
    assert (plan.level, plan.disks) == ("", ("nvme0n1",))
    assert plan.found == "new: nothing on nvme0n1; left out: nvme1n1, which is reached over tcp"
    alone = complaint(look(both[1], more=[far]))
    assert alone.startswith(
        "local_disks: found no local NVMe device but nvme1n1, which is reached over tcp, "
    )
    # a kernel that does not say
    assert steps(look(*both, more=["transport\tnvme0n1\t", "transport\tnvme1n1\t"]))[0] == "create"


def test_local_plan_orders_disks_by_number() -> None:
    plan = local_plan(
        settings(local_disks="raid0"), HERE, look(device("nvme10n1"), device("nvme2n1"), device("nvme1n1"))
    )
    assert plan is not None
    assert plan.disks == ("nvme1n1", "nvme2n1", "nvme10n1")
    assert plan.found == "new: nothing on nvme1n1, nvme2n1, nvme10n1"


def test_single_disk_gets_no_array() -> None:
    plan = local_plan(settings(local_disks="raid0"), HERE, look(device("nvme0n1")))
    assert plan is not None
    assert (plan.level, plan.steps) == ("", ("file system", "mount", "mark"))
    made = look(device("nvme0n1"), signatures={"nvme0n1": [OURS]})
    assert steps(made) == ("mount", "mark")
    place = replace(MOUNTED, source="/dev/nvme0n1")
    mounted = look(device("nvme0n1", mount=PATH), signatures={"nvme0n1": [OURS]}, more=UNIT)
    assert steps(mounted, place) == ()


def test_mounted_disks_need_no_step() -> None:
    assert steps(SERVING, MOUNTED) == ()


@pytest.mark.parametrize(
    ("local", "place", "found"),
    [
        (look(*array(), signatures=MEMBERS, more=[*UNIT, ARRAY]), HERE, ("mount", "mark")),
        (SERVING, replace(MOUNTED, marked=False), ("mark",)),
        (replace(SERVING, unit={**SERVING.unit, "UnitFileState": "disabled"}), MOUNTED, ("mount",)),
        (replace(SERVING, unit={**SERVING.unit, "What": "/dev/md0"}), MOUNTED, ("mount",)),
        (replace(SERVING, unit={"LoadState": "not-found"}), MOUNTED, ("mount",)),
        (replace(SERVING, array_file=""), MOUNTED, ("mount",)),
        # between mdadm and mkfs
        (look(*array(), signatures={**MEMBERS, "md127": []}), HERE, ("file system", "mount", "mark")),
        # after a boot that did not start it
        (
            look(device("nvme0n1"), device("nvme1n1"), signatures=MEMBERS),
            HERE,
            ("assemble", "file system", "mount", "mark"),
        ),
        (look(*array(level="md"), signatures=MEMBERS), HERE, ("assemble", "file system", "mount", "mark")),
    ],
)
def test_only_missing_steps_are_planned(local: LocalDisks, place: DataRoot, found: tuple[str, ...]) -> None:
    assert steps(local, place) == found


CLEAR = ("clear", "create", "file system", "mount", "mark")
BEGUN = ["unfinished\tc1ce55d8-e085-7a5f-7f19-db441ceb4cea"]


@pytest.mark.parametrize(
    "local",
    [
        # what was on the disks before shows through the new array: of somebody else's, and of this tool's own
        look(*array(), signatures={**MEMBERS, "md127": ["0x438,u,old,ext4"]}, more=BEGUN),
        look(*array(), signatures=MEMBERS, more=BEGUN),
        look(*array(level="md"), signatures=MEMBERS, more=BEGUN),
        look(device("nvme0n1"), device("nvme1n1"), signatures=MEMBERS, more=BEGUN),
        # mdadm had written on one of the two
        look(device("nvme0n1"), device("nvme1n1"), signatures={"nvme0n1": [MEMBER]}, more=BEGUN),
    ],
)
def test_interrupted_array_is_cleared_and_recreated(local: LocalDisks) -> None:
    assert steps(local) == CLEAR
    assert steps(local, level="raid10") == CLEAR


def test_interrupted_single_disk_is_cleared_and_recreated() -> None:
    uuid = OURS.split(",")[1]
    local = look(device("nvme0n1"), signatures={"nvme0n1": [OURS]}, more=[f"unfinished\t{uuid}"])
    assert steps(local) == ("clear", "file system", "mount", "mark")


OTHER = MEMBER.replace("c1ce55d8", "00000000")


def test_only_disks_with_the_recorded_uuid_are_cleared() -> None:
    # another array of that name, such as one that came with the disks
    assert steps(look(*array(), signatures=MEMBERS, more=["unfinished\tdead-beef"])) == ("mount", "mark")
    old = {**MEMBERS, "md127": ["0x438,u,old,ext4"]}
    assert "/dev/md127: found ext4 old, expected" in complaint(look(*array(), signatures=old))
    first = {"nvme0n1": [MEMBER]}
    for other in ([MEMBER, "0x438,u,mine,ext4"], ["0x0,u,mine,xfs"]):
        local = look(device("nvme0n1"), device("nvme1n1"), signatures={**first, "nvme1n1": other}, more=BEGUN)
        assert "local_disks: /dev/nvme1n1: found " in complaint(local)
    # of two arrays of that name: nothing is cleared, and mdadm refuses to assemble them as one
    local = look(device("nvme0n1"), device("nvme1n1"), signatures={**first, "nvme1n1": [OTHER]}, more=BEGUN)
    assert steps(local)[0] == "assemble"


def test_mounted_disks_are_never_cleared() -> None:
    serving = look(*array(PATH), signatures=MEMBERS, more=[*UNIT, ARRAY, *BEGUN])
    assert steps(serving, MOUNTED) == ("mount",)
    elsewhere = look(*array("/mnt"), signatures=MEMBERS, more=BEGUN)
    assert "found mounted at /mnt, expected at /var/lib/tritonhost" in complaint(elsewhere)


def test_array_hidden_from_lsblk_is_found_by_its_holders() -> None:
    # util-linux 2.32 lists no device of size 0, which an array is that could not be started
    holders = ["holder\tnvme0n1\tmd127", "holder\tnvme1n1\tmd127"]
    members = {"nvme0n1": [MEMBER], "nvme1n1": [MEMBER]}
    local = look(device("nvme0n1"), device("nvme1n1"), signatures=members, more=holders)
    assert [(c.name, c.type) for d in local.devices[1:] for c in d.children] == [("md127", "md")] * 2
    assert steps(local)[0] == "assemble"
    bare = look(device("nvme0n1"), device("nvme1n1"), more=["holder\tnvme1n1\tmd0"])
    assert "local_disks: /dev/nvme1n1: found md md0, expected a disk that carries nothing" in complaint(bare)
    bare = look(device("nvme0n1"), device("nvme1n1"), more=["holder\tnvme1n1\tdm-0"])
    assert "local_disks: /dev/nvme1n1: found device dm-0" in complaint(bare)
    # what lsblk shows is not told twice
    assert look(*array(PATH), signatures=MEMBERS, more=holders).devices == SERVING.devices


def test_lost_array_is_distinguished_from_a_new_one() -> None:
    plan = local_plan(settings(local_disks="raid0"), HERE, replace(BLANK, unit={"LoadState": "loaded"}))
    assert plan is not None
    assert plan.found == "new, and what was on them before is gone: nothing on nvme0n1, nvme1n1"


SOMEBODY = "expected a disk that carries nothing, or what this tool made; save its data"


@pytest.mark.parametrize(
    ("local", "found"),
    [
        (look(signatures={}), "local_disks: found no local NVMe device, expected at least one"),
        # a disk that the system boots from is none of ours
        (
            look(device("nvme0n1", children=[device("nvme0n1p1", "part", "/boot/efi")])),
            "local_disks: found no local NVMe device",
        ),
        (
            look(device("nvme0n1"), device("nvme1n1"), signatures={"nvme1n1": ["0x438,u,,ext4"]}),
            f"local_disks: /dev/nvme1n1: found ext4, {SOMEBODY}",
        ),
        (
            look(device("nvme0n1"), device("nvme1n1"), signatures={"nvme1n1": ["0x218,u,,LVM2_member"]}),
            f"/dev/nvme1n1: found LVM2_member, {SOMEBODY}",
        ),
        (
            look(device("nvme0n1", children=[device("nvme0n1p1", "part")]), device("nvme1n1")),
            f"/dev/nvme0n1: found part nvme0n1p1, {SOMEBODY}",
        ),
        (look(device("nvme0n1", mount="/data")), f"/dev/nvme0n1: found mounted at /data, {SOMEBODY}"),
        # what Oracle's HPC stack makes
        (
            look(
                device("nvme0n1", children=[device("md0", "raid0", "/mnt/localdisk")]),
                signatures={"nvme0n1": ["0x1000,u,hpc:0,linux_raid_member"], "md0": ["0x0,u,,xfs"]},
            ),
            f"found linux_raid_member hpc:0, raid0 md0, mounted at /mnt/localdisk, {SOMEBODY}",
        ),
        # a file system of ours on one disk of two is not what this tool makes
        (
            look(device("nvme0n1"), device("nvme1n1"), signatures={"nvme0n1": [OURS]}),
            f"/dev/nvme0n1: found xfs tritonhost, {SOMEBODY}",
        ),
        (
            look(*array(), signatures={**MEMBERS, "md127": ["0x438,u,x,ext4"]}),
            "/dev/md127: found ext4 x, expected the file system that this tool made",
        ),
        (
            look(device("nvme0n1"), device("nvme1n1"), signatures={"nvme0n1": [MEMBER]}),
            "found nothing on nvme1n1, and an array of this tool on nvme0n1, expected one array over all of them; it "
            "cannot be read without them",
        ),
        (
            look(*array(level="raid10"), signatures=MEMBERS),
            "found raid10 on nvme0n1, nvme1n1, expected raid0",
        ),
        (
            look(*array("/mnt/other"), signatures=MEMBERS),
            "found mounted at /mnt/other, expected at /var/lib/tritonhost; stop the service and run `systemctl disable "
            "--now 'mnt-other.mount'`",
        ),
        (
            replace(BLANK, signatures={"nvme0n1": ()}),
            "/dev/nvme1n1: found nothing that wipefs could read",
        ),
    ],
)
def test_foreign_or_unknown_disk_is_refused(local: LocalDisks, found: str) -> None:
    assert found in complaint(local)


def test_replaced_raid10_disk_is_refused_with_mdadm_add() -> None:
    local = look(device("nvme0n1"), device("nvme1n1"), signatures={"nvme0n1": [MEMBER]})
    assert "add them with `mdadm --manage /dev/md/tritonhost --add`" in complaint(local, level="raid10")
    assert "found raid10 and nvme0n1 alone" in complaint(look(device("nvme0n1")), level="raid10")


def test_files_on_the_disk_below_are_never_hidden_by_a_mount() -> None:
    said = complaint(BLANK, replace(HERE, entries=True))
    assert said == (
        f"data_root {PATH}: found files on /dev/sda3, expected an empty directory, or none: the local disks would hide "
        'them; stop the service and move or remove them, or set local_disks = "none"'
    )


def test_another_mount_at_the_data_root_is_refused() -> None:
    place = replace(MOUNTED, source="/dev/sdb1")
    assert f"found /dev/sdb1, mounted at {PATH}, expected the local disks there" in complaint(BLANK, place)
    assert "found /dev/sdb1" in complaint(SERVING, place)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        (PATH, "var-lib-tritonhost.mount"),
        ("/mnt/local-nvme/x_y", "mnt-local\\x2dnvme-x_y.mount"),
        ("/.data/a.b", "\\x2edata-a.b.mount"),
    ],
)
def test_mount_unit_name_is_escaped_as_systemd_does(path: str, unit: str) -> None:
    assert mount_unit(path) == unit


# --- where the data root may be


@pytest.mark.parametrize(
    "place",
    [
        DataRoot(),
        HERE,
        replace(HERE, options=("rw", "noexec", "nosuid", "nodev")),
        replace(HERE, type="nfs4", source="filer:/export"),
    ],
)
def test_a_directory_on_a_disk_is_a_data_root(place: DataRoot) -> None:
    check_data_root(PATH, place)


@pytest.mark.parametrize(
    ("place", "found"),
    [
        (
            replace(HERE, kind="regular file"),
            "found regular file, expected a directory; set another data_root",
        ),
        (
            replace(HERE, resolved="/mnt/big/tritonhost"),
            "found a symbolic link to /mnt/big/tritonhost, expected a path without symbolic links; set data_root = "
            '"/mnt/big/tritonhost"',
        ),
        (
            replace(HERE, type="tmpfs", mount="/var/lib"),
            "found tmpfs, mounted at /var/lib, expected a disk: memory is empty after a boot",
        ),
        *(
            (
                replace(HERE, type=kind, mount="/mnt/share"),
                f"found {kind}, mounted at /mnt/share, expected a file system that keeps owners and modes",
            )
            for kind in ("vfat", "exfat", "ntfs3", "cifs", "smb3", "fuseblk")
        ),
        (
            replace(HERE, options=("ro", "relatime")),
            "found /dev/sda3, mounted read-only at /, expected a file system that can be written to; see dmesg",
        ),
    ],
)
def test_unusable_data_root_is_refused_in_one_line(place: DataRoot, found: str) -> None:
    with pytest.raises(PlanError) as refused:
        check_data_root(PATH, place)
    assert str(refused.value).startswith(f"data_root {PATH}: {found}")
    assert "\n" not in str(refused.value)


def read(stubs: Stubs, path: Path) -> DataRoot:
    done = stubs.run(f"DATA_ROOT={path}\n{host_functions('disks.sh')}\ndata_root")
    assert (done.returncode, done.stderr) == (0, "")
    return data_root(done.stdout.splitlines())


def test_missing_data_root_is_placed_by_its_parent(stubs: Stubs, tmp_path: Path) -> None:
    place = read(stubs, tmp_path / "not/yet")
    assert (place.kind, place.resolved) == ("directory", str(tmp_path / "not/yet"))
    assert place.mount and place.source and place.type and "rw" in place.options
    assert not (place.entries or place.marked)


def test_probe_sees_files_sentinel_links_and_other_kinds(stubs: Stubs, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert not read(stubs, tmp_path / "data").entries
    (tmp_path / "data/.tritonhost-data").write_text("", "utf-8")
    place = read(stubs, tmp_path / "data")
    assert (place.entries, place.marked) == (True, True)
    (tmp_path / "link").symlink_to("data")
    assert read(stubs, tmp_path / "link").resolved == str(tmp_path / "data")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert read(stubs, tmp_path / "dangling/x").resolved == str(tmp_path / "nowhere/x")
    (tmp_path / "file").write_text("", "utf-8")
    assert read(stubs, tmp_path / "file/x").kind.startswith("regular")


def test_tmpfs_is_recognized(stubs: Stubs) -> None:
    assert read(stubs, Path("/dev/shm/not/there")).type == "tmpfs"


def test_probe_reads_unsigned_data_and_transport_of_disks(stubs: Stubs, tmp_path: Path) -> None:
    names = ("nvme0n1", "nvme1n1", "nvme2n1", "nvme10n1")
    tree = json.dumps({"blockdevices": [SYSTEM, *map(device, names)]}, indent=3)
    kinds = "".join(f"{name} disk\\n" for name in names)
    stubs.add("lsblk", f"case $1 in --json) cat <<'END'\n{tree}\nEND\n;; *) printf '{kinds}' ;; esac")
    stubs.add("wipefs", f"case $2 in */nvme2n1) echo '{MEMBER}' ;; esac")
    stubs.add("blockdev", "echo 12582912")
    full = "head -c 1048575 /dev/zero; echo x"
    stubs.add(
        "dd",
        'case "$*" in *of=*) ;; '
        f"*nvme1n1*skip=7\\ * | *nvme2n1*) {full} ;; *) head -c 1048576 /dev/zero ;; esac",
    )
    stubs.add("systemctl", ":")
    for place, said in {
        "nvme0n1/device": "pcie",
        "nvme1n1/device/nvme4": "tcp",
        "nvme1n1/device/nvme5": "tcp",
    }.items():
        (tmp_path / "block" / place).mkdir(parents=True)
        (tmp_path / "block" / place / "transport").write_text(f"{said}\n")
    script = f"MOUNT_UNIT=m.mount\nIFS='\n'\nset -f\n{host_functions('disks.sh')}\nlocal_disks"
    for place in ("/sys/class/block", "/sys/block"):
        script = script.replace(place, str(tmp_path / "block"))
    found = local_disks(stubs.run(script).stdout.splitlines())
    assert found.written == {"nvme1n1"}
    assert {d.name: d.transport for d in found.devices} == {
        **{"sda": "", "nvme0n1": "pcie", "nvme1n1": "tcp", "nvme2n1": "", "nvme10n1": ""},
    }
    assert {name: bool(what) for name, what in found.signatures.items()} == {
        **{"nvme0n1": False, "nvme1n1": False, "nvme2n1": True, "nvme10n1": False},
    }


def test_probe_reads_devices_with_their_holders(stubs: Stubs, tmp_path: Path) -> None:
    tree = json.dumps({"blockdevices": [SYSTEM, *array()]}, indent=3)
    stubs.add(
        "lsblk",
        f"case $1 in --json) cat <<'END'\n{tree}\nEND\n;; *) printf 'md127 raid0\\nnvme0n1 disk\\nmd127 raid0\\n"
        "nvme1n1 disk\\nsda disk\\nsda3 part\\n' ;; esac",
    )
    stubs.add(
        "wipefs",
        f"case $2 in */nvme0n1) printf '# offset,uuid,label,type\\n{MEMBER}\\n' ;; */md127) echo '{OURS}' ;; "
        "*) exit 1 ;; esac",
    )
    # of nvme1n1, nothing is read: it counts as no empty disk
    stubs.add("blockdev", "echo 8388608")
    stubs.add("dd", 'case "$1" in */nvme1n1) exit 1 ;; esac')
    stubs.add("systemctl", "echo LoadState=not-found")
    # the probe parts words at line breaks alone
    (tmp_path / "nvme0n1/holders/md127").mkdir(parents=True)
    (tmp_path / "nvme1n1/holders").mkdir(parents=True)
    (tmp_path / "tritonhost.unfinished").write_text("c1ce55d8\n", "utf-8")
    script = f"MOUNT_UNIT=m.mount\nIFS='\n'\nset -f\n{host_functions('disks.sh')}\nlocal_disks"
    script = script.replace("/sys/class/block", str(tmp_path)).replace("/etc/mdadm.conf.d", str(tmp_path))
    printed = stubs.run(script).stdout
    assert "holder\tnvme0n1\tmd127\n" in printed and printed.count("holder") == 1
    assert local_disks(printed.splitlines()).unfinished == "c1ce55d8"
    found = local_disks(stubs.run(script).stdout.splitlines())
    assert [top.name for top in found.devices] == ["sda", "nvme0n1", "nvme1n1"]
    assert [child.name for child in found.devices[1].children] == ["md127"]
    assert {name: [s.type for s in told] for name, told in found.signatures.items()} == {
        "nvme0n1": ["linux_raid_member"],
        "md127": ["xfs"],
    }
    assert found.unit == {"LoadState": "not-found"}


# --- what follows from it


def test_local_disks_bring_their_tools() -> None:
    assert {"mdadm", "xfsprogs"} & set(tool_packages(settings(), "9")) == set()
    assert {"mdadm", "xfsprogs"} <= set(tool_packages(settings(local_disks="raid0"), "9"))


def test_lost_local_disks_are_a_difference() -> None:
    wanted = release({"local_disks": "raid0"})
    host = replace(converged(wanted), data_root=MOUNTED, local=SERVING)
    assert difference(wanted, host, FILES) == []
    lost = replace(host, data_root=HERE, local=replace(BLANK, unit={"LoadState": "loaded"}))
    [row] = [row for row in difference(wanted, lost, FILES) if row.stage == "storage"]
    assert row.what == "local disks"
    assert "everything is made again" in row.wanted


@pytest.mark.parametrize("unit", ["triton.service", "triton-next.service"])
def test_unit_reports_an_absent_mount_and_does_not_start(unit: str) -> None:
    plain = host_files.rendered(release({"front": "haproxy"}))[f"/etc/systemd/system/{unit}"].text
    assert "mount absent" not in plain
    assert "AssertPathExists=" in plain
    guarded = host_files.rendered(release({"front": "haproxy", "local_disks": "raid0"}))[
        f"/etc/systemd/system/{unit}"
    ].text
    [guard] = [line for line in guarded.splitlines() if "mount absent" in line]
    assert guard.startswith(f"ExecStartPre=/bin/sh -c 'test -e {PATH}/.tritonhost-data || ")
    # an assertion would end the start before anything is said
    assert "AssertPathExists=" not in guarded
    assert f"RequiresMountsFor={PATH}" in guarded


def test_mount_guard_reports_an_empty_mount_point(stubs: Stubs, tmp_path: Path) -> None:
    unit = host_files.rendered(release({"local_disks": "raid0"}))["/etc/systemd/system/triton.service"].text
    unit = unit.replace(PATH, f"{tmp_path}/a")
    [guard] = [line for line in unit.splitlines() if "mount absent" in line]
    script = guard.removeprefix("ExecStartPre=/bin/sh -c '").removesuffix("'")
    done = stubs.run(script)
    assert (done.returncode, done.stdout) == (66, "")
    assert done.stderr.startswith(f"tritonhost: mount absent: {tmp_path}/a is not the local disks")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/.tritonhost-data").write_text("", "utf-8")
    assert stubs.run(script).returncode == 0
