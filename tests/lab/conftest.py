"""Prints at the end of the lab's tests where their time went."""

from __future__ import annotations

import pytest

from tests.lab import timing


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    timing.add_whole(report.nodeid, report.duration)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in timing.lines():
        terminalreporter.write_line(line)
