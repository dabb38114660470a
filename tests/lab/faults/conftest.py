"""Faults, injected into lab hosts that serve a small model; at the end one table says what became of each.

    pytest tests/lab/faults                            # boots a lab, tests, removes it
    LAB_FAULTS_KEEP=1 pytest tests/lab/faults          # uses and leaves the lab as it is; for work on these tests

LAB_FAULTS_NET is the network (default 10.94.0), so that no lab somebody uses is touched. FAULTS_TABLE names a file that
the table is written to as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab.e2e.one_host import OneHost, settings_of_lab

HERE = Path(__file__).parent
KEEP = bool(os.environ.get("LAB_FAULTS_KEEP"))
NET = os.environ.get("LAB_FAULTS_NET", "10.94.0")
# Its answer takes milliseconds on a processor, so that a load of requests does not wait for itself.
MODEL = "gpt2-medium"


@dataclass
class Table:
    """What was injected, and what became of it."""

    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(
        self,
        fault: str,
        injected: int,
        converged: int,
        requests_lost: int | str = "not asked",
        artifacts_lost: int = 0,
    ) -> None:
        """
        One line, once everything about it has been asserted.

        + injected, converged: how often, and after how many of them the next run brought the host to its release
        + requests_lost: of a load of one request each 50 ms; words where no load was running
        + artifacts_lost: complete artifacts that had to be made again
        """
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
    """A lab of so many hosts that serve MODEL by default, while the generator is suspended."""
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
    """The host, as the inventory says: costs a second where it is already, and makes each test run on its own."""
    site.converge()
    return site
