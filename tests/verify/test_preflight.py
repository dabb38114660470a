"""What the preflight can ask of a real host alone: the instance metadata, the kernel's log, the GPUs, within its time."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.verify.connection import PROJECT, Target


@pytest.fixture(scope="session")
def judged(target: Target, request: pytest.FixtureRequest) -> dict[str, Any]:
    """
    The preflight's own JSON of this host.

    Once a session: pytest orders tests by their session-wide parameters, and would make it again for each if its scope were
    a module.
    """
    inventory = request.config.getoption("--inventory")
    group_data = request.config.getoption("--group-data")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "operations.preflight", inventory, "--json", "--limit", target.name),
            *(("--group-data", group_data) if group_data else ()),
        ],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=False,
    )
    assert done.returncode in (0, 3, 4), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["hosts"][target.name]
    return found


def checked(judged: dict[str, Any], name: str) -> dict[str, str]:
    [check] = [check for check in judged["checks"] if check["name"] == name]
    return dict(check)


def test_preflight_takes_under_ten_seconds_per_host(judged: dict[str, Any]) -> None:
    assert judged["seconds"] < 10


@pytest.mark.parametrize("name", ["clock", "SELinux", "firewalld", "cloud-init"])
def test_host_check_has_an_answer(judged: dict[str, Any], name: str) -> None:
    assert checked(judged, name)["verdict"] != "not checked", checked(judged, name)


@pytest.mark.parametrize("name", ["shape", "kernel"])
@pytest.mark.oracle_linux
def test_real_host_check_has_an_answer(host: Any, judged: dict[str, Any], name: str) -> None:
    if host.run("systemd-detect-virt --quiet --container").rc == 0:
        pytest.skip("this host is a container: it has no kernel and no metadata of its own")
    assert checked(judged, name)["verdict"] != "not checked", checked(judged, name)


@pytest.mark.parametrize(
    "name", ["ECC errors", "memory repairs", "MIG", "Xid errors", "NVLink", "fabric manager"]
)
@pytest.mark.gpu
def test_a_real_gpu_is_healthy(host: Any, judged: dict[str, Any], name: str) -> None:
    if not host.file("/proc/driver/nvidia/version").exists:
        pytest.skip("no NVIDIA kernel driver on this host: its GPU is a stand-in")
    assert checked(judged, name)["verdict"] in ("ok", "warning"), checked(judged, name)
