"""Which number formats a profile uses, in any of its tables, and whether the GPU computes in them.

The table in which a format is written does not matter: FP8 is FP8 as quantize.py's format, as a converter's flag, as a
plugin's type, as the type of a KV cache, and in the downloaded weights.

Sources: docs/source/reference/support-matrix.md and precision.md of TensorRT-LLM 0.11 to 1.2, features/quantization of 1.2.1;
argument parsers as in flags.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from operations.plan.capacity.gpu import Gpu
from operations.plan.capacity.precision import capability
from operations.plan.catalog.support_matrix import StackRelease, version_tuple
from operations.plan.errors import PlanError, one_line
from operations.plan.profile.profiles import EngineProfile, LlmApiProfile, PlanProfile, Profile
from operations.plan.profile.stored_format import StoredFormat
from operations.plan.units import dotted

AMPERE, ADA, HOPPER, BLACKWELL = (8, 0), (8, 9), (9, 0), (10, 0)

# Words that mean a format in any table -> the least compute capability, and what to use below it
WORDS: dict[str, tuple[tuple[int, int], str]] = {
    "bfloat16": (AMPERE, "float16"),
    "fp8": (ADA, "auto, or a GPU with FP8 (L40S, H100, H200, B200)"),
    "fp8_rowwise": (HOPPER, "auto, or a GPU with it (H100, H200)"),
    "nvfp4": (BLACKWELL, "fp8 or auto, or a GPU with FP4 (B200, B300)"),
}
# Engine flags whose value is a type
_ENGINE_TYPES = (
    *(
        "gemm_plugin",
        "gpt_attention_plugin",
        "bert_attention_plugin",
        "moe_plugin",
        "lora_plugin",
        "nccl_plugin",
    ),
    *(
        "lookup_plugin",
        "mamba_conv1d_plugin",
        "low_latency_gemm_plugin",
        "gemm_swiglu_plugin",
        "logits_dtype",
    ),
    *("fp8_rowwise_gemm_plugin", "smooth_quant_gemm_plugin", "weight_only_quant_matmul_plugin"),
)
# Switches that mean a format: table -> flag -> what it is
_SWITCHES: dict[str, dict[str, tuple[tuple[int, int], str]]] = {
    "checkpoint.flags": {
        "use_fp8": (ADA, "use_weight_only, or a GPU with FP8 (L40S, H100, H200, B200)"),
        "use_fp8_rowwise": (HOPPER, "use_fp8 or use_weight_only, or a GPU with it (H100, H200)"),
        "fp8_kv_cache": (ADA, "int8_kv_cache, or a GPU with FP8 (L40S, H100, H200, B200)"),
        "use_qserve": (AMPERE, "use_weight_only"),
        "smoothquant": (AMPERE, "use_weight_only"),
    },
    "engine": {
        "use_fp8_context_fmha": (ADA, "disable, or a GPU with FP8 (L40S, H100, H200, B200)"),
        "use_paged_context_fmha": ((7, 0), "disable"),
    },
}
_OFF = (False, "disable", None)

# For kind plan: the least compute capability that TensorRT itself builds for. Release notes of 10.0 (Pascal), 10.5 (Volta).
_TENSORRT: tuple[tuple[tuple[int, ...], tuple[int, int]], ...] = (
    ((10, 5), (7, 5)),
    ((10,), (7, 0)),
    ((8,), (6, 0)),
)
PYTORCH_BACKEND = (
    AMPERE  # bfloat16 kernels, FlashInfer and its own attention: support matrix of TensorRT-LLM 1.x
)


@dataclass(frozen=True)
class Used:
    """One format: its key, its word, the least compute capability, and what to use below it."""

    key: str
    word: object
    needs: tuple[int, int]
    instead: str


def used(profile: Profile) -> Iterator[Used]:
    """Every format that a profile uses, except those that forecast.check_precision checks (dtype, quantization)."""
    if isinstance(profile, EngineProfile):
        tables: dict[str, Mapping[str, object]] = {
            "checkpoint.flags": profile.checkpoint.flags,
            "engine": profile.engine,
        }
        for table, switches in _SWITCHES.items():
            for name, (needs, instead) in switches.items():
                if (value := tables[table].get(name)) not in _OFF:
                    yield Used(f"{table}.{name}", value, needs, instead)
        for name in _ENGINE_TYPES:
            yield from _word(f"engine.{name}", profile.engine.get(name))
    elif isinstance(profile, LlmApiProfile):
        yield from _word("llm.dtype", profile.llm.get("dtype"))
        cache = profile.llm.get("kv_cache_config", {})
        yield from _word("llm.kv_cache_config.dtype", cache.get("dtype"))
        yield from _word("llm.kv_cache_config.mamba_ssm_cache_dtype", cache.get("mamba_ssm_cache_dtype"))
        quantization = profile.llm.get("quant_config", {})
        for name in ("quant_algo", "kv_cache_quant_algo") if isinstance(quantization, dict) else ():
            yield from _word(f"llm.quant_config.{name}", quantization.get(name))


def _word(key: str, value: object) -> Iterator[Used]:
    if isinstance(value, str) and (known := WORDS.get(value.lower())):
        yield Used(key, value, *known)


def check_formats(profile: Profile, stack: StackRelease, gpu: Gpu) -> None:
    """
    Refuse a format that the GPU does not compute in, and a GPU that the release does not run on.

    Raises PlanError naming the key.
    """
    has = capability(gpu.compute_capability)
    if isinstance(profile, LlmApiProfile) and has < PYTORCH_BACKEND:
        raise PlanError(
            "GPUs",
            _shown(gpu),
            f"8.0 or later for the PyTorch backend of TensorRT-LLM {stack.tensorrt_llm}, as A10, A100, L40S or H100 have",
            "use a newer shape" + (", or kind engine with a release up to 24.10" if has >= (7, 0) else ""),
        )
    if isinstance(profile, PlanProfile) and stack.tensorrt:
        version = version_tuple(stack.tensorrt)
        least = next((least for since, least in _TENSORRT if version >= since), (0, 0))
        if has < least:
            raise PlanError(
                "GPUs",
                _shown(gpu),
                f"{dotted(least)} or later for TensorRT {stack.tensorrt} of release {stack.release}",
                "use a newer shape, or an older image.base",
            )
    for one in used(profile):
        if has < one.needs:
            raise PlanError(
                one.key,
                one.word,
                f"a GPU of compute capability {dotted(one.needs)} or above; {_shown(gpu)}",
                f"use {one.instead}",
            )


# What the PyTorch backend of 1.x reads, by the quantizing tool: ModelConfig.from_pretrained of tensorrt_llm/_torch/model_config.py
READS = ("modelopt", "mxfp4")


def check_stored(stored: StoredFormat, stack: StackRelease, gpu: Gpu) -> None:
    """
    Refuse weights in a format that the PyTorch backend does not read, or that the GPU does not compute in.

    Raises PlanError naming the key of the repository's file.
    """
    reads = stored.method in READS or stored.algorithm == "FP8_BLOCK_SCALES"
    if not reads:
        raise PlanError(
            stored.key,
            f"weights of {stored.words}",
            f"16 bits, or what TensorRT-LLM {stack.tensorrt_llm} reads: ModelOpt's hf_quant_config.json, FP8 with weight_block_size, MXFP4",
            "use the repository that they were quantized from, or one that NVIDIA quantized",
        )
    has = capability(gpu.compute_capability)
    if has < stored.needs:
        raise PlanError(
            stored.key,
            f"weights of {stored.words}",
            f"a GPU of compute capability {dotted(stored.needs)} or above; {_shown(gpu)}",
            "use a newer shape, or the repository that they were quantized from",
        )
    if stored.kv_cache.upper() in ("FP8", "NVFP4") and has < WORDS[stored.kv_cache.lower()][0]:
        raise PlanError(
            stored.key.replace("quant_algo", "kv_cache_quant_algo"),
            stored.kv_cache,
            f"a GPU that has it; {_shown(gpu)}",
            "use a newer shape, or the repository that they were quantized from",
        )


def _shown(gpu: Gpu) -> str:
    return f"{one_line(gpu.name)[:60]} has compute capability {gpu.compute_capability}"
