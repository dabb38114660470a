"""`tritonhost status` against hosts that only answer: what is sent to them, what is printed, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator  # type: ignore[import-untyped]

from operations import convergence
from operations.facts.host_state import HostState
from operations.plan.inventory.gateway_settings import IMAGE
from operations.plan.profile.profiles import load_profile
from tests.command_line import PROJECT, run
from tests.deploy.test_deploy import BARE, PROBE, A, Answers, B, converged_host, variables
from tests.deploy.test_services import FIRST, OWN, SECOND, TWO_GPUS
from tests.unit.builders import DATA, DIGEST, settings
from tests.unit.certificates import API_KEY, gateway_files, pair

SCHEMA = json.loads((PROJECT / "files/schema/status.json").read_text("utf-8"))
LOST: Answers = [(PROBE, False, ["sudo: CANARY is broken"])]


class Status:
    """One run of the command, and what reached each host."""

    def __init__(
        self,
        tmp_path: Path,
        hosts: dict[str, Answers],
        *arguments: str,
        own: dict[str, dict[str, Any]] | None = None,
        **environment: str,
    ) -> None:
        log, scenario = tmp_path / "commands", tmp_path / "scenario.json"
        log.unlink(missing_ok=True)
        data = {"_sudo": True, **DATA}
        scenario.write_text(
            json.dumps({"log": str(log), "data": data, "hosts": hosts, "own": own or {}}), encoding="utf-8"
        )
        words = ["operations.status", "--inventory", "tests/deploy/fake_inventory.py", *arguments]
        done = run([sys.executable, "-m", *words], PROJECT, variables(SCENARIO=str(scenario), **environment))
        self.code, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr
        lines = log.read_text("utf-8").splitlines() if log.exists() else []
        self.commands: list[tuple[str, str]] = [(name, command) for name, command in map(json.loads, lines)]

    @property
    def hosts(self) -> dict[str, dict[str, Any]]:
        found = json.loads(self.stdout)
        assert list(Draft7Validator(SCHEMA).iter_errors(found)) == []
        return {host["name"]: host for host in found["hosts"]}


def test_host_that_serves_what_it_should_is_exit_code_0(tmp_path: Path) -> None:
    found = Status(tmp_path, {A: converged_host()})
    assert (found.code, found.stderr) == (0, "")
    head, row, summary = found.stdout.splitlines()
    assert head.split()[:3] == ["host", "state", "release"]
    assert row.split()[:2] == [A, "serving"]
    assert summary == "1 host: 1 serving"


@pytest.mark.parametrize(
    ("answers", "state"),
    [(BARE, "not deployed"), (converged_host("another"), "differs"), (LOST, "unreachable")],
)
def test_every_other_state_is_a_row_and_exit_code_1(tmp_path: Path, answers: Answers, state: str) -> None:
    found = Status(tmp_path, {A: converged_host(), B: answers})
    assert found.code == 1
    assert re.search(rf"(?m)^{B} +{state} ", found.stdout), found.stdout
    assert found.stdout.splitlines()[-1] == f"2 hosts: 1 serving, 1 {state}"
    assert "Traceback" not in found.stderr


def test_only_the_probe_is_sent_once_to_each_host(tmp_path: Path) -> None:
    found = Status(tmp_path, {A: converged_host(), B: converged_host("another"), "@fake/gpu-3": BARE})
    wanted = settings()
    asked = convergence.asked(wanted, load_profile(wanted.model, wanted.profile_overrides))
    probe = HostState().command(**asked)
    assert sorted(found.commands) == [(name, probe) for name in (A, B, "@fake/gpu-3")]


def test_json_has_all_hosts_and_nothing_else_is_printed(tmp_path: Path) -> None:
    found = Status(tmp_path, {A: converged_host(), B: LOST}, "--json")
    assert found.code == 1
    assert {name: host["state"] for name, host in found.hosts.items()} == {A: "serving", B: "unreachable"}
    assert found.hosts[B]["problem"] == "not read to the end: sudo: CANARY is broken"
    assert found.hosts[B]["differences"] is None
    assert found.stderr == ""


def test_answer_that_ends_early_is_unreachable(tmp_path: Path) -> None:
    [(part, ok, lines)] = converged_host()
    found = Status(tmp_path, {A: [(part, ok, lines[:20])]}, "--json")
    assert found.hosts[A]["state"] == "unreachable"
    assert "the probe's output ends early" in found.hosts[A]["problem"]


def test_noisy_login_shell_is_no_plan_and_no_state_is_lost(tmp_path: Path) -> None:
    [(part, ok, lines)] = converged_host()
    found = Status(tmp_path, {A: [(part, ok, ["welcome", *lines])]}, "--json")
    assert (found.code, found.hosts[A]["state"], found.hosts[A]["differences"]) == (1, "differs", None)
    assert found.hosts[A]["problem"].startswith("login shell: found welcome, expected no output")


def test_limit_chooses_hosts(tmp_path: Path) -> None:
    found = Status(tmp_path, {A: converged_host(), B: LOST}, "--limit", A)
    assert found.code == 0
    assert {name for name, _ in found.commands} == {A}


@pytest.mark.slow
def test_services_of_one_host_are_rows_of_their_own(tmp_path: Path) -> None:
    found = Status(tmp_path, {FIRST: TWO_GPUS, SECOND: TWO_GPUS}, "--json", own=OWN)
    rows = [(host["host"], host["service"], host["state"]) for host in found.hosts.values()]
    assert rows == [("@fake/gpu-1", "llama", "not deployed"), ("@fake/gpu-1", "gpt", "not deployed")]
    # each has the GPUs that are its own
    assert [[gpu["index"] for gpu in host["gpus"]] for host in found.hosts.values()] == [[0], [1]]
    assert len(found.commands) == 2


def test_gateway_has_its_certificate_s_end_and_no_secret(tmp_path: Path) -> None:
    made = pair(addresses=["10.0.0.11"], ends=datetime(2099, 1, 31, tzinfo=UTC))
    gateway = {
        "gateway": gateway_files(tmp_path, made),
        "image_digests": {**DATA["image_digests"], IMAGE: DIGEST},
    }
    table = Status(tmp_path, {A: BARE}, own={A: gateway})
    found = Status(tmp_path, {A: BARE}, "--json", own={A: gateway})
    assert found.hosts[A]["certificate_ends"] == "2099-01-31T00:00:00Z"
    assert "2099-01-31" in table.stdout
    stages = {row["stage"] for row in found.hosts[A]["differences"]}
    assert "gateway" in stages
    said = table.stdout + found.stdout + found.stderr
    assert API_KEY not in said and "PRIVATE KEY" not in said
    assert made.key_pem().decode().splitlines()[1] not in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--limit", "gpu-9"], "--limit gpu-9: found no hosts selected, expected a host"),
        (["--data", "shape"], '--data: found "shape", expected KEY=VALUE'),
        (["--nothing"], "unrecognized arguments: --nothing"),
    ],
)
def test_wrong_usage_is_exit_code_2(tmp_path: Path, arguments: list[str], expected: str) -> None:
    found = Status(tmp_path, {A: converged_host()}, *arguments)
    assert (found.code, found.stdout, found.commands) == (2, "", [])
    assert expected in found.stderr
    assert "Traceback" not in found.stderr


def test_inventory_may_be_the_first_word() -> None:
    done = run([sys.executable, "-m", "operations.status", "inventories/none.py"], PROJECT, variables())
    assert done.returncode == 2
    assert "inventory not found: inventories/none.py" in done.stderr


@pytest.mark.slow
def test_hosts_that_cannot_be_reached_are_rows() -> None:
    words = [sys.executable, "-m", "operations.status", "--json", "--data", "ssh_connect_retries=0"]
    done = run(words, PROJECT, variables(OCI_HOSTS="gpu-1=127.0.0.1,gpu-2=127.0.0.2"))
    assert done.returncode == 1, done.stderr
    hosts = json.loads(done.stdout)["hosts"]
    assert [host["state"] for host in hosts] == ["unreachable", "unreachable"]
    assert all(host["problem"] and host["model"] for host in hosts)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_200_hosts_are_read_together(tmp_path: Path) -> None:
    kinds = (converged_host(), converged_host("another"), BARE, LOST)
    hosts = {f"@fake/gpu-{n:03}": kinds[n % 4] if n < 8 else kinds[0] for n in range(200)}
    began = time.monotonic()
    # each answer takes half a second: one after the other they would take 100 s
    found = Status(tmp_path, hosts, PYINFRA_FAKE_DELAY="0.5", COLUMNS="100")
    assert time.monotonic() - began < 15
    lines = found.stdout.splitlines()
    assert len(lines) == 1 + 200 + 1
    assert all(len(line) <= 100 for line in lines)
    assert lines[-1] == "200 hosts: 194 serving, 2 differs, 2 not deployed, 2 unreachable"
    assert sorted(name for name, _ in found.commands) == sorted(hosts)


@pytest.mark.slow
def test_interrupt_is_one_line_and_exit_code_130(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.json"
    told = {"log": str(tmp_path / "log"), "data": {"_sudo": True, **DATA}, "hosts": {A: converged_host()}}
    scenario.write_text(json.dumps(told), encoding="utf-8")
    words = [sys.executable, "-m", "operations.status", "tests/deploy/fake_inventory.py"]
    environment = variables(SCENARIO=str(scenario), PYINFRA_FAKE_DELAY="20")
    process = subprocess.Popen(
        words, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(2.5)  # the answer takes 20 s
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert (process.returncode, out) == (130, "")
    assert err == "tritonhost: interrupted; nothing was changed\n"
