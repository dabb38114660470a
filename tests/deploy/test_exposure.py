"""The command `exposure` against hosts that only answer, and one that is not there: one round trip each, exit codes, --save."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from operations.plan.audit.fleet import load
from tests.command_line import PROJECT, run
from tests.deploy.test_deploy import A, B, variables
from tests.unit.builders import DATA
from tests.unit.versions_output import output

# The fake hosts, and one that is reached over SSH
INVENTORY = """
import json, os, runpy
hosts = runpy.run_path("tests/deploy/fake_inventory.py")["hosts"] + [("gpu-9", json.loads(os.environ["LOST"]))]
"""


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.mark.slow
@pytest.mark.parametrize("lost", [False, True])
def test_hosts_are_read_in_one_round_trip_each(tmp_path: Path, lost: bool) -> None:
    log, scenario, inventory = tmp_path / "commands", tmp_path / "scenario.json", tmp_path / "mine.py"
    data = {**DATA, "_sudo": True}
    hosts = {
        A: [("MODULE=", True, output())],
        B: [("MODULE=", True, output(driver=["580.159.03"]))],
    }
    scenario.write_text(json.dumps({"log": str(log), "data": data, "hosts": hosts}), encoding="utf-8")
    over_ssh: dict[str, Any] = {
        **data,
        "ssh_hostname": "127.0.0.1",
        "ssh_port": closed_port(),
        "ssh_strict_host_key_checking": "yes",
    }
    inventory.write_text(INVENTORY, encoding="utf-8")
    saved = tmp_path / "facts.json"
    path = str(inventory) if lost else "tests/deploy/fake_inventory.py"
    command = [
        sys.executable,
        "-m",
        "operations.exposure",
        "--inventory",
        path,
        "--save",
        str(saved),
        "--json",
    ]
    done = run(command, PROJECT, variables(SCENARIO=str(scenario), LOST=json.dumps(over_ssh)))
    assert "Traceback" not in done.stderr
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    exposed = {(one["host"], one["component"]) for one in answer["findings"] if one["status"] == "exposed"}
    assert exposed == {(B, "driver")}
    calls = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert sorted(name for name, _ in calls) == [A, B]
    problems = {one["host"]: one["problem"] for one in answer["hosts"]}
    assert (problems[A], problems[B]) == ("", "")
    if lost:
        assert "127.0.0.1" in problems["gpu-9"] or "refused" in problems["gpu-9"].lower()
        assert f"tritonhost: gpu-9: not read: {problems['gpu-9']}" in done.stderr.splitlines()
    assert [entry.host for entry in load(saved).hosts] == list(problems)

    # the facts say the same without hosts; with an inventory, its waivers of today count
    again = [sys.executable, "-m", "operations.exposure", "--facts", str(saved), "--json"]
    offline = run(again, PROJECT, variables())
    assert json.loads(offline.stdout)["findings"] == answer["findings"]
    waiver = {
        "component": "driver",
        "version": "580.159.03",
        "reason": "until the next boot",
        "until": "9999-12-31",
    }
    data["waivers"] = [*DATA["waivers"], waiver]
    scenario.write_text(json.dumps({"log": str(log), "data": data, "hosts": hosts}), encoding="utf-8")
    waived = run(
        [*again, "--inventory", path], PROJECT, variables(SCENARIO=str(scenario), LOST=json.dumps(over_ssh))
    )
    assert waived.returncode == (2 if lost else 0), waived.stderr


@pytest.mark.slow
def test_host_that_answers_nothing_useful_was_not_read(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.json"
    hosts = {A: [("MODULE=", True, ["nothing"])]}
    told = {"log": str(tmp_path / "commands"), "data": {**DATA, "_sudo": True}, "hosts": hosts}
    scenario.write_text(json.dumps(told), encoding="utf-8")
    command = [sys.executable, "-m", "operations.exposure", "--inventory", "tests/deploy/fake_inventory.py"]
    done = run(command, PROJECT, variables(SCENARIO=str(scenario)))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"tritonhost: {A}: not read: the output ends early"
    assert f"{A}  not read" in done.stdout


@pytest.mark.slow
def test_inventory_that_is_none_is_refused() -> None:
    command = [sys.executable, "-m", "operations.exposure", "--inventory", "inventories/none.py"]
    done = run(command, PROJECT, variables())
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert "inventories/none.py: found no such file" in line
