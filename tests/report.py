"""A pytest plugin that writes what became of each test, so that a runner can say what was skipped, and why.

    python -m pytest -p tests.report …     # with TEST_REPORT=FILE in the environment

One JSON object a line: test, outcome (passed, failed, skipped), seconds, reason (of a skip), part of its life that failed.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

VARIABLE = "TEST_REPORT"


@dataclass(frozen=True)
class Outcome:
    """What became of one test."""

    test: str
    outcome: str
    seconds: float
    reason: str = ""


def read(path: Path) -> list[Outcome]:
    """The outcomes of a run; of a test with several parts the worst one."""
    rank = {"passed": 0, "skipped": 1, "failed": 2}
    found: dict[str, Outcome] = {}
    if not path.exists():
        return []
    for line in path.read_text(encoding="utf-8").splitlines():
        one = Outcome(**json.loads(line))
        before = found.get(one.test)
        if before is None or rank[one.outcome] > rank[before.outcome]:
            found[one.test] = one
    return list(found.values())


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return ""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Called for setup, call and teardown; a set-up that passed says nothing yet."""
    if report.when == "call" or report.outcome != "passed":
        _write(Outcome(report.nodeid, report.outcome, round(report.duration, 3), _reason(report)))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A module that skips itself, or cannot be imported, has no tests that could say so."""
    if report.outcome != "passed":
        _write(Outcome(report.nodeid, report.outcome, 0, _reason(report)))


def _write(outcome: Outcome) -> None:
    if path := os.environ.get(VARIABLE):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")
