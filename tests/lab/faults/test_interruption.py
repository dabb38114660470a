"""Clients, networks, hosts and single commands that end during a deploy: the next run continues from there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import pytest

from tests.lab import network
from tests.lab.e2e.one_host import DATA_ROOT, INVENTORY, PYINFRA, STARTED, OneHost
from tests.lab.faults.conftest import NET, ONCE_AFTER_ALL, Table, lab_of
from tests.lab.faults.interrupt import (
    MADE,
    STOPPING,
    Client,
    answers,
    converges,
    delay,
    events,
    link,
    manifests,
    started_work,
    until,
)
from tests.lab.faults.load import Load, load
from tests.lab.host import Host

LEAST_POINTS = 30
# Operations that take a while on a bare host: also killed a moment after they began
LONG = (
    "Grow the root file system",
    "Docker's repository",
    "Install tools",
    "Remove runc",
    "Install docker",
    "Configure docker",
    "Enable and start docker",
    "Pull the serving image",
    "Download the weights",
    "Convert the weights",
    "Build the engine",
    "Write the release",
    "Serve the release",
)
MOMENT_SECONDS = 0.3
# Seconds after the start of the swap: the old server is probed, then stopped; the new one loads, is probed, is watched
SWAP_MOMENTS = (0.3, 1.0, 2.0, 2.5, 3.5, 5.0, 6.5)
GIVES_UP_SECONDS = 60
SERVES_AGAIN_SECONDS = 60


# kill -9 of the client


@pytest.mark.requirement("R24")
def test_client_killed_at_every_operation_of_a_bare_host(site: OneHost, table: Table) -> None:
    if site.try_root(f"test -e {DATA_ROOT}")[0] == 0:
        site.lab("down")
        site.lab("up", "1")
    since = site.now()
    points: list[str] = []
    number = 1
    while True:
        with Client(site) as client:
            if not client.begins(number):
                assert client.ended().code == 0, client.output
                break
            operation = client.operations[number - 1]
        points.append(operation)
        if any(name in operation for name in LONG):
            with Client(site) as client:
                if client.begins(number):
                    time.sleep(MOMENT_SECONDS)
                    points.append(f"{operation}, {MOMENT_SECONDS} s later")
        number += 1
    assert len(points) >= LEAST_POINTS, points
    for name in LONG:
        assert any(name in point and point.endswith("later") for point in points), f"never reached: {name}"
    converges(site)
    again = sum(count - 1 for count in started_work(site, since).values())
    assert again == 0, started_work(site, since)
    assert site.litter() == []
    site.verified()
    table.add("kill -9 of the client, bare host", len(points), ONCE_AFTER_ALL, "nobody served", again)


@pytest.mark.requirement("R24")
def test_client_killed_at_every_operation_of_an_upgrade(converged: OneHost, table: Table) -> None:
    known = {converged.running_release()}
    made = manifests(converged)
    since, left = converged.now(), converged.litter()
    points = 0
    with _people(converged) as (people, began):
        # at each operation of one upgrade, from the first that changes something
        with Client(converged, overrides=delay(300)) as client:
            assert client.says("operation: Model repository | Write the release"), client.output
            number = len(client.operations)
        while True:
            with Client(converged, overrides=delay(300)) as client:
                if not client.begins(number):
                    assert client.ended().code == 0, client.output
                    break
            points += 1
            _still_serves(converged, known | _ids(client))
            number += 1
        known |= _ids(client)
        for moment_number, moment in enumerate(SWAP_MOMENTS):  # and in the middle of several swaps
            with Client(converged, overrides=delay(301 + moment_number)) as client:
                assert client.says("operation: Swap | Serve the release"), client.output
                time.sleep(moment)
            points += 1
            assert "swap: in place: " in client.output, "the restart was announced"
            known |= _ids(client)
            _still_serves(converged, known)
        last = delay(300 + len(SWAP_MOMENTS))
        converges(converged, last)
    lost = _lost_outside_restarts(converged, since, people, began)
    assert lost == [], "lost while nothing was being restarted"
    assert _made_again(made, manifests(converged)) == set()
    assert started_work(converged, since) == {}, "nothing had to be made for it"
    assert converged.litter() == left
    converges(converged)
    converged.verified()
    table.add(
        "kill -9 of the client, upgrade", points, ONCE_AFTER_ALL, f"{len(people.lost)}, all in restarts"
    )


def _ids(client: Client) -> set[str]:
    return set(re.findall(r"release ([0-9a-f]{16}) \(", client.output))


def _made_again(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """Artifacts that were complete before and were made again; artifacts that no kept release needs may be removed."""
    return {path for path, completed in before.items() if after.get(path, completed) != completed}


def _still_serves(site: OneHost, allowed: set[str]) -> None:
    assert link(site) in allowed, "current is absent, or something else"
    until(lambda: answers(site), 30, "an answer after the client was killed")
    assert site.running_release() in allowed


@contextmanager
def _people(site: OneHost) -> Iterator[tuple[Load, float]]:
    """Clients that send requests meanwhile, and since when."""
    with site.http() as url:
        began = time.time()
        with load([url.removeprefix("http://")]) as people:
            yield people, began


def _lost_outside_restarts(site: OneHost, since: str, people: Load, began: float) -> list[tuple[float, str]]:
    """Lost requests that began while the service was not stopping or starting."""
    stopped = events(site, since, STOPPING, "triton.service")
    started = events(site, since, STARTED, "triton.service")
    windows = [(at, min((s for s in started if s > at), default=time.time())) for at in stopped]
    assert windows, "nothing was restarted, so nothing was tested"
    assert people.answered > 0
    return [
        (at, why)
        for at, why in people.lost
        if not any(begin - 0.2 <= began + at <= end + 0.2 for begin, end in windows)
    ]


# The network is cut, the host freezes, it loses its power

# Slow enough to be interrupted; the models of this lab are small
SLOW_WEIGHTS = {"path_regex": r"model\.safetensors$", "bytes_per_second": 500_000}
# A second lab: its hosts wait at the same time until a silent host is noticed
OTHER_NET = f"{NET.rpartition('.')[0]}.{int(NET.rpartition('.')[2]) + 1}"
ALL_NEW = {
    "image": {"release": "25.10"},
    "weights": {"exclude": ["onnx/*", "*.h5"]},
}


@dataclass(frozen=True)
class Stage:
    """
    A part of a deploy.

    + unit: the unit of its detached work, as a glob; empty if the work runs in the connection
    + operation: the operation's name
    + on_host: a condition on the host that is true while the stage works
    """

    name: str
    operation: str
    unit: str = ""
    on_host: str = ""

    @property
    def goes_on(self) -> str:
        """The message of a client that lost its connection, as a regular expression; it names the unit if there is one."""
        if not self.unit:
            return r"goes on on the host as triton\.service|units tritonhost-\*\.service continue on the host"
        name = re.escape(self.unit).replace(r"\*", "[0-9a-f]{16}")
        return rf"the work goes on on the host as {name}; follow it with: journalctl --follow --unit "

    def met(self, client: Client, site: OneHost) -> None:
        """Wait until the stage works."""
        assert client.says(f"operation: {self.operation}"), f"{self.name}: {client.output}"
        condition = self.on_host or (
            f"systemctl list-units --state=active --plain --no-legend '{self.unit}' | grep -q ."
            if self.unit
            else ""
        )
        if condition:
            site.root(f"n=0; until {condition}; do n=$((n + 1)); [ $n -lt 1500 ] || exit 1; sleep 0.02; done")


DNF = Stage("dnf", "Packages | Install tools", "tritonhost-packages-*.service")
IMAGE = Stage("image", "Serving image | Pull", "tritonhost-image-*.service")
WEIGHTS = Stage("weights", "Weights | Download", "tritonhost-weights-*.service")
ENGINE = Stage("engine", "Engine | Build", "tritonhost-engine-*.service")
LAY_OUT = Stage("model repository", "Model repository | Write the release")
SWITCH = Stage(
    "switch",
    "Swap | Serve the release",
    on_host="systemctl show --property=ActiveState --value triton | grep -q -e deactivating -e activating",
)
STAGES = (DNF, IMAGE, WEIGHTS, ENGINE, LAY_OUT, SWITCH)


@dataclass
class Silence:
    """A host that does not answer for a while, and the measurements."""

    name: str
    client_seconds: list[float] = field(default_factory=list)
    lock_seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    converged: int = 0


@pytest.fixture
def four() -> Iterator[list[OneHost]]:
    """A second lab, of four bare hosts."""
    hosts = lab_of(4, OTHER_NET)
    ours = next(hosts)
    try:
        if ours[0].try_root(f"test -e {DATA_ROOT}")[0] == 0:
            ours[0].lab("down")
            ours[0].lab("up", "4")
        ours[0].faults(SLOW_WEIGHTS)
        yield ours
    finally:
        hosts.close()  # type: ignore[attr-defined]
        ours[0].lab("down")


@pytest.mark.requirement("R25")
def test_silent_host_ends_the_client_and_next_run_continues(four: list[OneHost], table: Table) -> None:
    cut, frozen = Silence("network cut"), Silence("host frozen")
    plan = ((cut, STAGES[0::2]), (cut, STAGES[1::2]), (frozen, STAGES[0::2]), (frozen, STAGES[1::2]))
    with ThreadPoolExecutor(len(four)) as pool:
        each = [
            pool.submit(_silences, site, silence, stages)
            for site, (silence, stages) in zip(four, plan, strict=True)
        ]
        again = [one.result() for one in each]
    print(cut.client_seconds, cut.lock_seconds, frozen.client_seconds, frozen.lock_seconds, again)
    for silence, twice in ((cut, again[:2]), (frozen, again[2:])):
        assert silence.problems == []
        assert [units for units in twice if units] == [], "work that went on was begun again"
        assert len(silence.client_seconds) == len(STAGES)
        assert max(silence.client_seconds) < GIVES_UP_SECONDS
        table.add(
            f"{silence.name}, in each of {len(STAGES)} stages; client ended after "
            f"{min(silence.client_seconds):.0f} to {max(silence.client_seconds):.0f} s, lock free "
            f"{max(silence.lock_seconds):.0f} s after it was over at most",
            len(silence.client_seconds),
            f"{silence.converged}, after 3 each",
        )


def _silences(site: OneHost, silence: Silence, stages: tuple[Stage, ...]) -> dict[str, int]:
    """A bare host stops answering in each of the stages, one run each; unit -> how often it was started needlessly."""
    machine = Host(site.settings, site.number)
    since = site.now()
    overrides = None
    for stage in stages:
        if stage is SWITCH:  # needs a host that serves
            converges(site)
            overrides = delay(400)
        with Client(site, overrides=overrides) as client:
            stage.met(client, site)
            if silence.name == "network cut":
                network.cut(site.settings, site.number)
            else:
                machine.pause()
            at = time.monotonic()
            try:
                done = client.ended(GIVES_UP_SECONDS + 30)
            except subprocess.TimeoutExpired:
                pytest.fail(f"{silence.name} in {stage.name}: the client goes on waiting: {client.output}")
            finally:
                silence.client_seconds.append(time.monotonic() - at)
                site.lab("heal" if silence.name == "network cut" else "resume", str(site.number))
        expected = {
            "an exit code": done.code != 0,
            "connection lost": "connection lost" in done.output,
            "what goes on": re.search(stage.goes_on, done.output) is not None,
            "no traceback": "Traceback" not in done.output,
        }
        lacking = [name for name, met in expected.items() if not met]
        if lacking:  # reported after all stages
            silence.problems.append(
                f"{silence.name} in {stage.name}: lacks {', '.join(lacking)}: {done.output}"
            )
        silence.lock_seconds.append(
            until(lambda: _lock_is_free(site), 30, f"the lock after {silence.name} in {stage.name}")
        )
    converges(site, overrides)
    silence.converged += 1
    assert site.litter() == []
    began = started_work(site, since, (*MADE, "packages"))
    for stage in stages:
        if stage.unit:
            assert any(fnmatch(unit, stage.unit) for unit in began), f"{stage.name} began nothing: {began}"
    needless = {unit: count - 1 - _failures(site, since, unit) for unit, count in began.items()}
    return {unit: count for unit, count in needless.items() if count != 0}


def _lock_is_free(site: OneHost) -> bool:
    return site.try_root("flock --nonblock /run/tritonhost/lock true")[0] == 0


def _failures(site: OneHost, since: str, unit: str) -> int:
    """How often a unit failed by itself, for example a download without a network; systemd's MESSAGE_ID of that."""
    return len(site.journal(since, "MESSAGE_ID=d9b373ed55a64feb8242e02dbe79a49c", f"UNIT={unit}"))


