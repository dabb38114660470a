"""A second run of an unchanged inventory changes nothing, and takes little longer than a login."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.e2e.one_host import DATA_ROOT, INVENTORY, Done, OneHost

MOST_COMMANDS = 3
# files whose bytes are compared as well; larger ones are engines and weights
SMALL = "-65k"


@dataclass(frozen=True)
class Second:
    """The run, and the host's state before and after it."""

    done: Done
    containers: tuple[dict[str, Any], dict[str, Any]]
    trees: tuple[list[str], list[str]]
    sudo: list[str]
    touched: list[str]


def tree(site: OneHost) -> list[str]:
    """Every path of /etc and the data root: kind, mode, owners, size, time, target of a link; SHA-256 of small files."""
    return site.root(
        f"find /etc {DATA_ROOT} -printf '%p %y %m %U:%G %s %T@ %l\\n' | sort; "
        f"find /etc {DATA_ROOT} -type f -size {SMALL} -print0 | sort -z | xargs -0 sha256sum"
    ).splitlines()


@pytest.fixture(scope="module")
def second(site: OneHost) -> Second:
    site.converge()
    before, listed = site.container(), tree(site)
    since = site.now()
    done = site.deploy("-vvv")
    sudo = [line for line in site.journal(since, "_COMM=sudo") if "COMMAND=" in line]
    touched = site.units_touched(since)
    return Second(done, (before, site.container()), (listed, tree(site)), sudo, touched)


@pytest.mark.requirement("R21")
@pytest.mark.smoke
def test_second_run_changes_nothing(second: Second) -> None:
    output = second.done.output
    assert second.done.code == 0, output
    assert re.search(r"converged: release [0-9a-f]{16} ", output)
    assert "Starting operation" not in output
    assert re.search(r"Grand total +- +- +- +-", output)
    assert output.count("[h1] >>> ") <= MOST_COMMANDS
    # counted on the host, including the command that reads the count
    assert 2 <= len(second.sudo) <= MOST_COMMANDS + 1
    before, after = second.containers
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])


@pytest.mark.smoke
def test_second_run_leaves_every_file_as_it_is(second: Second) -> None:
    before, after = second.trees
    assert len(before) > 500
    assert [line for line in after if line not in set(before)] == []
    assert [line for line in before if line not in set(after)] == []


@pytest.mark.smoke
def test_second_run_neither_reloads_nor_starts_a_unit(second: Second, site: OneHost) -> None:
    assert second.touched == []
    # proof that units_touched() would see both
    since = site.now()
    site.root("systemctl daemon-reload; systemd-run --quiet --wait --unit=lab-control true")
    assert {"reload of systemd", "lab-control.service started"} <= set(site.units_touched(since))


# output of a login, and environment variables from it and from sudo; sshd reads the files for each login
GREETED = {
    "/etc/motd": "*** Authorised use only ***\\n",
    "/etc/environment": "TZ=America/New_York\\nLANG=de_DE.UTF-8\\nLC_ALL=de_DE.UTF-8\\n",
    "/etc/locale.conf": "LANG=de_DE.UTF-8\\n",
}


def test_second_run_with_login_messages_changes_nothing(converged: OneHost) -> None:
    kept = " ".join(f"[ ! -e {path} ] || cp -p {path} {path}.kept;" for path in GREETED)
    written = " ".join(f"printf '{text}' >{path};" for path, text in GREETED.items())
    taken_back = " ".join(f"rm {path}; [ ! -e {path}.kept ] || mv {path}.kept {path};" for path in GREETED)
    before, since = converged.container()["State"]["StartedAt"], converged.now()
    converged.root(
        f"cp -P /etc/localtime /run/localtime; {kept} {written} "
        "ln -sfn /usr/share/zoneinfo/America/New_York /etc/localtime"
    )
    try:
        # it reaches the commands of a login: a shell warns about a locale that the host does not have
        assert "LC_ALL=de_DE.UTF-8" in converged.root("env")
        done = converged.deploy()
    finally:
        converged.root(f"{taken_back} rm -f /etc/localtime; mv /run/localtime /etc/localtime || :")
    assert done.code == 0, done.output
    assert "converged: release" in done.output
    assert converged.units_touched(since) == []
    assert converged.container()["State"]["StartedAt"] == before


def test_second_run_costs_at_most_two_and_a_half_empty_runs(converged: OneHost) -> None:
    done = converged.run(sys.executable, "bench/noop.py", "--inventory", INVENTORY)
    print(done.output)
    assert done.code == 0, done.output
