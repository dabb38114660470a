"""The JSON report of a run: what became of each host, for whatever started the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from operations.run_report import VARIABLE
from tests.deploy.test_deploy import BARE, A, B, Run, converged_host


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "report.json"
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def hosts(report: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(report.read_text("utf-8"))
    assert read["began"] <= read["ended"]
    return {one["host"]: one for one in read["hosts"]}


@pytest.mark.slow
@pytest.mark.requirement("R59")
def test_report_holds_status_and_differences_of_each_host(tmp_path: Path, report: Path) -> None:
    run = Run(tmp_path, {A: converged_host(), B: BARE}, "-y", "--dry")
    assert run.code == 0, run.output
    found = hosts(report)
    assert found[A]["status"].startswith("converged: serves since")
    assert (found[A]["failed"], found[A]["differences"]) == (False, [])
    assert found[B]["status"] == "differs, nothing was changed"
    docker = [row for row in found[B]["differences"] if row["what"] == "docker-ce"]
    assert [(row["stage"], row["found"]) for row in docker] == [("packages", "not installed")]


@pytest.mark.requirement("R59")
def test_report_names_a_failed_host(tmp_path: Path, report: Path) -> None:
    taken_back = converged_host("another", "failed 2026-11-21T08:00:00Z no answer")
    run = Run(tmp_path, {A: taken_back}, "-y")
    assert run.code == 1
    assert hosts(report)[A]["failed"] is True
    assert hosts(report)[A]["status"].startswith("refused: release")


def test_unwritable_report_is_one_line_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent" / "report.json"))
    run = Run(tmp_path, {A: converged_host()}, "-y")
    assert run.code == 0, run.output
    assert f"{VARIABLE}={tmp_path}/absent/report.json: No such file or directory" in run.output
    assert "Traceback" not in run.output
