"""bench/peer.py without a host: what it reads from the runs, its bars and its table, the relay, and the playbook's modules."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import peer
from bench.peer import Peer, Ratio, bars, problem_of_deploy, problem_of_peer, ratios, recap, table
from bench.peer_expected import NotMeasured
from bench.relay import relay
from tests.verify.connection import Target

TASKS = sorted((peer.PLAYBOOK.parent / "tasks").glob("*.yml"))


def played(**counts: int) -> str:
    """The end of a run of a playbook for one host."""
    all_counts = {"ok": 28, "changed": 0, "unreachable": 0, "failed": 0, "skipped": 2, **counts}
    words = "    ".join(f"{key}={count}" for key, count in all_counts.items())
    return f"TASK [Compare] ****\nok: [h1]\n\nPLAY RECAP ****\nh1                         : {words}   \n\n"


def test_recap_is_read_of_each_host() -> None:
    second = "h2.example-1              : ok=1    changed=2    unreachable=0    failed=1    skipped=0\n"
    assert recap(played() + second) == {
        "h1": {"ok": 28, "changed": 0, "unreachable": 0, "failed": 0, "skipped": 2},
        "h2.example-1": {"ok": 1, "changed": 2, "unreachable": 0, "failed": 1, "skipped": 0},
    }
    assert recap("h1 : ok=1\n") == {}


def test_playbook_that_changes_nothing_counts() -> None:
    assert problem_of_peer(played(), ["h1"]) == ""


@pytest.mark.parametrize("key", ["changed", "failed", "unreachable"])
def test_playbook_that_does_more_does_not_count(key: str) -> None:
    assert f"{key}=1, expected a converged host" in problem_of_peer(played(**{key: 1}), ["h1"])


@pytest.mark.parametrize("output", [played(ok=0), "", "PLAY RECAP ****\n"])
def test_playbook_without_a_task_does_not_count(output: str) -> None:
    assert problem_of_peer(output, ["h1"]) == "h1: the playbook ran no task"
    assert problem_of_peer(played(), ["h1", "h2"]) == "h2: the playbook ran no task"


def test_deploy_counts_if_each_host_is_converged() -> None:
    output = "    [h1] Connected\n    [h1] converged: release 1f (m) serves since 2026-12-01T15:37:45 UTC\n"
    assert problem_of_deploy(output, ["h1"]) == ""
    assert problem_of_deploy(output, ["h1", "h2", "h3"]).startswith("h2, h3: ")
    assert "deploy first" in problem_of_deploy(output + "--> Starting operation: X\n", ["h1"])


def test_bars_are_those_of_the_number_of_hosts() -> None:
    assert bars(1, False) == (1.5, 1 / 12)
    assert bars(10, False) == bars(20, False) == (2.0, 1 / 30)
    assert bars(4, False) == (None, None)
    assert bars(1, True) == (1.5, 1 / 15)


@pytest.mark.parametrize(("c", "within"), [(0.9, [True, True]), (0.95, [False, True]), (1.1, [False, False])])
def test_ratios_are_of_medians(c: float, within: list[bool]) -> None:
    found = ratios({"a": [0.6, 0.6, 9.0], "c": [c, 0.1, 7.0], "d": [12.0, 12.0, 99.0]}, 1, False)
    assert [ratio.value for ratio in found] == pytest.approx([c / 0.6, c / 12])
    assert [ratio.within for ratio in found] == within


def test_table_has_times_and_bars() -> None:
    seconds = {"a": [0.6, 0.7, 0.6], "c": [0.98, 1.0, 0.9], "d": [16.0, 15.9, 16.4]}
    found = [Ratio("c/a", 0.98 / 0.6, 1.5), Ratio("c/d", 0.98 / 16, 1 / 12), Ratio("c/x", 2.0, None)]
    lines = table(seconds, found, "1 host").splitlines()
    assert lines[0].split()[:2] == ["1", "host"]
    assert lines[2].split() == ["c", "pyinfra", "deploy.py,", "converged", "0.98", "0.98", "1.00", "0.90"]
    assert [line.split() for line in lines[5:]] == [
        ["c/a", "1.63", "1.50", "ABOVE"],
        ["c/d", "1/16.3", "1/12"],
        ["c/x", "2.00", "none"],
    ]


def test_inventory_has_ssh_s_options(tmp_path: Path) -> None:
    data = {"_sudo": True, "ssh_hostname": "192.0.2.1", "ssh_user": "opc", "ssh_known_hosts_file": "/k h"}
    Peer("ansible-playbook", tmp_path).reach([Target("h1", data)])
    found = json.loads((tmp_path / "hosts.json").read_text(encoding="utf-8"))["all"]["hosts"]["h1"]
    assert (found["ansible_host"], found["ansible_become"]) == ("192.0.2.1", True)
    assert "-o 'UserKnownHostsFile=/k h'" in found["ansible_ssh_common_args"]


def test_environment_has_no_other_setting_of_ansible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_PIPELINING", "false")
    names = {name for name in Peer("", tmp_path).environment() if name.startswith("ANSIBLE_")}
    assert names == {"ANSIBLE_CONFIG", "ANSIBLE_HOME", "ANSIBLE_SSH_CONTROL_PATH_DIR"}


def test_delay_is_for_one_host(tmp_path: Path) -> None:
    hosts = [Target(name, {}) for name in ("h1", "h2")]
    with pytest.raises(NotMeasured, match="found 2 hosts"), peer.reached(hosts, 50, tmp_path):
        pass


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets from its one client."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                while data := client.recv(4096):
                    client.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])


def test_relay_adds_its_round_trip(echo: int) -> None:
    sent = bytes(range(256)) * 1000
    with relay("127.0.0.1", echo, 0.03) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(10)
        began = time.monotonic()
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        # to connect, and there and back
        assert time.monotonic() - began >= 0.06
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        got = b""
        while data := client.recv(65536):
            got += data
        assert got == sent


def test_playbook_has_only_builtin_modules() -> None:
    modules = [
        name
        for path in TASKS
        for name in re.findall(r"^  ([a-z_]+(?:\.[a-z_]+)+):", path.read_text("utf-8"), re.M)
    ]
    assert 25 <= len(modules) <= 35
    assert [name for name in modules if not name.startswith("ansible.builtin.")] == []