@pytest.mark.requirement("R26")
def test_power_loss_in_any_stage_of_an_upgrade_is_recovered(converged: OneHost, table: Table) -> None:
    machine = Host(converged.settings, converged.number)
    old = converged.running_release()
    known = manifests(converged)
    left = converged.litter()
    lost: set[str] = set()
    ready: list[float] = []
    converged.root("rpm -e --nodeps git-lfs")  # so that dnf has something to do
    converged.faults(SLOW_WEIGHTS)
    try:
        for stage in STAGES:
            with Client(converged, overrides=ALL_NEW) as client:
                stage.met(client, converged)
                machine.kill()
                wanted = re.findall(r"release ([0-9a-f]{16}) \(", client.output)[0]
            converged.lab("start", str(converged.number))
            ready.append(
                until(lambda: answers(converged), SERVES_AGAIN_SECONDS, f"an answer after {stage.name}")
            )
            assert converged.running_release() in ((old,) if stage is not SWITCH else (old, wanted))
            now = manifests(converged)
            lost |= {path for path, time in known.items() if now.get(path) != time}
            known = now
        done = converges(converged, ALL_NEW)
    finally:
        converged.faults()
    lost |= _made_again(known, manifests(converged))
    assert lost == set(), f"complete, and lost or made again: {done.output}"
    assert converged.running_release() == wanted != old
    assert converged.litter() == left
    assert converged.root("dnf --quiet check") == ""
    converges(converged)
    converged.verified()
    table.add(
        f"power taken, in each of {len(STAGES)} stages; serves {max(ready):.0f} s after the boot at most",
        len(STAGES),
        ONCE_AFTER_ALL,
        artifacts_lost=len(lost),
    )


