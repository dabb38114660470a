import json
import time
from typing import Any

import pytest

from operations.plan.capacity.deployment import Deployment
from operations.plan.capacity.forecast import ESTIMATES, IMAGE_GIB, as_dict, forecast, lines
from operations.plan.capacity.limits import check, check_memory_free
from operations.plan.capacity.precision import FORMATS, check_precision
from operations.plan.catalog.support_matrix import RELEASES
from operations.plan.errors import PlanError
from operations.plan.profile.architecture import Architecture
from operations.plan.units import GIB, MIB, gib
from tests.unit import builders


def model(**changed: Any) -> Architecture:
    """Llama-3.1-8B with these fields changed."""
    fields: dict[str, Any] = {
        "hidden_size": 4096,
        "layers": 32,
        "heads": 32,
        "kv_heads": 8,
        "head_size": 128,
        "intermediate_size": 14336,
        "vocabulary": 128256,
        "max_positions": 131072,
    }
    return Architecture(**{**fields, **changed})


LLAMA_3 = model()
LLAMA_2 = model(kv_heads=32, intermediate_size=11008, vocabulary=32000, max_positions=4096)
LLAMA_2_13B = model(
    hidden_size=5120,
    layers=40,
    heads=40,
    kv_heads=40,
    intermediate_size=13824,
    vocabulary=32000,
    max_positions=4096,
)
MIXTRAL = model(vocabulary=32000, max_positions=32768, experts=8)
GPT2 = model(
    hidden_size=1024,
    layers=24,
    heads=16,
    kv_heads=16,
    head_size=64,
    intermediate_size=4096,
    vocabulary=50257,
    max_positions=1024,
    tied_embeddings=True,
    gated_mlp=False,
)


def deployment(**changed: Any) -> Deployment:
    """Llama-3.1-8B with sequences of 8192 tokens on one A10, with these fields changed."""
    fields: dict[str, Any] = {
        "architecture": LLAMA_3,
        "dtype": "float16",
        "release": "24.09",
        "gpu_memory_mib": 23028,
        "gpu_name": "NVIDIA A10",
        "max_batch_size": 8,
        "max_seq_len": 8192,
    }
    return Deployment(**{**fields, **changed})


def refusal(**changed: Any) -> str:
    with pytest.raises(PlanError) as caught:
        check(deployment(**changed))
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- the forecast


def test_forecast_matches_a_log_of_nvidia() -> None:
    # docs/source/reference/memory.md of TensorRT-LLM: an engine of 6695 MiB, 79.10 GiB in all, 70.48 GiB free when the
    # KV cache is made, 63.44 GiB for 259840 tokens
    seen = forecast(
        deployment(
            architecture=LLAMA_2,
            release="24.11",
            gpu_memory_mib=81000,
            tensor_parallel=2,
            max_batch_size=None,
            max_seq_len=2048,
        )
    )
    assert seen.weights_per_rank == pytest.approx(6695 * MIB, rel=0.03)
    assert seen.activations == pytest.approx((1134 + 43 + 180) * MIB, rel=0.25)
    assert seen.kv_memory == pytest.approx(63.44 * GIB, rel=0.05)
    assert seen.kv_bytes_per_token == 262144
    assert seen.kv_tokens == pytest.approx(259840, rel=0.05)


@pytest.mark.parametrize(
    ("changed", "gigabytes"),
    [
        # rank0.engine of the same model, weight-only: third-party README
        ({"quantization": "int4_wo"}, 5.4),
        ({"quantization": "int4_awq"}, 5.7),
        ({"quantization": "int8_wo"}, 9.1),
        ({"quantization": "fp8"}, 9.1),
        ({"quantization": "nvfp4"}, 6.0),
        ({"quantization": "full_prec"}, 16.06),
        ({}, 16.06),
        ({"dtype": "float32"}, 32.12),
    ],
)
def test_quantized_weights_take_their_published_size(changed: dict[str, Any], gigabytes: float) -> None:
    seen = forecast(deployment(**changed))
    assert seen.weights_per_rank == pytest.approx(gigabytes * 1e9, rel=0.05)
    assert seen.disk_engine == seen.disk_checkpoint == seen.weights_per_rank


