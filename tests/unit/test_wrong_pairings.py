"""What users of TensorRT-LLM and its Triton backend run into most: prevented by the plan, or refused with the way out.

The rows are the twenty deployment failures that the project was planned with, ranked from public threads; BE is
https://github.com/triton-inference-server/tensorrtllm_backend/issues, TRT https://github.com/NVIDIA/TensorRT-LLM/issues,
SRV https://github.com/triton-inference-server/server/issues. What a plan cannot catch:

- row 6, a hang while several GPUs load (BE/377, BE/576): NCCL and peer-to-peer traffic of the machine itself; only a run
  shows it. What is done: a server that is not ready in start_timeout_s is ended, and the release before it put back.
- row 10, the host's memory during conversion (TRT/236): forecast; the preflight compares it with the host's.
- row 12, a port that another program holds (BE/243): the plan cannot know; the preflight asks the host.
- row 15, hours and gigabytes of compiling TensorRT-LLM (TRT/2469): a profile that builds chose so; `pull` compiles nothing.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from operations.plan.artifacts import commands, images
from operations.plan.artifacts.artifact import Artifact
from operations.plan.capacity.driver import MINIMUM_DRIVER, check_driver
from operations.plan.capacity.fit import deployment
from operations.plan.capacity.forecast import forecast
from operations.plan.capacity.limits import check_memory_free
from operations.plan.catalog.sources import DOCKERFILES
from operations.plan.catalog.support_matrix import RELEASES
from operations.plan.catalog.template_parameters import PARAMETERS, parameters_of
from operations.plan.errors import PlanError
from operations.plan.explain import explain
from operations.plan.profile.architecture import Architecture
from operations.plan.profile.model_repository import DEFAULTS, fill, render
from operations.plan.profile.profiles import load_profile, profile_names
from operations.plan.release import Release
from tests.unit.builders import CALIBRATION, COMMIT, DATA, DIGEST, gpu, profile, release

LLAMA_8B = {
    **{"hidden_size": 4096, "layers": 32, "heads": 32, "kv_heads": 8, "head_size": 128},
    **{"intermediate_size": 14336, "vocabulary": 128256, "max_positions": 131072},
}
# image.release of each version of TensorRT-LLM that these tests name
BUILT_UPON = [image for file in DOCKERFILES.values() for image in (file.base, file.pytorch)]
IMAGES = dict.fromkeys([*(row.image for row in RELEASES.values()), *BUILT_UPON], DIGEST)
COMMITS = {row.backend_tag: COMMIT for row in RELEASES.values() if row.backend_tag}


def planned(tables: dict[str, Any] | None = None, gpus: int = 1, **data: Any) -> Release:
    """A release on so many A10, whatever image it asks for."""
    known = {"image_digests": IMAGES, "backend_commits": COMMITS}
    return release({**known, **data}, tables, [gpu(index) for index in range(gpus)])


def refusal(tables: dict[str, Any] | None = None, gpus: int = 1, **data: Any) -> str:
    """The one line with which it is refused."""
    with pytest.raises(PlanError) as caught:
        planned(tables, gpus, **data)
    assert str(caught.value).isprintable()
    return str(caught.value)


def words_of(script: str) -> list[str]:
    """A script's words, as a shell reads them."""
    return shlex.split(script.replace("\\\n", " "), comments=True)


def words(artifact: Artifact) -> list[str]:
    """All words of an artifact's commands."""
    return [word for command in artifact.commands for word in command]


# --- rows 1 to 4: what belongs together


def test_row_1_engine_is_built_by_the_image_that_serves_it() -> None:
    """BE/531, BE/299: "Version tag does not match … Serialized Engine Version": built in another image."""
    wanted = planned()
    tag = wanted.image.tag
    assert tag in words(wanted.artifact("checkpoint"))
    assert tag in words(wanted.artifact("engine"))
    # by the id that it had when it was made
    serve = words_of(wanted.files["serve"])
    assert f"image=$(cat {wanted.image.record(wanted.data_root)})" in wanted.files["serve"]
    assert serve[serve.index("tritonserver") - 1] == "$image"
    assert f"{wanted.artifact('engine').path}:{commands.ENGINE}:ro" in words_of(wanted.files["serve"])


