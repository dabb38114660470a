"""A host without changes: no run disturbs the server; it survives a boot, a crash and a stop, and reports which it was."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.lab.e2e.one_host import INVENTORY, PYINFRA, STARTED, OneHost
from tests.lab.faults.conftest import ONCE_AFTER_ALL, Table
from tests.lab.faults.interrupt import READY, STOPPING, Client, answers, converges, delay, events, until
from tests.lab.faults.load import load

UNITS = ("docker.service", "containerd.service", "triton.service")
RELOADS = 10
SERVES_AGAIN_SECONDS = 60
# StartLimitBurst of templates/triton.service.j2, and the server that ran before the first of these starts
CRASHES = 4 + 1
UNIT_FILE = "/etc/systemd/system/triton.service"
# the server's process: the host sees the processes of its containers
SERVER = "$(pgrep -o -x tritonserver)"
# RestartSec, the start, and a margin for a busy machine
RESTARTED_SECONDS = 60
REFUSED_SECONDS = 60


# Nothing to do


@pytest.mark.requirement("R21")
@pytest.mark.smoke
def test_two_more_runs_change_nothing(converged: OneHost, table: Table) -> None:
    before, since = _container(converged), converged.now()
    for _ in range(2):
        done = converged.deploy()
        assert done.code == 0, done.output
        assert f"converged: release {converged.running_release()}" in done.output
        assert "Starting operation" not in done.output
    assert _container(converged) == before
    assert _reloads(converged, since) == 0
    for unit in UNITS:
        assert events(converged, since, STARTED, unit) == []
        assert events(converged, since, STOPPING, unit) == []
    table.add("run with nothing to do: no reload, start or stop", 2, 2)


@pytest.mark.requirement("R18")
def test_daemon_reload_does_not_restart_the_container(converged: OneHost, table: Table) -> None:
    before, since = _container(converged), converged.now()
    with converged.http() as url, load([url.removeprefix("http://")]) as people:
        for _ in range(RELOADS):
            converged.root("systemctl daemon-reload")
            assert answers(converged)
    # proof that the count, 0 above, would see a reload
    assert _reloads(converged, since) == RELOADS
    assert _container(converged) == before
    assert people.lost == []
    assert people.answered > 0
    assert "converged: release" in converged.converge().output
    table.add("systemctl daemon-reload", RELOADS, ONCE_AFTER_ALL, len(people.lost))


# A boot


@pytest.mark.requirement("R20")
@pytest.mark.parametrize("how", ["reboot", "power cut"])
def test_server_starts_by_itself_after_a_boot(converged: OneHost, table: Table, how: str) -> None:
    release = converged.running_release()
    assert "docker.service" in converged.root("systemctl show --property=After --value triton").split()
    number = str(converged.number)
    began = time.monotonic()
    if how == "reboot":
        converged.lab("reboot", number)
    else:
        converged.lab("kill", number)
        began = time.monotonic()
        converged.lab("start", number)
    until(lambda: answers(converged), SERVES_AGAIN_SECONDS, f"an answer after the {how}")
    seconds = time.monotonic() - began
    assert converged.running_release() == release
    assert f"converged: release {release}" in converged.converge().output
    table.add(f"{how} at idle: answers {seconds:.1f} s after it began", 1, 1)


# The unit


@pytest.mark.requirement("R45")
def test_unit_file_passes_systemd_analyze_verify(converged: OneHost) -> None:
    code, said = converged.try_root(f"systemd-analyze verify {UNIT_FILE} 2>&1 >/dev/null")
    assert (code, said) == (0, "")


@pytest.mark.requirement("R45", "R49")
def test_start_returns_when_models_are_ready_and_logs_release(converged: OneHost) -> None:
    release, since = converged.running_release(), converged.now()
    converged.root("systemctl stop triton")
    assert not answers(converged)
    # at once, on the host: without a new connection between the two commands
    assert converged.root(f"systemctl start triton && curl --fail --silent {READY} && echo ready") == "ready"
    assert any(release in line for line in converged.journal(since, "--unit=triton")), "R49"


# Each process that may end

KILLED = {
    "tritonserver": SERVER,
    "docker run": "$(systemctl show --property=MainPID --value triton)",
    "containerd-shim": "$(pgrep -o -x containerd-shim)",
    "dockerd": "$(pgrep -x dockerd)",
}


@pytest.mark.requirement("R23")
def test_login_shell_with_output_is_refused(converged: OneHost, table: Table) -> None:
    before = _container(converged)
    converged.root(
        "cp -p /home/opc/.bashrc /root/bashrc.kept 2>/dev/null; sed -i '1i echo Welcome to this host' /home/opc/.bashrc || echo 'echo Welcome to this host' >/home/opc/.bashrc"
    )
    try:
        done = converged.deploy(overrides=delay(977))
    finally:
        converged.root(
            "[ -e /root/bashrc.kept ] && mv /root/bashrc.kept /home/opc/.bashrc || rm /home/opc/.bashrc"
        )
    assert done.code == 1, done.output
    assert "login shell: found Welcome to this host, expected no output of its own" in done.output
    assert _container(converged) == before
    assert "converged: release" in converged.converge().output
    table.add("login shell that talks: refused, untouched", 1, 1)


FAILED = "d9b373ed55a64feb8242e02dbe79a49c"  # systemd's MESSAGE_ID of a unit that failed by itself
SEEN_SECONDS = 10


def test_start_fails_soon_after_its_container_dies(converged: OneHost, table: Table) -> None:
    """The unit still waits for the model then, and must not wait until start_timeout_s ends."""
    converged.root("systemctl stop triton; systemctl reset-failed triton 2>/dev/null || :")
    since = converged.now()
    died = float(
        converged.root(
            "systemctl start --no-block triton; n=0; until pgrep -x tritonserver >/dev/null; do "
            "n=$((n + 1)); [ $n -lt 1500 ] || exit 1; sleep 0.02; done; "
            "systemctl show --property=ActiveState --value triton | grep -q activating; "
            "pkill -9 -x tritonserver; date +%s.%6N"
        )
    )
    until(lambda: events(converged, since, FAILED, "triton.service") != [], 60, "the start to fail")
    seconds = events(converged, since, FAILED, "triton.service")[0] - died
    assert -1 < seconds < SEEN_SECONDS
    until(lambda: answers(converged), RESTARTED_SECONDS, "an answer of the server that systemd starts next")
    converges(converged)
    table.add(f"container killed during the start: the start failed {max(seconds, 0):.1f} s later", 1, 1)


@pytest.mark.requirement("R47")
@pytest.mark.parametrize("name", KILLED)
def test_killed_process_is_restarted(converged: OneHost, table: Table, name: str) -> None:
    before = _container(converged)
    release = converged.running_release()
    converged.root("systemctl reset-failed triton")  # each fault begins with all of the unit's starts
    converged.root(f"kill -9 {KILLED[name]}")
    seconds = until(
        lambda: _serves_another(converged, before[0]),
        RESTARTED_SECONDS,
        f"another server after {name} was killed",
    )
    assert converged.running_release() == release
    assert converged.root("docker ps --all --format '{{.Names}}'") == "triton"
    # the processes of the killed container are gone, too
    assert len(converged.root("pgrep -x tritonserver").splitlines()) == 1
    assert f"converged: release {release}" in converged.converge().output
    table.add(f"kill -9 of {name}: answers again after {seconds:.1f} s", 1, 1)


@pytest.mark.requirement("R47")
def test_crash_loop_ends_in_a_failed_unit_and_is_repaired(converged: OneHost, table: Table) -> None:
    since = converged.now()
    crashed = 0
    # kill each new server at once, until systemd gives up
    converged.root(
        "systemctl reset-failed triton; systemd-run --quiet --unit=crashes --property=RuntimeMaxSec=150 sh -c "
        '\'while [ "$(systemctl show --property=ActiveState --value triton)" != failed ]; do '
        "pkill -9 -x tritonserver; sleep 0.1; done'"
    )
    try:
        until(
            lambda: converged.try_root("systemctl is-failed --quiet triton")[0] == 0,
            150,
            "the unit to give up",
        )
    finally:
        converged.root("systemctl stop crashes 2>/dev/null || :")
    # an end of the server's own process; systemd's message that a unit failed comes once more when it gives up
    ends = converged.journal(since, "--unit=triton", "MESSAGE_ID=98e322203f7a4ed290d09fe03c09fe15")
    crashed = sum(1 for line in ends if "Main process exited" in line)
    assert crashed == CRASHES, f"gave up after {crashed} crashes: {ends}"
    looked = converged.deploy("--dry", "-y")
    assert re.search(r"service +triton\.service +failed", looked.output), looked.output
    status = converged.run(*PYINFRA, "-y", INVENTORY, "operations.release.status")
    assert status.code == 0, status.output
    assert f"{converged.current()['release']}  current" in status.output, status.output
    done = converges(converged)
    assert "gives the golden answer" in done.output
    table.add(f"crash loop: unit failed after {crashed} crashes, seen in the table", crashed, ONCE_AFTER_ALL)


# Containers that have the server's name


STALE = {
    "exited": "run --entrypoint true {} >/dev/null",
    "created": "create --entrypoint true {} >/dev/null",
    "running": "run --detach --entrypoint sleep {} 600 >/dev/null",
    "paused": "run --detach --entrypoint sleep {} 600 >/dev/null; docker pause triton >/dev/null",
}


@pytest.mark.requirement("R46")
@pytest.mark.parametrize("state", STALE)
def test_stale_container_of_ours_is_replaced(converged: OneHost, table: Table, state: str) -> None:
    image = converged.current()["image"]["tag"]
    label = f"--label tritonhost.release={converged.running_release()}"
    converged.root("systemctl stop triton")
    verb, _, rest = STALE[state].format(image).partition(" ")
    stale = converged.root(
        f"docker {verb} --name triton {label} {rest}; docker inspect --format '{{{{.Id}}}} {{{{.State.Status}}}}' triton"
    )
    assert stale.endswith(f" {state}")
    # systemd refuses a unit that is started too often within an hour, also when an operator starts it
    converged.root("systemctl reset-failed triton; systemctl start triton")
    assert answers(converged)
    assert converged.container()["Id"] != stale.split()[0]
    assert converged.root("docker ps --all --format '{{.Names}}'") == "triton"
    assert "converged: release" in converged.converge().output
    table.add(f"stale container of ours, {state}", 1, 1)


@pytest.mark.requirement("R46")
def test_foreign_container_is_refused_and_left_running(converged: OneHost, table: Table) -> None:
    image = converged.current()["image"]["tag"]
    converged.root("systemctl stop triton")
    foreign = converged.root(f"docker run --detach --name triton --entrypoint sleep {image} 600")
    since = converged.now()
    try:
        with Client(converged) as client:
            # the server's script refuses at once, so the run does not wait for start_timeout_s
            done = client.ended(REFUSED_SECONDS)
        found = converged.root("docker inspect --format '{{.Id}} {{.State.Status}}' triton")
    finally:
        converged.root("systemctl stop triton; docker rm --force triton")
    assert done.code != 0, done.output
    assert "container triton: found one that is not ours" in "\n".join(
        converged.journal(since, "--unit=triton")
    )
    assert "container triton: found one that is not ours" in done.output, "said where the operator looks"
    assert found == f"{foreign} running", "it was touched"
    converges(converged)
    table.add("foreign container of the server's name: refused, untouched", 1, 1)


# A stop


PEOPLE = 8
# Each client requests a long answer; the service is stopped as soon as all of them are connected.
ASKED_AND_STOPPED = (
    "for person in $(seq {people}); do curl --silent --output /run/answer-$person --write-out '%{{http_code}}\\n' "
    "--data '{words}' http://127.0.0.1:8000/v2/models/ensemble/generate & done; "
    "n=0; until [ $(ss -Htn state established '( dport = :8000 )' | wc -l) -ge {people} ] || [ $n -gt 500 ]; "
    "do n=$((n + 1)); sleep 0.01; done; "
    "systemctl stop triton; wait"
)


@pytest.mark.requirement("R48")
def test_stop_waits_for_running_requests(converged: OneHost, table: Table) -> None:
    since = converged.now()
    words = json.dumps({"text_input": "What is", "max_tokens": 600, "bad_words": "", "stop_words": ""})
    codes = converged.root(ASKED_AND_STOPPED.format(people=PEOPLE, words=words)).splitlines()
    said = converged.journal(since, "--unit=triton")
    # tritonserver counts down from its own 30 s while a client waits for an answer
    left = [
        int(found[1]) for line in said if (found := re.search(r"Timeout (\d+): Found 0 model versions", line))
    ]
    assert left and left[0] < 30, "nobody was waiting for an answer when it was stopped: nothing was tested"
    assert codes == ["200"] * PEOPLE
    for person in range(1, PEOPLE + 1):
        assert json.loads(converged.root(f"cat /run/answer-{person}; rm /run/answer-{person}"))["text_output"]
    assert not [line for line in said if "SIGKILL" in line or "timed out" in line.lower()], said
    assert converged.root("systemctl show --property=Result --value triton") == "success"
    converges(converged)
    table.add(f"stop with {PEOPLE} requests in flight: all answered in {30 - left[0]} s", 1, 1, 0)


def _container(site: OneHost) -> tuple[str, str]:
    found = site.container()
    return found["Id"], found["State"]["StartedAt"]


def _serves_another(site: OneHost, before: str) -> bool:
    code, found = site.try_root("docker inspect --format '{{.Id}}' triton")
    return code == 0 and found != before and answers(site)


def _reloads(site: OneHost, since: str) -> int:
    """How often systemd has reloaded its units since then."""
    return sum(line.startswith("Reloading") for line in site.journal(since, "_PID=1"))