def test_group_scales_count_as_weights() -> None:
    plain, coarse, fine = (
        forecast(deployment(**changed)).weights_per_rank
        for changed in (
            {"quantization": "int4_wo"},
            {"quantization": "int4_awq"},
            {"quantization": "int4_awq", "awq_block_size": 64},
        )
    )
    matrices = LLAMA_3.rank_parameters().matrices
    assert coarse - plain == matrices * 2 // 128
    assert fine - plain == matrices * 2 // 64


@pytest.mark.parametrize(
    ("architecture", "dtype", "gigabytes"),
    # measured by others: Llama-3-8B, Command-R's size, examples/gpt/README.md
    [
        (LLAMA_3, "bfloat16", 38.5),
        (GPT2, "float16", 6.6),
    ],
)
def test_host_memory_of_a_build(architecture: Architecture, dtype: str, gigabytes: float) -> None:
    seen = forecast(deployment(architecture=architecture, dtype=dtype))
    assert seen.ram_build == pytest.approx(gigabytes * 1e9, rel=0.2)


def test_workers_build_several_ranks_at_a_time() -> None:
    one, two, many = (
        forecast(deployment(tensor_parallel=2, workers=workers)).ram_build for workers in (1, 2, 64)
    )
    assert two - 4 * GIB == pytest.approx(2 * (one - 4 * GIB), rel=0.01)
    assert many == two


@pytest.mark.parametrize(
    ("changed", "factor", "size"),
    [({}, 2, 21.0), ({"built_from_source": True}, 3, 28.0), ({"release": "24.04"}, 2, 34.0)],
)
def test_the_disk_of_an_image(changed: dict[str, Any], factor: int, size: float) -> None:
    assert forecast(deployment(**changed)).disk_image == int(factor * size * GIB)


def test_every_release_has_an_image_size() -> None:
    assert set(IMAGE_GIB) == set(RELEASES)


def test_disk_is_the_sum_of_its_items() -> None:
    seen = forecast(deployment(architecture=GPT2, max_seq_len=1024, weights_dtype="float32"))
    assert seen.disk_weights == 4 * GPT2.parameters
    assert seen.disk == seen.disk_weights + seen.disk_checkpoint + seen.disk_engine + seen.disk_image


@pytest.mark.parametrize(
    ("release", "batch", "tokens", "block"),
    [("24.04", 1, 1024, 128), ("24.06", 1, 1024, 64), ("24.07", 256, 8192, 64), ("24.10", 2048, 8192, 64)],
)
def test_defaults_are_those_of_the_version(release: str, batch: int, tokens: int, block: int) -> None:
    found = deployment(release=release, max_batch_size=None)
    assert (found.batch, found.tokens, found.block) == (batch, tokens, block)


def test_default_length_is_the_model_s_from_0_11_on() -> None:
    assert deployment(release="24.06", max_seq_len=None).sequence == 2048
    assert deployment(release="24.06", max_seq_len=None, max_input_len=500).sequence == 1524
    assert deployment(release="24.07", max_seq_len=None).sequence == 131072


def test_the_cap_and_the_memory_both_limit_the_kv_cache() -> None:
    free = forecast(deployment())
    assert free.kv_tokens == free.kv_tokens_by_memory is not None
    assert forecast(deployment(max_tokens_in_paged_kv_cache=2560)).kv_tokens == 2560
    assert forecast(deployment(max_tokens_in_paged_kv_cache=2**40)).kv_tokens == free.kv_tokens
    half = forecast(deployment(kv_cache_free_gpu_mem_fraction=0.45))
    assert half.kv_tokens == pytest.approx((free.kv_tokens or 0) / 2, abs=64)
    small = forecast(deployment(kv_cache_dtype="fp8"))
    assert small.kv_tokens == pytest.approx(2 * (free.kv_tokens or 0), abs=64)