# docker's daemon.json

DAEMON_JSON = "/etc/docker/daemon.json"
FOREIGN = {"max-concurrent-uploads": 7, "features": {"buildkit": True}}
# Reads the file repeatedly until it is told to stop; prints what was wrong and then the number of reads, as JSON.
READER = """
import json, os, sys
foreign, reads, wrong = json.loads(sys.argv[1]), 0, []
open("/run/reads", "w").close()
while os.path.exists("/run/reads"):
    try:
        found = json.load(open("/etc/docker/daemon.json"))
        if any(found.get(key) != value for key, value in foreign.items()):
            wrong.append("foreign keys: %r" % found)
    except Exception as error:
        wrong.append(repr(error))
    reads += 1
print(json.dumps({"reads": reads, "wrong": wrong[:5]}))
"""
# Kills the script that writes the file, and its sudo: some ms after the new file was created, or (-1) right after it
# replaced the old one. Prints what it killed.
KILLER = """
import os, signal, sys, time
after, place, new = float(sys.argv[1]), "/etc/docker/daemon.json", "/etc/docker/.daemon.json.new"
before = os.stat(place).st_ino
def processes():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open("/proc/%s/cmdline" % pid).read()
        except OSError:
            continue
        if "daemon.json.new" in words and int(pid) != os.getpid() and "KILLER" not in words:
            yield int(pid)
def written():
    try:
        return os.stat(new).st_mtime_ns
    except OSError:
        return None
left = written()  # by one that was killed earlier
deadline = time.monotonic() + 60
while written() in (left, None) and time.monotonic() < deadline:
    pass
found = list(processes())
if after < 0:
    while os.stat(place).st_ino == before and time.monotonic() < deadline:
        pass
else:
    time.sleep(after)
    found = list(processes())
killed = 0
for pid in found:
    try:
        os.kill(pid, signal.SIGKILL)
        killed += 1
    except OSError:
        pass
print(killed)
"""
# several times -1, until one of them is quick enough
MOMENTS = (0.0, 0.02, 0.05, 0.1, *[-1] * 8)


