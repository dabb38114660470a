"""GPT-2: learned positions, layer norm with bias, a feed-forward with GELU; Hugging Face keeps weights transposed."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensors import Tensors
from .split import Split, part

ARCHITECTURES = ("GPT2LMHeadModel",)
PREFIX = "transformer."  # some folders carry it, some do not


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """The architecture as a checkpoint's config.json has it."""
    hidden, heads = config["n_embd"], config["n_head"]
    return {
        "architecture": "GPTForCausalLM",
        "vocab_size": config["vocab_size"],
        "hidden_size": hidden,
        "intermediate_size": config.get("n_inner") or 4 * hidden,
        "num_hidden_layers": config["n_layer"],
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_size": hidden // heads,
        "hidden_act": config.get("activation_function", "gelu_new"),
        "norm_epsilon": config.get("layer_norm_epsilon", 1e-5),
        "position_embedding_type": "learned_absolute",
        "max_position_embeddings": config["n_positions"],
        "tie_word_embeddings": True,
    }


def rank_tensors(config: dict[str, Any], hf: Tensors, split: Split, tp_rank: int, pp_rank: int) -> Tensors:
    """The tensors of one rank; layers count from 0 in each pipeline stage, as in the real checkpoint."""
    hf = {name.removeprefix(PREFIX): tensor for name, tensor in hf.items()}
    tp, per_stage = split.tp, config["n_layer"] // split.pp
    first, last = pp_rank == 0, pp_rank == split.pp - 1
    embedding = hf["wte.weight"]
    result: Tensors = {}
    if first or last:
        cut = split.parallel_embedding
        result["transformer.vocab_embedding.weight"] = part(embedding, tp_rank, tp) if cut else embedding
    if first:
        result["transformer.position_embedding.weight"] = hf["wpe.weight"]
    if last:
        for kind in ("weight", "bias"):
            result[f"transformer.ln_f.{kind}"] = hf[f"ln_f.{kind}"]
    for local in range(per_stage):
        source, name = f"h.{pp_rank * per_stage + local}.", f"transformer.layers.{local}."
        for kind in ("weight", "bias"):
            # (rows, …) with the rows of queries, keys and values, of which each rank takes its share
            whole = hf[f"{source}attn.c_attn.{kind}"].T
            result[f"{name}attention.qkv.{kind}"] = np.concatenate(
                [part(third, tp_rank, tp) for third in np.split(whole, 3)]
            )
            result[f"{name}mlp.fc.{kind}"] = part(hf[f"{source}mlp.c_fc.{kind}"].T, tp_rank, tp)
            result[f"{name}input_layernorm.{kind}"] = hf[f"{source}ln_1.{kind}"]
            result[f"{name}post_layernorm.{kind}"] = hf[f"{source}ln_2.{kind}"]
        for ours, theirs in (("attention.dense", "attn.c_proj"), ("mlp.proj", "mlp.c_proj")):
            result[f"{name}{ours}.weight"] = part(hf[f"{source}{theirs}.weight"].T, tp_rank, tp, 1)
            # Added once, after the ranks' shares are summed.
            result[f"{name}{ours}.bias"] = hf[f"{source}{theirs}.bias"]
    return result
