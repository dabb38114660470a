"""Every malformed profile, override or setting that a person may write: refused in one line that says what to change.

The numbers M18 to M48 are those of the list of malformed inputs that the project was planned with.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from operations.plan.capacity.deployment import _BOUNDS, KEYS
from operations.plan.catalog.known_values import ENGINE, PARAMETERS, Whole
from operations.plan.catalog.server_options import DOCKER_OPTIONS, PLANNED_OPTIONS
from operations.plan.catalog.sources import DOCKERFILES
from operations.plan.catalog.template_parameters import PARAMETERS as TEMPLATES
from operations.plan.errors import PlanError
from operations.plan.inventory.settings import from_host_data
from operations.plan.planning import plan_release
from operations.plan.profile import profiles
from operations.plan.profile.model_repository import fill
from operations.plan.profile.profiles import EngineProfile, load_profile
from operations.plan.toml_file import DEEPEST, LARGEST_FILE
from operations.remote import host_files
from tests.unit.builders import CALIBRATION, DATA, DIGEST, gpu, profile, release, settings
from tests.unit.stubs import Stubs, lay_out, make_artifact

NAME = "smollm2-135m"
A100: dict[str, Any] = {
    "name": "NVIDIA A100-SXM4-40GB",
    "compute_capability": "8.0",
    "memory_total_mib": 40960,
}
SECRETS = ("CANARY", "hunter2")


@contextmanager
def refusing(*expected: str) -> Iterator[None]:
    """What runs inside ends in a PlanError: one line of bounded length, soon, with these words and no secret."""
    started = time.process_time()
    with pytest.raises(PlanError) as caught:
        yield
    text = str(caught.value)
    assert time.process_time() - started < 2
    assert text.isprintable() and len(text) < 4100
    for words in expected:
        assert words in text
    for secret in SECRETS:
        assert secret not in text


def refuse_profile(tables: dict[str, Any], *expected: str) -> None:
    """The lab's own profile with these tables over it is refused before any host is asked."""
    with refusing(f"inventories/models/{NAME}.toml", *expected):
        load_profile(NAME, tables)


def refuse_setting(key: str, value: Any, *expected: str) -> None:
    """The inventory's own data with one key changed."""
    with refusing("gpu-1: ", key, *expected):
        from_host_data({**DATA, key: value}, "gpu-1")


