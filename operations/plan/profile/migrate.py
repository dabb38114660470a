"""The migration from engines: the LLM-API profile that serves the model of an engine profile.

TensorRT-LLM removed the engine flow after 1.2; its guide is docs/source/legacy/tensorrt-backend-removal.md of
NVIDIA/TensorRT-LLM: weights load directly, build flags disappear, and settings of the build become settings of the load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from operations.plan.catalog.support_matrix import RELEASES
from operations.plan.errors import PlanError
from operations.plan.profile.profiles import EngineProfile, load_profile

# parameters of the engine repository that the LLM API takes in its kv_cache_config
_KV_CACHE = {
    "kv_cache_free_gpu_mem_fraction": "free_gpu_memory_fraction",
    "max_tokens_in_paged_kv_cache": "max_tokens",
    "enable_kv_cache_reuse": "enable_block_reuse",
}
_BUILD = ("max_batch_size", "max_seq_len", "max_num_tokens", "max_input_len", "max_beam_width")


def migrated(name: str) -> str:
    """
    The TOML text of an LLM-API profile equivalent to an engine profile, with comments where the operator decides.

    Raises PlanError for a profile that is not of kind engine.
    """
    profile = load_profile(name)
    if not isinstance(profile, EngineProfile):
        raise PlanError(name, f"kind {profile.kind}", "a profile of kind engine", "it needs no migration")
    llm: dict[str, Any] = {
        "backend": "pytorch",
        "tensor_parallel_size": profile.checkpoint.tensor_parallel,
        "pipeline_parallel_size": profile.checkpoint.pipeline_parallel,
        **{flag: profile.engine[flag] for flag in _BUILD if flag in profile.engine},
    }
    parameters = profile.repository.parameters
    cache = {new: parameters[old] for old, new in _KV_CACHE.items() if old in parameters}
    left_out = [*(f"engine.{flag}" for flag in profile.engine if flag not in _BUILD)]
    left_out += [f"repository.parameters.{p}" for p in parameters if p not in (*_KV_CACHE, "decoupled_mode")]
    lines = [
        *("#:schema ../../files/schema/profile.json", ""),
        f"# {name}, over the LLM API: the weights as they are, nothing converted or built.",
        *(f"# left out, because the LLM API has no such setting: {item}" for item in left_out),
        *_quantization(profile),
        'kind = "llmapi"',
        f"summary = {_toml(f'{profile.summary}, over the LLM API')}",
        f"decoupled = {_toml(bool(parameters.get('decoupled_mode', False)))}",
    ]
    tables: dict[str, Mapping[str, Any]] = {
        "hardware": profile.hardware.model_dump() if profile.hardware else {},
        "weights": profile.weights.model_dump(exclude_unset=True),
        "image": {"release": max(RELEASES), "source": "pull"},
        "architecture": profile.architecture.model_dump(exclude_unset=True) if profile.architecture else {},
        "llm": llm,
        "llm.kv_cache_config": cache,
        "server": profile.server.model_dump(exclude_unset=True, exclude={"load_models"}),
    }
    for title, table in tables.items():
        if table:
            lines += ["", f"[{title}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    for golden in profile.golden:
        # The other backend's answer may have another text than the engine's.
        request = {
            "model": "tensorrt_llm",
            "prompt": golden.prompt,
            **({"filler_words": golden.filler_words} if golden.filler_words else {}),
            "max_tokens": golden.max_tokens,
            "expect": "",
        }
        lines += ["", "[[golden]]", *(f"{key} = {_toml(value)}" for key, value in request.items())]
    return "\n".join(lines) + "\n"


def _quantization(profile: EngineProfile) -> list[str]:
    recipe = profile.checkpoint.quantization
    if recipe is None:
        return []
    return [
        f"# {recipe.format}: the LLM API loads checkpoints that are quantized already (Model Optimizer's format);",
        "# name one in [weights], or the weights are served unquantized",
    ]


def _toml(value: object) -> str:
    """A value as TOML writes it: JSON's form, for everything a profile holds."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