def test_unknown_memory_leaves_only_the_cap() -> None:
    seen = forecast(deployment(gpu_memory_mib=0))
    assert (seen.kv_memory, seen.kv_tokens, seen.max_concurrent) == (None, None, None)
    assert forecast(deployment(gpu_memory_mib=0, max_tokens_in_paged_kv_cache=8192)).max_concurrent == 1


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"gpu_memory_mib": 0},
        {"gpu_memory_mib": 1},
        {"tensor_parallel": 4, "pipeline_parallel": 2, "max_tokens_in_paged_kv_cache": 8192},
        {"architecture": GPT2, "gpu_name": "x\ny" * 100},
    ],
)
def test_the_table_is_aligned_and_marks_estimates(changed: dict[str, Any]) -> None:
    table = lines(forecast(deployment(**changed)))
    assert all("\n" not in line and len(line) < 120 for line in table)
    for word in ("activations", "KV cache  ", "checkpoint", "engine build", "conversion", "image"):
        [line] = [line for line in table if line.startswith((word, f"  {word}"))]
        assert "estimate" in line
    for word in ("  weights", "KV cache a token"):
        assert "estimate" not in next(line for line in table if line.startswith(word))
    # the right edge of the figures is one column
    ends = {len(line.split("GiB")[0]) for line in table if "GiB" in line}
    assert len(ends) == 1


def test_as_dict_is_json_and_names_the_estimates() -> None:
    found = json.loads(json.dumps(as_dict(forecast(deployment())), allow_nan=False))
    assert found["disk"] > found["disk_image"]
    assert set(found["estimates"]) == ESTIMATES
    assert set(found) >= ESTIMATES


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0.0 KiB"), (2048, "2.0 KiB"), (3 * MIB, "3.0 MiB"), (int(1.5 * GIB), "1.5 GiB")]
)
def test_sizes_are_formatted_for_readers(size: int, text: str) -> None:
    assert gib(size) == text


# --- what cannot work


@pytest.mark.parametrize(
    "changed",
    [
        {},
        # the guides' own numbers
        {
            "architecture": LLAMA_2,
            "release": "24.04",
            "tensor_parallel": 4,
            "max_batch_size": 64,
            "max_input_len": 1280,
            "max_seq_len": 2560,
            "max_tokens_in_paged_kv_cache": 2560,
            "kv_cache_free_gpu_mem_fraction": 0.5,
        },
        {
            "quantization": "int4_awq",
            "max_seq_len": 2560,
            "max_tokens_in_paged_kv_cache": 2560,
            "kv_cache_free_gpu_mem_fraction": 0.5,
        },
        {
            "architecture": MIXTRAL,
            "tensor_parallel": 8,
            "max_seq_len": None,
            "max_batch_size": None,
            "gpu_memory_mib": 40960,
        },
        {"architecture": GPT2, "release": "26.07", "max_seq_len": 1024},
        {"tensor_parallel": 16, "pipeline_parallel": 4},
        {"architecture": MIXTRAL, "tensor_parallel": 4, "moe_ep_size": 2, "gpu_memory_mib": 81920},
        {"max_seq_len": None, "max_attention_window_size": 4096, "max_tokens_in_paged_kv_cache": 4096},
        {"max_seq_len": 131072, "gpu_memory_mib": 143771},
    ],
)
def test_feasible_deployment_is_not_refused(changed: dict[str, Any]) -> None:
    assert check(deployment(**changed)) == ()


def test_heads_must_be_divisible() -> None:
    assert refusal(architecture=LLAMA_2_13B, tensor_parallel=16, max_seq_len=4096) == (
        "checkpoint.tensor_parallel: found 16, expected one of 1, 2, 4, 8; "
        "num_attention_heads 40 is not divisible by tensor_parallel 16"
    )


def test_kv_heads_and_ranks_divide_each_other() -> None:
    odd = model(heads=36, kv_heads=12, head_size=64, intermediate_size=36 * 64)
    text = refusal(architecture=odd, tensor_parallel=9)
    assert text.endswith("num_key_value_heads 12 and tensor_parallel 9 do not divide each other")
    assert "found 9, expected one of 1, 2, 3, 4, 6, 12, 36;" in text
    assert check(deployment(architecture=odd, tensor_parallel=36)) == ()