def refuse_plan(tables: dict[str, Any], *expected: str, count: int = 1, **changed: Any) -> None:
    """The lab's own profile with these tables over it, on so many GPUs: what only the GPUs can tell."""
    loaded = load_profile(NAME, tables)
    with refusing(*expected):
        plan_release(settings(), [gpu(index, **changed) for index in range(count)], "9", loaded)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own directory of profiles."""
    monkeypatch.setattr(profiles, "MODELS_DIRECTORY", tmp_path)
    return tmp_path


# --- M18 to M20: which model


@pytest.mark.requirement("M18")
@pytest.mark.parametrize("repository", ["", None, 5, [], {}])
def test_m18_model_without_a_name_is_refused(repository: object) -> None:
    refuse_profile({"weights": {"repository": repository}}, "weights.repository", "expected owner/name")


@pytest.mark.requirement("M19")
@pytest.mark.parametrize(
    "repository",
    [
        *[
            "../../etc/passwd",
            "/abs",
            "a//b",
            "a/b/c",
            "a/..",
            "../b",
            "a/b..c",
            ".a/b",
            "a/-b",
            "a b/c",
            "a/b\n",
        ],
        *["https://hub.invalid/a/b", "https://user:hunter2@hub.invalid/a/b", "user:hunter2@hub.invalid/a"],
        *[
            "https://user:hunter2@@hub.invalid/a//b",
            "ow\u043der/name",
            "$(reboot)/a",
            f"{'a' * 97}/b",
            "-a/b",
        ],
    ],
)
def test_m19_repository_must_be_owner_and_name(repository: str) -> None:
    refuse_profile({"weights": {"repository": repository}}, "weights.repository", "expected owner/name")


@pytest.mark.requirement("M19")
def test_m19_a_token_in_a_profile_is_not_shown() -> None:
    url = "https://user:hf_CANARYcanary0123456789@hub.invalid/a/b"
    refuse_profile({"weights": {"repository": url}}, "weights.repository", "no secret", "export HF_TOKEN")
    refuse_profile({"weights": {"hf_CANARYcanary0123456789": 1}}, "no secret")
    with refusing("expected a TOML file"):
        raise PlanError("x", "at hf_CANARYcanary0123456789", "a TOML file for hf_CANARYcanary0123456789")


@pytest.mark.requirement("M19")
def test_m19_a_password_in_a_mirror_s_url_is_not_shown() -> None:
    refuse_setting("hub_endpoint", "https://user:hunter2@mirror.invalid", "//(not shown)@mirror.invalid")
    refuse_setting("git_mirrors", {"https://github.com/": "https://u:hunter2@m.invalid/"}, "(not shown)@")
    refuse_setting("ssh_key_password", "hunter2", "no secret in an inventory", "use ssh-agent")


@pytest.mark.requirement("M20")
@pytest.mark.parametrize("revision", ["main", "v1.0", "b765c30", "b" * 41, "B" * 40, "", 7, True, None])
def test_m20_a_revision_is_a_whole_commit(revision: object) -> None:
    refuse_profile({"weights": {"revision": revision}}, "weights.revision", "expected a 40-hex commit")


# --- M21 to M23: keys and TOML itself


@pytest.mark.requirement("M21")
@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"repositry": {}}, "did you mean repository?"),
        ({"checkpoint": {"tensor_paralel": 2}}, "did you mean tensor_parallel?"),
        ({"server": {"x" * 100_000: 1}}, "unknown key xxx"),
        ({"a\nb\x1b[2J": 1}, "text without control characters"),
        ({"server": {"a\nb": 1}}, "unknown key a b"),
        ({"kind": ["engine"]}, 'kind: found ["engine"], expected one of engine, llmapi, plan'),
        ({"kind": None}, "kind: found nothing"),
        ({"weights": "owner/name"}, 'weights: found "owner/name", expected a table'),
        ({"golden": {"prompt": "x"}}, "golden"),
        ({"golden": "x"}, "golden"),
        ({"summary": "two\nlines"}, "one line of at most 200 characters"),
        ({"summary": ""}, "one line"),
        ({"hardware": {"shape": "x\n", "gpu": "y", "count": 1}}, "hardware.shape"),
        ({"server": {1: 2}}, "a table whose keys are text"),
    ],
)
def test_m21_unknown_key_or_table_is_refused(tables: dict[str, Any], expected: str) -> None:
    refuse_profile(tables, expected)


@pytest.mark.requirement("M21")
def test_m21_unknown_engine_flag_is_refused_with_a_suggestion() -> None:
    refuse_plan({"engine": {"max_batchsize": 8}}, "engine.max_batchsize", "did you mean max_batch_size?")


HEAD = 'kind = "engine"\nsummary = "x"\n'


@pytest.mark.requirement("M22")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'{HEAD}kind = "llmapi"\n', "a TOML file in UTF-8"),
        (f"{HEAD}[weights]\n[weights]\n", "a TOML file in UTF-8"),
        (f"{HEAD}[weights]\na.b = 1\na = 2\n", "a TOML file in UTF-8"),
        (f"{HEAD}golden = []\n[[golden]]\n", "a TOML file in UTF-8"),
        (f"{HEAD}released = 2024-10-01\n", "released: found 2024-10-01, expected text, a number"),
        (f"{HEAD}[engine]\nat = 07:32:00\n", "engine.at: found 07:32:00"),
        (f"{HEAD}[engine]\na = nan\n", "engine.a: found nan, expected a finite number"),
        (f"{HEAD}[engine]\na = [1, -inf]\n", "engine.a.1: found -inf, expected a finite number"),
        (f"{HEAD}[engine]\na = 9223372036854775808\n", "expected a number of at most 64 bits"),
        (f"{HEAD}[engine]\na = {'9' * 5000}\n", "a TOML file in UTF-8"),
        (
            f"{HEAD}[engine]\na = 0x{'f' * 5000}\n",
            "found an unprintable int, expected a number of at most 64",
        ),
        (f'{HEAD}a = "\\u0000"\n', "found the character U+0000, expected text without control characters"),
        (f"{HEAD}[weights]\ninclude = [1, 2]\n", "image: found nothing, expected a value"),
        (f"{HEAD}weights = []\n", "image: found nothing, expected a value"),
        ('["kind"]\n', "kind: found an empty table, expected one of"),
        ("", "kind: found nothing"),
        ("<<: *anchor\n", "a TOML file in UTF-8"),
    ],
)
def test_m22_invalid_toml_or_profile_content_is_refused(models: Path, text: str, expected: str) -> None:
    (models / "odd.toml").write_text(text, encoding="utf-8")
    with refusing("inventories/models/odd.toml", expected):
        load_profile("odd")


@pytest.mark.requirement("M22")
@pytest.mark.parametrize("codec", ["utf-16", "utf-32", "latin-1"])
def test_m22_another_encoding_is_refused(models: Path, codec: str) -> None:
    (models / "odd.toml").write_bytes(f'{HEAD}# \xe9\n[weights]\nrepository = "a/b"\n'.encode(codec))
    with refusing("inventories/models/odd.toml", "a TOML file in UTF-8"):
        load_profile("odd")


@pytest.mark.requirement("M22")
@pytest.mark.parametrize(
    ("mark", "ends"), [(b"\xef\xbb\xbf", b"\n"), (b"", b"\r\n"), (b"\xef\xbb\xbf", b"\r\n")]
)
def test_m22_windows_line_ends_and_marks_are_read(models: Path, mark: bytes, ends: bytes) -> None:
    text = (Path(profiles.__file__).parents[3] / f"inventories/models/{NAME}.toml").read_bytes()
    (models / "odd.toml").write_bytes(mark + text.replace(b"\n", ends))
    golden = load_profile("odd").golden[0]
    assert "\r" not in str(golden)


@pytest.mark.requirement("M23")
@pytest.mark.parametrize("release_", [24.1, 24.09, 2409, True, None, ["24.09"]])
def test_m23_release_without_quotes_is_refused(release_: object) -> None:
    refuse_profile({"image": {"release": release_}}, "image.release", 'in quotes, such as "24.10"')


# --- M24: images


@pytest.mark.requirement("M24")
@pytest.mark.parametrize(
    "base",
    [
        *["nvidia/tritonserver", "nvidia/tritonserver:latest", "nvidia/tritonserver:", ":24.09", "", 5],
        *[
            "http://nvcr.io/nvidia/tritonserver:24.09",
            "nvidia/tritonserver:24.09 --privileged",
            "-v/:1",
            "../x:1",
        ],
        *[
            f"nvidia/tritonserver@sha256:{'0' * 63}",
            f"nvidia/tritonserver:24.09@{DIGEST}",
            "Nvidia/X:1",
            "a/b:1\n",
        ],
    ],
)
def test_m24_an_image_is_a_name_and_a_tag_other_than_latest(base: object) -> None:
    refuse_profile({"image": {"base": base}}, "image.base", "name:tag", "latest", "sha256 digest")


@pytest.mark.requirement("M24")
@pytest.mark.parametrize("image", ["pgvector/pgvector:latest", "pgvector/pgvector", "http://x/y:1"])
def test_m24_database_image_needs_a_digest(image: str) -> None:
    with refusing("clip-search.toml: documents.image", "sha256 digest"):
        load_profile("clip-search", {"documents": {"image": image}})


@pytest.mark.requirement("M24")
@pytest.mark.parametrize(
    ("digests", "expected"),
    [
        ({"nvidia/x:1": f"sha256:{'0' * 63}"}, "image_digests.nvidia/x:1"),
        ({"nvidia/x:1": "latest"}, "image_digests.nvidia/x:1"),
        ({"nvidia/x:1": "0" * 64}, "image_digests.nvidia/x:1"),
        ({"nvcr.io/nvidia/x:1": DIGEST}, "without registry"),
        ({"localhost:5000/x:1": DIGEST}, "without registry"),
        ({"http://nvcr.io/x:1": DIGEST}, "without registry"),
        ({f"nvidia/x:1@{DIGEST}": DIGEST}, "without registry and digest"),
    ],
)
def test_m24_invalid_digests_are_refused(digests: dict[str, str], expected: str) -> None:
    refuse_setting("image_digests", digests, expected)


@pytest.mark.requirement("M24")
def test_m24_an_image_without_a_digest_is_not_pulled() -> None:
    with refusing(
        "image_digests['nvidia/tritonserver:24.09-trtllm-python-py3']", "sha256 digest", "tritonhost lock"
    ):
        release({"image_digests": {}})


# --- M25 to M28: GPUs


@pytest.mark.requirement("M25")
@pytest.mark.parametrize("size", [0, -1, 65, "8", True, 1.5, None, []])
@pytest.mark.parametrize("key", ["tensor_parallel", "pipeline_parallel"])
def test_m25_parallelism_is_a_small_number(key: str, size: object) -> None:
    refuse_profile({"checkpoint": {key: size}}, f"checkpoint.{key}")


@pytest.mark.requirement("M25")
@pytest.mark.parametrize("size", [0, -1, 65, "8", True, 1.5, None, []])
@pytest.mark.parametrize("key", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_m25_llm_api_parallelism_is_a_small_number(key: str, size: object) -> None:
    with refusing(f"llm.{key}: found ", "expected a whole number from 1 to 64"):
        load_profile("llama-3.1-8b-llmapi", {"llm": {key: size}})


@pytest.mark.requirement("M25")
@pytest.mark.parametrize(
    ("tensor", "pipeline", "count"), [(3, 1, 2), (9, 1, 8), (16, 1, 8), (3, 3, 8), (1, 16, 8)]
)
def test_m25_more_ranks_than_gpus_are_refused(tensor: int, pipeline: int, count: int) -> None:
    tables = {"checkpoint": {"tensor_parallel": tensor, "pipeline_parallel": pipeline}}
    expected = f"tensor parallel x pipeline parallel: found {tensor * pipeline}, expected at most {count}"
    refuse_plan(tables, expected, "use a larger shape or a smaller tensor_parallel", count=count)


@pytest.mark.requirement("M26")
def test_m26_ranks_that_cannot_share_the_heads_are_refused() -> None:
    tables = {"checkpoint": {"tensor_parallel": 2}}
    refuse_plan(tables, "num_attention_heads 9 is not divisible by tensor_parallel 2", "one of 1, 3", count=2)


@pytest.mark.requirement("M27")
@pytest.mark.parametrize("ids", [[0, 0], [-1], ["all", 0], [], [True], "0", [1024], [0.5], None, [10**5000]])
def test_m27_invalid_gpu_ids_are_refused(ids: object) -> None:
    refuse_setting("gpu_ids", ids)


@pytest.mark.requirement("M27")
def test_m27_gpu_missing_on_the_host_is_refused() -> None:
    with refusing("gpu_ids: found [8], expected indices from 0 to 0"):
        release({"gpu_ids": [8]})


@pytest.mark.requirement("M28")
@pytest.mark.parametrize("dtype", ["fp17", "fp16", "", 16, None, ["float16"]])
def test_m28_unknown_number_format_is_refused(dtype: object) -> None:
    refuse_profile({"checkpoint": {"dtype": dtype}}, "checkpoint.dtype")


@pytest.mark.requirement("M28")
def test_m28_fp8_needs_a_gpu_that_supports_it() -> None:
    tables = {"checkpoint": {"quantization": {"format": "fp8", "calibration": CALIBRATION}}}
    expected = "checkpoint.quantization.format: found fp8, expected a GPU of compute capability 8.9 or above"
    refuse_plan(
        tables, expected, "A100-SXM4-40GB has compute capability 8.0", "use int8_sq or int4_awq", **A100
    )


@pytest.mark.requirement("M28")
def test_m28_fp8_kv_cache_needs_a_gpu_that_supports_it() -> None:
    tables = {"checkpoint": {"quantization": {"format": "int8_wo", "kv_cache_dtype": "fp8"}}}
    refuse_plan(tables, "kv_cache_dtype: found fp8", "8.9 or above", **A100)


# --- M29 to M32: sizes


@pytest.mark.requirement("M29")
@pytest.mark.parametrize("value", [0, -1, 10**9, 1e9, True, False, "8", 8.0])
@pytest.mark.parametrize("key", ["max_batch_size", "max_beam_width", "tokens_per_block", "workers"])
def test_m29_engine_sizes_are_whole_numbers_within_bounds(key: str, value: object) -> None:
    refuse_profile({"engine": {key: value}}, f"engine.{key}", "a whole number", "from 1 to")


@pytest.mark.requirement("M29")
@pytest.mark.parametrize("value", [0, -1, 10**13, True, "8", 8.0])
@pytest.mark.parametrize(
    "key", ["triton_max_batch_size", "max_tokens_in_paged_kv_cache", "bls_instance_count"]
)
def test_m29_parameters_are_whole_numbers_within_bounds(key: str, value: object) -> None:
    tables = {"repository": {"parameters": {key: value}}}
    refuse_profile(tables, f"repository.parameters.{key}", "a whole number", "from 1 to")
    own = {"repository": {"model_parameters": {"tensorrt_llm": {key: value}}}}
    refuse_profile(own, f"repository.model_parameters.tensorrt_llm.{key}", "a whole number")


@pytest.mark.requirement("M29")
@pytest.mark.parametrize("value", [0, -1, 10**10, True, "8"])
def test_m29_llm_api_sizes_are_whole_numbers_within_bounds(value: object) -> None:
    with refusing("llm.max_batch_size", "a whole number of requests from 1 to 1048576"):
        load_profile("llama-3.1-8b-llmapi", {"llm": {"max_batch_size": value}})


@pytest.mark.requirement("M29")
@pytest.mark.parametrize("key", ["calibration_size", "calibration_batch", "awq_block_size"])
@pytest.mark.parametrize("value", [0, -1, 10**9, True, "8"])
def test_m29_quantization_sizes_are_whole_numbers(key: str, value: object) -> None:
    refuse_profile({"checkpoint": {"quantization": {"format": "int8_wo", key: value}}}, f"quantization.{key}")


@pytest.mark.requirement("M29")
def test_m29_bounds_match_the_forecast_s() -> None:
    """A value that the one accepts is no surprise to the other."""
    for field, (low, high) in _BOUNDS.items():
        key = KEYS["engine"].get(field, "")
        table, _, name = key.rpartition(".")
        known = {"engine": ENGINE, "repository.parameters": PARAMETERS}.get(table, {}).get(name)
        if isinstance(known, Whole):
            assert (known.low, known.high) == (low, high), key


@pytest.mark.requirement("M30")
@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"max_input_len": 2048, "max_seq_len": 2048}, "less than max_seq_len, which is 2048"),
        (
            {"max_input_len": 4096},
            "less than max_seq_len, which is 2048 and counts input and output together",
        ),
        ({"max_seq_len": 0}, "engine.max_seq_len"),
        ({"max_seq_len": "long"}, "a whole number of tokens"),
    ],
)
def test_m30_contradicting_lengths_are_refused(tables: dict[str, Any], expected: str) -> None:
    refuse_profile({"engine": tables}, expected)


@pytest.mark.requirement("M30")
def test_m30_sequences_beyond_the_positions_are_refused() -> None:
    refuse_plan({"engine": {"max_seq_len": 8193}}, "engine.max_seq_len: found 8193, expected at most 8192")


@pytest.mark.requirement("M31")
@pytest.mark.parametrize("value", [0, 1.5, -0.1, float("nan"), float("inf"), "90%", "0.9", True, 0.0])
def test_m31_memory_fraction_is_above_0_and_up_to_1(value: object) -> None:
    expected = (
        "a finite number" if value != value or value == float("inf") else "a number above 0 and up to 1"
    )
    tables = {"repository": {"parameters": {"kv_cache_free_gpu_mem_fraction": value}}}
    refuse_profile(tables, "repository.parameters.kv_cache_free_gpu_mem_fraction", expected)
    with refusing("llm.kv_cache_config.free_gpu_memory_fraction" if value == value else "llm", expected):
        load_profile("llama-3.1-8b-llmapi", {"llm": {"kv_cache_config": {"free_gpu_memory_fraction": value}}})


@pytest.mark.requirement("M32")
def test_m32_weights_larger_than_any_gpu_are_refused() -> None:
    expected = (
        "checkpoint.tensor_parallel: found 1: 256.6 MiB of weights for each GPU, expected at most 200.0 MiB"
    )
    refuse_plan(
        {}, expected, "use quantization to fewer bits", "a GPU with more memory", memory_total_mib=200
    )


@pytest.mark.requirement("M32")
def test_m32_cache_below_one_sequence_is_refused() -> None:
    tables = {"repository": {"parameters": {"max_tokens_in_paged_kv_cache": 1024}}}
    refuse_plan(tables, "max_tokens_in_paged_kv_cache: found 1024", "lower engine.max_seq_len")


# --- M33 and M34: ports and addresses


@pytest.mark.requirement("M33")
@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        (
            {"http_port": 9000, "grpc_port": 9000, "metrics_port": 9000},
            "http_port and grpc_port are both 9000",
        ),
        ({"http_port": 9000, "metrics_port": 9000}, "http_port and metrics_port are both 9000"),
        ({"grpc_port": 9000, "metrics_port": 9000}, "grpc_port and metrics_port are both 9000"),
    ],
)
def test_m33_ports_used_twice_are_refused(ports: dict[str, int], expected: str) -> None:
    refuse_profile({"server": ports}, expected)
    with refusing("gpu-1", expected):
        from_host_data({**DATA, **ports}, "gpu-1")


@pytest.mark.requirement("M33")
@pytest.mark.parametrize("port", [22, 80, 1023, 0, -1, 65536, 10**30, "8000", 8000.5, True])
@pytest.mark.parametrize("key", ["http_port", "grpc_port", "metrics_port"])
def test_m33_unusable_port_is_refused(key: str, port: object) -> None:
    refuse_profile({"server": {key: port}}, f"server.{key}")
    refuse_setting(key, port)


@pytest.mark.requirement("M33")
def test_m33_inventory_port_equal_to_a_profile_port_is_refused() -> None:
    with refusing("http_port, grpc_port, metrics_port: found 8002, 8001, 8002"):
        release({"http_port": 8002})


@pytest.mark.requirement("M34")
@pytest.mark.parametrize("address", ["0.0.0.0", "8.8.8.8", "140.238.1.2"])
def test_m34_public_address_needs_expose(address: str) -> None:
    refuse_setting("bind_address", address, f"refusing the public bind {address} without expose=True")
    said = {"bind_address": address, "expose": True, "allowed_sources": ["10.0.0.0/8"]}
    assert from_host_data({**DATA, **said}, "gpu-1").bind_address == address


@pytest.mark.requirement("M34")
@pytest.mark.parametrize(
    "address", ["0.0.0.00", "00.0.0.0", "0", "127.1", "::", "", "10.0.0.1\n", "10.0.0.1/8", 5]
)
def test_m34_unsupported_address_notation_is_refused(address: object) -> None:
    refuse_setting("bind_address", address)


# --- M35: names of models

HOMOGLYPH = "en\u0455emble"


@pytest.mark.requirement("M35")
@pytest.mark.parametrize(
    "name", ["", "/", "..", "../x", "a b", "x" * 256, HOMOGLYPH, "ensembel", "Ensemble", 5, None]
)
def test_m35_model_without_a_template_is_refused(name: object) -> None:
    refuse_profile({"repository": {"models": ["preprocessing", name]}}, "repository.models")


@pytest.mark.requirement("M35")
def test_m35_similar_model_name_is_suggested() -> None:
    refuse_profile({"repository": {"models": ["ensembel"]}}, "ensembel is none; did you mean ensemble?")


@pytest.mark.requirement("M35")
@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([], "postprocessing, preprocessing, tensorrt_llm too"),
        ("ensemble", "repository.models"),
        (["ensemble", "preprocessing", "postprocessing"], "tensorrt_llm too"),
        (["preprocessing", "postprocessing", "tensorrt_llm"], "ensemble or tensorrt_llm_bls too"),
        ([*sorted(TEMPLATES), "ensemble"], "each model once"),
    ],
)
def test_m35_models_that_cannot_answer_are_refused(models: Any, expected: str) -> None:
    refuse_profile({"repository": {"models": models}}, expected)


@pytest.mark.requirement("M35")
@pytest.mark.parametrize("name", ["", "..", "a b", HOMOGLYPH, "*"])
def test_m35_loaded_and_queried_models_are_in_the_repository(name: str) -> None:
    refuse_profile({"server": {"load_models": [name]}}, "expected one of the repository's models")
    golden = [{"model": name, "prompt": "x", "max_tokens": 1, "expect": ""}]
    refuse_profile({"golden": golden}, "expected one of the repository's models")
    refuse_profile(
        {"repository": {"model_parameters": {name: {}}}}, "expected one of the repository's models"
    )


# --- M36: out of the place that a value is put into

BREAKING_OUT = ['x" } instance_group {', "8\n}", "x\\", "${engine_dir}", 'x"', "a\x00b", "a\x1b[2J", "\u2028"]


@pytest.mark.requirement("M36")
@pytest.mark.parametrize("value", BREAKING_OUT)
@pytest.mark.parametrize("key", ["gpu_device_ids", "medusa_choices", "lora_prefetch_dir"])
def test_m36_parameter_that_breaks_the_config_is_refused(key: str, value: str) -> None:
    refuse_profile({"repository": {"parameters": {key: value}}}, f"repository.parameters.{key}")
    tables = {"repository": {"model_parameters": {"tensorrt_llm": {key: value}}}}
    refuse_profile(tables, f"repository.model_parameters.tensorrt_llm.{key}")


@pytest.mark.requirement("M36")
@pytest.mark.parametrize("value", [value for value in BREAKING_OUT if "$" not in value and value != "\u2028"])
def test_m36_template_refuses_the_value_too(value: str) -> None:
    for line in ('value: "${a}"', "size: ${a}"):
        with refusing("m/config.pbtxt line 1: a"):
            fill("m", line, {"a": value})


@pytest.mark.requirement("M36")
@pytest.mark.parametrize("value", ["8 }", "${b}", "", "a b", '"'])
def test_m36_a_bare_placeholder_takes_one_word(value: str) -> None:
    with refusing("m/config.pbtxt line 1: a"):
        fill("m", "size: ${a}", {"a": value})


@pytest.mark.requirement("M36")
@pytest.mark.parametrize(
    ("table", "value", "expected"),
    [
        *[("engine", value, "one line of text") for value in ("a\nb", "a\tb", "a\u2028b")],
        *[("flags", value, "one line of text") for value in ("a\nb", "a\u202eb")],
        ("engine", "--output_dir=/", "a value that does not begin with -"),
        ("flags", "-x", "a value that does not begin with -"),
        ("engine", [1], "a value, or a list of texts"),
        ("engine", ["a"], "one value: lora_dir and lora_target_modules alone take a list"),
        ("engine", {"a": 1}, "text, a finite number, true or false"),
        ("engine", None, "text, a finite number, true or false"),
        ("engine", "x" * 2000, "one line of text"),
    ],
)
def test_m36_invalid_flag_value_is_refused(table: str, value: object, expected: str) -> None:
    tables = {"gemm_plugin": value}
    refuse_profile({"engine": tables} if table == "engine" else {"checkpoint": {"flags": tables}}, expected)


@pytest.mark.requirement("M36")
@pytest.mark.parametrize("name", ["--gemm_plugin", "gemm plugin", "", "a=b", "x" * 101])
def test_m36_invalid_flag_name_is_refused(name: str) -> None:
    refuse_profile({"engine": {name: 1}}, "a flag's name without dashes in front")
    refuse_profile({"checkpoint": {"flags": {name: 1}}}, "a flag's name without dashes in front")


@pytest.mark.requirement("M36")
@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        (
            {"engine": {"output_dir": "/etc"}},
            'engine.output_dir: found "/etc", expected nothing, because the plan',
        ),
        ({"engine": {"checkpoint_dir": "/"}}, "because the plan sets it"),
        ({"engine": {"tp_size": 2}}, "say checkpoint.tensor_parallel"),
        ({"checkpoint": {"flags": {"model_dir": "/"}}}, "because the plan sets it"),
        ({"checkpoint": {"flags": {"tp_size": 2}}}, "say checkpoint.tensor_parallel"),
        ({"checkpoint": {"flags": {"pp_size": 2}}}, "say checkpoint.pipeline_parallel"),
        ({"checkpoint": {"flags": {"dtype": "float32"}}}, "say checkpoint.dtype"),
        ({"checkpoint": {"flags": {"qformat": "fp8"}}}, "say checkpoint.quantization.format"),
        (
            {"checkpoint": {"quantization": {"format": "int8_wo"}, "flags": {"awq_block_size": 64}}},
            "say checkpoint.quantization.awq_block_size",
        ),
        ({"repository": {"parameters": {"engine_dir": "/etc"}}}, "because the plan sets it"),
        ({"repository": {"model_parameters": {"preprocessing": {"tokenizer_dir": "/"}}}}, "because the plan"),
        ({"checkpoint": {"flags": {"moe_tp_mode": "x"}}}, "a whole number from 1 to 2"),
        ({"checkpoint": {"flags": {"use_weight_only": "yes"}}}, "true or false, without quotes"),
        ({"checkpoint": {"flags": {"weight_only_precision": "int5"}}}, "did you mean int8?"),
        ({"engine": {"remove_input_padding": True}}, "one of enable, disable"),
        ({"repository": {"parameters": {"decoupled_mode": "yes"}}}, "true or false, without quotes"),
        ({"repository": {"parameters": {"batching_strategy": "inflight"}}}, "one of inflight_fused_batching"),
        ({"repository": {"parameters": {"max_attention_window_size": "a,b"}}}, "a whole number of tokens"),
    ],
)
def test_m36_text_a_script_would_misread_is_refused(tables: dict[str, Any], expected: str) -> None:
    refuse_profile(tables, expected)


@pytest.mark.requirement("M36")
def test_m36_a_prompt_may_have_lines() -> None:
    loaded = load_profile(NAME, {"golden": [{"prompt": "a\nb", "max_tokens": 1, "expect": ""}]})
    assert isinstance(loaded, EngineProfile)
    assert loaded.golden[0].prompt == "a\nb"


# --- M37: what ends up in scripts and units

ODD = ["%n", "$HOME", "a\\b", "`reboot`", "$(reboot)", "'", '"', "a;b", "&", "#", "*", "!!", "~", "é"]


@pytest.mark.requirement("M37")
def test_m37_odd_values_reach_the_server_unchanged(stubs: Stubs, tmp_path: Path) -> None:
    wanted = release(
        {"tritonserver_arguments": [f"--rate-limit-resource={value}" for value in ODD]},
        {
            "server": {
                "arguments": [f"--id={value}" for value in ODD],
                "environment": {f"ODD_{n}": f"{value} {value}" for n, value in enumerate(ODD)},
            }
        },
    )
    # docker, which writes down what it is asked for, one word a line
    stubs.add(
        "docker",
        'case $1 in image | network) exit 0 ;; run) ;; *) exit 1 ;; esac\nfor word in "$@"; do printf "%s\\n" "$word"; done',
    )
    stubs.add("stat", "echo 1")
    # the script's own paths, and what it looks at before it runs anything
    script = wanted.files["serve"].replace(wanted.data_root, str(tmp_path))
    lay_out(tmp_path / "releases/r", {"serve": script})
    for path in wanted.mounts:
        make_artifact(tmp_path / Path(path).relative_to(wanted.data_root))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / wanted.image.key).write_text("sha256:1\n", encoding="utf-8")
    done = stubs.run(tmp_path / "releases/r/serve", HOME="/root")
    assert (done.returncode, done.stderr) == (0, "")
    words = done.stdout.splitlines()
    assert [word for word in words if word.startswith("--rate-limit-resource=")] == [
        f"--rate-limit-resource={value}" for value in ODD
    ]
    assert [word for word in words if word.startswith("--id=")] == [f"--id={value}" for value in ODD]
    environment = [word for word in words if word.startswith("ODD_")]
    assert environment == [f"ODD_{n}={value} {value}" for n, value in enumerate(ODD)]


@pytest.mark.requirement("M37")
@pytest.mark.parametrize("value", ["$id", "a$release/b", "$id$id", "$image", "x=$key"])
def test_m37_variables_of_the_serve_script_are_refused(value: str) -> None:
    expected = "without $release, $id, $image and $key"
    refuse_profile(
        {"server": {"arguments": [f"--rate-limit-resource={value}"]}}, "server.arguments.0", expected
    )
    refuse_profile({"server": {"environment": {"LOG_FILE": value}}}, "environment.LOG_FILE", expected)
    refuse_setting("tritonserver_arguments", [f"--rate-limit-resource={value}"], expected)


@pytest.mark.requirement("M37")
def test_m37_build_commands_quote_profile_values() -> None:
    wanted = release(tables={"engine": {"gemm_plugin": "a 'b' $(reboot) %n \\"}})
    body = wanted.artifact("engine").body()
    assert "a 'b' $(reboot) %n \\" in shlex.split(body.removeprefix("make_it() {\n").removesuffix("}\n"))


@pytest.mark.requirement("M37")
@pytest.mark.parametrize(
    "name", ["%n", "$HOME", "a\\b", "Triton", "triton\n", "triton;reboot", "", "-t", "a" * 33, "é"]
)
def test_m37_invalid_service_name_is_refused(name: str) -> None:
    refuse_setting("service_name", name)


@pytest.mark.requirement("M37")
@pytest.mark.parametrize(
    "root",
    ["/var/%n", "/var/$HOME", "/var/a\\b", "/var/a b", "/var/lib\n", "/run/x", "/tmp/x", "/etc/x", "/proc/1"],
)
def test_m37_special_or_temporary_data_root_is_refused(root: str) -> None:
    refuse_setting("data_root", root)


@pytest.mark.requirement("M37")
@pytest.mark.parametrize("name", ["triton", "a-1"])
def test_m37_unit_has_no_specifier_or_variable_of_a_value(name: str) -> None:
    wanted = plan_release(settings(service_name=name, data_root="/mnt/nvme-0/a_b.c"), [gpu()])
    unit = host_files.rendered(wanted)[host_files.paths(wanted.settings).unit].text
    assert "%" not in unit.replace("$MAINPID", "")
    assert "ExecStart=/bin/sh /mnt/nvme-0/a_b.c/current/serve" in unit


@pytest.mark.requirement("M37")
@pytest.mark.parametrize(
    "url", ["https://x/\n[evil]", "https://x/ y", "https://x/`a`", "https://x/'", "https://x/\\"]
)
def test_m37_a_url_cannot_add_a_line_to_a_repository_file(url: str) -> None:
    refuse_setting("docker_repository_url", url)


@pytest.mark.requirement("M37")
@pytest.mark.parametrize("name", ["--setopt=x", "a b", "a;reboot", "", "a\n"])
def test_m37_package_name_cannot_be_a_dnf_option(name: str) -> None:
    refuse_setting("docker_packages", {name: "1-1"})


# --- M38 and M39: the server's environment and options


@pytest.mark.requirement("M38")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *[(name, "capital letters") for name in ("A=B", "a", "", "1A", "A B", "A\n", "A-B", "É")],
        *[
            (name, "it changes which code runs")
            for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH")
        ],
        *[
            (name, "no secret")
            for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET", "DB_PASSWORD")
        ],
        *[(name, "gpu_ids") for name in ("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")],
        ("HF_HUB_OFFLINE", "a server downloads nothing"),
        ("HOME", "the one place that the server can write to"),
        ("AIP_MODE", "which has no restrictions"),
    ],
)
def test_m38_forbidden_variable_is_refused(name: str, expected: str) -> None:
    refuse_profile({"server": {"environment": {name: "x"}}}, "server.environment", expected)


@pytest.mark.requirement("M38")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("hf_CANARYcanary0123456789", "no secret"),
        ("x=hf_CANARYcanary0123456789", "no secret"),
        ("a\nb", "one line of text"),
        ("x" * 5000, "one line of text"),
        (5, "server.environment.OMP_NUM_THREADS"),
        (True, "server.environment.OMP_NUM_THREADS"),
        (None, "server.environment.OMP_NUM_THREADS"),
    ],
)
def test_m38_invalid_variable_value_is_refused(value: object, expected: str) -> None:
    refuse_profile({"server": {"environment": {"OMP_NUM_THREADS": value}}}, expected)


@pytest.mark.requirement("M38")
def test_m38_token_is_refused_in_a_profile_made_in_python() -> None:
    with pytest.raises(ValueError, match="no secret"):
        profile(server={"environment": {"NAME": "hf_CANARYcanary0123456789"}})


@pytest.mark.requirement("M38")
def test_m38_variables_that_tune_are_allowed() -> None:
    allowed = {"NCCL_DEBUG": "INFO", "TOKENIZERS_PARALLELISM": "false", "OMPI_MCA_btl": "tcp"}
    allowed = {name.upper(): value for name, value in allowed.items()}
    assert profile(server={"environment": allowed}).server.environment == allowed


def refuse_option(option: object, *expected: str) -> None:
    """In a profile as in an inventory."""
    refuse_profile({"server": {"arguments": [option]}}, "server.arguments.0", *expected)
    refuse_setting("tritonserver_arguments", [option], "tritonserver_arguments.0", *expected)


@pytest.mark.requirement("M39")
@pytest.mark.parametrize("name", PLANNED_OPTIONS)
def test_m39_option_set_by_the_plan_is_refused_with_its_key(name: str) -> None:
    for option in (f"--{name}=x", f"--{name}", f"--{name[:-1]}=x"):
        refuse_option(option, f"as it sets --{name}", "; say ")


@pytest.mark.requirement("M39")
def test_m39_shared_memory_prefix_of_a_rank_is_refused() -> None:
    refuse_option("--backend-config=python,shm-region-prefix-name=x", "shm-region-prefix-name")
    assert release({"tritonserver_arguments": ["--backend-config=python,shm-default-byte-size=1048576"]})


@pytest.mark.requirement("M39")
@pytest.mark.parametrize("name", DOCKER_OPTIONS)
def test_m39_an_option_of_docker_is_refused_by_name(name: str) -> None:
    for option in (f"--{name}", f"--{name}=host", f"-{name}", f"-{name}=/:/h"):
        refuse_option(option, f"--{name} is docker's; say ")


@pytest.mark.requirement("M39")
@pytest.mark.parametrize(
    ("option", "expected"),
    [
        *[(o, "--name=value") for o in ("-x /:/h", "-x", "x", "--log verbose", "; reboot", "", "--", "--=x")],
        # without a value tritonserver takes the next word for it
        ("--allow-metrics", "--name=value"),
        ("--rate-limit-resource=a b", "--name=value"),
        ("--rate-limit-resource=a\nb", "--name=value"),
        ("--rate-limit-resource=\u202e", "--name=value"),
        ("--Log=1", "--name=value"),
        ("--rate-limit-resource=/var/run/docker.sock", "docker engine"),
        (5, "found 5, expected an option of tritonserver"),
        (None, "found nothing, expected an option of tritonserver"),
    ],
)
def test_m39_an_option_is_a_name_and_a_value_in_one_word(option: object, expected: str) -> None:
    refuse_option(option, expected)


@pytest.mark.requirement("M39")
def test_m39_options_are_a_list() -> None:
    refuse_profile(
        {"server": {"arguments": "--log-verbose=1"}}, 'server.arguments: found "--log-verbose=1"', "list"
    )
    refuse_setting("tritonserver_arguments", "--log-verbose=1", "list")


# --- M40 and M41: code and files of a model's repository


@pytest.mark.requirement("M40")
@pytest.mark.parametrize("value", [True, "true", 1, "a" * 40])
def test_m40_code_of_a_model_s_repository_is_not_run(value: object) -> None:
    expected = "trust_remote_code", "code of a model's repository is not run", "reviewed or not"
    refuse_profile({"checkpoint": {"flags": {"trust_remote_code": value}}}, *expected)
    refuse_profile({"engine": {"trust_remote_code": value}}, *expected)
    refuse_profile({"repository": {"parameters": {"trust_remote_code": value}}}, *expected)
    with refusing(*expected[1:]):
        load_profile("llama-3.1-8b-llmapi", {"llm": {"a": [{"trust_remote_code": value}]}})


@pytest.mark.requirement("M40")
@pytest.mark.parametrize("value", ["true", 1, "a" * 40])
def test_m40_trust_remote_code_is_true_or_false(value: object) -> None:
    with refusing("llm.trust_remote_code", "true or false"):
        load_profile("llama-3.1-8b-llmapi", {"llm": {"trust_remote_code": value}})


@pytest.mark.requirement("M40")
def test_m40_code_is_run_only_at_the_commit_that_was_reviewed() -> None:
    revision = load_profile("llama-3.1-8b-llmapi").weights.revision  # type: ignore[union-attr]
    run = {"llm": {"trust_remote_code": True}}
    with refusing("llm.trust_remote_code", "weights.code_revision", "were reviewed"):
        load_profile("llama-3.1-8b-llmapi", run)
    for other, expected in (
        ("main", "40-hex commit"),
        ("a" * 40, revision),
        (revision[:12], "40-hex commit"),
    ):
        with refusing("weights.code_revision", expected):
            load_profile("llama-3.1-8b-llmapi", {**run, "weights": {"code_revision": other}})
    reviewed = load_profile("llama-3.1-8b-llmapi", {**run, "weights": {"code_revision": revision}})
    assert (
        json.loads(reviewed.model_files("/weights")["tensorrt_llm/1/model.yaml"])["trust_remote_code"] is True
    )


@pytest.mark.requirement("M40")
@pytest.mark.parametrize("pattern", ["*.py", "modeling_x.py", "MODEL.PY", "lib*.so", "run.sh"])
def test_m40_programs_are_not_downloaded_by_a_pattern(pattern: str) -> None:
    refuse_profile({"weights": {"include": ["*.safetensors", pattern]}}, "weights.include", "no programs")


@pytest.mark.requirement("M40")
def test_m40_trust_remote_code_false_is_accepted() -> None:
    assert load_profile("llama-3.1-8b-llmapi", {"llm": {"trust_remote_code": False}})


PICKLES = [
    "*",
    "**",
    "*.*",
    "?*",
    "*.bin",
    "*.[b]in",
    "pytorch_model*",
    "pytorch_model.bin",
    "*.pth",
    "*.pt",
    "*.pkl",
    "*.PKL",
    "model.pickle",
    "*.joblib",
]


@pytest.mark.requirement("M41")
@pytest.mark.parametrize("pattern", [*PICKLES, "original/*", "*.ckpt", "*in", "*[!x]"])
def test_m41_pattern_that_matches_pickles_is_refused(pattern: str) -> None:
    refuse_profile({"weights": {"include": [pattern]}}, "no pickles", "allow_pickle = true")


@pytest.mark.requirement("M41")
@pytest.mark.parametrize(
    "include", ["*.safetensors", [], [""], ["/etc/*"], ["../*.json"], ["a\nb"], [5], None, {}]
)
def test_m41_patterns_are_a_list_of_names_inside_the_repository(include: object) -> None:
    refuse_profile({"weights": {"include": include}}, "weights.include")


@pytest.mark.requirement("M41")
def test_m41_dataset_patterns_may_not_be_empty() -> None:
    tables = {
        "checkpoint": {"quantization": {"format": "fp8", "calibration": {**CALIBRATION, "include": []}}}
    }
    refuse_profile(tables, "calibration.include")


# --- M44, M45 and M47: times, releases and golden requests


@pytest.mark.requirement("M44")
@pytest.mark.parametrize("value", ["10 minutes", -5, 0, 10**12, 1e12, True, None, 30.5, "60"])
@pytest.mark.parametrize(
    ("key", "bounds"), [("start_timeout_s", "10 to 7200"), ("stop_timeout_s", "5 to 600")]
)
def test_m44_times_are_whole_seconds_within_bounds(key: str, bounds: str, value: object) -> None:
    refuse_setting(key, value, f"a whole number of seconds from {bounds}")


@pytest.mark.requirement("M44")
@pytest.mark.parametrize("value", ["1 ms", -5, 10**12, 0.5, True])
def test_m44_delay_is_in_whole_microseconds(value: object) -> None:
    tables = {"repository": {"parameters": {"max_queue_delay_microseconds": value}}}
    refuse_profile(tables, "a whole number of microseconds from 0 to")


@pytest.mark.requirement("M45")
@pytest.mark.parametrize("value", [0, 1, -1, 51, "3", True, 2.5, None])
def test_m45_keep_releases_has_bounds(value: object) -> None:
    refuse_setting("keep_releases", value, "from 2 to 50", "one of them to roll back to")


@pytest.mark.requirement("M47")
@pytest.mark.parametrize(
    ("golden", "expected"),
    [
        ([], "golden"),
        ([{"max_tokens": 8, "expect": ""}], "golden.0.prompt: found nothing, expected a value"),
        ([{"prompt": "", "max_tokens": 8, "expect": ""}], "golden.0.prompt"),
        (
            [{"prompt": "x", "max_tokens": 8}],
            "golden.0.expect: found nothing, expected a value; add golden.0",
        ),
        ([{"prompt": "x", "expect": ""}], "golden.0.max_tokens"),
        ([{"prompt": "x", "max_tokens": 0, "expect": ""}], "golden.0.max_tokens"),
        ([{"prompt": "x", "max_tokens": True, "expect": ""}], "golden.0.max_tokens"),
        ([{"prompt": "x", "max_tokens": 10**6, "expect": ""}], "golden.0.max_tokens"),
        ([{"prompt": 5, "max_tokens": 1, "expect": ""}], "golden.0.prompt"),
    ],
)
def test_m47_release_without_a_golden_request_is_refused(golden: list[Any], expected: str) -> None:
    refuse_profile({"golden": golden}, expected)


@pytest.mark.requirement("M47")
@pytest.mark.parametrize("golden", [{"expect": "x"}, {"text": "a"}, {"text": "a", "expect": ""}])
def test_m47_search_without_a_usable_golden_is_refused(golden: dict[str, str]) -> None:
    with refusing("clip-search.toml: golden.0"):
        load_profile("clip-search", {"golden": [golden]})


# --- the container's memory


@pytest.mark.parametrize("size", ["64m", "512m", "0g", "2 GB", "2G", "9999999999g", "", 2, None, "2g\n"])
def test_shm_size_has_bounds(size: object) -> None:
    refuse_profile(
        {"server": {"shm_size": size}}, "server.shm_size", "a size from 1024m to 1024g, such as 2g"
    )


@pytest.mark.parametrize(("key", "value"), [("stack_bytes", 65536), ("stack_bytes", 2**50), ("memlock", -2)])
def test_process_limits_have_bounds(key: str, value: int) -> None:
    refuse_profile({"server": {key: value}}, f"server.{key}")


# --- M48: files that are none, and files without an end


@pytest.mark.requirement("M48")
def test_m48_file_of_100_megabytes_is_refused(models: Path) -> None:
    with (models / "odd.toml").open("wb") as file:
        file.truncate(100 * 2**20)
    with refusing("odd.toml: found a larger file", f"at most {LARGEST_FILE} bytes"):
        load_profile("odd")


@pytest.mark.requirement("M48")
def test_m48_directory_is_refused(models: Path) -> None:
    (models / "odd.toml").mkdir()
    with refusing("odd.toml", "a regular file"):
        load_profile("odd")


@pytest.mark.requirement("M48")
def test_m48_fifo_is_refused(models: Path) -> None:
    os.mkfifo(models / "odd.toml")
    with refusing("odd.toml: found something else, expected a regular file"):
        load_profile("odd")


@pytest.mark.requirement("M48")
@pytest.mark.parametrize("target", ["nowhere", "odd.toml", "/dev/zero", "/dev/null"])
def test_m48_symbolic_link_to_a_non_file_is_refused(models: Path, target: str) -> None:
    (models / "odd.toml").symlink_to(target)
    with refusing("odd.toml", "a regular file"):
        load_profile("odd")


@pytest.mark.requirement("M48")
def test_m48_unreadable_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by the file system; root, who may run the tests, reads everything, and asks as nobody."""
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # one that nobody may look into: pytest's own is its user's alone
        os.chmod(folder, 0o755)
        monkeypatch.setattr(profiles, "MODELS_DIRECTORY", Path(folder))
        file = Path(folder, "odd.toml")
        file.touch(mode=0o000)
        file.chmod(0o000)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)
            with pytest.raises(PlanError) as caught:
                load_profile("odd")
        finally:
            os.seteuid(user)
    text = str(caught.value)
    assert text.startswith("inventories/models/odd.toml: found Permission denied, expected a regular file")
    assert "that can be read" in text and text.isprintable()


