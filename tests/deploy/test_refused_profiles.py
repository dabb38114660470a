"""What a profile or a host's settings cannot be ends pyinfra with exit code 2 and one line, before a connection.

One input for each number of the requirements that is decided without a host's answer; tests/unit/test_malformed_profiles.py
has them all. M25 to M28, M30 and M32 have further inputs that only a host's GPUs can tell.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.test_deploy import ALONE, pyinfra
from tests.deploy.test_inputs import Listener, listener, mine, one_host, refused, site

__all__ = ["listener", "site"]  # fixtures

NAME = "smollm2-135m"


def profile(model: str = NAME, **tables: Any) -> dict[str, Any]:
    return {"model": model, "profile_overrides": tables}


def parameter(**values: Any) -> dict[str, Any]:
    return profile(repository={"parameters": values})


INPUTS: list[tuple[str, dict[str, Any], str]] = [
    ("M18", profile(weights={"repository": ""}), "weights.repository"),
    ("M19", profile(weights={"repository": "https://user:hunter2@hub.invalid/a/b"}), "weights.repository"),
    ("M20", profile(weights={"revision": "main"}), "weights.revision"),
    ("M21", profile(checkpoint={"tensor_paralel": 2}), "did you mean tensor_parallel?"),
    ("M23", profile(image={"release": 24.1}), "image.release"),
    ("M24", profile(image={"base": "nvidia/tritonserver:latest"}), "image.base"),
    ("M24 digest", {"image_digests": {"nvidia/x:1": "latest"}}, "image_digests.nvidia/x:1"),
    ("M25", profile(checkpoint={"tensor_parallel": 65}), "checkpoint.tensor_parallel"),
    ("M27", {"gpu_ids": [0, 0]}, "gpu_ids"),
    ("M28", profile(checkpoint={"dtype": "fp17"}), "checkpoint.dtype"),
    ("M29", profile(engine={"max_batch_size": 0}), "engine.max_batch_size"),
    ("M30", profile(engine={"max_input_len": 4096}), "less than max_seq_len"),
    ("M31", parameter(kv_cache_free_gpu_mem_fraction=1.5), "kv_cache_free_gpu_mem_fraction"),
    ("M33", {"http_port": 9000, "grpc_port": 9000}, "http_port and grpc_port are both 9000"),
    ("M34", {"bind_address": "8.8.8.8"}, "refusing the public bind 8.8.8.8 without expose=True"),
    ("M35", profile(repository={"models": ["ensembel"]}), "did you mean ensemble?"),
    ("M36", profile(engine={"gemm_plugin": "a\nb"}), "one line of text"),
    ("M37", {"service_name": "triton;reboot"}, "service_name"),
    ("M38", profile(server={"environment": {"LD_PRELOAD": "x"}}), "it changes which code runs"),
    ("M38 secret", profile(server={"environment": {"NAME": "hf_CANARYcanary0123456789"}}), "no secret"),
    ("M39", profile(server={"arguments": ["--privileged"]}), "--privileged is docker's"),
    ("M40", profile(engine={"trust_remote_code": True}), "code of a model's repository is not run"),
    ("M41", profile(weights={"include": ["*.bin"]}), "no pickles"),
    ("M44", {"start_timeout_s": "10 minutes"}, "a whole number of seconds from 10 to 7200"),
    ("M45", {"keep_releases": 1}, "from 2 to 50"),
    ("M47", profile(golden=[{"prompt": "", "max_tokens": 8, "expect": ""}]), "golden.0.prompt"),
]


@pytest.mark.parametrize(
    ("data", "expected"), [given[1:] for given in INPUTS], ids=[given[0] for given in INPUTS]
)
def test_deploy_refuses_a_bad_profile(
    site: Path, listener: Listener, data: dict[str, Any], expected: str
) -> None:
    line = refused(mine(site, one_host(**data)))
    assert expected in line
    assert "CANARY" not in line and "hunter2" not in line
    assert listener.connections == []


def fifo(path: Path) -> None:
    os.mkfifo(path)


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 2**20)


@pytest.mark.parametrize("make", [fifo, large])
@pytest.mark.parametrize("name", ["mine.py", "group_data/more.py"])
def test_deploy_refuses_an_endless_inventory(site: Path, listener: Listener, make: Any, name: str) -> None:
    (site / "inventories/mine.py").write_text(one_host(), encoding="utf-8")
    path = site / "inventories" / name
    path.unlink(missing_ok=True)
    make(path)
    began = time.monotonic()
    line = refused(pyinfra("inventories/mine.py", "deploy.py", "-y", cwd=site, **ALONE))
    assert time.monotonic() - began < 30, "a hang would not end"
    assert name in line and ("something else" in line or "a larger file" in line)
    assert listener.connections == []


# --- R08: floors and waivers

OLD = {"model": NAME}  # Triton 24.09 with TensorRT-LLM 0.13


def waiver(component: str, version: str, days: int) -> dict[str, str]:
    until = (datetime.now(UTC) + timedelta(days=days)).date().isoformat()
    return {
        "component": component,
        "version": version,
        "reason": "the version that this test is about",
        "until": until,
    }


def test_deploy_refuses_a_version_below_its_floor(site: Path, listener: Listener) -> None:
    line = refused(mine(site, one_host(**OLD, waivers=[])))
    assert "gpu-1: versions: found triton 24.09, tensorrt-llm 0.13.0, expected triton at least" in line
    assert 'waivers = [{component = "triton", version = "24.09"' in line
    assert listener.connections == []


def test_deploy_refuses_a_waiver_that_has_ended(site: Path, listener: Listener) -> None:
    waived = [waiver("triton", "24.09", -1), waiver("tensorrt-llm", "0.13.0", 30)]
    line = refused(mine(site, one_host(**OLD, waivers=waived)))
    assert "gpu-1: waivers: triton 24.09: found a waiver that ended on" in line
    assert "renew the waiver with its reason" in line
    assert listener.connections == []
