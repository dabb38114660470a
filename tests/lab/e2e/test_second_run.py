"""A second run of an unchanged inventory touches nothing, and costs little more than a login."""

from __future__ import annotations

import re
import sys

from tests.lab.e2e.one_host import INVENTORY, OneHost

MOST_COMMANDS = 3


def test_second_run_changes_nothing(converged: OneHost) -> None:
    before = converged.container()
    since = converged.now()
    done = converged.deploy("-vvv")
    assert done.code == 0, done.output
    assert re.search(r"converged: release [0-9a-f]{16} ", done.output)
    assert "Starting operation" not in done.output
    assert re.search(r"Grand total +- +- +- +-", done.output)
    assert done.output.count("[h1] >>> ") <= MOST_COMMANDS
    # the host's own count, the look at it included
    sudo = [line for line in converged.journal(since, "_COMM=sudo") if "COMMAND=" in line]
    assert 2 <= len(sudo) <= MOST_COMMANDS + 1
    after = converged.container()
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])


def test_second_run_costs_at_most_two_and_a_half_empty_runs(converged: OneHost) -> None:
    done = converged.run(sys.executable, "bench/noop.py", "--inventory", INVENTORY)
    print(done.output)
    assert done.code == 0, done.output