@pytest.mark.parametrize("newer", ["24.10", "24.12", "25.01"])
def test_row_1_other_image_or_version_gives_another_engine(newer: str) -> None:
    """TRT/1695: an engine of 0.9 under a server of 0.10. An engine of another image is never found, so never served."""
    before, after = planned(), planned({"image": {"release": newer}})
    assert before.artifact("engine").path != after.artifact("engine").path
    assert before.id != after.id
    other_digest = planned(image_digests=dict.fromkeys(IMAGES, f"sha256:{'c' * 64}"))
    assert before.artifact("engine").path != other_digest.artifact("engine").path


@pytest.mark.parametrize("name", [name for name, row in RELEASES.items() if row.version < (1, 3)])
def test_row_2_bare_placeholders_are_filled_at_every_version(name: str) -> None:
    """SRV/8592, TRT/2758: "Expected integer, got: $": a release brought a placeholder that nobody filled."""
    version = RELEASES[name].version
    values = {**DEFAULTS, "engine_dir": commands.ENGINE, "tokenizer_dir": commands.WEIGHTS}
    for model in PARAMETERS:
        for parameter in parameters_of(model, version).values():
            line = f"x: ${{{parameter.name}}}" if parameter.bare else f'x: "${{{parameter.name}}}"'
            filled = fill(model, line, values)
            assert not parameter.bare or "$" not in filled


def test_row_2_unknown_placeholder_is_refused_with_its_key() -> None:
    """BE/501: a template newer than the tool. No half-filled config.pbtxt is ever written."""
    template = 'name: "ensemble"\nmax_batch_size: ${triton_max_batch_size}\nx: ${brand_new}\n'
    with pytest.raises(PlanError) as caught:
        render({"ensemble": template}, {}, {})
    assert "ensemble/config.pbtxt line 3: brand_new: found no value" in str(caught.value)
    assert "set repository.parameters.brand_new and repository.unlisted = ['brand_new']" in str(caught.value)
    wanted = planned({"repository": {"parameters": {"brand_new": 5}, "unlisted": ["brand_new"]}})
    assert fill("ensemble", template, {**DEFAULTS, **wanted.parameters}).endswith("x: 5\n")


