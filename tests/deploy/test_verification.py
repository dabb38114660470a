"""`pytest tests/verify` of hosts that cannot be reached: one line for each, and no success."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.command_line import PROJECT, run
from tests.deploy.test_deploy import variables

HOSTS = {"OCI_HOSTS": "gpu-1=127.0.0.1,gpu-2=127.0.0.2"}
# an address of this machine on which nothing listens
CLOSED = "ssh_port = 1\n"


@pytest.mark.slow
def test_unreachable_host_is_one_error_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "all.py").write_text(CLOSED, "utf-8")
    command = [
        "-m",
        "pytest",
        "tests/verify",
        "--inventory",
        "inventories/oci.py",
        "--group-data",
        str(tmp_path),
    ]
    done = run([sys.executable, *command, "-q", "-p", "no:cacheprovider"], PROJECT, variables(**HOSTS))
    assert done.returncode == 1, done.stdout
    lines = done.stdout.splitlines()
    for name, address in (("gpu-1", "127.0.0.1"), ("gpu-2", "127.0.0.2")):
        problem = f"{name}: unreachable: ssh: connect to host {address} port 1: Connection refused"
        assert lines.count(problem) == 1
        assert sum(1 for line in lines if line.startswith("SKIPPED") and line.endswith(problem)) == 1
    assert ", 2 errors in " in lines[-1] and "failed" not in lines[-1]
    assert "During handling" not in done.stdout and "Traceback" not in done.stdout
