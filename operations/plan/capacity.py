"""Whether a profile's model fits the host's GPUs: what the profile says, put to the forecast."""

from __future__ import annotations

from typing import Any

from operations.plan.architecture import Architecture
from operations.plan.forecast import Deployment, check, check_precision
from operations.plan.gpu import Gpu
from operations.plan.profiles import EngineProfile, Profile
from operations.plan.support_matrix import StackRelease

# trtllm-build's flags that the forecast reckons with
_ENGINE = (
    *("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens", "max_beam_width"),
    *("tokens_per_block", "workers"),
)


def deployment(
    profile: Profile, stack: StackRelease, gpu: Gpu, architecture: Architecture | None = None
) -> Deployment | None:
    """
    What the forecast is made of; None where the model's numbers are not known.

    + architecture: the model's own numbers; None takes the profile's

    Raises PlanError for a value that is not one.
    """
    if not isinstance(profile, EngineProfile):
        return None
    architecture = architecture or profile.architecture
    if architecture is None:
        return None
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
        # a list, one window a layer: no single number to reckon with
        del given["max_attention_window_size"]
    if "moe_ep_size" in recipe.flags:
        given["moe_ep_size"] = recipe.flags["moe_ep_size"]
    return Deployment(
        architecture=architecture,
        dtype=recipe.dtype,
        release=stack.release,
        gpu_memory_mib=gpu.memory_total_mib,
        gpu_name=gpu.name,
        quantization=quantization.format if quantization else _weight_only(recipe.flags),
        kv_cache_dtype=quantization.kv_cache_dtype if quantization else None,
        tensor_parallel=recipe.tensor_parallel,
        pipeline_parallel=recipe.pipeline_parallel,
        use_parallel_embedding=bool(recipe.flags.get("use_parallel_embedding", False)),
        built_from_source=profile.image.source == "build",
        weight_streaming=bool(engine.get("weight_streaming", False)),
        **given,
    )


def _weight_only(flags: Any) -> str | None:
    """The converter's own weight-only quantization, in quantize.py's words."""
    if not flags.get("use_weight_only"):
        return None
    return "int4_wo" if str(flags.get("weight_only_precision", "int8")).startswith("int4") else "int8_wo"


def check_capacity(
    profile: Profile,
    stack: StackRelease,
    gpus: tuple[Gpu, ...],
    architecture: Architecture | None = None,
) -> tuple[str, ...]:
    """
    Refuse a model that cannot run on these GPUs; what may only go wrong comes back as warnings.

    + architecture: the model's own numbers; None takes those of the profile, where it has them

    Asked of the profile before anything is downloaded, and of the downloaded config.json before hours of work.
    Raises PlanError with the numbers.
    """
    if not isinstance(profile, EngineProfile):
        return ()
    quantization = profile.checkpoint.quantization
    check_precision(
        profile.checkpoint.dtype,
        quantization.format if quantization else None,
        quantization.kv_cache_dtype if quantization else None,
        gpus[0].name,
        gpus[0].compute_capability,
        stack.tensorrt_llm,
    )
    wanted = deployment(profile, stack, gpus[0], architecture)
    return check(wanted) if wanted else ()
