"""What people ran into, each as the small input that shows it: refused before hours of work, for every kind of profile.

The numbers are those of the projects' issues: TensorRT-LLM (TRT), tensorrtllm_backend (BE).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from operations.plan import PlanError
from operations.plan.capacity.described import Description, check_described
from operations.plan.capacity.fit import check_capacity, deployment
from operations.plan.capacity.gpu import Gpu
from operations.plan.catalog.llm_arguments import ARGUMENTS, KV_CACHE, MEANT, REMOVED
from operations.plan.catalog.models import CONVERTED
from operations.plan.catalog.support_matrix import FAMILIES, RELEASES, converter_folder
from operations.plan.errors import NOWHERE
from operations.plan.explain import explain, gpus_from, planned
from operations.plan.profile.architecture import Architecture
from operations.plan.profile.profiles import (
    EngineProfile,
    LlmApiProfile,
    PlanProfile,
    Profile,
    load_profile,
    profile_names,
    stack_of,
)
from operations.plan.profile.relations import check_relations
from operations.plan.profile.stored_format import stored_format
from operations.plan.release import Release
from operations.plan.wording import from_validation
from tests.unit.builders import CALIBRATION, DATA, PROFILE, gpu, merged, settings

A10, A100, H100 = "NVIDIA A10:1", "NVIDIA A100-SXM4-40GB:1", "NVIDIA H100 80GB HBM3:1"
V100 = gpu(name="Tesla V100-SXM2-16GB", compute_capability="7.0", memory_total_mib=16384)
P100 = gpu(name="Tesla P100-SXM2-16GB", compute_capability="6.0", memory_total_mib=16384)
LLMAPI: dict[str, Any] = {
    "kind": "llmapi",
    "summary": "a model as it is",
    "weights": {"repository": "owner/name", "revision": "c" * 40},
    "image": {"release": "26.07", "source": "pull"},
    "golden": [{"prompt": "What?", "max_tokens": 8, "expect": ""}],
}
LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}
LLAMA_70B = LLAMA_8B | {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "intermediate_size": 28672,
}
QWEN = LLAMA_8B | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}


def numbers(config: Mapping[str, Any]) -> dict[str, Any]:
    """[architecture] as a profile states it."""
    return Architecture.from_config(config).model_dump(exclude_none=True)


def engine_of(**tables: Any) -> EngineProfile:
    return EngineProfile.model_validate(merged(PROFILE, tables))


def llmapi_of(**tables: Any) -> LlmApiProfile:
    return LlmApiProfile.model_validate(merged(LLMAPI, tables))


def plan(profile: Profile, gpus: str = A10) -> Release:
    return planned("smollm2-135m", profile, DATA, gpus)


def refused(profile: Profile, gpus: str = A10) -> str:
    with pytest.raises(PlanError) as caught:
        plan(profile, gpus)
    return str(caught.value)


def judged(profile: Profile, config: Mapping[str, Any], *gpus: Gpu, **described: Any) -> tuple[str, ...]:
    """What comes of the hub's small files."""
    one = Description(config, **described)
    return check_described(profile, stack_of(profile), gpus or (gpu(),), {"weights": one})


def judged_wrong(profile: Profile, config: Mapping[str, Any], *gpus: Gpu, **described: Any) -> str:
    with pytest.raises(PlanError) as caught:
        judged(profile, config, *gpus, **described)
    return str(caught.value)


# -- 1: a model that is larger than the GPU, for each kind


@pytest.mark.requirement("M32")
def test_llmapi_model_too_large_for_the_gpu_is_refused() -> None:
    error = refused(llmapi_of(architecture=numbers(LLAMA_70B)))
    assert error.startswith(
        "llm.tensor_parallel_size: found 1: 131.4 GiB of weights for each GPU, expected at most 22.5 GiB"
    )
    assert "tensor_parallel_size 8" in error
    assert not plan(llmapi_of(architecture=numbers(LLAMA_8B) | {"max_positions": 8192})).warnings


def test_llmapi_without_numbers_warns_that_it_is_not_forecast() -> None:
    warnings = plan(llmapi_of()).warnings
    assert [line for line in warnings if line.startswith("not forecast: the profile has no [architecture]")]


def test_config_of_the_hub_is_compared_with_the_gpu() -> None:
    assert "llm.tensor_parallel_size: found 1: 131.4 GiB" in judged_wrong(llmapi_of(), LLAMA_70B)
    assert not judged(llmapi_of(), LLAMA_8B)


def test_file_sizes_are_compared_for_any_architecture() -> None:
    strange = {
        "model_type": "deepseek_v3",
        "architectures": ["DeepseekV3ForCausalLM"],
        "num_attention_heads": 128,
    }
    error = judged_wrong(llmapi_of(), strange, weight_bytes=100 * 2**30)
    assert "100.0 GiB of weights for each GPU" in error and "raise it to 5 or more" in error
    said = judged(llmapi_of(), strange, weight_bytes=10 * 2**30)
    assert any(line.startswith("not forecast beyond the size of the weights") for line in said)


