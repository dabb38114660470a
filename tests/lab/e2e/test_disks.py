"""A bare host's disks: a root partition that was grown without its file system, and paths refused as data root."""

from __future__ import annotations

import pytest

from operations.plan.machine.disks import COVERED
from tests.lab.e2e.one_host import INVENTORY, PYINFRA, Done, OneHost, difference_rows

PLACE = "/var/lib/elsewhere"


def look(site: OneHost, *data: str) -> Done:
    options = [word for pair in data for word in ("--data", pair)]
    return site.run(*PYINFRA, INVENTORY, "deploy.py", "--dry", "-y", *options)


@pytest.mark.requirement("M43")
@pytest.mark.parametrize(
    ("made", "undone", "found"),
    [
        (
            f"mkdir -p {PLACE}; mount -t tmpfs none {PLACE}",
            f"umount {PLACE}; rmdir {PLACE}",
            "found tmpfs, mounted at",
        ),
        (
            f"mkdir -p {PLACE}; mount -o bind,ro {PLACE} {PLACE} && mount -o remount,bind,ro {PLACE}",
            f"umount {PLACE}; rmdir {PLACE}",
            "mounted read-only at",
        ),
        (
            f"mkdir /mnt/big; ln -s /mnt/big {PLACE}",
            f"rm {PLACE}; rmdir /mnt/big",
            "found a symbolic link to /mnt/big",
        ),
        (f": >{PLACE}", f"rm {PLACE}", "found regular empty file, expected a directory"),
    ],
    ids=["memory", "read-only", "link", "file"],
)
def test_unusable_data_root_is_refused_in_one_line(bare: OneHost, made: str, undone: str, found: str) -> None:
    bare.root(made)
    try:
        done = look(bare, f"data_root={PLACE}")
    finally:
        bare.root(undone)
    assert done.code == 1, done.output
    [line] = [
        line for line in done.output.splitlines() if f"data_root {PLACE}: " in line and "refused" in line
    ]
    assert found in line
    assert "Traceback" not in done.output
    assert difference_rows(done.output) == []


def test_missing_local_disks_are_refused(bare: OneHost) -> None:
    done = look(bare, "local_disks=raid0")
    assert done.code == 1, done.output
    assert "local_disks: found no local NVMe device, expected at least one" in done.output


@pytest.mark.requirement("R09")
def test_partition_grown_without_its_file_system_is_completed(bare: OneHost) -> None:
    device = bare.root("findmnt --noheadings --output SOURCE /")
    disk, _, number = device.rpartition("p")
    bare.root(f"growpart {disk} {number}")
    # Oracle's own tool is not reliable: it succeeds without doing anything
    assert "NOCHANGE" in bare.root("/usr/libexec/oci-growfs -y")
    [row] = [row for row in difference_rows(look(bare).output) if row.startswith("storage ")]
    assert "  file system grown, on a disk of " in row

    for change in ("Success", "No changes"):
        done = bare.run(*PYINFRA, "-y", INVENTORY, "operations.storage.root_grown")
        assert done.code == 0, done.output
        assert f"[h1] {change}" in done.output, done.output
        size, whole = (
            int(bare.root(command))
            for command in ("findmnt --bytes --noheadings --output SIZE /", f"blockdev --getsize64 {device}")
        )
        assert size >= whole * COVERED
    assert not [row for row in difference_rows(look(bare).output) if row.startswith("storage ")]
