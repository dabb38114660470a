"""Number formats of weights and of the KV cache: their sizes, and which GPU and which TensorRT-LLM compute in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from operations.plan.catalog.support_matrix import RELEASES, version_tuple
from operations.plan.errors import PlanError, suggestion
from operations.plan.profile.architecture import printable
from operations.plan.units import dotted

CHECKPOINT_DTYPES = ("float16", "bfloat16", "float32")
KV_CACHE_DTYPES = ("int8", "fp8")
LONGEST_WORD = 80  # characters of a release, a version or a format


@dataclass(frozen=True)
class Format:
    """
    How a quantization stores the matrices of the layers; embedding, head, norms and router stay in the dtype.

    `bits` a weight, and `scale_bits` for each group of weights (0: so few scales that they do not count). Compute
    capability it `needs`, and what to use `instead` below it.
    """

    bits: int | None
    needs: tuple[int, int] = (0, 0)
    instead: str = ""
    scale_bits: int = 0
    group: int = 1


# Needs: docs/source/reference/support-matrix.md of TensorRT-LLM 0.11 to 0.15 (SmoothQuant not on SM70 and 75, INT4 AWQ
# not below SM75, FP8 and W4A8 from SM89 on, NVFP4 on Blackwell).
FORMATS = {
    "full_prec": Format(None),
    "int8_wo": Format(8),
    "int4_wo": Format(4),
    "int8_sq": Format(8, (8, 0), "int8_wo"),
    "int4_awq": Format(4, (7, 5), "int8_wo", scale_bits=16, group=128),
    "w4a8_awq": Format(4, (8, 9), "int4_awq", scale_bits=16, group=128),
    "fp8": Format(8, (8, 9), "int8_sq or int4_awq"),
    "nvfp4": Format(4, (10, 0), "fp8 (from 8.9 on) or int4_awq", scale_bits=8, group=16),
}
# From this version on compute capability 8.0 is the least (release notes of 0.15), and 7.0 before; devices of 10.0 and
# above came with 0.17 (its release notes).
AMPERE_FROM, BLACKWELL_FROM = (0, 15), (0, 17)


def check_precision(
    dtype: str,
    quantization_format: str | None,
    kv_cache_dtype: str | None,
    gpu_name: str,
    compute_capability: str,
    tensorrt_llm_version: str,
) -> None:
    """
    Refuse a number format that the GPU does not compute in, and a GPU that the version does not run on.

    + compute_capability: as nvidia-smi prints it, such as 8.6
    + tensorrt_llm_version: such as 0.17.0.post1

    Source: the support matrices and release notes of TensorRT-LLM, named at `FORMATS`.
    """
    one_of("checkpoint.dtype", dtype, CHECKPOINT_DTYPES)
    precision_words(quantization_format, kv_cache_dtype)
    has = capability(compute_capability)
    plain = isinstance(tensorrt_llm_version, str) and tensorrt_llm_version.isascii()
    version = (
        version_tuple(tensorrt_llm_version) if plain and len(tensorrt_llm_version) <= LONGEST_WORD else ()
    )
    if not version:
        raise PlanError("TensorRT-LLM", printable(tensorrt_llm_version), "a version such as 0.17.0")
    gpu = f"{called(gpu_name)} has compute capability {compute_capability}"

    least = (8, 0) if version >= AMPERE_FROM else (7, 0)
    if has < least:
        newest = max(r for r, row in RELEASES.items() if row.version < AMPERE_FROM)
        raise PlanError(
            "image.release",
            f"TensorRT-LLM {tensorrt_llm_version}",
            f"a GPU of compute capability {dotted(least)} or above; {gpu}",
            f"use release {newest} or older" if has >= (7, 0) else "use a newer GPU",
        )
    if has >= (10, 0) and version < BLACKWELL_FROM:
        oldest = min(r for r, row in RELEASES.items() if row.version >= BLACKWELL_FROM)
        raise PlanError(
            "image.release",
            f"TensorRT-LLM {tensorrt_llm_version}",
            f"TensorRT-LLM 0.17 or later; {gpu}",
            f"use release {oldest} or later",
        )

    def needs(key: str, word: str, least: tuple[int, int], instead: str) -> None:
        if has < least:
            raise PlanError(
                key, word, f"a GPU of compute capability {dotted(least)} or above; {gpu}", f"use {instead}"
            )

    if dtype == "bfloat16":
        needs("checkpoint.dtype", dtype, (8, 0), "float16")
    if quantization_format is not None:
        how = FORMATS[quantization_format]
        needs("checkpoint.quantization.format", quantization_format, how.needs, how.instead)
    if kv_cache_dtype == "fp8":
        needs("checkpoint.quantization.kv_cache_dtype", kv_cache_dtype, (8, 9), "int8, or leave it out")


def capability(text: str) -> tuple[int, int]:
    """A compute capability as numbers, because 10.0 is more than 9.0. Raises PlanError for what is none."""
    parts = text.split(".") if isinstance(text, str) else []
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
        raise PlanError("compute capability", printable(text), "MAJOR.MINOR, as nvidia-smi prints it")
    return int(parts[0]), int(parts[1])


def precision_words(quantization: str | None, kv_cache_dtype: str | None) -> None:
    if quantization is not None:
        one_of("checkpoint.quantization.format", quantization, FORMATS)
    if kv_cache_dtype is not None:
        one_of("checkpoint.quantization.kv_cache_dtype", kv_cache_dtype, KV_CACHE_DTYPES)


def one_of(key: str, value: object, allowed: Sequence[str] | Mapping[str, object]) -> None:
    if not isinstance(value, str) or value not in allowed:
        then = suggestion(value, allowed) if isinstance(value, str) and len(value) <= LONGEST_WORD else ""
        then = then if then.startswith("did") else ""
        raise PlanError(key, printable(value), f"one of {', '.join(allowed)}", then)


def called(gpu: object) -> str:
    """A GPU's name, bounded: it may come from anything that calls itself nvidia-smi."""
    return " ".join(str(gpu).split())[:60] or "the GPU"