SIZE = LARGEST_FILE - 100


@pytest.mark.requirement("M48")
@pytest.mark.parametrize(
    "text",
    [
        f"a = {'[' * 10_000}{']' * 10_000}",
        f"a = {'{a = ' * 5_000}1{'}' * 5_000}",
        f"a = {'[' * 200}{']' * 200}",
        # the square of its length in time and memory, for tomllib
        f"{'a.' * (SIZE // 2)}a = 1",
        f"[{'a.' * (SIZE // 2)}a]",
        f"[[{'a . ' * (SIZE // 4)}a]]",
        f"""{'"a".' * (SIZE // 4)}a = 1""",
        "".join(f"{'a.' * DEEPEST}b{n} = 1\n" for n in range(1500)),
        f"a = {'9' * 5000}",
        f"a = [{'1,' * (SIZE // 2)}]",
        f'a = "{"x" * SIZE}',
        "[[golden]]\n" * (SIZE // 11),
        f"{'a' * SIZE} = 1",
        r'"\"".' * (SIZE // 5) + "a = 1",
        r'"\\".' * (SIZE // 5) + "a = 1",
        "'a'." * (SIZE // 4) + "a = 1",
        'a = "' + r"\"" * (SIZE // 2) + '"\n"',
        'a = "' + r"\\" * (SIZE // 2) + '"\n"',
        "'" * SIZE,
        '"' * SIZE,
        f"{'a ' * (SIZE // 2)}",
        "\n" * SIZE,
    ],
)
def test_m48_text_that_parses_too_slowly_is_refused(models: Path, text: str) -> None:
    (models / "odd.toml").write_text(f'kind = "engine"\n{text}', encoding="utf-8")
    with refusing("odd.toml"):
        load_profile("odd")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def endless() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["a"] = value
    return value


def doubling() -> list[Any]:
    """A billion laughs: few lists, many values."""
    value: list[Any] = [1] * 10
    for _ in range(9):
        value = [value] * 10
    return value


@pytest.mark.requirement("M48")
@pytest.mark.parametrize(
    "value",
    [nested(100_000), nested(50), endless(), doubling(), 10**5000, {1, 2}, b"x", object()],
    ids=lambda value: type(value).__name__,
)
def test_m48_overrides_toml_cannot_hold_are_refused(value: Any) -> None:
    refuse_profile({"engine": value})
    refuse_profile({"weights": {"include": [value]}})
    refuse_profile({"summary": value})


@pytest.mark.requirement("M48")
@pytest.mark.parametrize(
    "value", [10**5000, nested(100_000), endless(), object()], ids=["int", "nested", "endless", "object"]
)
def test_m48_settings_that_cannot_be_printed_are_refused(value: Any) -> None:
    for key in (
        "start_timeout_s",
        "gpu_ids",
        "model",
        "http_port",
        "bind_address",
        "tritonserver_arguments",
        "docker_daemon_settings",
    ):
        refuse_setting(key, value)


def test_every_profile_is_still_planned() -> None:
    for name in profiles.profile_names():
        loaded = load_profile(name)
        hardware = loaded.hardware
        count = hardware.count if hardware else 1
        images = [f"nvidia/tritonserver:{loaded.image.release}-trtllm-python-py3", loaded.image.base]
        images += [file.base for file in DOCKERFILES.values()]
        digests = dict.fromkeys([image for image in images if image], DIGEST)
        digests["pgvector/pgvector:0.8.6-pg16"] = DIGEST
        wanted = settings(
            image_digests=digests, backend_commits={f"v0.{n}.0": "a" * 40 for n in range(9, 20)}
        )
        large = {"name": "NVIDIA H200", "compute_capability": "9.0", "memory_total_mib": 143771}
        if loaded.image.release < "25.01":
            large["compute_capability"] = "8.0"
        assert plan_release(wanted, [gpu(n, **large) for n in range(count)], "9", loaded).id
