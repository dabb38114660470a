"""Faults, injected into lab hosts that serve a small model; a table at the end shows the result of each.

    pytest tests/lab/faults                            # boots a lab, tests, removes it
    LAB_FAULTS_KEEP=1 pytest tests/lab/faults          # uses and leaves the lab as it is; for work on these tests

LAB_FAULTS_NET is the network (default 10.94.0), so that a lab in use is not touched. FAULTS_TABLE names a file to which the
table is written as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab.e2e.one_host import ENDED_WELL, OneHost, settings_of_lab
from tests.lab.settings import network_of

HERE = Path(__file__).parent
KEEP = bool(os.environ.get("LAB_FAULTS_KEEP"))
NET = network_of("LAB_FAULTS_NET")
# Its answer takes milliseconds on a CPU, so that requests of a load do not wait for each other.
MODEL = "gpt2-medium"
# for several faults that one run repairs together; in a series each fault hits the run after the previous one
ONCE_AFTER_ALL = "1, after all"


@dataclass
class Table:
    """The injected faults and their results."""

    rows: list[tuple[str, ...]] = field(default_factory=list)
    _ended_well: int = 0
    _claimed: int = 0

    def begin(self) -> None:
        """A test begins: successful runs before it do not count for it."""
        self._ended_well, self._claimed = len(ENDED_WELL), 0

    def add(
        self,
        fault: str,
        injected: int,
        converged: int | str,
        requests_lost: int | str = "not asked",
        artifacts_lost: int = 0,
    ) -> None:
        """
        One line, once everything about it has been asserted.

        + injected: how often
        + converged: after how many of them a run of its own brought the host to its release; ONCE_AFTER_ALL if that was
        one run for all. At least so many runs of the test must have succeeded
        + requests_lost: of a load of one request every 50 ms; words if no load was running
        + artifacts_lost: complete artifacts that had to be made again
        """
        if isinstance(converged, int):
            assert converged <= injected, fault
            self._claimed += converged
        runs = len(ENDED_WELL) - self._ended_well
        assert runs >= max(self._claimed, 1), f"{fault}: {runs} runs ended well, fewer than the table says"
        numbers = (injected, converged, requests_lost, artifacts_lost)
        self.rows.append((fault, *(str(number) for number in numbers)))

    def lines(self) -> list[str]:
        header = ("fault", "injected", "converged", "requests lost", "artifacts lost")
        rows = [header, *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


_table = Table()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.lab)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    _table.begin()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _table.rows:
        terminalreporter.section("faults")
        for line in _table.lines():
            terminalreporter.write_line(line)
        if path := os.environ.get("FAULTS_TABLE"):
            with open(path, "a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in _table.lines())


@pytest.fixture(scope="session")
def table() -> Table:
    return _table


def lab_of(hosts: int, net: str = NET) -> Iterator[list[OneHost]]:
    """A lab of so many hosts, which serve MODEL by default, while the generator is suspended."""
    settings = settings_of_lab(net)
    ours = [OneHost(settings, number) for number in range(1, hosts + 1)]
    for host in ours:
        host.environment["LAB_MODEL"] = MODEL
    if not KEEP:
        ours[0].lab("down")
    ours[0].lab("up", str(hosts))
    yield ours
    if not KEEP:
        ours[0].lab("down")


@pytest.fixture(scope="session")
def site() -> Iterator[OneHost]:
    """A lab of one host."""
    for [only] in lab_of(1):
        yield only


@pytest.fixture
def converged(site: OneHost) -> OneHost:
    """The converged host: costs a second if it already is, and lets each test run alone."""
    site.converge()
    return site