def _given(site: OneHost, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """pyinfra's option for other docker settings, in addition to those of the lab."""
    all_of_them = {"insecure-registries": [f"http://{site.settings.registry}"], **settings}
    return "--data", f"docker_daemon_settings={json.dumps(all_of_them)}"


def _labelled(site: OneHost, label: str) -> tuple[str, ...]:
    """Settings that `docker info` shows."""
    return _given(site, {"labels": [f"round={label}"]})


@pytest.fixture
def foreign(converged: OneHost) -> Iterator[OneHost]:
    """A host whose daemon.json has keys that this tool does not set; they are removed afterwards."""
    original = converged.root(f"cat {DAEMON_JSON}")
    converged.root(f"cat >{DAEMON_JSON}", f"{json.dumps({**json.loads(original), **FOREIGN})}\n")
    converged.root("systemctl restart docker")
    until(lambda: answers(converged), 60, "an answer after docker was restarted")
    yield converged
    converged.root(f"cat >{DAEMON_JSON}", f"{original}\n")
    converged.root(
        "systemctl reset-failed docker triton 2>/dev/null; systemctl restart docker; systemctl start triton"
    )


def _written(site: OneHost) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.root(f"cat {DAEMON_JSON}"))
    return found


def _docker_labels(site: OneHost) -> list[str]:
    found: list[str] = json.loads(site.root("docker info --format '{{json .Labels}}'")) or []
    return found


