"""From a Hugging Face folder to a TensorRT-LLM checkpoint: config.json and one rankN.safetensors per rank."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .families import ALL, Family, Split
from .quantization import ALGORITHMS, quantize
from .releases import release
from .tensors import BFloat16, Tensors, TensorsError, pack, read, rounded
from .version import __version__

QUANTIZED = ("attention.qkv", "attention.dense", "mlp.fc", "mlp.gate", "mlp.proj")
INDEX = "model.safetensors.index.json"
DTYPES = ("float16", "bfloat16", "float32")
NEW_IN_0_12 = (0, 12)


class CheckpointError(Exception):
    """The folder cannot be converted as asked."""


@dataclass(frozen=True)
class Wish:
    """How the checkpoint is to be: precision, split, and quantization ("int8", "int4", "int4_awq" or None)."""

    dtype: str = "float16"
    split: Split = field(default_factory=Split)
    quantization: str | None = None
    group_size: int = 0
    kv_cache: str | None = None


def load_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}/config.json cannot be read: {error}") from None
    return config


def _weight_files(folder: Path) -> list[Path]:
    """The files that make up the model: those of the index, or the one file. Others beside them are not read."""
    index = folder / INDEX
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"no {missing[0]} in {folder}; expected a Hugging Face model folder with "
            + (f"the {len(names)} files of {INDEX}" if len(names) > 1 else "safetensors")
        )
    return [folder / name for name in names]


def load_model(folder: Path) -> tuple[dict[str, Any], Tensors]:
    """The folder's config.json and all tensors of its safetensors files."""
    config = load_config(folder)
    tensors: Tensors = {}
    try:
        for path in _weight_files(folder):
            tensors |= read(path)
    except TensorsError as error:
        raise CheckpointError(str(error)) from None
    return config, tensors


def family_of(config: dict[str, Any], among: Sequence[Family] = ALL) -> Family:
    """The family that knows the architecture."""
    architecture = (config.get("architectures") or ["none"])[0]
    for family in among:
        if architecture in family.architectures:
            return family
    known = ", ".join(name for family in among for name in family.architectures)
    raise CheckpointError(f"architecture {architecture}: this stand-in converts {known} here")


def _dtype(wish: Wish, config: dict[str, Any]) -> str:
    dtype = wish.dtype
    if dtype == "auto":  # a source in 32 bits becomes 16
        source = config.get("torch_dtype") or config.get("dtype")
        dtype = "bfloat16" if source == "bfloat16" else "float16"
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype {dtype}: expected one of auto, {', '.join(DTYPES)}")
    return dtype


def _check_split(settings: dict[str, Any], split: Split) -> None:
    heads, kv_heads = settings["num_attention_heads"], settings["num_key_value_heads"]
    layers, tp, pp = settings["num_hidden_layers"], split.tp, split.pp
    assert heads % tp == 0, f"num_attention_heads {heads} must be divisible by tp_size {tp}"
    assert kv_heads % tp == 0 or tp % kv_heads == 0, (
        f"num_key_value_heads {kv_heads} does not fit tp_size {tp}"
    )
    for name in ("intermediate_size", "vocab_size"):
        assert settings[name] % tp == 0, f"{name} {settings[name]} must be divisible by tp_size {tp}"
    if "moe" in settings:
        experts = settings["moe"]["num_experts"]
        assert experts % split.moe_ep == 0, (
            f"{experts} experts must be divisible by moe_ep_size {split.moe_ep}"
        )
    assert layers % pp == 0, f"num_hidden_layers {layers} must be divisible by pp_size {pp}"


def check_rope(settings: dict[str, Any]) -> str | None:
    """The type of the rotary embedding's scaling; None without one. Refuses one that is not played here."""
    scaling = settings.get("rotary_scaling") or {}
    kind: str | None = scaling.get("rope_type", scaling.get("type"))
    if scaling and kind != "llama3":
        raise CheckpointError(
            f"rope_scaling of type {kind}: this stand-in knows plain rotary embedding and llama3"
        )
    return kind


def _check_release(settings: dict[str, Any]) -> None:
    """Refuse what came with a later release than the installed one."""
    kind = check_rope(settings)
    if release(__version__) >= NEW_IN_0_12:
        return
    if kind:
        raise CheckpointError(f"rope_scaling of type {kind} is not known to TensorRT-LLM {__version__}")
    if settings["head_size"] * settings["num_attention_heads"] != settings["hidden_size"]:
        raise CheckpointError(
            f"head_dim {settings['head_size']} is not hidden_size / num_attention_heads, which TensorRT-LLM"
            f" {__version__} does not know"
        )


def _stored(tensors: Tensors, wish: Wish, dtype: str) -> dict[str, NDArray[Any] | BFloat16]:
    """The tensors as they lie on disk: in the wished precision, linear layers quantized."""
    result: dict[str, NDArray[Any] | BFloat16] = {}
    for name, tensor in tensors.items():
        stem = name.removesuffix(".weight")
        if wish.quantization and stem.endswith(QUANTIZED):
            bits = 8 if wish.quantization == "int8" else 4
            try:
                result[name], result[stem + ".per_channel_scale"] = quantize(tensor, bits, wish.group_size)
            except ValueError as error:
                raise CheckpointError(f"{name}: {error}") from None
        else:
            result[name] = rounded(tensor) if dtype == "bfloat16" else tensor.astype(np.dtype(dtype))
    return result


def convert(
    model_dir: Path,
    output_dir: Path,
    wish: Wish,
    families: Sequence[Family] = ALL,
    say: Callable[[str], None] = print,
) -> None:
    """Bring about the checkpoint in output_dir."""
    config, tensors = load_model(model_dir)
    family = family_of(config, families)
    settings, split = family.settings(config), wish.split
    dtype = _dtype(wish, config)
    _check_release(settings)
    _check_split(settings, split)
    output_dir.mkdir(parents=True, exist_ok=True)
    quantization: dict[str, Any] = {
        "quant_algo": ALGORITHMS[wish.quantization] if wish.quantization else None,
        "kv_cache_quant_algo": wish.kv_cache.upper() if wish.kv_cache else None,
    }
    if wish.group_size:
        quantization["group_size"] = wish.group_size
    document = {
        **settings,
        "dtype": dtype,
        "logits_dtype": "float32",
        "use_parallel_embedding": split.parallel_embedding,
        "embedding_sharding_dim": 0,
        "share_embedding_table": settings["tie_word_embeddings"],
        "quantization": quantization,
        "mapping": {
            "world_size": split.world,
            "tp_size": split.tp,
            "pp_size": split.pp,
            "moe_tp_size": split.moe_tp,
            "moe_ep_size": split.moe_ep,
        },
        "producer": {"name": "stand-in", "version": __version__},
    }
    (output_dir / "config.json").write_text(json.dumps(document, indent=4) + "\n")
    for rank in range(split.world):
        pp_rank, tp_rank = divmod(rank, split.tp)
        shard = _stored(family.tensors(config, tensors, split, tp_rank, pp_rank), wish, dtype)
        (output_dir / f"rank{rank}.safetensors").write_bytes(pack(shard, {"format": "np"}))
        say(f"[stand-in] rank {rank} of {split.world}: {len(shard)} tensors")