def test_layers_must_be_divisible() -> None:
    assert refusal(pipeline_parallel=3) == (
        "checkpoint.pipeline_parallel: found 3, expected one of 1, 2, 4, 8, 16, 32; "
        "num_hidden_layers 32 is not divisible by pipeline_parallel 3"
    )


def test_experts_must_be_divisible() -> None:
    text = refusal(architecture=MIXTRAL, tensor_parallel=4, moe_ep_size=3)
    assert text == (
        "checkpoint.flags.moe_ep_size: found 3, expected one of 1, 2, 4; "
        "8 experts and tensor_parallel 4 must both be divisible by moe_ep_size 3"
    )
    assert "expected one of 1;" in refusal(tensor_parallel=2, moe_ep_size=2)


def test_the_mlp_must_be_divisible() -> None:
    narrow = model(intermediate_size=11009)
    assert refusal(architecture=narrow, tensor_parallel=2).endswith("11009 is not divisible by 2")
    # two ranks with four whole experts each: their width is not split
    whole = model(intermediate_size=1009, experts=8)
    assert check(deployment(architecture=whole, tensor_parallel=2, moe_ep_size=2)) == ()
    assert check(deployment(architecture=narrow)) == ()


def test_a_sequence_longer_than_the_model_s_is_refused() -> None:
    assert refusal(max_seq_len=131073) == (
        "engine.max_seq_len: found 131073, expected at most 131072, the model's max_positions; "
        "set engine.max_seq_len to 131072 or less"
    )
    # 0.9's default of 1024 + 1024 tokens is more than GPT-2 has
    text = refusal(architecture=GPT2, release="24.04", max_seq_len=None)
    assert text.startswith("engine.max_seq_len: found 2048, the default, expected at most 1024")


def test_an_input_as_long_as_the_sequence_is_refused() -> None:
    assert refusal(max_input_len=8192).startswith(
        "engine.max_input_len: found 8192, expected less than max_seq_len, which is 8192"
    )
    assert check(deployment(max_input_len=8191)) == ()


def test_weights_larger_than_the_gpu_are_refused_with_a_way_out() -> None:
    text = refusal(architecture=MIXTRAL, gpu_memory_mib=40960, gpu_name="NVIDIA A100-SXM4-40GB")
    assert text == (
        "checkpoint.tensor_parallel: found 1: 87.0 GiB of weights for each GPU, expected at most 40.0 GiB, all the "
        "memory of one NVIDIA A100-SXM4-40GB; use tensor_parallel 4 (21.9 GiB a GPU), quantization to fewer bits, a "
        "GPU with more memory"
    )
    # two steps of pipeline parallelism already halve it
    assert "tensor_parallel 2 (" in refusal(architecture=MIXTRAL, pipeline_parallel=2, gpu_memory_mib=40960)
    tiny = refusal(architecture=MIXTRAL, gpu_memory_mib=64, quantization="int4_awq")
    assert tiny.endswith("; use a GPU with more memory")


def test_streamed_weights_are_not_refused() -> None:
    [warning] = check(deployment(architecture=MIXTRAL, gpu_memory_mib=40960, weight_streaming=True))
    assert warning.startswith("estimate: ")


def test_a_cap_below_one_sequence_is_refused() -> None:
    assert refusal(max_tokens_in_paged_kv_cache=2560) == (
        "repository.parameters.max_tokens_in_paged_kv_cache: found 2560, expected at least 8192 tokens, what one "
        "sequence of max_seq_len 8192 takes (blocks of 64); raise it or lower engine.max_seq_len; the longest "
        "max_seq_len that fits is 2560 (maxTokensInPagedKvCache must be large enough to process at least 1 sequence)"
    )
    assert "no sequence fits" in refusal(max_tokens_in_paged_kv_cache=64, max_beam_width=4)


def test_beam_width_multiplies_the_tokens_of_a_sequence() -> None:
    text = refusal(max_tokens_in_paged_kv_cache=8192, max_beam_width=4)
    assert "at least 32768 tokens" in text and "x beam width 4" in text and "that fits is 2048" in text
    assert check(deployment(max_tokens_in_paged_kv_cache=32768, max_beam_width=2)) == ()