def test_quantized_weights_count_with_their_stored_size() -> None:
    """An FP8 repository of a 70B fits where its 16-bit weights would not."""
    four = {"tensor_parallel_size": 4}
    config, algorithm = LLAMA_70B, {"quantization": {"quant_algo": "FP8"}}
    card = gpu(name="NVIDIA L40S", compute_capability="8.9", memory_total_mib=24000)
    assert "of weights for each GPU" in judged_wrong(llmapi_of(llm=four), config, card)
    assert "of weights for each GPU" not in str(
        judged(llmapi_of(llm=four), config, card, quantization=algorithm)
    )
    own = llmapi_of(llm=four, quantized="fp8", architecture=numbers(LLAMA_70B))
    plan(own, "NVIDIA L40S:4")


# -- 2: GPUs that are too old


@pytest.mark.parametrize("card", [V100, P100])
def test_llmapi_needs_a_gpu_of_ampere(card: Gpu) -> None:
    error = judged_wrong(llmapi_of(), LLAMA_8B, card)
    assert "expected 8.0 or later for the PyTorch backend of TensorRT-LLM 1.2.1" in error
    assert ("kind engine" in error) == (card is V100)  # which runs on no P100 either


@pytest.mark.parametrize("kind", ["engine", "llmapi", "plan"])
def test_every_kind_checks_the_gpu_generation(kind: str) -> None:
    """A check is made for all kinds, and not for the one it was thought of with."""
    profile = {
        "engine": engine_of(image={"release": "24.11"}),
        "llmapi": llmapi_of(),
        "plan": load_profile("clip-search"),
    }[kind]
    old = P100
    with pytest.raises(PlanError, match=r"compute capability 6\.0"):
        check_capacity(profile, stack_of(profile), (old,))


def test_tensorrt_from_10_5_on_does_not_build_for_volta() -> None:
    older = load_profile("clip-search")
    newer = load_profile(
        "clip-search", {"image": {"release": "24.11", "base": "nvidia/tritonserver:24.11-py3"}}
    )
    check_capacity(older, stack_of(older), (V100,))
    with pytest.raises(PlanError, match=r"7\.5 or later for TensorRT 10\.6"):
        check_capacity(newer, stack_of(newer), (V100,))


def test_fp8_cache_of_llmapi_needs_a_gpu_with_fp8() -> None:
    wanted = llmapi_of(llm={"kv_cache_config": {"dtype": "fp8"}}, architecture=numbers(LLAMA_8B))
    error = refused(wanted)
    assert error.startswith("llm.kv_cache_config.dtype: found fp8, expected a GPU of compute capability 8.9")
    plan(wanted, H100)


# -- 3: names of [llm]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_sequence_length", "say max_seq_len"),
        ("gpu_memory_utilization", "say kv_cache_config.free_gpu_memory_fraction"),
        ("max_model_len", "say max_seq_len"),
        ("max_batchsize", "did you mean max_batch_size?"),
        ("quant_config", "read from the weights' own files"),
    ],
)
def test_unknown_llm_argument_is_refused(name: str, meant: str) -> None:
    error = refused(llmapi_of(llm={name: 2048}))
    assert error.startswith(
        f"llm.{name}: found unknown argument {name}, expected an argument of LLM in TensorRT-LLM 1.2.1"
    )
    assert meant in error and f"llm_unlisted = ['{name}']" in error
    plan(llmapi_of(llm={name: 2048}, llm_unlisted=[name]))


def test_stream_of_one_part_is_a_warning() -> None:
    warnings = plan(llmapi_of(decoupled=True)).warnings
    assert [
        line
        for line in warnings
        if "decoupled: found true with TensorRT-LLM 1.2.1, expected 1.3 or later" in line
    ]
    assert not [line for line in plan(llmapi_of()).warnings if "decoupled" in line]


@pytest.mark.parametrize(("name", "value"), [("enable_lora", True), ("lora_config", {"max_loras": 1})])
def test_adapter_that_no_request_can_name_is_refused(name: str, value: object) -> None:
    error = refused(llmapi_of(llm={name: value}))
    assert f"llm.{name}: found unknown argument" in error
    assert "before TensorRT-LLM 1.3: merge it into the weights" in error


def test_unknown_kv_cache_argument_is_refused() -> None:
    error = refused(llmapi_of(llm={"kv_cache_config": {"free_gpu_mem_fraction": 0.5}}))
    assert (
        error.startswith("llm.kv_cache_config.free_gpu_mem_fraction: ")
        and "say free_gpu_memory_fraction" in error
    )
    plan(llmapi_of(llm={"kv_cache_config": {"new_one": 1}}, llm_unlisted=["kv_cache_config.new_one"]))