@pytest.mark.requirement("R17")
def test_daemon_json_is_complete_at_every_moment(foreign: OneHost, table: Table) -> None:
    before, left, wanted, killed = _written(foreign), foreign.litter(), "", 0
    with ThreadPoolExecutor(1) as pool:
        reads = pool.submit(foreign.root, f"python3 - {shlex.quote(json.dumps(FOREIGN))}", READER)
        try:
            until(lambda: foreign.try_root("test -e /run/reads")[0] == 0, 30, "the reader")
            for number, moment in enumerate(MOMENTS):
                wanted = str(number)
                since = foreign.now()
                content = foreign.root(f"cat {DAEMON_JSON}")
                with Client(foreign, *_labelled(foreign, wanted)) as client:
                    assert int(foreign.root(f"python3 - {moment}", KILLER)) > 0, "nothing was killed"
                    done = client.ended()
                killed += 1
                assert done.code != 0, done.output
                restarted = events(foreign, since, STARTED, "docker.service")
                if foreign.root(f"cat {DAEMON_JSON}") == content:
                    assert restarted == [], "docker was restarted for nothing"
                elif moment < 0 and restarted == []:
                    break
            else:
                pytest.fail("docker was always told before the script was killed")
            known = wanted
            done = foreign.deploy(*_labelled(foreign, known))
            assert done.code == 0, done.output
        finally:
            foreign.root("rm -f /run/reads")
    seen = json.loads(reads.result())
    assert seen["wrong"] == []
    assert seen["reads"] > 1000
    after = _written(foreign)
    assert {key: after[key] for key in before} == before
    assert after["labels"] == [f"round={known}"]
    # the last one was killed between writing the file and docker's restart: the next run has to notice that
    assert _docker_labels(foreign) == after["labels"], "docker does not run with what its file says"
    converges(foreign, None, *_labelled(foreign, known))
    assert foreign.litter() == left
    assert foreign.try_root("ls /etc/docker/.daemon.json.new")[0] != 0
    table.add(f"kill -9 of the daemon.json step; {seen['reads']} reads, all whole", killed, ONCE_AFTER_ALL)


