"""Llama, Mistral and Mixtral: rotary positions, RMS norm, gated feed-forward, in Mixtral one of several experts.

Qwen2 is a Llama with biases of query, key and value, Qwen3 one with norms of each query and key head.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensors import Tensors
from .split import Split, part

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM")


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """The architecture as a checkpoint's config.json has it."""
    heads = config["num_attention_heads"]
    result = {
        # Mixtral and Mistral are Llamas to TensorRT-LLM.
        "architecture": "LlamaForCausalLM",
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": config.get("num_key_value_heads", heads),
        "head_size": config.get("head_dim") or config["hidden_size"] // heads,
        "hidden_act": config["hidden_act"],
        "norm_epsilon": config["rms_norm_eps"],
        "position_embedding_type": "rope_gpt_neox",
        "rotary_base": config.get("rope_theta", 10000.0),
        "rotary_scaling": config.get("rope_scaling"),
        "max_position_embeddings": config["max_position_embeddings"],
        "tie_word_embeddings": bool(config.get("tie_word_embeddings")),
    }
    if "num_local_experts" in config:
        result["moe"] = {
            "num_experts": config["num_local_experts"],
            "top_k": config["num_experts_per_tok"],
            "normalization_mode": 1,
        }
    return result


def _experts(config: dict[str, Any], hf: Tensors, source: str, split: Split, tp_rank: int) -> Tensors:
    """The rank's experts, or its slice of each, stacked."""
    block = source + "block_sparse_moe."
    held = config["num_local_experts"] // split.moe_ep
    tensor_rank, first = tp_rank // split.moe_ep, tp_rank % split.moe_ep * held

    def cut(expert: int, name: str, axis: int = 0) -> Any:
        return part(hf[f"{block}experts.{expert}.{name}.weight"], tensor_rank, split.moe_tp, axis)

    mine = range(first, first + held)
    return {
        "router.weight": hf[block + "gate.weight"],
        # Up before gate in one matrix, as in the real checkpoint.
        "fc.weight": np.stack([np.concatenate([cut(e, "w3"), cut(e, "w1")]) for e in mine]),
        "proj.weight": np.stack([cut(e, "w2", 1) for e in mine]),
    }


def _feed_forward(hf: Tensors, source: str, split: Split, tp_rank: int) -> Tensors:
    return {
        "fc.weight": part(hf[source + "mlp.gate_proj.weight"], tp_rank, split.tp),
        "gate.weight": part(hf[source + "mlp.up_proj.weight"], tp_rank, split.tp),
        "proj.weight": part(hf[source + "mlp.down_proj.weight"], tp_rank, split.tp, 1),
    }


def _attention(hf: Tensors, source: str, tp_rank: int, tp: int, kv_rank: int, kv_parts: int) -> Tensors:
    places = (("q_proj", tp_rank, tp), ("k_proj", kv_rank, kv_parts), ("v_proj", kv_rank, kv_parts))
    result = {
        f"qkv.{kind}": np.concatenate(
            [part(hf[f"{source}{one}.{kind}"], rank, of) for one, rank, of in places]
        )
        for kind in ("weight", "bias")
        if f"{source}q_proj.{kind}" in hf
    }
    for ours, theirs in (("q_layernorm", "q_norm"), ("k_layernorm", "k_norm")):
        if f"{source}{theirs}.weight" in hf:
            result[f"{ours}.weight"] = hf[f"{source}{theirs}.weight"]
    return {**result, "dense.weight": part(hf[source + "o_proj.weight"], tp_rank, tp, 1)}


def rank_tensors(config: dict[str, Any], hf: Tensors, split: Split, tp_rank: int, pp_rank: int) -> Tensors:
    """The tensors of one rank; layers count from 0 in each pipeline stage, as in the real checkpoint."""
    tp, kv_heads = split.tp, config.get("num_key_value_heads", config["num_attention_heads"])
    per_stage = config["num_hidden_layers"] // split.pp
    tied = bool(config.get("tie_word_embeddings"))
    embedding = hf["model.embed_tokens.weight"]
    first, last = pp_rank == 0, pp_rank == split.pp - 1
    result: Tensors = {}
    if first or (last and tied):
        cut = split.parallel_embedding
        result["transformer.vocab_embedding.weight"] = part(embedding, tp_rank, tp) if cut else embedding
    if last:
        result["transformer.ln_f.weight"] = hf["model.norm.weight"]
        if not tied:
            result["lm_head.weight"] = part(hf["lm_head.weight"], tp_rank, tp)
    kv_parts = min(tp, kv_heads)  # with more ranks than key/value heads, ranks share a head
    kv_rank = tp_rank * kv_parts // tp
    for local in range(per_stage):
        source, name = f"model.layers.{pp_rank * per_stage + local}.", f"transformer.layers.{local}."
        attention = _attention(hf, source + "self_attn.", tp_rank, tp, kv_rank, kv_parts)
        result |= {f"{name}attention.{key}": tensor for key, tensor in attention.items()}
        mixture = "num_local_experts" in config
        inner = (
            _experts(config, hf, source, split, tp_rank)
            if mixture
            else _feed_forward(hf, source, split, tp_rank)
        )
        result |= {f"{name}mlp.{key}": tensor for key, tensor in inner.items()}
        result[name + "input_layernorm.weight"] = hf[source + "input_layernorm.weight"]
        result[name + "post_layernorm.weight"] = hf[source + "post_attention_layernorm.weight"]
    return result