def test_keys_of_triton_config_reach_the_model() -> None:
    given = llmapi_of(triton_config={"cancellation_check_period_ms": 20})
    said = json.loads(given.model_files("/w")["tensorrt_llm/1/model.yaml"])["triton_config"]
    assert said == {"cancellation_check_period_ms": 20, "max_batch_size": 0, "decoupled": False}


@pytest.mark.parametrize(
    ("table", "line"),
    [
        (
            {"decoupled": True},
            "triton_config.decoupled: found true, expected keys of triton_config without decoupled",
        ),
        (
            {"max_batch_size": 8},
            "triton_config.max_batch_size: found 8, expected keys of triton_config without max_batch_size",
        ),
        (
            {"cancellation_check_period_ms": 0},
            "triton_config.cancellation_check_period_ms: found 0, expected a whole number of milliseconds",
        ),
    ],
)
def test_keys_of_triton_config_that_are_wrong_are_refused(table: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        llmapi_of(triton_config=table)
    assert line in str(from_validation(caught.value, LlmApiProfile, lambda path: NOWHERE))


@pytest.mark.parametrize(
    ("release", "name", "why"),
    [
        ("25.09", "sampler_type", "it came with TensorRT-LLM 1.1"),
        ("26.07", "enable_trtllm_sampler", "it was removed in TensorRT-LLM 1.1"),
    ],
)
def test_llm_argument_of_another_version_says_so(release: str, name: str, why: str) -> None:
    value = "auto" if name == "sampler_type" else True
    assert why in refused(llmapi_of(llm={name: value}, image={"release": release}))


def test_llm_argument_tables_are_consistent() -> None:
    assert set(REMOVED) <= set(ARGUMENTS)
    assert not set(MEANT) & set(ARGUMENTS)
    for meant in MEANT.values():
        word = meant.split(".")[-1].split(",")[0].split(":")[0].split(" ")[0]
        assert word in ARGUMENTS or word in KV_CACHE or word in ("nothing", "its", "decoupled"), meant


@pytest.mark.parametrize("dtype", ["fp17", "half", "int8"])
def test_llm_dtype_is_one_of_its_allowed_words(dtype: str) -> None:
    with pytest.raises(ValueError, match="one of auto, float16, bfloat16, float32"):
        llmapi_of(llm={"dtype": dtype})


@pytest.mark.parametrize(("heads", "size", "degrees"), [(64, 7, "1, 2, 4, 8, 16, 32, 64"), (71, 2, "1")])
def test_tensor_parallel_size_divides_the_heads(heads: int, size: int, degrees: str) -> None:
    config = LLAMA_8B | {
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "hidden_size": heads * 64,
    }
    wanted = llmapi_of(llm={"tensor_parallel_size": size})
    error = judged_wrong(wanted, config)
    assert error.startswith(f"llm.tensor_parallel_size: found {size}, expected one of {degrees}")
    # where the language model is a part of a model that sees
    assert "num_attention_heads" in judged_wrong(
        wanted, {**config, "text_config": config, "num_attention_heads": None}
    )
    stated = llmapi_of(llm={"tensor_parallel_size": size}, architecture=numbers(config))
    assert "llm.tensor_parallel_size" in refused(stated, "NVIDIA A100-SXM4-80GB:8")


# -- 4: config.json is believed over the profile


@pytest.mark.parametrize(
    "kind", ["qwen2", "phi3", "gemma2", "falcon", "gptj", "mllama", "mistral3", "new_one"]
)
def test_engine_of_an_unsupported_architecture_is_refused(kind: str) -> None:
    error = judged_wrong(engine_of(), {**LLAMA_8B, "model_type": kind})
    assert error.startswith(f"config.json: model_type: found {kind}, expected one of llama, mistral, mixtral")
    assert "kind = 'llmapi'" in error and "did you mean" not in error


def test_model_type_named_in_the_profile_is_accepted() -> None:
    wanted = engine_of(checkpoint={"model_type": "qwen2"})
    judged(wanted, {**QWEN})


@pytest.mark.parametrize("family", ["gptj", "qwen", "mllama", "falcon", "mistral3", "phi3"])
def test_family_without_a_converter_names_the_supported_kind(family: str) -> None:
    with pytest.raises(ValueError) as caught:
        engine_of(checkpoint={"family": family})
    assert "did you mean" not in str(caught.value) and "kind = 'llmapi'" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "another architecture (qwen"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "another architecture (qwen"),
        ("microsoft/Phi-3-mini-4k-instruct", "another architecture (phi"),
        ("TheBloke/Llama-2-7B-AWQ", "quantized already (awq"),
        ("neuralmagic/Meta-Llama-3.1-8B-Instruct-FP8", "quantized already (fp8"),
    ],
)
def test_repository_name_a_converter_hardly_reads_is_a_warning(name: str, what: str) -> None:
    weights = {"repository": name, "revision": "c" * 40}
    assert [line for line in plan(engine_of(weights=weights)).warnings if what in line]
    assert not [line for line in plan(llmapi_of(weights=weights)).warnings if what in line]


