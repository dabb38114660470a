"""`tritonhost watch` against hosts that only answer: what is sent, what is drawn, how it ends."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from operations import convergence
from operations.facts import at_work
from operations.facts.host_state import HostState
from operations.plan.profile.profiles import load_profile
from tests.command_line import PROJECT
from tests.deploy.test_deploy import BARE, PROBE, A, Answers, B, converged_host, variables
from tests.unit.builders import DATA, settings

WORK = "InactiveExitTimestampMonotonic"
IDLE: Answers = [(WORK, True, ["\x1euptime", "100.0", "\x1ework", "\x1eend"])]
BUSY: Answers = [
    (WORK, True, ["\x1euptime", "100.0", "\x1ework", "\x1ftritonhost-engine-4f2a.service", "40000000", "31 %", "\x1eend"])
]  # fmt: skip
LOST: Answers = [(WORK, False, ["broken"]), (PROBE, False, ["broken"])]

pytestmark = pytest.mark.slow


def words(tmp_path: Path, hosts: dict[str, Answers], *arguments: str) -> tuple[list[str], dict[str, str]]:
    scenario = tmp_path / "scenario.json"
    told = {"log": str(tmp_path / "commands"), "data": {"_sudo": True, **DATA}, "hosts": hosts}
    scenario.write_text(json.dumps(told), encoding="utf-8")
    command = [sys.executable, "-m", "operations.watch", "--inventory", "tests/deploy/fake_inventory.py"]
    return [*command, *arguments], variables(SCENARIO=str(scenario), COLUMNS="160", LINES="24")


def watch(
    tmp_path: Path, hosts: dict[str, Answers], *arguments: str
) -> tuple[subprocess.CompletedProcess[str], list[tuple[str, str]]]:
    command, environment = words(tmp_path, hosts, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, env=environment, timeout=60)
    sent = [json.loads(line) for line in (tmp_path / "commands").read_text("utf-8").splitlines()]
    assert "Traceback" not in done.stderr
    return done, [(name, command) for name, command in sent]


def test_watch_ends_when_all_serve(tmp_path: Path) -> None:
    done, sent = watch(tmp_path, {A: [*IDLE, *converged_host()]}, "--until-serving", "--for", "30")
    assert (done.returncode, done.stderr) == (0, "")
    _, row, counted = done.stdout.splitlines()
    assert row.split() == [A, "serving", *["ok"] * 6]
    assert counted == "1 host: 1 serving"
    # it changes nothing and takes no lock: two commands, both of which only read
    wanted = settings()
    asked = convergence.asked(wanted, load_profile(wanted.model, wanted.profile_overrides))
    assert {command for _, command in sent} == {at_work.command(), HostState().command(**asked)}


def test_watch_ends_in_its_time_with_what_is_left(tmp_path: Path) -> None:
    hosts = {A: [*BUSY, *BARE], B: LOST, "@fake/gpu-3": [*IDLE, *converged_host()]}
    done, _ = watch(tmp_path, hosts, "--for", "3", "--every", "1")
    assert done.returncode == 1
    _, busy, lost, _, counted = done.stdout.splitlines()
    assert busy.split()[:2] == [A, "not"] and busy.endswith("engine-4f2a 01:00: 31 %")
    assert " now " in busy
    assert lost.endswith("not read to the end: broken")
    assert counted == "3 hosts: 1 serving, 1 not deployed, 1 unreachable"


def test_probe_is_sent_seldom_and_the_look_often(tmp_path: Path) -> None:
    _, sent = watch(tmp_path, {A: [*BUSY, *BARE]}, "--for", "5", "--every", "1")
    looks = [command for _, command in sent if WORK in command]
    probes = [command for _, command in sent if PROBE in command]
    assert len(looks) >= 3
    assert len(probes) == 1


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    command, environment = words(tmp_path, {A: IDLE}, "--every", "0")
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, env=environment, timeout=60)
    assert done.returncode == 2
    assert "found 0, expected a whole number of seconds from 1 to 86400" in done.stderr


def test_terminal_is_as_before_after_ctrl_c(tmp_path: Path) -> None:
    command, environment = words(tmp_path, {A: [*BUSY, *BARE]}, "--every", "1")
    ours, its = pty.openpty()
    process: Any = subprocess.Popen(
        command, stdout=its, stderr=subprocess.PIPE, cwd=PROJECT, env=environment, start_new_session=True
    )
    os.close(its)
    drawn = b""
    until = time.monotonic() + 30
    while b"31 %" not in drawn and time.monotonic() < until:
        if select.select([ours], [], [], 0.1)[0]:
            drawn += os.read(ours, 65536)
    assert b"31 %" in drawn
    process.send_signal(signal.SIGINT)
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        drawn += part
    assert process.wait(timeout=20) == 130
    assert b"Traceback" not in process.stderr.read()
    assert drawn.startswith(b"\x1b[?1049h\x1b[?25l")
    before, _, after = drawn.partition(b"\x1b[?25h\x1b[?1049l")
    assert before and b"1 host: 1 not deployed" in after
    assert b"\x1b" not in after
    os.close(ours)
