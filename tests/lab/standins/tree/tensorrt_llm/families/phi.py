"""Phi-3: a Llama whose folder has query, key and value in one matrix, and gate and up in another."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensors import Tensors
from . import llama
from .split import Split

ARCHITECTURES = ("Phi3ForCausalLM",)


FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def rank_tensors(config: dict[str, Any], hf: Tensors, split: Split, tp_rank: int, pp_rank: int) -> Tensors:
    """The tensors of one rank. Fused matrices are cut into a Llama's first: each rank has its share of each part."""
    settings = llama.settings(config)
    queries, shared = (
        settings["head_size"] * settings[f"num_{kind}_heads"] for kind in ("attention", "key_value")
    )
    cuts = {"qkv_proj": [queries, queries + shared], "gate_up_proj": [settings["intermediate_size"]]}
    parts: Tensors = {}
    for name, tensor in hf.items():
        stem, _, last = name.removesuffix(".weight").rpartition(".")
        if last in FUSED:
            pieces = np.split(tensor, cuts[last])
            parts |= {f"{stem}.{one}.weight": piece for one, piece in zip(FUSED[last], pieces, strict=True)}
        else:
            parts[name] = tensor
    return llama.rank_tensors(config, parts, split, tp_rank, pp_rank)