def test_row_3_lfs_pointer_stops_a_build_before_it_starts(tmp_path: Path) -> None:
    """BE/38, BE/44: a pointer in the place of a library fails in the linker, after 3747 s of compiling."""
    source = planned({"image": {"source": "build"}}).artifact("source")
    assert source.inputs["lfs"] is True
    assert any(command[-2:] == ("install", "--skip-repo") for command in source.commands)
    check = list(source.commands[-1])
    library = tmp_path / "libtensorrt_llm_batch_manager_static.a"
    for content, code in (
        (f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1\n", 65),
        ("!<arch>\n", 0),
    ):
        library.write_text(content, encoding="utf-8")
        done = subprocess.run([*check[:-1], str(tmp_path)], capture_output=True, text=True)
        assert done.returncode == code
    # an image that is pulled compiles nothing, and needs none
    assert planned().artifact("source").inputs["lfs"] is False


@pytest.mark.parametrize("name", ["main", "latest", "r24.09", "v0.13.0", "24.13", "26.11", ""])
def test_row_4_only_a_row_of_the_support_matrix_is_planned(name: str) -> None:
    """SRV/6839, BE/568: the branch main with a release's image."""
    with pytest.raises(PlanError, match=r"image\.release: .*a release YY\.MM of the support matrix"):
        load_profile("smollm2-135m", {"image": {"release": name}})


@pytest.mark.parametrize("name", [name for name, row in RELEASES.items() if row.backend_tag in DOCKERFILES])
def test_row_4_templates_image_and_version_are_of_one_row(name: str) -> None:
    """SRV/7374: the release notes of 24.06 name another TensorRT-LLM than the image has. The image is asked."""
    row = RELEASES[name]
    wanted = planned({"image": {"release": name, "source": "build"}})
    assert wanted.artifact("source").inputs["tag"] == row.backend_tag
    looks = [command for command in wanted.image.commands if "tensorrt_llm.__version__" in " ".join(command)]
    assert [f"v{look[-1]}" for look in looks] == [row.backend_tag]
    # and only then is it called what a release asks for
    assert wanted.image.commands.index(looks[0]) < [c[:2] for c in wanted.image.commands].index(
        ("docker", "tag")
    )


@pytest.mark.parametrize(
    ("name", "why"), [("25.06", "v0.20.0 has no dockerfile/"), ("25.11", "no tag was made")]
)
def test_row_4_a_release_without_a_dockerfile_is_not_built(name: str, why: str) -> None:
    """From v0.20.0 on the backend has no Dockerfile for it, from 25.11 on no tag either."""
    text = refusal({"image": {"release": name, "source": "build"}})
    assert (
        text.startswith("image.source: found build, expected pull")
        and why in text
        and "25.05 (v0.19.0)" in text
    )


def test_row_4_tag_without_a_pinned_commit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tag can be moved; what it was when it was tested is its commit."""
    monkeypatch.setattr(images, "BACKEND_COMMITS", {})
    text = refusal({"image": {"release": "25.04", "source": "build"}}, backend_commits={})
    assert text.startswith("backend_commits.v0.18.2") and "git ls-remote" in text


# --- row 5: ranks


@pytest.mark.parametrize(("tensor", "pipeline"), [(2, 1), (1, 2), (4, 2), (8, 1)])
def test_row_5_processes_match_the_ranks_of_the_engine(tensor: int, pipeline: int) -> None:
    """BE/33, TRT/2021: "MPI worldSize is expected to be equal to tp*pp": a plain tritonserver, or a wrong -n."""
    degrees = {"tensor_parallel": tensor, "pipeline_parallel": pipeline}
    wanted = planned({"checkpoint": degrees}, gpus=8)
    line = words_of(wanted.files["serve"])
    line = line[line.index("mpirun") :]
    assert line.count("-n") == line.count("tritonserver") == tensor * pipeline
    assert {line[index + 1] for index, word in enumerate(line) if word == "-n"} == {"1"}
    regions = [word.rpartition("=")[2] for word in line if "shm-region-prefix-name" in word]
    assert len(set(regions)) == tensor * pipeline
    convert = words(wanted.artifact("checkpoint"))
    assert convert[convert.index("--tp_size") + 1] == str(tensor)
    assert {**wanted.artifact("engine").inputs, **degrees} == wanted.artifact("engine").inputs


def test_row_5_one_rank_needs_no_mpirun() -> None:
    """One process, and nothing that could disagree."""
    assert "mpirun" not in planned().files["serve"]


@pytest.mark.parametrize("table", ["engine", "flags"])
def test_row_5_second_rank_setting_is_refused(table: str) -> None:
    """A second --tp_size would win over the plan's: an engine of two ranks under one process."""
    tables = {"engine": {"tp_size": 2}} if table == "engine" else {"checkpoint": {"flags": {"tp_size": 2}}}
    with pytest.raises(PlanError, match=r"tp_size: found 2, .*say checkpoint\.tensor_parallel"):
        load_profile("smollm2-135m", tables)


def test_row_5_fewer_gpus_than_ranks_are_refused() -> None:
    """BE/283: "Number of GPUs per node 1 must be at least as large as TP (4) * PP (1)"."""
    text = refusal({"checkpoint": {"tensor_parallel": 4}}, gpus=2)
    assert "found 4, expected at most 2" in text and "use a larger shape or a smaller tensor_parallel" in text


# --- rows 7 to 10: memory


def test_row_7_shared_memory_and_limits_are_always_raised() -> None:
    """TRT/1826, TRT/408: bus errors with docker's own 64 MiB of /dev/shm."""
    wanted = planned()
    serve = words_of(wanted.files["serve"])
    assert serve[serve.index("--shm-size") + 1] == "2g"
    assert {"memlock=-1", "stack=67108864"} <= set(serve)
    for kind in ("checkpoint", "engine"):
        made = words(wanted.artifact(kind))
        assert made[made.index("--shm-size") + 1] == "2g"
        assert "stack=67108864" in made
    with pytest.raises(PlanError, match=r'server\.shm_size: found "64m", expected a size from 1024m'):
        load_profile("smollm2-135m", {"server": {"shm_size": "64m"}})


def test_row_8_weights_too_large_are_refused_before_download() -> None:
    """BE/303, TRT/260: out of memory at load, after hours."""
    tables = {"architecture": {**LLAMA_8B, "layers": 96}, "engine": {"max_seq_len": 4096}}
    text = refusal(tables)
    assert text.startswith("checkpoint.tensor_parallel: found 1: ") and "of weights for each GPU" in text
    assert "use tensor_parallel 2 (21.0 GiB a GPU)" in text


def test_row_8_sizes_without_room_for_the_cache_are_a_warning() -> None:
    """BE/456: the activations of a huge max_batch_size and max_num_tokens."""
    engine = {"max_seq_len": 8192, "max_batch_size": 2048, "max_num_tokens": 131072}
    [warning] = planned({"architecture": LLAMA_8B, "engine": engine}).warnings
    assert "activations" in warning and "lower engine.max_num_tokens" in warning


def test_row_8_gpu_used_by_another_process_is_named() -> None:
    """BE/366: a fraction of 0.9 where another process has half of the memory."""
    wanted = planned({"architecture": LLAMA_8B, "engine": {"max_seq_len": 2048, "max_num_tokens": 2048}})
    numbers = deployment(wanted.profile, wanted.stack, wanted.gpus[0])
    assert numbers
    [warning] = check_memory_free(forecast(numbers), [gpu(memory_free_mib=8000)])
    assert "another process uses it" in warning and "choose other GPUs with gpu_ids" in warning


@pytest.mark.parametrize("name", ["24.04", "24.07"])
def test_row_9_cache_below_one_sequence_is_refused(name: str) -> None:
    """BE/366, BE/59: "maxTokensInPagedKvCache must be large enough to process at least 1 sequence"."""
    tables = {
        "image": {"release": name},
        "architecture": LLAMA_8B,
        "engine": {"max_seq_len": 8192},
        "repository": {"parameters": {"max_tokens_in_paged_kv_cache": 2560}},
    }
    text = refusal(tables)
    assert "max_tokens_in_paged_kv_cache: found 2560, expected at least 8192 tokens" in text
    assert "the longest max_seq_len that fits is 2560" in text


def test_row_9_default_of_131072_tokens_is_a_warning() -> None:
    """A model's own limit is the default of max_seq_len from 0.11 on, and one sequence of it fits no A10."""
    [warning] = planned({"architecture": LLAMA_8B}).warnings
    assert "131072" in warning and "set engine.max_seq_len to" in warning


def test_row_10_explain_states_the_host_memory_needed() -> None:
    """TRT/236: killed while it converts. The forecast says how much; see this module's docstring."""
    text = explain("llama-2-7b", DATA)
    assert "host memory" in text and "engine build" in text and "conversion" in text


# --- rows 11 and 12: tokenizer, ports


def test_row_11_tokenizer_comes_with_the_weights() -> None:
    """BE/297: tokenizer_dir names the engine's directory, or its files were left out of the download."""
    wanted = planned()
    assert wanted.parameters["tokenizer_dir"] == commands.WEIGHTS
    assert f"{wanted.artifact('weights').path}:{commands.WEIGHTS}:ro" in words_of(wanted.files["serve"])
    include = json.loads(wanted.artifact("weights").files["request.json"])["include"]
    assert {"*.json", "tokenizer.model"} <= set(include)
    for parameters in ({"parameters": {"tokenizer_dir": "/engine"}},):
        with pytest.raises(PlanError, match=r'tokenizer_dir: found "/engine", .*the plan sets it'):
            load_profile("smollm2-135m", {"repository": parameters})


def test_row_12_ports_differ_and_one_mpirun_runs_all_ranks() -> None:
    """BE/243, SRV/7211: half-dead servers hold the port. All ranks are of one mpirun, in one container."""
    assert "three different ports" in refusal(http_port=8001)
    wanted = planned({"checkpoint": {"tensor_parallel": 2}}, gpus=2)
    serve = words_of(wanted.files["serve"])
    assert serve.count("mpirun") == 1
    assert "docker rm --force triton" in wanted.files["serve"]
    assert "container triton: found one that is not ours" in wanted.files["serve"]


# --- rows 13 to 17: GPU, flags, Python and MPI


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "NVIDIA A100-SXM4-40GB", "compute_capability": "8.0"},
        # TRT/1826: of one compute capability, and yet "not recommended and is likely to affect performance"
        {"name": "NVIDIA A40"},
        {"name": "NVIDIA L40S", "compute_capability": "8.9"},
    ],
)
def test_row_13_other_gpu_gives_another_engine(changed: dict[str, Any]) -> None:
    """TRT/222: "generated on an incompatible device, expecting compute 8.6 got compute 8.0"."""
    before, after = release(), release(gpus=[gpu(**changed)])
    assert before.artifact("engine").key != after.artifact("engine").key
    assert before.id != after.id
    # what does not depend on the GPU is kept
    assert before.artifact("checkpoint").key == after.artifact("checkpoint").key


