"""Two services of one host in one run: what they share is done by one of them, and nothing is done where that one fails."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.test_deploy import BARE, ENDED, TOOLS, TRUSTED, Answers, Run
from tests.unit import probe_output

FIRST, SECOND = "@fake/gpu-1/llama", "@fake/gpu-1/gpt"
SERVICES: dict[str, dict[str, Any]] = {
    "llama": {"gpu_ids": [0]},
    "gpt": {"gpu_ids": [1], "http_port": 8010, "grpc_port": 8011, "metrics_port": 8012},
}
OWN = {
    f"@fake/gpu-1/{name}": {"service_name": name, **table, "services": SERVICES}
    for name, table in SERVICES.items()
}
SECOND_GPU = probe_output.GPU.replace("0, NVIDIA A10, GPU-0", "1, NVIDIA A10, GPU-1")
TWO_GPUS: Answers = [
    (
        part,
        ok,
        [two for line in lines for two in ([line, SECOND_GPU] if line == probe_output.GPU else [line])],
    )
    for part, ok, lines in BARE
]


def shared(commands: list[str]) -> list[str]:
    """The work of a host that all its services need: packages."""
    return [command for command in commands if "UNIT=tritonhost-packages-" in command and "start" in command]


@pytest.mark.slow
def test_one_of_two_services_does_what_both_need(tmp_path: Path) -> None:
    done: Answers = [
        ("UNIT=tritonhost-engine-", False, ["stopped here"]),
        ("UNIT=tritonhost-", True, ENDED),
        *TWO_GPUS,
    ]
    run = Run(tmp_path, {FIRST: done, SECOND: done}, "-y", own=OWN)
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    leaders = [name for name in OWN if any(TOOLS in command for command in run.on(name))]
    assert len(leaders) == 1, run.output
    [other] = OWN.keys() - set(leaders)
    assert shared(run.on(other)) == []
    # the other begins its own work when that of the host is done
    order = [(name, command) for name, command in run.commands if "UNIT=tritonhost-" in command]
    last = max(n for n, (name, command) in enumerate(order) if "UNIT=tritonhost-packages-" in command)
    assert other not in [name for name, _ in order[:last]]
    # of the image and the weights that both need, one made them
    assert "made for another service of this host" in run.output


@pytest.mark.slow
def test_failure_of_what_is_shared_ends_both(tmp_path: Path) -> None:
    failing: Answers = [(TOOLS, False, ["Error: no such package"]), *TRUSTED, *TWO_GPUS]
    run = Run(tmp_path, {FIRST: failing, SECOND: failing}, "-y", own=OWN)
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    report = run.output[run.output.index("--> Hosts:") :]
    assert len(re.findall(r"failed: Packages \| Install tools at their versions", report)) == 1, report
    assert len(re.findall(r"untouched: @fake/gpu-1/(llama|gpt) failed before it", report)) == 1, report
    for name in OWN:
        assert not any("UNIT=tritonhost-source-" in command for command in run.on(name))


def test_services_that_share_a_port_are_refused_offline(tmp_path: Path) -> None:
    same = {
        name: {**data, "http_port": 8000, "grpc_port": 8001, "metrics_port": 8002}
        for name, data in OWN.items()
    }
    run = Run(tmp_path, {FIRST: TWO_GPUS, SECOND: TWO_GPUS}, "-y", own=same)
    assert run.code == 2
    assert re.search(r"services\.gpt: found port 8000, expected ports of its own", run.output), run.output
    assert run.commands == []
