"""files/host/keep.sh and restart_kept.sh: a unit that does not start with its new files runs with the old ones again."""

import subprocess
from pathlib import Path

import pytest

from operations.scripts import host_script
from tests.unit.stubs import Stubs

UNIT = "triton-database.service"


class Unit:
    """A unit that starts while its first file says `old`, or whatever `starts` is."""

    def __init__(self, tmp_path: Path, stubs: Stubs) -> None:
        self.stubs, self.kept = stubs, tmp_path / "kept"
        self.files = [tmp_path / "etc" / "a b.service", tmp_path / "etc" / "secret"]
        self.files[0].parent.mkdir()
        for file in self.files:
            file.write_text("old")
        self.files[1].chmod(0o400)
        stubs.add(
            "journalctl",
            "echo 'first'; echo 'no such image at http://me:secret@r.invalid/'; echo 'tritonhost: it ended'",
        )
        self.starts(f'grep -q old "{self.files[0]}"')

    def starts(self, how: str) -> None:
        self.stubs.add("systemctl", f'[ "$1" != restart ] || {how} || {{ echo "Job failed." >&2; exit 1; }}')

    def keep(self) -> None:
        paths = "\n".join(map(str, [*self.files, self.files[0].with_name("absent")]))
        done = self.stubs.run(host_script("keep.sh", {"KEPT": str(self.kept), "PATHS": paths}))
        assert (done.returncode, done.stderr) == (0, "")

    def restart(self) -> subprocess.CompletedProcess[str]:
        return self.stubs.run(host_script("restart_kept.sh", {"UNIT": UNIT, "KEPT": str(self.kept)}))


@pytest.fixture
def unit(tmp_path: Path, stubs: Stubs) -> Unit:
    return Unit(tmp_path, stubs)


def test_kept_files_are_readable_only_by_root(unit: Unit) -> None:
    unit.keep()
    assert unit.kept.stat().st_mode & 0o777 == 0o600


def test_successful_start_discards_the_kept_files(unit: Unit) -> None:
    unit.keep()
    unit.starts("true")
    unit.files[0].write_text("new")
    done = unit.restart()
    assert (done.returncode, done.stderr) == (0, "")
    assert unit.files[0].read_text() == "new"
    assert not unit.kept.exists()
    assert "systemctl daemon-reload" not in unit.stubs.calls


def test_failed_start_restores_the_old_files(unit: Unit) -> None:
    unit.keep()
    unit.files[0].write_text("new")
    unit.files[1].unlink()
    done = unit.restart()
    assert done.returncode == 1
    assert done.stderr == (
        f"{UNIT}: did not start with its new files: no such image at http://r.invalid/; what it ran with before is back, and "
        f"it runs with it; see journalctl --unit {UNIT}\n"
    )
    assert [file.read_text() for file in unit.files] == ["old", "old"]
    assert unit.files[1].stat().st_mode & 0o777 == 0o400
    assert not unit.kept.exists()
    calls = [call for call in unit.stubs.calls if call.startswith(("systemctl restart", "systemctl daemon"))]
    assert calls == [f"systemctl restart {UNIT}", "systemctl daemon-reload", f"systemctl restart {UNIT}"]


def test_failure_with_both_versions_is_reported(unit: Unit) -> None:
    unit.keep()
    unit.starts("false")
    assert "is back, and it does not start with that either; see" in unit.restart().stderr


def test_failure_without_kept_files_is_reported(unit: Unit) -> None:
    unit.starts("false")
    unit.stubs.add("journalctl", ":")
    assert (
        "with its new files: Job failed.; nothing was kept of what it ran with before"
        in unit.restart().stderr
    )


def test_kept_files_of_an_earlier_run_are_discarded(unit: Unit) -> None:
    unit.keep()
    for file in unit.files:
        file.unlink()
    unit.keep()
    assert not unit.kept.exists()