@pytest.mark.parametrize(
    "name",
    [
        "meta-llama/Llama-3.1-8B-Instruct",
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        "openai-community/gpt2-medium",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "optimum/Llama-x",
    ],
)
def test_repository_name_a_converter_reads_gives_no_warning(name: str) -> None:
    weights = {"repository": name, "revision": "c" * 40}
    assert not [line for line in plan(engine_of(weights=weights)).warnings if "may be" in line]


def test_converters_have_families() -> None:
    assert {converter_folder(family) for family in FAMILIES} == set(CONVERTED)


@pytest.mark.parametrize("name", ["GPTJForCausalLM", "FalconForCausalLM", "GPT2LMHeadModel"])
def test_architecture_missing_from_pytorch_backend_is_refused(name: str) -> None:
    assert f"found {name}" in judged_wrong(llmapi_of(), LLAMA_8B | {"architectures": [name]})


def test_architecture_of_a_later_release_names_it() -> None:
    config = LLAMA_8B | {"architectures": ["GptOssForCausalLM"]}
    assert "use image.release 26.07" in judged_wrong(llmapi_of(image={"release": "25.09"}), config)
    assert not judged(llmapi_of(), config)


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "Qwen2ForRewardModel"])
def test_architecture_that_does_not_continue_a_text_is_refused(name: str) -> None:
    assert "expected a model that continues a text" in judged_wrong(
        llmapi_of(), LLAMA_8B | {"architectures": [name]}
    )


def test_architecture_that_takes_pictures_is_a_warning() -> None:
    config = LLAMA_8B | {"architectures": ["Gemma3ForConditionalGeneration"]}
    assert "only text is served" in str(judged(llmapi_of(), config))


def test_unlisted_architecture_is_a_warning() -> None:
    assert "in no list" in str(judged(llmapi_of(), LLAMA_8B | {"architectures": ["NewForCausalLM"]}))
    assert "in no list" in str(
        judged(llmapi_of(), {k: v for k, v in LLAMA_8B.items() if k != "architectures"})
    )


@pytest.mark.parametrize("profile", [engine_of(), llmapi_of()])
def test_repository_without_config_is_refused(profile: Profile) -> None:
    assert judged_wrong(profile, {}, weight_bytes=1).startswith("config.json: found nothing")


def test_biases_of_attention_are_counted() -> None:
    plain, biased = (Architecture.from_config(LLAMA_8B | {"attention_bias": bias}) for bias in (False, True))
    assert biased.parameters - plain.parameters == 32 * (4096 + 2 * 1024)
    assert Architecture.from_config(QWEN).parameters == biased.parameters


# -- 5: weights that are quantized already

AWQ = {"quantization_config": {"quant_method": "awq", "bits": 4}}
GPTQ = {"quantization_config": {"quant_method": "gptq", "bits": 8}}
COMPRESSED = {"quantization_config": {"quant_method": "compressed-tensors"}}
BITSANDBYTES = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
FP8 = {"quantization_config": {"quant_method": "fp8"}}
BLOCKS = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (AWQ, "AWQ, 4 bits"),
        (GPTQ, "GPTQ, 8 bits"),
        (COMPRESSED, "COMPRESSED-TENSORS"),
        (BITSANDBYTES, "BITSANDBYTES, 4 bits"),
        (FP8, "FP8, 8 bits"),
        (BLOCKS, "FP8_BLOCK_SCALES"),
    ],
)
def test_converter_refuses_quantized_weights(said: dict[str, Any], words: str) -> None:
    error = judged_wrong(engine_of(), LLAMA_8B | said, H100_GPU)
    assert f"found weights of {words}, expected weights of 16 or 32 bits" in error
    assert "kind = 'llmapi'" in error
    # quantize.py reads 16 bits too
    quantized = engine_of(checkpoint={"quantization": {"format": "int8_wo"}})
    assert f"found weights of {words}" in judged_wrong(quantized, LLAMA_8B | said, H100_GPU)


H100_GPU = gpu(name="NVIDIA H100 80GB HBM3", compute_capability="9.0", memory_total_mib=81559)


def test_converter_with_gptq_flags_accepts_gptq_weights() -> None:
    flags = {"use_weight_only": True, "weight_only_precision": "int4_gptq", "quant_ckpt_path": "/weights"}
    judged(engine_of(checkpoint={"flags": flags}), LLAMA_8B | GPTQ)
    assert "AWQ" in judged_wrong(engine_of(checkpoint={"flags": flags}), LLAMA_8B | AWQ)


