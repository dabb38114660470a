"""Loop devices of this machine: one that was made in a mount namespace that is gone can still be removed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.lab import disk
from tests.lab.shell import run

pytestmark = [pytest.mark.lab, pytest.mark.smoke]

# Mounts a device where nobody else sees it, and leaves a loop device over a file in it
LEFT_BEHIND = """
mount "$1" "$2" && truncate --size 64M "$2/inner.img" && losetup --find --show "$2/inner.img"
"""


def test_disk_of_a_namespace_that_is_gone_is_detached(tmp_path: Path) -> None:
    outer = tmp_path / "outer.img"
    run("truncate", "--size", "400M", outer)
    run("mkfs.xfs", "-q", outer)
    device = run("losetup", "--find", "--show", outer).strip()
    (tmp_path / "mount").mkdir()
    left = subprocess.run(
        ["unshare", "--mount", "sh", "-c", LEFT_BEHIND, "sh", device, str(tmp_path / "mount")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert disk.loops_on(device) == [left]
    assert disk.loops_of(tmp_path / "mount" / "inner.img") == [], "its path is known here"
    disk.detach(device)
    assert disk.loops_of(outer) == []
    assert not Path("/sys/block", Path(left).name, "loop/backing_file").exists()
