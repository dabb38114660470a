"""From a Hugging Face folder to a TensorRT-LLM checkpoint: config.json and one rankN.safetensors per rank."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from .quantization import ALGORITHMS, quantize
from .version import __version__

Tensors = dict[str, NDArray[Any]]
LLAMA = ("LlamaForCausalLM", "MistralForCausalLM")
QUANTIZED = ("attention.qkv", "attention.dense", "mlp.fc", "mlp.gate", "mlp.proj")


class CheckpointError(Exception):
    """The folder cannot be converted as asked."""


@dataclass(frozen=True)
class Wish:
    """How the checkpoint is to be: precision, split, and quantization ("int8", "int4", "int4_awq" or None)."""

    dtype: str = "float16"
    tp_size: int = 1
    pp_size: int = 1
    parallel_embedding: bool = False
    quantization: str | None = None
    group_size: int = 0
    kv_cache: str | None = None


def load_model(folder: Path) -> tuple[dict[str, Any], Tensors]:
    """The folder's config.json and all tensors of its safetensors files."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}/config.json cannot be read: {error}") from None
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise CheckpointError(f"no *.safetensors in {folder}; expected a Hugging Face model folder")
    tensors: Tensors = {}
    for shard in shards:
        tensors.update(load_file(shard))
    return config, tensors


def _dtype(wish: Wish) -> np.dtype[Any]:
    if wish.dtype in ("auto", "float16", "float32"):
        return np.dtype("float32" if wish.dtype == "float32" else "float16")
    raise CheckpointError(
        f"dtype {wish.dtype}: numpy has no such type, the stand-in knows float16 and float32"
    )


def _check_split(config: dict[str, Any], wish: Wish) -> None:
    heads, kv_heads = config["num_attention_heads"], config.get("num_key_value_heads", 1)
    layers, tp, pp = config["num_hidden_layers"], wish.tp_size, wish.pp_size
    assert heads % tp == 0, f"num_attention_heads {heads} must be divisible by tp_size {tp}"
    assert kv_heads % tp == 0 or tp % kv_heads == 0, (
        f"num_key_value_heads {kv_heads} does not fit tp_size {tp}"
    )
    assert config["intermediate_size"] % tp == 0, f"intermediate_size must be divisible by tp_size {tp}"
    assert config["vocab_size"] % tp == 0, (
        f"vocab_size {config['vocab_size']} must be divisible by tp_size {tp}"
    )
    assert layers % pp == 0, f"num_hidden_layers {layers} must be divisible by pp_size {pp}"


def _part(weight: NDArray[Any], rank: int, of: int, axis: int = 0) -> NDArray[Any]:
    size = weight.shape[axis] // of
    return weight.take(range(rank * size, (rank + 1) * size), axis)


def _llama_rank(config: dict[str, Any], hf: Tensors, wish: Wish, tp_rank: int, pp_rank: int) -> Tensors:
    """The tensors of one rank; layers count from 0 in each pipeline stage, as in the real checkpoint."""
    tp, kv_heads = wish.tp_size, config.get("num_key_value_heads", config["num_attention_heads"])
    per_stage = config["num_hidden_layers"] // wish.pp_size
    tied = bool(config.get("tie_word_embeddings"))
    embedding = hf["model.embed_tokens.weight"]
    first, last = pp_rank == 0, pp_rank == wish.pp_size - 1
    result: Tensors = {}
    if first or (last and tied):
        parted = wish.parallel_embedding
        result["transformer.vocab_embedding.weight"] = _part(embedding, tp_rank, tp) if parted else embedding
    if last:
        result["transformer.ln_f.weight"] = hf["model.norm.weight"]
        if not tied:
            result["lm_head.weight"] = _part(hf["lm_head.weight"], tp_rank, tp)
    kv_parts = min(tp, kv_heads)  # with more ranks than key/value heads, ranks share a head
    kv_rank = tp_rank * kv_parts // tp
    for local in range(per_stage):
        source, name = f"model.layers.{pp_rank * per_stage + local}.", f"transformer.layers.{local}."
        result[name + "attention.qkv.weight"] = np.concatenate(
            [
                _part(hf[source + "self_attn.q_proj.weight"], tp_rank, tp),
                _part(hf[source + "self_attn.k_proj.weight"], kv_rank, kv_parts),
                _part(hf[source + "self_attn.v_proj.weight"], kv_rank, kv_parts),
            ]
        )
        result[name + "attention.dense.weight"] = _part(
            hf[source + "self_attn.o_proj.weight"], tp_rank, tp, 1
        )
        result[name + "mlp.fc.weight"] = _part(hf[source + "mlp.gate_proj.weight"], tp_rank, tp)
        result[name + "mlp.gate.weight"] = _part(hf[source + "mlp.up_proj.weight"], tp_rank, tp)
        result[name + "mlp.proj.weight"] = _part(hf[source + "mlp.down_proj.weight"], tp_rank, tp, 1)
        result[name + "input_layernorm.weight"] = hf[source + "input_layernorm.weight"]
        result[name + "post_layernorm.weight"] = hf[source + "post_attention_layernorm.weight"]
    return result


