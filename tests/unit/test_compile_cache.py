"""What the LLM API keeps from one start to the next: where, under which key, and until when."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operations.facts.releases import StoredNames, stored
from operations.plan.planning import plan_release
from operations.plan.profile.profiles import LlmApiProfile, load_profile
from operations.plan.release import Release
from operations.plan.serving.garbage import Stored, garbage
from tests.unit.builders import gpu, settings, verdict

A100 = {"name": "NVIDIA A100-SXM4-40GB", "compute_capability": "8.0", "memory_total_mib": 40960}


def wanted(gpus: int = 1, profile: Any = None, **gpu_changed: Any) -> Release:
    given = profile or load_profile("llama-3.1-8b-llmapi", {"compile_cache": True})
    digests = {f"nvidia/tritonserver:{given.image.release}-trtllm-python-py3": f"sha256:{'0' * 64}"}
    found = [gpu(index=number, **{**A100, **gpu_changed}) for number in range(gpus)]
    return plan_release(settings(image_digests=digests), found, "9", given)


def key(release: Release) -> str:
    assert release.cache is not None
    return release.cache.key


def test_cache_is_off_by_itself() -> None:
    release = wanted(profile=load_profile("llama-3.1-8b-llmapi"))
    assert release.cache is None
    assert "/cache" not in release.files["serve"] and "cache" not in release.document()


def test_server_is_given_the_directory_and_its_names() -> None:
    release = wanted()
    serve, place = release.files["serve"], f"{release.data_root}/caches/{key(release)}"
    assert f"install -d -m 700 -o 60600 -g 60600 {place}\n" in serve
    assert f"type=bind,source={place},target=/cache" in serve
    for name in (
        "TORCHINDUCTOR_CACHE_DIR",
        "TRITON_CACHE_DIR",
        "TLLM_AUTOTUNER_CACHE_PATH",
        "FLASHINFER_WORKSPACE_BASE",
    ):
        assert f"{name}=/cache/" in serve
    assert release.document()["cache"] == key(release)


def test_key_is_of_image_gpu_weights_and_workers() -> None:
    one = wanted()
    other_gpu = wanted(name="NVIDIA A100-SXM4-80GB", memory_total_mib=81920)
    two = wanted(
        2, load_profile("llama-3.1-8b-llmapi", {"compile_cache": True, "llm": {"tensor_parallel_size": 2}})
    )
    weights = wanted(
        profile=load_profile(
            "llama-3.1-8b-llmapi", {"compile_cache": True, "weights": {"revision": "f" * 40}}
        )
    )
    assert len({key(release) for release in (one, other_gpu, two, weights)}) == 4
    # no server runs what another one has written
    for changed in ({"service_name": "other"}, {"server_user": "60700:60700"}):
        assert key(replace(one, settings=one.settings.model_copy(update=changed))) != key(one)
    # what a server serves with is no input: its kernels are the same
    assert key(
        wanted(profile=load_profile("llama-3.1-8b-llmapi", {"compile_cache": True, "decoupled": True}))
    ) == key(one)
    # workers of one server disturb each other there, and so do the two servers of a swap
    assert "FLASHINFER_WORKSPACE_BASE" not in two.files["serve"]
    fronted = replace(one, settings=one.settings.model_copy(update={"front": "haproxy"}))
    assert "FLASHINFER_WORKSPACE_BASE" not in fronted.files["serve-next"]


def test_server_with_workers_is_started_under_mpirun() -> None:
    two = wanted(2, load_profile("llama-3.1-8b-llmapi", {"llm": {"tensor_parallel_size": 2}}))
    assert "mpirun --allow-run-as-root -n 1 tritonserver" in " ".join(
        two.files["serve"].replace("\\\n", " ").split()
    )
    assert "mpirun" not in wanted().files["serve"]


def test_version_without_a_kept_autotuner_gets_no_file_for_it() -> None:
    given = load_profile("llama-3.1-8b-llmapi", {"compile_cache": True})
    assert isinstance(given, LlmApiProfile)
    release = wanted(profile=given)
    old = replace(release, stack=replace(release.stack, tensorrt_llm="1.1.0"))
    assert old.cache and "TLLM_AUTOTUNER_CACHE_PATH" not in old.cache.environment


def test_cache_of_no_kept_release_is_garbage(tmp_path: Path) -> None:
    def made(name: str, cache: str) -> Stored:
        return Stored(name, ord(name), verdict("proven then"), "m", "26.07", (), (), cache=cache)

    for name in ("caches/one", "caches/two"):
        (tmp_path / name).mkdir(parents=True)
    fact = StoredNames()
    listed = subprocess.run(["sh", "-c", fact.command(str(tmp_path))], capture_output=True, text=True)
    names = [name for name in fact.process(listed.stdout.splitlines()) if name.startswith("caches/")]
    assert sorted(names) == ["caches/one", "caches/two"]
    releases = [made("a", "one"), made("b", "two"), made("c", "two")]
    directories, _ = garbage(releases, {"current": "c", "previous": "b"}, names, 2)
    assert directories == ["caches/one"]


def test_cache_is_read_of_a_stored_release() -> None:
    document = wanted().document()
    assert stored("x", 1, "", json.dumps(document), "").cache == document["cache"]


@pytest.mark.parametrize("value", ["yes", 1])
def test_switch_is_true_or_false(value: object) -> None:
    with pytest.raises(ValueError, match="compile_cache"):
        load_profile("llama-3.1-8b-llmapi", {"compile_cache": value})