def test_row_13_gpus_of_two_models_are_refused() -> None:
    """One engine, built on the first of them, would not load on the second."""
    with pytest.raises(PlanError, match="GPUs of one model; choose them with gpu_ids"):
        release(gpus=[gpu(0), gpu(1, name="NVIDIA L40S", compute_capability="8.9")])


@pytest.mark.parametrize(
    ("name", "flags", "written"),
    [
        # TRT PR 2049: "unrecognized arguments: --max_output_len"
        ("24.08", {"max_output_len": 512, "max_input_len": 1024}, {"--max_seq_len": "1536"}),
        ("24.06", {"max_seq_len": 1536, "max_input_len": 1024}, {"--max_output_len": "512"}),
        ("24.09", {"paged_kv_cache": "enable"}, {"--kv_cache_type": "paged"}),
    ],
)
def test_row_14_renamed_flag_is_written_for_its_version(
    name: str, flags: dict[str, Any], written: dict[str, str]
) -> None:
    """TRT/1840, TRT/2143: flags are renamed between releases."""
    command = words(planned({"image": {"release": name}, "engine": flags}).artifact("engine"))
    for flag, value in written.items():
        assert command[command.index(flag) + 1] == value
    for flag in flags:
        assert flag == "max_input_len" or f"--{flag}" not in command


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [
        ("24.08", {"use_custom_all_reduce": "disable"}, "say nothing: it is chosen at run time"),
        ("24.09", {"multi_block_mode": "enable"}, "say repository.parameters.multi_block_mode"),
        ("24.07", {"fast_build": True}, "a flag of TensorRT-LLM 0.11.0"),
        ("24.09", {"gemm_plugins": "auto"}, "did you mean gemm_plugin?"),
    ],
)
def test_row_14_flag_unknown_to_the_version_is_refused(
    name: str, flags: dict[str, Any], expected: str
) -> None:
    """BE PR 604: a flag that is gone ends the build at its end of the queue, an hour after the download."""
    assert expected in refusal({"image": {"release": name}, "engine": flags})