@pytest.mark.parametrize("said", [AWQ, GPTQ, COMPRESSED, BITSANDBYTES, FP8])
def test_pytorch_backend_refuses_unsupported_quantization(said: dict[str, Any]) -> None:
    assert "quantization_config.quant_method" in judged_wrong(llmapi_of(), LLAMA_8B | said, H100_GPU)
    inner = {**LLAMA_8B, "text_config": {**LLAMA_8B, **said}}
    assert "quantization_config.quant_method" in judged_wrong(llmapi_of(), inner, H100_GPU)


@pytest.mark.parametrize(
    ("algorithm", "too_old", "enough"),
    [
        ("FP8", "8.6", "8.9"),
        ("NVFP4", "9.0", "10.0"),
        ("W4A8_AWQ", "8.6", "8.9"),
        ("W4A16_AWQ", "7.5", "8.0"),
    ],
)
def test_quantized_weights_need_a_supporting_gpu(algorithm: str, too_old: str, enough: str) -> None:
    said = {"quantization": {"quant_algo": algorithm}}
    error = judged_wrong(llmapi_of(), LLAMA_8B, gpu(compute_capability=too_old), quantization=said)
    assert f"compute capability {enough}" in error or "8.0 or later" in error
    judged(llmapi_of(), LLAMA_8B, gpu(compute_capability=enough), quantization=said)


def test_fp8_blocks_and_mxfp4_are_accepted() -> None:
    judged(llmapi_of(), LLAMA_8B | BLOCKS, H100_GPU)
    judged(llmapi_of(), LLAMA_8B | {"quantization_config": {"quant_method": "mxfp4"}}, H100_GPU)
    assert stored_format({}, {}) is None and stored_format({"quantization_config": None}, {}) is None


def test_fp8_kv_cache_of_the_weights_needs_a_supporting_gpu() -> None:
    said = {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}
    assert "kv_cache_quant_algo" in judged_wrong(llmapi_of(), LLAMA_8B, quantization=said)


# -- 6, 7: one property, whichever door it comes by


@pytest.mark.parametrize("flags", [{"int8_kv_cache": True}, {"smoothquant": 0.5}])
def test_converter_that_calibrates_needs_calibration_text(flags: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"table checkpoint\.calibration beside it"):
        engine_of(checkpoint={"flags": flags})
    wanted = engine_of(checkpoint={"flags": flags, "calibration": CALIBRATION})
    made = plan(wanted)
    command = made.artifact("checkpoint").inputs["command"]
    assert command[command.index("--calib_dataset") + 1] == "/calibration/cnn_dailymail"
    assert [a.kind for a in made.artifacts].count("dataset") == 1


def test_calibration_by_a_name_would_need_a_network() -> None:
    flags = {"int8_kv_cache": True, "calib_dataset": "owner/set"}
    with pytest.raises(ValueError, match="a table calibration in its place"):
        engine_of(checkpoint={"flags": flags, "calibration": CALIBRATION})
    with pytest.raises(ValueError, match="calibration only beside"):
        engine_of(checkpoint={"calibration": CALIBRATION})


def test_quoted_number_is_refused() -> None:
    with pytest.raises(ValueError, match="a number above 0 and up to 1"):
        engine_of(checkpoint={"flags": {"smoothquant": "0.5"}, "calibration": CALIBRATION})


@pytest.mark.parametrize(
    ("flags", "quantization", "cache"),
    [
        ({"use_fp8": True}, "fp8", None),
        ({"use_fp8_rowwise": True, "fp8_kv_cache": True}, "fp8", "fp8"),
        ({"smoothquant": 0.5}, "int8_sq", None),
        ({"int8_kv_cache": True}, None, "int8"),
        ({"use_weight_only": True, "weight_only_precision": "int4"}, "int4_wo", None),
        ({}, None, None),
    ],
)
def test_forecast_counts_what_flags_of_the_converter_set(
    flags: dict[str, Any], quantization: str | None, cache: str | None
) -> None:
    # a table that the flags are given without: some also need text to calibrate with
    given = engine_of().model_copy(
        update={"checkpoint": engine_of().checkpoint.model_copy(update={"flags": flags})}
    )
    seen = deployment(
        given, RELEASES["24.11"], gpus_from("NVIDIA H100 80GB HBM3:1")[0], Architecture.from_config(LLAMA_8B)
    )
    assert seen is not None
    assert (seen.quantization, seen.kv_cache_dtype) == (quantization, cache)


