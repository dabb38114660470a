"""`python -m operations.export` as a person runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import PROJECT, run
from tests.deploy.test_deploy import variables

IMAGE = f"registry.example/triton@sha256:{'2' * 64}"
pytestmark = pytest.mark.slow


@pytest.fixture
def group_data(tmp_path: Path) -> Path:
    (tmp_path / "all.py").write_text(
        f"image_digests = {{'nvidia/tritonserver:26.07-trtllm-python-py3': 'sha256:{'1' * 64}'}}\n"
        "bind_address = '10.0.0.1'\nallowed_sources = ['10.0.0.0/8']\nmonitoring = {}\n",
        encoding="utf-8",
    )
    return tmp_path


def export(group_data: Path, *words: str, hosts: str = "gpu-1=10.0.0.1") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "operations.export", *words, "--group-data", str(group_data)]
    return run(
        [*command, "--data", "shape=VM.GPU.A10.1", "--data", "model=gpt2-medium"],
        PROJECT,
        variables(OCI_HOSTS=hosts),
    )


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (["kubernetes"], "# Release "),
        (["kubernetes", "--image", IMAGE, "--leader-worker-set", "--claim", "models"], "# Release "),
        (["slurm", "--sbatch", "partition=gpu"], "#!/bin/bash\n# Release "),
        (["llm-d"], "# Written by tritonhost export"),
        (["dynamo", "--image", IMAGE, "--claim", "models"], "# Release "),
        (["prometheus"], "[\n"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_each_format_is_printed(group_data: Path, words: list[str], begins: str) -> None:
    done = export(group_data, *words)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(begins)
    if words[0] == "prometheus":
        assert {group["labels"]["job"] for group in json.loads(done.stdout)} == {"triton", "node", "dcgm"}
    if "--image" in words:
        assert IMAGE in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["llm-d", "--claim", "x"], "--claim: found it with llm-d, expected it with kubernetes or dynamo"),
        (["kubernetes", "--image", "triton:latest"], "sha256: and 64 hexadecimal digits"),
        (["kubernetes", "--namespace", "A b"], "a name of lower-case letters"),
        (["slurm", "--sbatch", "time=1 day"], "KEY or KEY=VALUE without blanks"),
        (["dynamo"], "--image: found nothing"),
        (["kubernetes", "--limit", "gpu-9"], "gpu-9"),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else "",
)
def test_what_a_format_cannot_have_is_refused(group_data: Path, words: list[str], said: str) -> None:
    done = export(group_data, *words)

    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""