def test_row_14_scripts_come_from_the_image_or_its_tag() -> None:
    """TRT/2471: "cannot import name 'infer_dtype'": examples of main with the library of a release."""
    wanted = planned({"image": {"release": "24.10"}})
    convert = words(wanted.artifact("checkpoint"))
    scripts = [word for word in convert if word.endswith("convert_checkpoint.py")]
    assert scripts and all(script.startswith(("/app/", "/tensorrtllm_backend/")) for script in scripts)
    assert wanted.artifact("source").inputs["tag"] == "v0.14.0"


def test_row_16_commands_run_outside_the_checkout() -> None:
    """TRT/2416: "No module named tensorrt_llm.bindings": python in a clone imports the clone's package."""
    quantized = {"quantization": {"format": "int8_wo"}}
    for tables in ({}, {"checkpoint": quantized}):
        wanted = planned(tables)
        [script] = [word for word in words(wanted.artifact("checkpoint")) if "exec python3" in word]
        assert script.rindex("cd /tmp &&") < script.rindex("exec python3")
    serve = words_of(wanted.files["serve"])
    assert serve[serve.index("--workdir") + 1] == "/tmp"
    with pytest.raises(PlanError, match=r"server\.environment\.PYTHONPATH: .*it changes which code runs"):
        load_profile("smollm2-135m", {"server": {"environment": {"PYTHONPATH": "/tensorrtllm_backend"}}})