def _llama_config(config: dict[str, Any]) -> dict[str, Any]:
    heads = config["num_attention_heads"]
    return {
        "architecture": config["architectures"][0],
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
        "max_position_embeddings": config["max_position_embeddings"],
    }


def _stored(tensors: Tensors, wish: Wish, dtype: np.dtype[Any]) -> Tensors:
    """The tensors as they lie on disk: in the wished precision, linear layers quantized."""
    result: Tensors = {}
    for name, tensor in sorted(tensors.items()):
        stem = name.removesuffix(".weight")
        if wish.quantization and stem.endswith(QUANTIZED):
            bits = 8 if wish.quantization == "int8" else 4
            try:
                result[name], result[stem + ".per_channel_scale"] = quantize(tensor, bits, wish.group_size)
            except ValueError as error:
                raise CheckpointError(f"{name}: {error}") from None
        else:
            result[name] = np.ascontiguousarray(tensor.astype(dtype))
    return result


def convert(model_dir: Path, output_dir: Path, wish: Wish, say: Callable[[str], None] = print) -> None:
    """Bring about the checkpoint in output_dir."""
    config, tensors = load_model(model_dir)
    architecture = (config.get("architectures") or ["none"])[0]
    if architecture not in LLAMA:
        raise CheckpointError(f"architecture {architecture}: this stand-in converts {', '.join(LLAMA)} only")
    if config.get("rope_scaling"):
        raise CheckpointError(
            f"rope_scaling {config['rope_scaling']}: this stand-in knows plain rotary embedding only"
        )
    dtype = _dtype(wish)
    _check_split(config, wish)
    output_dir.mkdir(parents=True, exist_ok=True)
    world = wish.tp_size * wish.pp_size
    quantization: dict[str, Any] = {
        "quant_algo": ALGORITHMS[wish.quantization] if wish.quantization else None,
        "kv_cache_quant_algo": wish.kv_cache.upper() if wish.kv_cache else None,
    }
    if wish.group_size:
        quantization["group_size"] = wish.group_size
    document = {
        **_llama_config(config),
        "dtype": dtype.name,
        "logits_dtype": "float32",
        "use_parallel_embedding": wish.parallel_embedding,
        "embedding_sharding_dim": 0,
        "share_embedding_table": bool(config.get("tie_word_embeddings")),
        "quantization": quantization,
        "mapping": {"world_size": world, "tp_size": wish.tp_size, "pp_size": wish.pp_size},
        "producer": {"name": "stand-in", "version": __version__},
    }
    (output_dir / "config.json").write_text(json.dumps(document, indent=4) + "\n")
    for rank in range(world):
        pp_rank, tp_rank = divmod(rank, wish.tp_size)
        shard = _stored(_llama_rank(config, tensors, wish, tp_rank, pp_rank), wish, dtype)
        (output_dir / f"rank{rank}.safetensors").write_bytes(save(shard, {"format": "np"}))
        say(f"[stand-in] rank {rank} of {world}: {len(shard)} tensors")
