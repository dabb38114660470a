"""Failing and successful upgrades while clients use the host; and a rollback with nothing but SSH."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.lab.e2e.one_host import DATA_ROOT, INVENTORY, PYINFRA, OneHost
from tests.lab.faults.conftest import Table
from tests.lab.faults.interrupt import Client, delay
from tests.lab.faults.load import Load, keeping_its_connection, load

# of two operators at the same time; `make test-faults` runs a hundred
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "25"))
FRONT = ("--data", "front=haproxy")
# Cuts a lab host off from everything but SSH
OFFLINE = "iptables -I OUTPUT -p tcp -d {gateway} --syn -j REJECT; iptables -I OUTPUT -p udp -j REJECT"
ONLINE = "iptables -D OUTPUT -p tcp -d {gateway} --syn -j REJECT; iptables -D OUTPUT -p udp -j REJECT"


@dataclass(frozen=True)
class Bad:
    """
    An upgrade that must not stay.

    + overrides, options: what it changes
    + on_host: a transient unit that breaks the new release, while `current` is not the old one ($old)
    + said: the reason in the client's output
    """

    overrides: Mapping[str, Any]
    said: str
    options: tuple[str, ...] = ()
    on_host: str = ""
    refused: bool = False  # before a connection is made


# the new release's container, once there is one
NEW = (
    "while :; do id=$(docker inspect --format '{{.Id}} {{index .Config.Labels \"tritonhost.release\"}}' triton "
    "2>/dev/null); case $id in *$old | '') sleep 0.2 ;; *) break ;; esac; done; "
)
READY = "until curl -sf http://127.0.0.1:8000/v2/models/ensemble/ready; do sleep 0.2; done; "
BAD = {
    "never ready": Bad(
        delay(901), "not ready after 12 s", ("--data", "start_timeout_s=12"), f"{NEW} docker pause triton"
    ),
    "crashes 20 s after it is ready": Bad(
        delay(902),
        "s after its golden answer",
        ("--data", "soak_s=40"),
        f"{NEW} {READY} sleep 20; docker kill triton",
    ),
    "wrong golden answer": Bad(
        {
            **delay(903),
            "golden": [{"prompt": "Machine learning is", "max_tokens": 4, "expect": "Something else."}],
        },
        "golden request to ensemble: found",
    ),
    "config.pbtxt that Triton could not read": Bad(
        {"repository": {"parameters": {"decoupled_mode": "perhaps"}}}, "decoupled_mode: found", refused=True
    ),
    "config.pbtxt that no model loads with": Bad(
        {"repository": {"parameters": {"gpu_device_ids": "7"}}}, "invalid device ordinal"
    ),
    "several times slower": Bad(
        {"server": {"environment": {"LAB_TOKEN_SECONDS": "0.1"}}}, "expected at most 3 times the"
    ),
    "needs more GPU memory than there is": Bad(
        {"engine": {"max_batch_size": 256}}, "out of memory", on_host="echo used_mib=22500 >>/etc/lab/gpus"
    ),
    "server that refuses an option": Bad(
        {"server": {"arguments": ["--no-such-option=1"]}}, "--no-such-option"
    ),
}


CHEAPEST = "config.pbtxt that Triton could not read"


@pytest.mark.requirement("R38")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.smoke if name == CHEAPEST else ()) for name in BAD]
)
def test_bad_upgrade_puts_the_previous_release_back(name: str, converged: OneHost, table: Table) -> None:
    bad = BAD[name]
    before, container = converged.running_release(), converged.container()["Id"]
    if bad.on_host:
        converged.root(
            f"systemctl stop lab-fault 2>/dev/null; systemctl reset-failed lab-fault 2>/dev/null; systemd-run --quiet --unit=lab-fault sh -c {_quoted(f'old={before}; {bad.on_host}')}"
        )
    with converged.http() as url, load([url.removeprefix("http://")]) as people:
        done = converged.deploy("--data", "retry_failed=true", *bad.options, overrides=bad.overrides)
        time.sleep(1)
    assert done.code == (2 if bad.refused else 1), done.output
    assert bad.said in done.output, done.output
    assert "Traceback" not in done.output
    assert converged.running_release() == before
    if bad.refused:
        assert converged.container()["Id"] == container
        assert people.lost == []
    else:
        assert f"previous release {before} was put back and serves" in done.output
        assert f"put back {before}" in done.output.split("--> Hosts:")[1]
        # the failure is remembered, and the release is not tried again
        again = converged.deploy(*bad.options, overrides=bad.overrides)
        assert "found failed" in again.output, again.output
        assert converged.running_release() == before
    converged.root("systemctl stop lab-fault 2>/dev/null; sed -i /used_mib/d /etc/lab/gpus")
    converged.converge()  # restores the inventory's times in the unit
    assert f"converged: release {before}" in converged.converge().output
    table.add(f"bad upgrade: {name}", 1, 1, len(people.lost))


@pytest.mark.requirement("R39")
def test_failed_put_back_is_reported_and_next_run_repairs_it(converged: OneHost, table: Table) -> None:
    before = converged.running_release()
    # the previous release's directory is missing when the run wants to put it back
    hidden = f"{DATA_ROOT}/releases/.{before}.hidden"
    script = f"old={before}; {NEW} mv {DATA_ROOT}/releases/{before} {hidden}; docker kill triton"
    converged.root(
        "systemctl stop lab-fault 2>/dev/null; systemctl reset-failed lab-fault 2>/dev/null; "
        f"systemd-run --quiet --unit=lab-fault sh -c {_quoted(script)}"
    )
    done = converged.deploy("--data", "retry_failed=true", overrides=delay(950))
    assert done.code == 1, done.output
    assert f"previous release {before} could not be put back: " in done.output, done.output
    assert f"no manifest in {DATA_ROOT}/releases/{before}" in done.output
    assert "DOWN: " in done.output.split("--> Hosts:")[1]
    assert "Traceback" not in done.output
    converged.root(f"mv {hidden} {DATA_ROOT}/releases/{before}")
    converged.converge()
    assert converged.running_release() == before
    table.add("bad upgrade whose way back fails too", 1, 1, "not asked")


def _quoted(script: str) -> str:
    return "'" + script.replace("'", "'\\''") + "'"


@pytest.mark.requirement("R40", "R41")
def test_six_upgrades_keep_three_releases_and_offline_rollback(converged: OneHost, table: Table) -> None:
    for number in range(1, 7):
        converged.converge(delay(600 + number))
    releases = converged.root(f"ls {DATA_ROOT}/releases").split()
    links = (
        converged.root(f"readlink {DATA_ROOT}/current {DATA_ROOT}/previous").replace("releases/", "").split()
    )
    assert len(releases) == 3
    assert set(links) <= set(releases)
    assert len(converged.root(f"ls {DATA_ROOT}/engines").split()) == 1
    # the third one is proven and complete
    with offline(converged):
        done = converged.run(*PYINFRA, "-y", INVENTORY, "operations.release.rollback")
        assert done.code == 0, done.output
        assert converged.running_release() == links[1]
    assert "gives the golden answer" in done.output
    assert f"converged: release {links[1]}" in converged.converge(delay(605)).output
    table.add("rollback with hub, registry, dnf and git unreachable", 1, 1)
    converged.converge()


@contextmanager
def offline(host: OneHost) -> Iterator[None]:
    """While the block runs, the host can fetch nothing, but can be reached."""
    gateway = host.settings.gateway
    host.root(OFFLINE.format(gateway=gateway))
    try:
        code, _ = host.try_root(f"curl --silent --max-time 5 {host.settings.hub}/")
        assert code != 0, "the hub can still be reached"
        yield
    finally:
        host.root(ONLINE.format(gateway=gateway))


@dataclass
class Watch:
    """Reads `current` continuously during something else."""

    reads: int = 0
    absent: int = 0
    targets: set[str] = field(default_factory=set)


@contextmanager
def current_watched(host: OneHost) -> Iterator[Watch]:
    watch = Watch()
    host.root(
        "systemd-run --quiet --unit=lab-watch sh -c 'n=0; m=0; while [ ! -e /run/lab-watch.stop ]; do "
        f"n=$((n+1)); [ -e {DATA_ROOT}/current/manifest.json ] || m=$((m+1)); done; echo $n $m >/run/lab-watch.found'"
    )
    try:
        yield watch
    finally:
        found = host.root(
            "touch /run/lab-watch.stop; until [ -s /run/lab-watch.found ]; do sleep 0.1; done; cat /run/lab-watch.found; "
            "rm /run/lab-watch.*"
        ).split()
        watch.reads, watch.absent = int(found[0]), int(found[1])


@pytest.mark.requirement("R37")
def test_in_place_swap_loses_requests_only_in_announced_outage(converged: OneHost, table: Table) -> None:
    with (
        current_watched(converged) as watch,
        converged.http() as url,
        load([url.removeprefix("http://")]) as people,
    ):
        time.sleep(1)
        done = converged.deploy(overrides=delay(701))
        time.sleep(1)
    assert done.code == 0, done.output
    assert "swap: in place: no proxy is configured" in done.output
    announced = float(done.output.split("in place, ")[-1].split(" s without service")[0])
    assert people.answered > 100
    assert 0 < people.window <= announced + 1
    assert watch.reads > 1000
    assert watch.absent == 0, "`current` was missing for a moment"
    table.add(
        "upgrade in place, under load",
        1,
        1,
        f"{len(people.lost)} of {people.asked}, all within {people.window:.1f} s",
    )
    converged.converge()


@pytest.mark.requirement("R37")
def test_side_by_side_swap_loses_no_request(converged: OneHost, table: Table) -> None:
    done = converged.deploy(*FRONT)
    assert done.code == 0, done.output
    kept, ended = Load(), threading.Event()
    upgrades = (801, 802, 803)
    with converged.http() as url, load([endpoint := url.removeprefix("http://")]) as people:
        keeping = threading.Thread(target=keeping_its_connection, args=(endpoint, kept, ended.is_set))
        keeping.start()
        for number in upgrades:
            done = converged.deploy(*FRONT, overrides=delay(number))
            assert done.code == 0, done.output
            assert "swap: side by side: both fit on the GPUs; no outage expected" in done.output
        time.sleep(1)
        ended.set()
        keeping.join()
    assert people.asked > 300
    assert people.lost == []
    assert kept.answered > 300
    assert kept.lost == [], "a client that keeps its connection"
    again = converged.deploy(*FRONT, overrides=delay(803))
    assert "converged: release" in again.output, again.output
    assert converged.litter() == []
    table.add(
        "upgrade side by side, under load", len(upgrades), len(upgrades), len(people.lost) + len(kept.lost)
    )

    # a release that fails as second server never gets a client's request
    before = converged.container()["Id"]
    with converged.http() as url, load([url.removeprefix("http://")]) as people:
        failed = converged.deploy(
            *FRONT, overrides={**delay(804), "golden": BAD["wrong golden answer"].overrides["golden"]}
        )
    assert failed.code == 1
    assert "went on serving" in failed.output, failed.output
    assert converged.container()["Id"] == before
    assert people.lost == []
    table.add("bad upgrade side by side, under load", 1, 1, 0)

    # a GPU without memory for two servers: one server alone used more than is free now
    converged.root("echo used_mib=12000 >>/etc/lab/gpus")
    taken = converged.deploy(*FRONT, overrides=delay(805))
    assert taken.code == 0, taken.output
    full = converged.deploy(*FRONT, "--dry", overrides=delay(806))
    converged.root("sed -i /used_mib/d /etc/lab/gpus")
    assert "swap: in place: it needs 12000 MiB on each GPU, 10531 MiB are free" in full.output, full.output
    # back to the inventory, which has no proxy
    converged.converge()
    assert converged.try_root("systemctl is-active triton-front triton-next")[0] != 0
    converged.verified("test_service or test_release")


# pyinfra's sudo of a script that runs under the host's lock (files/host/own_lock.sh): who
GUARDED = re.compile(r"WHO='[^']*\(process (\d+)\) since [^']*'.{1,60}case \\?\$\(cat ", re.DOTALL)


def changing(host: OneHost, since: str) -> dict[str, tuple[float, float]]:
    """
    Client -> when its first command under the lock began and its last one ended, according to sudo's log entries.

    With --all, because the journal does not print such a long command line otherwise.
    """
    entries = [
        json.loads(line)
        for line in host.root(
            f"journalctl --quiet --all --output=json --since=@{since} _COMM=sudo"
        ).splitlines()
    ]
    clients = {
        entry["_PID"]: found[1]
        for entry in entries
        if (found := GUARDED.search(str(entry.get("_CMDLINE", ""))))
    }
    times: dict[str, list[float]] = {}
    for entry in entries:
        if client := clients.get(entry["_PID"]):
            times.setdefault(client, []).append(int(entry["__REALTIME_TIMESTAMP"]) / 1e6)
    return {client: (min(each), max(each)) for client, each in times.items()}


@pytest.mark.requirement("R34")
def test_two_operators_within_a_second_never_work_at_once(converged: OneHost, table: Table) -> None:
    # a difference that is detected and repaired within a second, so that a hundred rounds take only minutes
    refused, after_another = 0, 0
    for _ in range(ROUNDS):
        converged.root("systemctl disable --quiet triton")
        since = converged.now()
        with Client(converged) as one, Client(converged) as other:
            both = [client.ended() for client in (one, other)]
        codes, said = [done.code for done in both], [done.output for done in both]
        assert 0 in codes, said
        for code, output in zip(codes, said, strict=True):
            if code != 0:
                refused += 1
                assert "lock: held by" in output, output
                assert "(process " in output and "deploy of release" in output, output
            assert "Traceback" not in output
        # according to the host: which clients changed something, and from when to when
        worked = changing(converged, since)
        assert len(worked) == codes.count(0), f"{worked}: {said}"
        if len(worked) == 2:
            (_, first_ended), (second_began, _) = sorted(worked.values())
            assert first_ended <= second_began, f"both worked at once: {worked}"
            after_another += 1
    assert refused + after_another == ROUNDS
    assert refused > 0, "they never met: nothing was tested"
    assert "converged: release" in converged.converge().output
    assert converged.litter() == []
    table.add(f"two operators within a second ({refused} refused)", ROUNDS, ROUNDS)


def test_release_keeps_its_measurements(converged: OneHost) -> None:
    found = converged.root(f"cat {DATA_ROOT}/measurements/{converged.running_release()}")
    figures = dict(pair.split("=") for pair in found.split())
    assert set(figures) == {"load_s", "answer_s", "gpu_mib"}
    assert 0 < float(figures["answer_s"]) < float(figures["load_s"])
    assert json.loads(converged.root(f"cat {DATA_ROOT}/current/release.json"))["packages"]["docker-ce"]