@pytest.mark.parametrize(("cap", "fits"), [(8192, True), (8129, True), (8128, False)])
def test_the_cap_is_rounded_up_to_whole_blocks(cap: int, fits: bool) -> None:
    wanted = deployment(max_tokens_in_paged_kv_cache=cap)
    if fits:
        assert check(wanted) == ()
    else:
        with pytest.raises(PlanError):
            check(wanted)


def test_default_length_beyond_the_cache_is_a_warning() -> None:
    changed: dict[str, Any] = {"max_seq_len": None, "max_tokens_in_paged_kv_cache": 2560}
    found = check(deployment(**changed, gpu_memory_mib=143771))
    assert len(found) == 1 and "that fits is 2560: set engine.max_seq_len" in found[0]
    # 0.11 does not start
    assert "max_seq_len 131072, the default, takes" in refusal(**changed, release="24.07")


def test_an_estimate_is_a_warning() -> None:
    [warning] = check(deployment(max_seq_len=None, max_batch_size=1))
    assert warning.startswith("estimate: the KV cache will hold ") and "set engine.max_seq_len to " in warning
    longest = int(warning.split("set engine.max_seq_len to ")[1].split()[0])
    assert check(deployment(max_seq_len=longest, max_batch_size=1)) == ()
    [full] = check(deployment(max_num_tokens=10**6, max_batch_size=10**4))
    assert full.startswith("estimate: weights (15.0 GiB), activations (")
    [none] = check(deployment(gpu_memory_mib=0))
    assert none == "the memory of NVIDIA A10 is not known: whether the model fits is not checked"


# --- odd values

HUGE = int("9" * 4000) ** 2  # more digits than Python prints


def each(*values: object) -> list[Any]:
    """Parameters with ids of their own: pytest would print them, and Python does not print HUGE."""
    return [pytest.param(value, id=f"{type(value).__name__}{i}") for i, value in enumerate(values)]


ODD = [
    0,
    -1,
    True,
    1.5,
    float("nan"),
    float("inf"),
    -float("inf"),
    "8",
    "",
    [],
    {},
    2**63,
    HUGE,
    -HUGE,
    [HUGE],
]
NUMBERS = [
    "tensor_parallel",
    "pipeline_parallel",
    "moe_ep_size",
    "awq_block_size",
    "max_batch_size",
    "max_input_len",
    "max_seq_len",
    "max_num_tokens",
    "max_beam_width",
    "tokens_per_block",
    "workers",
    "max_tokens_in_paged_kv_cache",
    "max_attention_window_size",
]


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", each(*ODD))
def test_invalid_number_is_refused_by_its_key(field: str, value: object) -> None:
    with pytest.raises(PlanError, match=f"{field}: found .*, expected a whole number from 1 to ") as caught:
        deployment(**{field: value})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("value", each(None, *(value for value in ODD if value != 0)))
def test_invalid_gpu_memory_is_refused(value: object) -> None:
    with pytest.raises(PlanError, match="GPU memory in MiB: found "):
        deployment(gpu_memory_mib=value)


@pytest.mark.parametrize("value", each(None, 1.0001, *(value for value in ODD if value is not True)))
def test_invalid_fraction_is_refused(value: object) -> None:
    with pytest.raises(PlanError, match=r"kv_cache_free_gpu_mem_fraction: found .* above 0 and at most 1"):
        deployment(kv_cache_free_gpu_mem_fraction=value)


def test_true_is_not_a_fraction() -> None:
    with pytest.raises(PlanError, match="kv_cache_free_gpu_mem_fraction: found True"):
        deployment(kv_cache_free_gpu_mem_fraction=True)


@pytest.mark.parametrize(
    "field",
    [
        "architecture",
        "dtype",
        "release",
        "gpu_name",
        "weights_dtype",
        "quantization",
        "kv_cache_dtype",
        "use_parallel_embedding",
        "built_from_source",
        "weight_streaming",
    ],
)
@pytest.mark.parametrize("value", each(0, 5, float("nan"), [], {}, HUGE, [HUGE]))
def test_invalid_word_is_refused(field: str, value: object) -> None:
    with pytest.raises(PlanError) as caught:
        deployment(**{field: value})
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_long_words_are_refused_quickly() -> None:
    started = time.process_time()
    for field in ("dtype", "release", "quantization", "kv_cache_dtype"):
        with pytest.raises(PlanError):
            deployment(**{field: "ab" * 10**6})
    with pytest.raises(PlanError):
        check_precision("float16", None, None, "x", "8.6", "1." * 10**6)
    assert time.process_time() - started < 5, "linear in a million characters, not quadratic"


