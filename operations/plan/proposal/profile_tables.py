"""The tables of a new profile, for one choice of kind, release, precision, parallelism and lengths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from operations.plan.capacity.forecast import Forecast
from operations.plan.capacity.gpu import Gpu
from operations.plan.capacity.precision import capability
from operations.plan.catalog.models import VARIANTS
from operations.plan.catalog.shapes import Shape
from operations.plan.catalog.support_matrix import StackRelease
from operations.plan.proposal.repository import Repository

_CALIBRATION = {
    "name": "cnn_dailymail",
    "repository": "abisee/cnn_dailymail",
    "revision": "96df5e686bee6baa90b8bee7c28b81fa3fa6223d",
    "include": ["README.md", "3.0.0/*.parquet"],
}
# Kind engine's ways to shrink a model, the mildest first: format -> its table, and what it costs
QUANTIZATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "int8_wo": (
        {"format": "int8_wo"},
        "8 bits a weight, rounded: answers differ a little from those of 16 bits",
    ),
    "int4_awq": (
        {"format": "int4_awq", "awq_block_size": 128, "calibration": _CALIBRATION},
        "4 bits a weight, calibrated: answers differ from those of 16 bits; compare them on your own prompts",
    ),
}


@dataclass(frozen=True)
class Choice:
    """
    What was chosen.

    + gpus: those of the host; `tensor_parallel` of them are used
    + shape: the OCI shape that has them; None: none is known
    + quantization: a key of QUANTIZATIONS; empty: the weights' own precision
    + seen: the forecast; None where the model's numbers are not known
    + data: the profile's tables that were checked
    """

    kind: str
    stack: StackRelease
    gpus: tuple[Gpu, ...]
    shape: Shape | None
    dtype: str
    tensor_parallel: int
    quantization: str
    context: int
    batch: int
    seen: Forecast | None
    data: Mapping[str, Any]


def dtype_of(found: Repository, gpu: Gpu) -> str:
    """The type that the engine computes in: the weights' own, if it has 16 bits and the GPU has it; else float16."""
    said = found.config.get("torch_dtype", found.config.get("dtype"))
    return "bfloat16" if said == "bfloat16" and capability(gpu.compute_capability) >= (8, 0) else "float16"


def tables(found: Repository, one: Choice) -> dict[str, Any]:
    """The tables of the profile, in its order; golden requests are added with the file."""
    architecture = found.architecture
    used = f"{one.tensor_parallel} {'GPU' if one.tensor_parallel == 1 else 'GPUs'}"
    short = found.name.partition("/")[2] or found.name
    data: dict[str, Any] = {"kind": one.kind, "summary": f"{short} on {used}"[:200]}
    if one.shape:
        gpus = {"gpu": one.gpus[0].name, "count": one.tensor_parallel}
        data["hardware"] = {"shape": one.shape.name, **gpus}
    data["weights"] = _weights(found)
    data["image"] = {"release": one.stack.release, "source": "pull"}
    if architecture:
        data["architecture"] = architecture.model_dump(exclude_defaults=True)
    data |= _engine(found, one) if one.kind == "engine" else _llm_api(one)
    model = "ensemble" if one.kind == "engine" else "tensorrt_llm"
    data["golden"] = [{"model": model, "prompt": "Machine learning is", "max_tokens": 16, "expect": ""}]
    return data


def _weights(found: Repository) -> dict[str, Any]:
    weights: dict[str, Any] = {"repository": found.name, "revision": found.revision}
    if others := found.other_weights:
        weights["exclude"] = [
            "consolidated*",
            *(name for name in others if not name.startswith("consolidated")),
        ]
    if found.gated:
        weights["gated"] = True
    return weights


def _engine(found: Repository, one: Choice) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {"family": found.row.family, "dtype": one.dtype}
    if one.tensor_parallel > 1:
        checkpoint["tensor_parallel"] = one.tensor_parallel
    if found.row.family == "gpt" and found.row.model_type != "gpt2":
        variants = VARIANTS[found.row.model_type]
        named = [variant for variant in variants if variant in found.name.lower()]
        checkpoint["flags"] = {"gpt_variant": (named or list(variants))[0]}
    if one.quantization:
        checkpoint["quantization"] = QUANTIZATIONS[one.quantization][0]
    lengths: dict[str, Any] = {"max_seq_len": one.context}
    if one.stack.version < (0, 11):
        lengths = {"max_input_len": one.context - one.context // 4, "max_output_len": one.context // 4}
    return {
        "checkpoint": checkpoint,
        "engine": {"gemm_plugin": one.dtype, "max_batch_size": one.batch, **lengths},
        "repository": {
            "parameters": {
                "triton_max_batch_size": one.batch,
                "exclude_input_in_output": True,
                "kv_cache_free_gpu_mem_fraction": 0.9,
            }
        },
    }


def _llm_api(one: Choice) -> dict[str, Any]:
    return {
        "llm": {
            "backend": "pytorch",
            "tensor_parallel_size": one.tensor_parallel,
            "max_batch_size": one.batch,
            "max_seq_len": one.context,
            "kv_cache_config": {"free_gpu_memory_fraction": 0.9},
        }
    }