def test_row_17_mpirun_is_the_image_s_and_runs_as_root() -> None:
    """BE/553, TRT/1294: a second OpenMPI of the host, or mpirun that refuses root."""
    serve = words_of(planned({"checkpoint": {"tensor_parallel": 2}}, gpus=2).files["serve"])
    mpirun = serve.index("mpirun")
    assert serve[mpirun - 1 : mpirun + 2] == ["$image", "mpirun", "--allow-run-as-root"]
    for name in ("PATH", "LD_LIBRARY_PATH"):
        with pytest.raises(PlanError, match="it changes which code runs"):
            load_profile("smollm2-135m", {"server": {"environment": {name: "/usr/lib64/openmpi"}}})


# --- row 18: the driver


@pytest.mark.parametrize("row", RELEASES.values(), ids=RELEASES)
def test_row_18_matrix_driver_runs_its_own_image(row: Any) -> None:
    """The matrix names the driver that belongs to an image's CUDA; the least one is that of the CUDA's major."""
    check_driver(row.driver, row.cuda)


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [
        *[
            ("525.60.13", "12.3.2"),
            ("535.161.08", "12.9.1"),
            ("550.54.15", "12.5.1"),
            ("580.65.06", "13.0.2"),
        ],
        *[("580.95.05", "13.1.0"), ("590.44.01", "12.3.2"), ("1000.1.1", "13.1"), ("600.00", "13.1.0")],
    ],
)
def test_row_18_driver_at_or_above_the_minimum_is_accepted(driver: str, cuda: str) -> None:
    """Minor version compatibility: one driver for all of a major, and newer ones for older majors."""
    check_driver(driver, cuda)


@pytest.mark.parametrize(
    ("driver", "cuda", "least"),
    [
        *[("470.256.02", "12.3.2", "525.60.13"), ("525.60.12", "12.9.1", "525.60.13")],
        *[("525.9.99", "12.3.2", "525.60.13"), ("525", "12.3.2", None), ("525.60", "12.3.2", "525.60.13")],
        *[("575.57.08", "13.0.2", "580.65.06"), ("580.65.05", "13.1.0", "580.65.06")],
        *[("580.9.1", "13.1.0", "580.65.06"), ("0.0", "12.3.2", "525.60.13")],
    ],
)
def test_row_18_an_older_driver_is_refused(driver: str, cuda: str, least: str | None) -> None:
    """TRT/23, TRT/83: "CUDA error 803/804": the server ends at its first call."""
    with pytest.raises(PlanError) as caught:
        check_driver(driver, cuda)
    expected = f"at least {least} for CUDA {cuda}" if least else "a version such as 580.95.05"
    assert f"GPU driver: found {driver}, expected {expected}" in str(caught.value)
    assert ("driver or choose an older release" if least else "nvidia-smi") in str(caught.value)


ODD_DRIVERS = [
    "",
    "[N/A]",
    "N/A",
    "unknown",
    "580.95.05\n",
    "580.95.05-1",
    "v580.95",
    "5\u0668\u0660.1",
    "9" * 5000,
]


@pytest.mark.parametrize("driver", [*ODD_DRIVERS, None, 580.95, ["580"], "1." * 5000, "580..1", "-1.2"])
def test_row_18_text_that_is_not_a_version_is_named(driver: Any) -> None:
    """nvidia-smi prints [N/A] for what it cannot read."""
    with pytest.raises(
        PlanError, match=r"GPU driver: found .*expected a version such as 580\.95\.05; see what nvidia"
    ):
        check_driver(driver, "12.5.1")