@pytest.mark.parametrize(
    ("tables", "key", "card"),
    [
        ({"checkpoint": {"flags": {"use_fp8": True}}}, "checkpoint.flags.use_fp8", A10),
        ({"checkpoint": {"flags": {"fp8_kv_cache": True}}}, "checkpoint.flags.fp8_kv_cache", A100),
        ({"checkpoint": {"flags": {"use_fp8_rowwise": True}}}, "checkpoint.flags.use_fp8_rowwise", A100),
        ({"engine": {"use_fp8_context_fmha": "enable"}}, "engine.use_fp8_context_fmha", A100),
        ({"engine": {"gemm_plugin": "fp8"}}, "engine.gemm_plugin", A10),
        (
            {"checkpoint": {"quantization": {"format": "fp8", "calibration": CALIBRATION}}},
            "checkpoint.quantization.format",
            A10,
        ),
    ],
)
def test_fp8_is_checked_wherever_it_is_set(tables: dict[str, Any], key: str, card: str) -> None:
    recent = merged({"image": {"release": "24.11"}}, tables)
    error = refused(engine_of(**recent), card)
    assert error.startswith(f"{key}: ") and "compute capability" in error


def test_prequantized_weights_need_their_path() -> None:
    flags = {"use_weight_only": True, "weight_only_precision": "int4_gptq"}
    assert "flags.quant_ckpt_path" in refused(engine_of(checkpoint={"flags": flags}))


# -- 8, 9: values that must agree


def repository(**parameters: Any) -> dict[str, Any]:
    return {"repository": {"parameters": parameters}}


@pytest.mark.parametrize(
    ("tables", "both"),
    [
        (repository(max_beam_width=4), ("repository.parameters.max_beam_width", "engine.max_beam_width")),
        (
            repository(triton_max_batch_size=64),
            ("repository.parameters.triton_max_batch_size", "engine.max_batch_size"),
        ),
        (repository(enable_kv_cache_reuse=True), ("enable_kv_cache_reuse", "engine.use_paged_context_fmha")),
        (
            repository(enable_chunked_context=True),
            ("enable_chunked_context", "engine.use_paged_context_fmha"),
        ),
        (
            {"engine": {"remove_input_padding": "disable"}},
            ("engine.remove_input_padding", "batching_strategy"),
        ),
        ({"engine": {"kv_cache_type": "continuous"}}, ("engine.kv_cache_type", "batching_strategy")),
        (
            {"engine": {"gpt_attention_plugin": "disable"}},
            ("engine.gpt_attention_plugin", "batching_strategy"),
        ),
        (
            merged(repository(batching_strategy="V1"), {"image": {"release": "25.06"}}),
            ("batching_strategy", "V1 was removed"),
        ),
        (repository(gpu_device_ids="0,1,2,3"), ("gpu_device_ids", "1 of them")),
        (
            merged(repository(max_beam_width=2, decoding_mode="top_k"), {"engine": {"max_beam_width": 2}}),
            ("decoding_mode", "max_beam_width 2"),
        ),
        (repository(medusa_choices="{0}"), ("medusa_choices", "speculative_decoding_mode = 'medusa'")),
        ({"engine": {"opt_num_tokens": 9000}}, ("engine.opt_num_tokens", "engine.max_num_tokens")),
        (
            {"repository": {"model_parameters": {"ensemble": {"triton_max_batch_size": 4}}}},
            ("ensemble.triton_max_batch_size", "preprocessing"),
        ),
        (
            {"engine": {"max_seq_len": 16}, "golden": [{"prompt": "a", "max_tokens": 16, "expect": ""}]},
            ("golden.0.max_tokens", "engine.max_seq_len"),
        ),
    ],
)
def test_contradicting_values_are_refused_naming_both(tables: dict[str, Any], both: tuple[str, str]) -> None:
    error = refused(engine_of(**tables))
    assert all(word in error for word in both), error


@pytest.mark.parametrize(
    "tables",
    [
        merged(repository(max_beam_width=4), {"engine": {"max_beam_width": 4}}),
        repository(triton_max_batch_size=8),
        merged(repository(enable_kv_cache_reuse=True), {"engine": {"use_paged_context_fmha": "enable"}}),
        # from 0.19 on it is the default
        merged(repository(enable_chunked_context=True), {"image": {"release": "25.09"}}),
        merged(repository(batching_strategy="V1"), {"engine": {"remove_input_padding": "disable"}}),
        repository(gpu_device_ids="0"),
        repository(decoding_mode="top_k_top_p"),
    ],
)
def test_consistent_values_are_planned(tables: dict[str, Any]) -> None:
    assert not plan(engine_of(**tables, architecture=numbers(LLAMA_8B))).warnings


def test_streamed_beams_need_a_supporting_version() -> None:
    tables = merged(repository(max_beam_width=2, decoupled_mode=True), {"engine": {"max_beam_width": 2}})
    plan(engine_of(**tables))
    old = merged(tables, {"image": {"release": "24.07"}})
    assert "streams one beam" in refused(engine_of(**old))


