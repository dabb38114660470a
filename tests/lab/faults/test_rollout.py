"""Three hosts, changed one after another: clients that use the next host do not notice, and a failure stops the run."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab.e2e.one_host import OneHost
from tests.lab.faults.conftest import Table, lab_of
from tests.lab.faults.interrupt import delay, link
from tests.lab.faults.load import load
from tests.lab.settings import network_of

NET = network_of("LAB_FLEET_NET")


@pytest.fixture(scope="module")
def fleet() -> Iterator[list[OneHost]]:
    yield from lab_of(3, NET)


def releases(fleet: list[OneHost]) -> list[str]:
    return [host.running_release() for host in fleet]


def reported(output: str) -> dict[str, str]:
    """host -> release and status, of the run's last table."""
    lines = output.split("--> Hosts:")[1].splitlines()[2:]
    rows = (re.match(r"\s+(h\d)\s+(.*)", line) for line in lines)
    return {row[1]: row[2] for row in rows if row}


def test_idle_hosts_deploy_at_once_and_serving_hosts_in_turn(fleet: list[OneHost], table: Table) -> None:
    first = fleet[0].deploy()
    assert first.code == 0, first.output
    assert all("first start" in status for status in reported(first.output).values()), first.output
    [release] = set(releases(fleet))
    assert set(reported(fleet[0].converge().output)) == {"h1", "h2", "h3"}

    with ExitStack() as tunnels:
        endpoints = [tunnels.enter_context(host.http()).removeprefix("http://") for host in fleet]
        with load(endpoints) as people:
            done = fleet[0].deploy(overrides=delay(301))
            time.sleep(1)
    assert done.code == 0, done.output
    assert people.asked > 200
    assert people.lost == [], "a client that asks the next host where one does not answer"
    turns = re.findall(r"\[(h\d)\] nested release \w+: in place", done.output)
    assert turns == ["h1", "h2", "h3"], "in the inventory's order"
    [upgraded] = set(releases(fleet))
    assert upgraded != release
    table.add("rolling upgrade of three hosts, under load", 3, 3, len(people.lost))


@pytest.mark.requirement("R42")
def test_failed_gate_stops_the_rollout(fleet: list[OneHost], table: Table) -> None:
    fleet[0].converge(delay(301))
    [before] = set(releases(fleet))
    untouched = fleet[2].container()["Id"]
    # the second host's new server ends during its soak
    fleet[1].root(
        'systemctl reset-failed lab-fault 2>/dev/null; systemd-run --quiet --unit=lab-fault sh -c "until docker inspect '
        f"--format '{{{{index .Config.Labels \\\"tritonhost.release\\\"}}}}' triton 2>/dev/null | grep -v {before}; do sleep 0.3; done; "
        'until curl -sf http://127.0.0.1:8000/v2/models/ensemble/ready; do sleep 0.3; done; sleep 7; docker kill triton"'
    )
    done = fleet[0].deploy("--data", "soak_s=12", overrides=delay(302))
    assert done.code == 1, done.output
    after = releases(fleet)
    assert after[0] != before
    assert after[1:] == [before, before]
    assert fleet[2].container()["Id"] == untouched
    statuses = reported(done.output)
    assert "serves, in place" in statuses["h1"]
    assert f"put back {before}" in statuses["h2"]
    assert "untouched: h2 failed before it" in statuses["h3"]
    assert "exclude it with --exclude h2" in done.output

    # h2 remembers the failure, and it still stops the run
    again = fleet[0].deploy("--data", "soak_s=2", overrides=delay(302))
    assert again.code == 1, again.output
    assert releases(fleet) == after
    statuses = reported(again.output)
    assert "converged" in statuses["h1"]
    assert "refused: release" in statuses["h2"], again.output
    assert "untouched: h2 failed before it" in statuses["h3"]

    # the cause is removed: the run continues where it stopped
    resumed = fleet[0].deploy("--data", "soak_s=2", "--data", "retry_failed=true", overrides=delay(302))
    assert resumed.code == 0, resumed.output
    turns = re.findall(r"\[(h\d)\] nested release \w+: in place", resumed.output)
    assert turns == ["h2", "h3"]
    assert len(set(releases(fleet))) == 1
    table.add("second of three hosts fails its gate", 1, 1, "not asked")


@pytest.mark.requirement("R03")
def test_unreachable_and_broken_hosts_hold_the_rollout(fleet: list[OneHost], table: Table) -> None:
    fleet[0].converge(delay(303))
    fleet[0].lab("stop", "2")
    try:
        done = fleet[0].deploy(overrides=delay(304))
    finally:
        fleet[0].lab("start", "2")
    assert done.code == 1
    statuses = reported(done.output)
    assert "unreachable" in statuses["h2"]
    # the hosts before it are changed; those after it are not, because a second host could then be down
    assert "serves, in place" in statuses["h1"], done.output
    assert "untouched: h2 was not reached" in statuses["h3"], done.output

    # a GPU that does not answer is an ordinary failure, and the other hosts' upgrade continues without that host
    fleet[1].root("echo driver=missing >>/etc/lab/gpus")
    broken = fleet[0].deploy("--exclude", "h2", overrides=delay(305))
    assert broken.code == 0, broken.output
    assert "left out by --limit or --exclude" in reported(broken.output)["h2"]
    refused = fleet[0].deploy(overrides=delay(306))
    assert refused.code == 1
    assert "refused: GPUs: found" in reported(refused.output)["h2"]
    assert "Traceback" not in refused.output
    assert all("untouched: h2 failed" in reported(refused.output)[name] for name in ("h1", "h3"))
    fleet[1].root("sed -i /driver=missing/d /etc/lab/gpus")
    done = fleet[0].deploy(overrides=delay(306))
    assert done.code == 0, done.output
    assert len(set(releases(fleet))) == 1
    table.add("one of three hosts unreachable, or with a broken driver", 2, 2)


def test_max_unavailable_of_two_starts_with_one_host(fleet: list[OneHost]) -> None:
    fleet[0].converge(delay(306))
    done = fleet[0].deploy("--data", "max_unavailable=2", overrides=delay(307))
    assert done.code == 0, done.output
    began = {name: done.output.index(f"[{name}] nested release ") for name in ("h1", "h2", "h3")}
    ended = {name: done.output.rindex(f"[{name}] nested ensemble gives the golden answer") for name in began}
    assert ended["h1"] < min(began["h2"], began["h3"]), "the first alone"
    assert max(began["h2"], began["h3"]) < min(ended["h2"], ended["h3"]), "then two at a time"


@pytest.mark.parametrize("option", [pytest.param("--serial", marks=pytest.mark.smoke), "--no-wait"])
def test_pyinfra_serial_and_no_wait_are_refused(fleet: list[OneHost], option: str) -> None:
    # also for bare hosts
    before = [link(host) for host in fleet]
    done = fleet[0].deploy(option, overrides=delay(308))
    assert done.code == 2, done.output
    assert f"{option}: found 3 hosts, expected one host, or neither --serial nor --no-wait" in done.output
    assert [link(host) for host in fleet] == before
