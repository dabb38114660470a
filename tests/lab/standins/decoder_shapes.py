"""Names and shapes of a decoder's tensors, by its config.json, as its folder on the public Hub has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Shapes = dict[str, tuple[int, ...]]


def _attention(config: dict[str, Any]) -> Shapes:
    hidden, kind = config["hidden_size"], config["model_type"]
    size = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, shared = size * config["num_attention_heads"], size * config["num_key_value_heads"]
    if kind == "phi3":
        rows = {"qkv_proj": queries + 2 * shared}
    else:
        rows = {"q_proj": queries, "k_proj": shared, "v_proj": shared}
    shapes: Shapes = {f"{part}.weight": (count, hidden) for part, count in rows.items()}
    if kind == "qwen2":
        shapes |= {f"{part}.bias": (count,) for part, count in rows.items()}
    if kind == "qwen3":
        shapes |= {f"{part}_norm.weight": (size,) for part in "qk"}
    return {**shapes, "o_proj.weight": (hidden, queries)}


def _feed_forward(config: dict[str, Any]) -> Shapes:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    if config["model_type"] == "phi3":
        rows = {"gate_up_proj": 2 * inner}
    else:
        rows = {"gate_proj": inner, "up_proj": inner}
    shapes: Shapes = {f"{part}.weight": (count, hidden) for part, count in rows.items()}
    return {**shapes, "down_proj.weight": (hidden, inner)}


def _experts(config: dict[str, Any]) -> Shapes:
    hidden, inner, experts = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    shapes: Shapes = {"gate.weight": (experts, hidden)}
    for expert in range(experts):
        for part, rows, columns in (("w1", inner, hidden), ("w2", hidden, inner), ("w3", inner, hidden)):
            shapes[f"experts.{expert}.{part}.weight"] = (rows, columns)
    return shapes


def llama_shapes(config: dict[str, Any]) -> Shapes:
    """Of Llama, Mistral, Mixtral, Qwen2, Qwen3 and Phi-3."""
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    parts = {"self_attn": _attention(config)}
    if "num_local_experts" in config:
        parts["block_sparse_moe"] = _experts(config)
    else:
        parts["mlp"] = _feed_forward(config)
    shapes: Shapes = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}."
        for block, inner in parts.items():
            shapes |= {f"{layer}{block}.{name}": shape for name, shape in inner.items()}
        for part in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}{part}.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    return shapes if config["tie_word_embeddings"] else {**shapes, "lm_head.weight": (vocabulary, hidden)}


def gpt_shapes(config: dict[str, Any]) -> Shapes:
    """Of GPT-2."""
    hidden = config["n_embd"]
    shapes: Shapes = {
        "wte.weight": (config["vocab_size"], hidden),
        "wpe.weight": (config["n_positions"], hidden),
    }
    for number in range(config["n_layer"]):
        layer = f"h.{number}."
        for part, rows, columns in (
            ("attn.c_attn", hidden, 3 * hidden),
            ("attn.c_proj", hidden, hidden),
            ("mlp.c_fc", hidden, 4 * hidden),
            ("mlp.c_proj", 4 * hidden, hidden),
        ):
            # (in, out): GPT-2 keeps its matrices transposed
            shapes |= {f"{layer}{part}.weight": (rows, columns), f"{layer}{part}.bias": (columns,)}
        for part in ("ln_1", "ln_2"):
            shapes |= {f"{layer}{part}.weight": (hidden,), f"{layer}{part}.bias": (hidden,)}
    return {**shapes, "ln_f.weight": (hidden,), "ln_f.bias": (hidden,)}


def output_matrix(config: dict[str, Any]) -> str:
    """The tensor whose rows are the words that a model may say."""
    if config["model_type"] == "gpt2":
        return "wte.weight"
    return "model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"


SHAPES: dict[str, Callable[[dict[str, Any]], Shapes]] = {
    "gpt2": gpt_shapes,
    **dict.fromkeys(("llama", "mistral", "mixtral", "qwen2", "qwen3", "phi3"), llama_shapes),
}
