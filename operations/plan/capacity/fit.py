"""Whether a profile's model fits the host's GPUs: passes the profile's values to the forecast."""

from __future__ import annotations

from typing import Any

from operations.plan.capacity.deployment import Deployment
from operations.plan.capacity.gpu import Gpu
from operations.plan.capacity.limits import check
from operations.plan.capacity.number_formats import check_formats
from operations.plan.capacity.precision import check_precision
from operations.plan.catalog.support_matrix import StackRelease
from operations.plan.profile.architecture import DTYPE_BYTES, Architecture
from operations.plan.profile.profiles import EngineProfile, LlmApiProfile, PlanProfile, Profile
from operations.plan.profile.stored_format import StoredFormat

# trtllm-build's flags that the forecast uses
_ENGINE = (
    *("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens", "max_beam_width"),
    *("tokens_per_block", "workers"),
)


def deployment(
    profile: Profile,
    stack: StackRelease,
    gpu: Gpu,
    architecture: Architecture | None = None,
    stored: StoredFormat | None = None,
) -> Deployment | None:
    """
    The forecast's input; None if the model's numbers are not known.

    + architecture: the model's own numbers; None takes the profile's
    + stored: how the downloaded weights are quantized already

    Raises PlanError for an invalid value.
    """
    if isinstance(profile, PlanProfile):
        return None
    architecture = architecture or profile.architecture
    if architecture is None:
        return None
    if isinstance(profile, LlmApiProfile):
        return _of_llm_api(profile, stack, gpu, architecture, stored)
    return _of_engine(profile, stack, gpu, architecture)


def _of_llm_api(
    profile: LlmApiProfile,
    stack: StackRelease,
    gpu: Gpu,
    architecture: Architecture,
    stored: StoredFormat | None,
) -> Deployment:
    llm = profile.llm
    cache = llm.get("kv_cache_config", {})
    said = {name: llm[name] for name in _ENGINE if isinstance(llm.get(name), int)}
    names = (
        ("free_gpu_memory_fraction", "kv_cache_free_gpu_mem_fraction"),
        ("max_tokens", "max_tokens_in_paged_kv_cache"),
        ("tokens_per_block", "tokens_per_block"),
    )
    said |= {field: cache[name] for name, field in names if cache.get(name) is not None}
    if isinstance(experts := llm.get("moe_expert_parallel_size"), int):
        said["moe_ep_size"] = experts
    dtype = llm.get("dtype", "auto")
    return Deployment(
        architecture=architecture,
        # auto is the weights' own type; published weights have 16 bits
        dtype=dtype if dtype in DTYPE_BYTES else "bfloat16",
        release=stack.release,
        gpu_memory_mib=gpu.memory_total_mib,
        gpu_name=gpu.name,
        quantization=stored.format if stored else profile.quantized,
        kv_cache_dtype="fp8"
        if cache.get("dtype") == "fp8" or (stored and stored.kv_cache == "FP8")
        else None,
        tensor_parallel=profile.tensor_parallel,
        pipeline_parallel=profile.pipeline_parallel,
        kind="llmapi",
        splits_attention=not llm.get("enable_attention_dp", False),
        **said,
    )


def _of_engine(
    profile: EngineProfile, stack: StackRelease, gpu: Gpu, architecture: Architecture
) -> Deployment:
    recipe, engine = profile.checkpoint, profile.engine
    serving: dict[str, Any] = {
        **profile.repository.parameters,
        **profile.repository.model_parameters.get("tensorrt_llm", {}),
    }
    quantization, paged = recipe.quantization, str(engine.get("kv_cache_type", "paged")) == "paged"
    given: dict[str, Any] = {
        **{name: engine[name] for name in _ENGINE if name in engine},
        **{
            name: serving[name]
            for name in ("kv_cache_free_gpu_mem_fraction", "max_attention_window_size")
            if name in serving
        },
        "max_tokens_in_paged_kv_cache": serving.get("max_tokens_in_paged_kv_cache") if paged else None,
    }
    if quantization and quantization.awq_block_size:
        given["awq_block_size"] = quantization.awq_block_size
    if isinstance(given.get("max_attention_window_size"), str):
        # a list, one window per layer: the forecast needs a single number
        del given["max_attention_window_size"]
    if "moe_ep_size" in recipe.flags:
        given["moe_ep_size"] = recipe.flags["moe_ep_size"]
    return Deployment(
        architecture=architecture,
        dtype=recipe.dtype,
        release=stack.release,
        gpu_memory_mib=gpu.memory_total_mib,
        gpu_name=gpu.name,
        quantization=quantization.format if quantization else _of_flags(recipe.flags),
        kv_cache_dtype=quantization.kv_cache_dtype if quantization else _cache_of_flags(recipe.flags),
        tensor_parallel=recipe.tensor_parallel,
        pipeline_parallel=recipe.pipeline_parallel,
        use_parallel_embedding=bool(recipe.flags.get("use_parallel_embedding", False)),
        built_from_source=profile.image.source == "build",
        weight_streaming=bool(engine.get("weight_streaming", False)),
        **given,
    )


def _cache_of_flags(flags: Any) -> str | None:
    """The type of the KV cache that the converter's own flags set."""
    if flags.get("fp8_kv_cache"):
        return "fp8"
    return "int8" if flags.get("int8_kv_cache") else None


def _of_flags(flags: Any) -> str | None:
    """The quantization that the converter's own flags set, by quantize.py's names."""
    if flags.get("use_fp8") or flags.get("use_fp8_rowwise"):
        return "fp8"
    if flags.get("smoothquant") not in (None, False):
        return "int8_sq"
    if not flags.get("use_weight_only"):
        return None
    return "int4_wo" if str(flags.get("weight_only_precision", "int8")).startswith("int4") else "int8_wo"


def check_capacity(
    profile: Profile,
    stack: StackRelease,
    gpus: tuple[Gpu, ...],
    architecture: Architecture | None = None,
    stored: StoredFormat | None = None,
) -> tuple[str, ...]:
    """
    Refuse a model that cannot run on these GPUs. Returns warnings for what only may go wrong.

    + architecture: the model's own numbers; None takes those of the profile, if it has them
    + stored: how the downloaded weights are quantized already

    Checked with the profile before anything is downloaded, and with the hub's config.json before the weights are.
    Raises PlanError with the numbers.
    """
    check_formats(profile, stack, gpus[0])
    if isinstance(profile, EngineProfile):
        quantization = profile.checkpoint.quantization
        check_precision(
            profile.checkpoint.dtype,
            quantization.format if quantization else None,
            quantization.kv_cache_dtype if quantization else None,
            gpus[0].name,
            gpus[0].compute_capability,
            stack.tensorrt_llm,
        )
    wanted = deployment(profile, stack, gpus[0], architecture, stored)
    return check(wanted) if wanted else ()