def test_similar_word_is_suggested() -> None:
    with pytest.raises(PlanError, match=r"format: found int4_aqw, .*; did you mean int4_awq\?"):
        deployment(quantization="int4_aqw")


def test_largest_values_are_forecast_within_a_second() -> None:
    largest = model(
        hidden_size=2**20,
        layers=1024,
        heads=1024,
        kv_heads=1024,
        head_size=4096,
        intermediate_size=2**20,
        vocabulary=2**24,
        max_positions=2**27,
        experts=1024,
    )
    started = time.process_time()
    wanted = deployment(
        architecture=largest,
        tensor_parallel=64,
        pipeline_parallel=64,
        max_batch_size=2**20,
        max_seq_len=2**27,
        max_num_tokens=2**31 - 1,
        max_beam_width=1024,
        gpu_memory_mib=2**24,
    )
    assert lines(forecast(wanted))
    with pytest.raises(PlanError):
        check(wanted)
    smallest = model(
        hidden_size=1,
        layers=1,
        heads=1,
        kv_heads=1,
        head_size=1,
        intermediate_size=1,
        vocabulary=1,
        max_positions=1,
    )
    assert lines(forecast(deployment(architecture=smallest, max_seq_len=1, gpu_memory_mib=1)))
    assert time.process_time() - started < 1


# --- precision

A10, T4, V100, P100 = (
    ("NVIDIA A10", "8.6"),
    ("Tesla T4", "7.5"),
    ("Tesla V100-SXM2-16GB", "7.0"),
    ("Tesla P100", "6.0"),
)
L40S, H100, B200 = ("NVIDIA L40S", "8.9"), ("NVIDIA H100 80GB HBM3", "9.0"), ("NVIDIA B200", "10.0")


@pytest.mark.parametrize(
    ("dtype", "format_", "kv", "gpu", "version"),
    [
        ("float16", "fp8", "fp8", L40S, "0.13.0"),
        ("bfloat16", "fp8", "fp8", H100, "0.9.0"),
        ("bfloat16", "nvfp4", "fp8", B200, "0.17.0.post1"),
        ("bfloat16", "fp8", "fp8", ("NVIDIA RTX PRO 6000", "12.0"), "1.2.1"),
        ("float16", "w4a8_awq", None, L40S, "0.13.0"),
        ("bfloat16", "int8_sq", "int8", A10, "1.2.1"),
        ("float16", "int4_awq", "int8", T4, "0.14.0"),
        ("float16", "int8_wo", "int8", V100, "0.14.0"),
        ("float32", "full_prec", None, V100, "0.9.0"),
        ("float16", None, None, A10, "1.0.3.2510"),
    ],
)
def test_a_precision_that_the_gpu_computes_in(
    dtype: str, format_: str | None, kv: str | None, gpu: tuple[str, str], version: str
) -> None:
    check_precision(dtype, format_, kv, *gpu, version)