@pytest.mark.parametrize("cuda", ["", "11.8", "14.0", "12", "twelve", None, 12.5, "12.5.1\n"])
def test_row_18_unknown_cuda_is_refused(cuda: Any) -> None:
    """A new major needs its own minimum: it is added here, and not guessed."""
    with pytest.raises(PlanError, match=r"CUDA: found .*expected a version of CUDA 12 or 13"):
        check_driver("580.95.05", cuda)
    assert {int(row.cuda.split(".")[0]) for row in RELEASES.values()} == set(MINIMUM_DRIVER)


# --- rows 19 and 20: streaming, gated weights


def test_row_19_streaming_is_set_in_every_model() -> None:
    """BE/332, BE/34: one token, or words without spaces: decoupled in one config.pbtxt of two, no accumulated tokens."""
    parameters = {"decoupled_mode": True, "accumulate_tokens": True}
    wanted = planned({"repository": {"parameters": parameters}})
    assert "tensorrt_llm_bls" in wanted.models
    transaction = "model_transaction_policy { decoupled: ${decoupled_mode} }\n"
    tokens = 'parameters { key: "accumulate_tokens" value: { string_value: "${accumulate_tokens}" } }\n'
    models = {"tensorrt_llm": transaction, "tensorrt_llm_bls": transaction + tokens}
    found = render(models, wanted.parameters, wanted.profile.model_parameters)
    assert all("decoupled: true" in text for text in found.values())
    assert 'string_value: "true"' in found["tensorrt_llm_bls"]
    with pytest.raises(
        PlanError, match=r'decoupled_mode: found "True", expected true or false, without quotes'
    ):
        load_profile("smollm2-135m", {"repository": {"parameters": {"decoupled_mode": "True"}}})


def test_row_20_token_is_a_file_of_the_download_only() -> None:
    """BE docs/llama.md: gated weights. The token is in no argument and no environment, and no other step has it."""
    wanted = planned({"weights": {"gated": True}})
    assert [step.artifact.kind for step in wanted.steps if step.artifact.needs_token] == ["weights"]
    assert not any("TOKEN" in word for step in wanted.steps for word in words(step.artifact))
    assert "TOKEN" not in wanted.files["serve"]
    assert "HF_HUB_OFFLINE=1" in words_of(wanted.files["serve"])


def test_row_20_gated_profiles_are_marked_gated() -> None:
    """So that the token is asked for before anything is done."""
    for name in profile_names():
        wanted = load_profile(name)
        if wanted.kind != "plan" and wanted.weights.repository.startswith(("meta-llama/", "mistralai/")):
            assert wanted.gated, name


@pytest.fixture
def download() -> ModuleType:
    """files/image/download_weights.py, which runs in the serving image."""
    path = Path(__file__).parents[2] / "files/image/download_weights.py"
    spec = importlib.util.spec_from_file_location("download_weights", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("status", "had_token", "expected"),
    [
        (401, False, "HTTP 401, found no token, expected one with access; export HF_TOKEN"),
        (401, True, "found a token the hub does not know"),
        (403, True, "accept its licence on its page"),
    ],
)
def test_row_20_hub_refusal_says_what_to_do(
    download: ModuleType, capsys: pytest.CaptureFixture[str], status: int, had_token: bool, expected: str
) -> None:
    """General 401 threads: nothing says whether the token is missing, wrong, or without the licence."""
    error = RuntimeError("https://hub.invalid/?token=hf_CANARYcanary0123456789")
    error.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    assert (
        download.refused("owner/name", COMMIT, error, had_token) == 65
    )  # the same again, until somebody acts
    text = capsys.readouterr().err
    assert expected in text and "CANARY" not in text


def test_incompatible_formats_and_gpus_are_refused() -> None:
    """FP8 on a GPU without it, and a quantization that would need the network for its data."""
    fp8 = {"quantization": {"format": "fp8", "calibration": CALIBRATION}}
    assert "use int8_sq or int4_awq" in refusal({"checkpoint": fp8})
    assert Architecture.model_validate(LLAMA_8B)
    with pytest.raises(ValueError, match="a table calibration beside format fp8"):
        profile(checkpoint={"quantization": {"format": "fp8"}})