@pytest.mark.parametrize(
    "engine", [{"max_num_tokens": 2048, "max_input_len": 8192, "max_seq_len": 9000}, {"max_input_len": 16384}]
)
def test_prompts_that_would_be_refused_are_a_warning(engine: dict[str, Any]) -> None:
    wide = numbers(LLAMA_8B | {"max_position_embeddings": 32768})
    said = plan(engine_of(engine=engine, architecture=wide), "NVIDIA A100-SXM4-80GB:1").warnings
    assert any("longer prompts are refused" in line for line in said)
    chunked = merged(
        {"engine": {**engine, "use_paged_context_fmha": "enable"}}, repository(enable_chunked_context=True)
    )
    said = plan(engine_of(**chunked, architecture=wide), "NVIDIA A100-SXM4-80GB:1").warnings
    assert not any("longer prompts are refused" in line for line in said)


@pytest.mark.parametrize(
    ("tables", "both"),
    [
        ({"llm": {"max_input_len": 4096, "max_seq_len": 4096}}, ("llm.max_input_len", "llm.max_seq_len")),
        (
            {"llm": {"moe_tensor_parallel_size": 2, "moe_expert_parallel_size": 2}},
            ("llm.moe_tensor_parallel_size", "llm.tensor_parallel_size"),
        ),
        (
            {"llm": {"max_seq_len": 8}, "golden": [{"prompt": "a", "max_tokens": 8, "expect": ""}]},
            ("golden.0.max_tokens", "llm.max_seq_len"),
        ),
    ],
)
def test_contradicting_llmapi_values_are_refused(tables: dict[str, Any], both: tuple[str, str]) -> None:
    error = refused(llmapi_of(**tables))
    assert all(word in error for word in both), error


def test_experts_are_split_by_the_engine_s_ranks() -> None:
    flags = {"moe_tp_size": 2, "moe_ep_size": 2}
    error = refused(engine_of(checkpoint={"tensor_parallel": 2, "flags": flags}), "NVIDIA A10:4")
    assert "checkpoint.flags.moe_tp_size: found 2" in error and "checkpoint.tensor_parallel" in error
    plan(engine_of(checkpoint={"tensor_parallel": 4, "flags": flags}), "NVIDIA A10:4")


@pytest.mark.parametrize("window", [4096, [], [0], ["4096"], "4096"])
def test_window_of_the_llm_api_is_a_list_of_numbers(window: Any) -> None:
    with pytest.raises(ValueError, match="a list of whole numbers of tokens"):
        llmapi_of(llm={"kv_cache_config": {"max_attention_window": window}})
    llmapi_of(llm={"kv_cache_config": {"max_attention_window": [4096]}})


def test_llmapi_prompts_that_would_be_refused_are_a_warning() -> None:
    wide = numbers(LLAMA_8B | {"max_position_embeddings": 32768})
    said = plan(llmapi_of(llm={"max_seq_len": 16384}, architecture=wide), "NVIDIA A100-SXM4-80GB:1").warnings
    assert any(line.startswith("llm.max_num_tokens") for line in said)


# -- 19: options that close what a deploy asks


@pytest.mark.parametrize(
    "option",
    [
        *(
            "--allow-http=false",
            "--allow-grpc=0",
            "--allow-metrics=false",
            "--grpc-use-ssl=true",
            "--exit-on-error=false",
        ),
        *("--log-file=/tmp/log", "--backend-directory=/x", "--strict-readiness=false", "--allow-h=false"),
        *("--log-error=false", "--grpc-server-cert=/x", "--version=1"),
    ],
)
def test_option_that_disables_checked_endpoints_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=r"left on|does not set"):
        engine_of(server={"arguments": [option]})
    with pytest.raises(ValueError, match=r"left on|does not set"):
        settings(tritonserver_arguments=[option])


@pytest.mark.parametrize(
    "option", ["--allow-http=true", "--log-verbose=1", "--log-info=false", "--log-error=1"]
)
def test_harmless_option_is_accepted(option: str) -> None:
    engine_of(server={"arguments": [option]})