@pytest.mark.parametrize(
    ("dtype", "format_", "kv", "gpu", "version", "key", "needs", "instead"),
    [
        ("float16", "fp8", None, A10, "0.13.0", "format", "8.9", "int8_sq or int4_awq"),
        ("float16", "w4a8_awq", None, A10, "0.13.0", "format", "8.9", "int4_awq"),
        ("float16", "nvfp4", None, H100, "0.17.0", "format", "10.0", "fp8 (from 8.9 on) or int4_awq"),
        ("float16", None, "fp8", A10, "0.13.0", "kv_cache_dtype", "8.9", "int8, or leave it out"),
        ("bfloat16", None, None, T4, "0.13.0", "dtype", "8.0", "float16"),
        ("float16", "int8_sq", None, T4, "0.13.0", "format", "8.0", "int8_wo"),
        ("float16", "int8_sq", None, V100, "0.13.0", "format", "8.0", "int8_wo"),
        ("float16", "int4_awq", None, V100, "0.13.0", "format", "7.5", "int8_wo"),
        ("float16", None, None, T4, "0.15.0", "release", "8.0", "release 24.10 or older"),
        ("float16", None, None, V100, "1.2.1", "release", "8.0", "release 24.10 or older"),
        ("float16", None, None, P100, "0.13.0", "release", "7.0", "a newer GPU"),
        ("float16", None, None, P100, "1.2.1", "release", "8.0", "a newer GPU"),
        ("float16", None, None, B200, "0.16.0", "release", "0.17", "release 25.01 or later"),
    ],
)
def test_a_precision_that_the_gpu_does_not_compute_in(
    dtype: str,
    format_: str | None,
    kv: str | None,
    gpu: tuple[str, str],
    version: str,
    key: str,
    needs: str,
    instead: str,
) -> None:
    with pytest.raises(PlanError) as caught:
        check_precision(dtype, format_, kv, *gpu, version)
    text = str(caught.value)
    assert caught.value.key.endswith(key)
    assert f"{gpu[0]} has compute capability {gpu[1]}; use {instead}" in text
    assert f" {needs} or " in text
    assert "\n" not in text


def test_suggested_format_works_on_older_gpus() -> None:
    for name, how in FORMATS.items():
        for other in how.instead.replace("(from 8.9 on) ", "").split(" or "):
            assert not other or FORMATS[other].needs < how.needs, name


@pytest.mark.parametrize(
    "value",
    each("", "8", "8.6.1", "a.b", "8.x", "²³.1", "-8.6", "8.6\n9", None, 8.6, HUGE, "1" * 5000 + ".0"),
)
def test_invalid_compute_capability_is_refused(value: Any) -> None:
    with pytest.raises(PlanError, match=r"compute capability: found .*, expected MAJOR.MINOR"):
        check_precision("float16", None, None, "NVIDIA A10", value, "0.13.0")


@pytest.mark.parametrize("value", each("", "main", "².1", None, 1.0, HUGE, [], "9" * 5000))
def test_invalid_version_is_refused(value: Any) -> None:
    with pytest.raises(PlanError, match=r"^TensorRT-LLM: found .*, expected a version"):
        check_precision("float16", None, None, "NVIDIA A10", "8.6", value)


@pytest.mark.parametrize("value", each(0, [], {}, HUGE, "fp16"))
def test_invalid_precision_words_are_refused(value: Any) -> None:
    for dtype, format_, kv in ((value, None, None), ("float16", value, None), ("float16", None, value)):
        with pytest.raises(PlanError, match="expected one of "):
            check_precision(dtype, format_, kv, "NVIDIA A10", "8.6", "0.13.0")


# --- a GPU in use


def test_an_idle_gpu_is_enough() -> None:
    seen = forecast(deployment())
    assert check_memory_free(seen, [builders.gpu(0), builders.gpu(1)]) == ()


def test_a_gpu_in_use_is_named() -> None:
    seen = forecast(deployment())
    found = check_memory_free(seen, [builders.gpu(0), builders.gpu(1, memory_free_mib=9000)])
    assert len(found) == 1
    assert found[0].startswith("GPU 1 (NVIDIA A10): 8.8 GiB of 22.5 GiB free, and about ")


def test_gpu_in_use_with_enough_memory_is_accepted() -> None:
    seen = forecast(deployment(architecture=GPT2, max_seq_len=1024, max_tokens_in_paged_kv_cache=2048))
    assert check_memory_free(seen, [builders.gpu(memory_free_mib=9000)]) == ()


@pytest.mark.parametrize("memory", [(0, 0), (0, 5), (-5, 3), (23028, 0), (2**80, -1)])
def test_odd_memory_readings_do_not_raise(memory: tuple[int, int]) -> None:
    total, free = memory
    found = check_memory_free(
        forecast(deployment()), [builders.gpu(memory_total_mib=total, memory_free_mib=free)]
    )
    assert len(found) == (1 if total > 0 else 0)
