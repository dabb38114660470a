"""What `RESUME=1 make test-all` takes as passed, and what it runs again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import kept_results
from tests.kept_results import Kept, Results
from tests.report import Outcome
from tests.run_all import Part, Runner

KEPT = Kept("2026-11-30 12:00", 61.5, [Outcome("tests/unit/test_a.py::test_a", "passed", 0.1)])
COMMAND = [sys.executable, "-c", "print('ran')"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout with one file that is committed and one that git ignores."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "a.py").write_text("a = 1\n", "utf-8")
    (folder / ".gitignore").write_text("build/\n", "utf-8")
    subprocess.run(["git", "-C", str(folder), "init", "--quiet"], check=True)
    return folder


@pytest.fixture
def results(tmp_path: Path, repository: Path) -> Results:
    return Results(tmp_path / "passed", repository)


def again(results: Results) -> Results:
    """As a later run reads them."""
    return Results(results.folder, results.repository)


def test_part_that_passed_counts_in_a_later_run(results: Results) -> None:
    assert results.find(COMMAND, {"A": "1"}) is None
    assert results.keep(COMMAND, {"A": "1"}, KEPT)
    assert again(results).find(COMMAND, {"A": "1"}) == KEPT
    (results.repository / "build").mkdir()
    (results.repository / "build" / "log").write_text("ignored", "utf-8")
    assert again(results).find(COMMAND, {"A": "1"}) == KEPT


def test_another_command_is_another_part(results: Results) -> None:
    results.keep(COMMAND, {"A": "1"}, KEPT)
    assert again(results).find(COMMAND, {"A": "2"}) is None
    assert again(results).find([*COMMAND, "-v"], {"A": "1"}) is None


def test_a_changed_file_makes_a_part_unproven(results: Results) -> None:
    results.keep(COMMAND, {}, KEPT)
    (results.repository / "new.py").write_text("", "utf-8")
    assert again(results).find(COMMAND, {}) is None
    (results.repository / "new.py").unlink()
    assert again(results).find(COMMAND, {}) == KEPT


def test_another_machine_makes_a_part_unproven(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    results.keep(COMMAND, {}, KEPT)
    monkeypatch.setattr(kept_results, "machine", lambda: "another processor")
    assert again(results).find(COMMAND, {}) is None


def test_nothing_is_kept_where_a_file_changed_meanwhile(results: Results) -> None:
    (results.repository / "a.py").write_text("a = 2\n", "utf-8")
    assert not results.keep(COMMAND, {}, KEPT)
    assert again(results).find(COMMAND, {}) is None


def test_a_record_that_cannot_be_read_is_none(results: Results) -> None:
    results.keep(COMMAND, {}, KEPT)
    [record] = results.folder.rglob("*.json")
    for text in ("", "[]", "{}", '{"ended": "x", "seconds": 1, "outcomes": [{"a": 1}]}'):
        record.write_text(text, "utf-8")
        assert results.find(COMMAND, {}) is None


def test_nothing_is_kept_without_git(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    results = Results(tmp_path / "passed", tmp_path / "plain")
    assert not results.keep(COMMAND, {}, KEPT)
    assert results.find(COMMAND, {}) is None


@pytest.mark.parametrize(("code", "kept"), [(0, True), (1, False)])
def test_runner_keeps_what_passed(results: Results, tmp_path: Path, code: int, kept: bool) -> None:
    part = Part("one", [sys.executable, "-c", f"raise SystemExit({code})"])
    logs = tmp_path / "logs"
    logs.mkdir()
    [first] = Runner([part], logs, results, resume=True).run()
    assert (bool(first.wrong()), first.kept) == (not kept, "")
    later = Runner([part], logs, again(results), resume=True)
    assert bool(later.results) == kept
    assert all(" (on " in result.kept for result in later.results)
    assert Runner([part], logs, again(results), resume=False).results == []
