"""The LLM API with two workers and a cache: how it is started, and what its second start finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.e2e.one_host import DATA_ROOT, OneHost
from tests.lab.mirror.content import GATED_TOKEN

pytestmark = pytest.mark.lab

OVERRIDES = {"compile_cache": True, "llm": {"tensor_parallel_size": 2}}


def test_second_start_reads_what_the_first_has_compiled(host: OneHost, tmp_path: Path) -> None:
    host.environment["LAB_MODEL"] = "llama-3.1-8b-llmapi"
    since = host.now()
    done = host.deploy(overrides=OVERRIDES, environment={"HF_TOKEN": GATED_TOKEN})
    assert done.code == 0, done.output
    command = " ".join(host.container()["Config"]["Cmd"])
    assert command.startswith("mpirun --allow-run-as-root -n 1 tritonserver "), command
    [cache] = host.root(f"find {DATA_ROOT}/caches -mindepth 1 -maxdepth 1").splitlines()
    assert host.root(f"stat -c '%u:%g %a' {cache}") == "60600:60600 700"
    assert kernels(host, since) == ["compiled now"]
    between = host.now()
    host.root("systemctl restart triton")
    assert kernels(host, between) == ["from the cache"]
    again = host.deploy(overrides=OVERRIDES)
    assert "converged: release" in again.output, again.output
    (tmp_path / "lab.py").write_text(f"profile_overrides = {OVERRIDES!r}\n", "utf-8")
    verified = host.verify("", "--group-data", str(tmp_path))
    assert verified.code == 0 and verified.passed, verified.output


def kernels(host: OneHost, since: str) -> list[str]:
    """What the server's starts since then said of their kernels."""
    lines = host.journal(since, "_SYSTEMD_UNIT=triton.service")
    return [line.partition("kernels: ")[2].strip(' "') for line in lines if "kernels: " in line]