@pytest.mark.requirement("R26")
def test_power_loss_while_writing_daemon_json_is_recovered(foreign: OneHost, table: Table) -> None:
    machine = Host(foreign.settings, foreign.number)
    release = foreign.running_release()
    conditions = (
        "test -e /etc/docker/.daemon.json.unread",
        f"grep -q power=1 {DAEMON_JSON}",
        "systemctl show --property=ActiveState --value docker | grep -q activating",
    )
    came_back = 0
    for number, condition in enumerate(conditions):
        settings = _labelled(foreign, f"power{number}")
        stage = Stage(
            "daemon.json",
            "Container runtime | Configure docker",
            on_host=condition.replace("power=1", f"round=power{number}"),
        )
        with Client(foreign, *settings) as client:
            stage.met(client, foreign)
            machine.kill()
        foreign.lab("start", str(foreign.number))
        found = _written(foreign)
        assert {key: found[key] for key in FOREIGN} == FOREIGN
        until(lambda: answers(foreign), SERVES_AGAIN_SECONDS, "an answer after the boot")
        assert foreign.running_release() == release
        converges(foreign, None, *settings)
        assert _docker_labels(foreign) == [f"round=power{number}"]
        came_back += 1
    table.add("power taken during the daemon.json step", len(conditions), came_back)


@pytest.mark.requirement("R17")
@pytest.mark.smoke
def test_malformed_daemon_json_is_refused_and_unchanged(converged: OneHost, table: Table) -> None:
    original = converged.root(f"cat {DAEMON_JSON}")
    container, since = converged.container(), converged.now()
    malformed = '{"insecure-registries": [\n'
    try:
        converged.root(f"cat >{DAEMON_JSON}", malformed)
        done = converged.deploy()
        left = converged.root(f"cat {DAEMON_JSON}") + "\n"
    finally:
        converged.root(f"cat >{DAEMON_JSON}", f"{original}\n")
    assert done.code == 1, done.output
    refusals = [line for line in done.output.splitlines() if "the file was left as it is" in line]
    assert len(refusals) == 1, done.output
    assert "expected valid JSON" in refusals[0]
    assert "Traceback" not in done.output
    assert left == malformed
    assert events(converged, since, STARTED, "docker.service") == []
    assert converged.container()["Id"] == container["Id"]
    assert "converged: release" in converged.converge().output
    table.add("malformed daemon.json: refused, untouched", 1, 1)


@pytest.mark.requirement("R17")
def test_setting_refused_by_docker_is_never_written(converged: OneHost, table: Table) -> None:
    original, container, since = converged.root(f"cat {DAEMON_JSON}"), converged.container(), converged.now()
    with converged.http() as url, load([url.removeprefix("http://")]) as people:
        # a name that this tool does not know either, and leaves to docker to check
        done = converged.deploy(*_given(converged, {"log-levels": "debug"}))
    assert done.code == 1, done.output
    [said] = [line for line in done.output.splitlines() if "daemon.json: dockerd refuses it" in line]
    assert "the following directives don't match any configuration option: log-levels; docker and its" in said
    assert "Traceback" not in done.output
    assert converged.root(f"cat {DAEMON_JSON}") == original
    assert converged.root("ls -A /etc/docker/.daemon.json.* 2>/dev/null || :") == ""
    assert events(converged, since, STARTED, "docker.service") == []
    assert converged.container()["Id"] == container["Id"]
    assert people.lost == []
    assert people.answered > 0
    assert "converged: release" in converged.converge().output
    table.add("setting that docker refuses: never in its file", 1, 1, len(people.lost))


@pytest.mark.requirement("R17")
def test_docker_start_failure_restores_the_old_daemon_json(converged: OneHost, table: Table) -> None:
    original, release = converged.root(f"cat {DAEMON_JSON}"), converged.running_release()
    with converged.http() as url, load([url.removeprefix("http://")]) as people:
        # dockerd reads this setting, and its storage driver refuses it
        done = converged.deploy(*_given(converged, {"storage-opts": ["overlay2.nope=1"]}))
        back = answers(converged)
    assert done.code == 1, done.output
    [said] = [line for line in done.output.splitlines() if "docker did not start with the new file" in line]
    assert "failed to start daemon" in said
    assert "the old file is back, and with it run: docker, triton.service; correct" in said
    assert "Job for docker.service failed" not in done.output
    assert back, "the run ended before the server answered again"
    assert converged.root(f"cat {DAEMON_JSON}") == original
    assert converged.root("ls -A /etc/docker/.daemon.json.* 2>/dev/null || :") == ""
    assert converged.running_release() == release
    assert "converged: release" in converged.converge().output
    lost = f"{len(people.lost)}, all in {people.window:.0f} s of docker's restarts"
    table.add("docker does not start with its new file: the old one is back", 1, 1, lost)