# -- 21: a shape that is none


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [
        ({"shape": "VM.GPU.A10.8", "gpu": "NVIDIA A10", "count": 8}, "an OCI shape with NVIDIA GPUs"),
        ({"shape": "BM.GPU.MI300X.8", "gpu": "MI300X", "count": 8}, "an OCI shape with NVIDIA GPUs"),
        ({"shape": "VM.GPU.A10.1", "gpu": "NVIDIA A10", "count": 4}, "at most 1, which VM.GPU.A10.1 has"),
        ({"shape": "VM.GPU.A10.1", "gpu": "NVIDIA A100-SXM4-40GB", "count": 1}, "a name with A10"),
    ],
)
def test_hardware_matches_its_shape_unless_limited(hardware: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        engine_of(hardware=hardware)
    engine_of(hardware={**hardware, "limited": True})


# -- 22, 23: rope


def rope(key: str, **table: Any) -> dict[str, Any]:
    return LLAMA_8B | {key: table}


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_rope_is_read_under_its_old_and_new_key(key: str) -> None:
    assert Architecture.from_config(rope(key, rope_type="linear", factor=4.0)).max_positions == 4 * 8192
    assert Architecture.from_config(rope(key, rope_type="default", rope_theta=5e5)).max_positions == 8192
    nested = {
        "full_attention": {"rope_type": "linear", "factor": 2.0},
        "sliding_attention": {"rope_type": "default"},
    }
    assert Architecture.from_config(LLAMA_8B | {key: nested}).max_positions == 2 * 8192
    with pytest.raises(PlanError) as caught:
        Architecture.from_config(rope(key, rope_type="linear", factor="4.0"))
    assert str(caught.value).startswith(f"config.json: {key}.factor: found the text '4.0', expected a number")


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_llama_3_1_rope_needs_release_24_08(key: str) -> None:
    config = rope(key, rope_type="llama3", factor=8.0)
    error = judged_wrong(engine_of(image={"release": "24.07"}), config)
    assert "found rope type llama3" in error and "24.08 or later" in error
    judged(engine_of(image={"release": "24.08"}), config)


@pytest.mark.parametrize(
    ("word", "release", "least"), [("yarn", "24.10", "24.11"), ("longrope", "24.06", "24.08")]
)
def test_other_rope_types_need_their_releases(word: str, release: str, least: str) -> None:
    config = rope("rope_scaling", rope_type=word, factor=4.0)
    assert f"{least} or later" in judged_wrong(engine_of(image={"release": release}), config)
    judged(engine_of(image={"release": least}), config)


def test_gpt_variant_must_match_the_model() -> None:
    config = {"model_type": "gpt_bigcode", "n_embd": 64}
    error = judged_wrong(engine_of(checkpoint={"family": "gpt"}), config)
    assert error.startswith("checkpoint.flags.gpt_variant: found gpt2, expected starcoder or santacoder")


@pytest.mark.parametrize(
    "tables", [{"model_type": "internlm"}, {"family": "gpt", "flags": {"gpt_variant": "starcoder2"}}]
)
def test_uncountable_model_that_a_converter_reads_is_accepted(tables: dict[str, Any]) -> None:
    kind = tables.get("model_type", "starcoder2")
    [said] = judged(engine_of(checkpoint=tables), {"model_type": kind})
    assert said.startswith("not forecast")
    # the profile's own numbers count then
    counted = engine_of(checkpoint=tables, architecture=numbers(LLAMA_70B))
    assert "of weights for each GPU" in judged_wrong(counted, {"model_type": kind})


def test_llama_3_1_of_the_inventory_is_not_planned_on_24_07() -> None:
    with pytest.raises(PlanError, match=r"architecture\.rope_type: found rope type llama3.*24\.08 or later"):
        explain("llama-3.1-8b-awq", DATA, release="24.07")


# -- kind plan


CLIP = {"model_type": "clip", "projection_dim": 768, "vision_config": {"image_size": 224}}
BERT = {"model_type": "bert", "hidden_size": 384}


def encoders(vision: Mapping[str, Any], text: Mapping[str, Any]) -> tuple[str, ...]:
    profile = load_profile("clip-search")
    assert isinstance(profile, PlanProfile)
    described = {"vision": Description(vision), "text": Description(text)}
    return check_described(profile, stack_of(profile), (gpu(),), described)


def test_encoders_match_the_profile() -> None:
    assert encoders(CLIP, BERT) == ()


@pytest.mark.parametrize(
    ("vision", "text", "expected"),
    [
        (CLIP | {"model_type": "siglip"}, BERT, "encoders.vision: config.json: model_type: found siglip"),
        (CLIP, BERT | {"model_type": "t5"}, "encoders.text: config.json: model_type: found t5"),
        (CLIP | {"projection_dim": 512}, BERT, "encoders.vision.embedding_size: found 768, expected 512"),
        (
            CLIP | {"vision_config": {"image_size": 336}},
            BERT,
            "encoders.vision.image_size: found 224, expected 336",
        ),
        (CLIP, BERT | {"hidden_size": 768}, "encoders.text.embedding_size: found 384, expected 768"),
    ],
)
def test_encoder_with_other_numbers_is_refused(vision: Any, text: Any, expected: str) -> None:
    with pytest.raises(PlanError) as caught:
        encoders(vision, text)
    assert str(caught.value).startswith(expected)


# -- every available profile


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_planned_with_all_checks(name: str) -> None:
    profile = load_profile(name)
    gpus = f"{profile.hardware.gpu}:{profile.hardware.count}" if profile.hardware else A10
    assert planned(name, profile, {**DATA, "model": name, "backend_commits": {}}, gpus).id
    assert gpus_from(gpus)


def test_every_release_passes_with_its_own_defaults() -> None:
    """A default that changed from version to version is no contradiction of a profile that says nothing."""
    for row in RELEASES.values():
        if row.backend_tag:
            profile = engine_of(image={"release": row.release})
            assert check_relations(profile, row.version) == ()
