"""Runs of many hosts: what a person reads of them, and that one host is never the others' trouble."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from operations.plan.serving.rollout import MANY
from tests.deploy.test_deploy import BARE, PROBE, WANTED, Answers, Run, converged_host

GOOD = converged_host()
LOST: Answers = [(PROBE, False, ["sudo: a password is required"])]


def fleet(count: int, **others: Answers) -> dict[str, Answers]:
    """Hosts that are converged, and others in the place of some."""
    hosts = {f"@fake/gpu-{number:03}": GOOD for number in range(count)}
    return {**hosts, **{f"@fake/gpu-{number.removeprefix('n')}": found for number, found in others.items()}}


def table(run: Run) -> list[list[str]]:
    """The rows of the run's last table, as words."""
    lines = run.output.split("--> Hosts:\n")[1].splitlines()
    return [line.split() for line in lines[1:] if line.strip()]


@pytest.mark.slow
def test_converged_hosts_are_counted(tmp_path: Path) -> None:
    run = Run(tmp_path, fleet(60), "-y")
    assert run.code == 0, run.output
    assert table(run) == [["60", "hosts", WANTED.id, "converged"]]
    assert "gpu-" not in run.output
    assert "60 hosts: what went well is counted at the end" in run.output
    # each was read, once
    assert len(run.commands) == 60


@pytest.mark.slow
def test_one_bad_host_of_many_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "report.json"
    monkeypatch.setenv("TRITONHOST_REPORT", str(report))
    run = Run(tmp_path, fleet(60, n030=LOST), "-y")
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    bad, good = table(run)
    assert bad[:2] == ["@fake/gpu-030", "refused:"] and good == ["59", "hosts", WANTED.id, "converged"]
    named = [line for line in run.output.splitlines() if "gpu-" in line]
    # what it said, pyinfra's word for it, ours, and its row
    assert len(named) == 4 and all("gpu-030" in line and len(line) < 250 for line in named), named
    # a program gets every host
    assert len(json.loads(report.read_text())["hosts"]) == 60


@pytest.mark.slow
def test_hosts_that_differ_alike_are_shown_once(tmp_path: Path) -> None:
    others = {f"n{number:03}": BARE for number in range(10, 40)}
    run = Run(tmp_path, fleet(60, **others), "--dry", "-y")
    assert run.code == 0, run.output
    shown = [line for line in run.output.splitlines() if "differences" in line]
    alike = [line for line in run.output.splitlines() if "] differs as @fake/gpu-" in line]
    assert len(shown) == 1 and len(alike) == 29, run.output[-2000:]
    assert table(run) == [
        ["@fake/gpu-010", "and", "29", "more", "differs,", "nothing", "was", "changed"],
        ["30", "hosts", WANTED.id, "converged"],
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "words"), [(MANY, []), (MANY + 1, ["-v"])], ids=["few", "verbose"])
def test_every_host_is_printed_of_few_or_if_asked(tmp_path: Path, count: int, words: list[str]) -> None:
    run = Run(tmp_path, fleet(count), "-y", *words)
    assert run.code == 0, run.output
    assert run.output.count("] Connected") == run.output.count("] converged: release ") == count