def test_daemon_json_without_final_newline_is_read(converged: OneHost) -> None:
    original = converged.root(f"cat {DAEMON_JSON}")
    converged.root(f"cat >{DAEMON_JSON}", original)  # without a newline at the end, as some editors write it
    try:
        done = converged.deploy()
    finally:
        converged.root(f"cat >{DAEMON_JSON}", f"{original}\n")
    assert done.code == 0, done.output
    assert "converged: release" in done.output


# The lock

LEFT = "tritonhost-engine-0000000000000000"


@pytest.mark.requirement("R35")
def test_lock_of_a_killed_client_is_released_at_once(converged: OneHost, table: Table) -> None:
    seconds: list[float] = []
    for number in range(5):
        with Client(converged, overrides=delay(500 + number)) as client:
            assert client.says("operation: Storage | Grow"), client.output
            assert not _lock_is_free(converged), "held"
            client.kill()
        seconds.append(until(lambda: _lock_is_free(converged), 5, "the lock of a killed client"))
    converges(converged)
    table.add(f"lock holder killed -9: free after {max(seconds):.1f} s at most", len(seconds), ONCE_AFTER_ALL)


@pytest.mark.requirement("R36")
@pytest.mark.parametrize(
    "operation", ["Model repository | Write the release", "Triton service | Install the systemd unit"]
)
def test_stopped_client_loses_the_lock_and_changes_nothing(
    converged: OneHost, table: Table, operation: str
) -> None:
    with Client(converged, overrides=delay(600)) as client:
        assert client.says(f"operation: {operation}"), client.output
        client.stop()
        refused = converged.deploy(overrides=delay(601))
        assert refused.code != 0, "the lock is held yet"
        assert "lock: held by" in refused.output, refused.output
        # both only look
        status = converged.run(*PYINFRA, "-y", INVENTORY, "operations.release.status")
        assert status.code == 0, status.output
        assert converged.running_release() in status.output
        looked = converged.deploy("--dry")
        assert looked.code == 0, looked.output
        free = until(lambda: _lock_is_free(converged), 90, "the lock of a stopped client")
        converges(converged, delay(601))
        before, pointed = converged.container(), link(converged)
        client.go_on()
        done = client.ended()
    assert done.code != 0, done.output
    assert link(converged) == pointed, f"the stopped client switched the release: {done.output}"
    after = converged.container()
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
    assert "found this machine asleep or stopped for" in done.output, done.output
    converges(converged)
    table.add(f"client stopped at {operation}: lock free after {free:.0f} s, service untouched", 1, 1)


@pytest.mark.requirement("R35")
def test_work_of_another_release_holds_the_lock(converged: OneHost, table: Table) -> None:
    converged.root(f"systemd-run --quiet --unit={LEFT} sleep 300")
    try:
        container = converged.container()["Id"]
        done = converged.deploy(overrides=delay(700))
        status = converged.run(*PYINFRA, "-y", INVENTORY, "operations.release.status")
        looked = converged.deploy("--dry", overrides=delay(700))
        assert converged.container()["Id"] == container
    finally:
        converged.root(f"systemctl stop {LEFT}")
    assert done.code != 0, done.output
    assert f"lock: held by {LEFT}.service, at work since" in done.output
    assert status.code == 0, status.output
    assert looked.code == 0, looked.output
    assert f"at work on the host: {LEFT}.service" in looked.output
    converges(converged, delay(700))
    converges(converged)
    table.add("detached work of another release: refused by name", 1, 1)
