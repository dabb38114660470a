"""From an engine directory to a decoder, or the refusal that the real runtime would log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engine_file import EngineRefused, check_header, float_tensors, read_header, read_weights
from ..gpu import Gpu
from ..releases import release
from .decoder import Decoder
from .network import Network


def load_config(engine_dir: Path) -> dict[str, Any]:
    """The engine directory's config.json."""
    try:
        config: dict[str, Any] = json.loads((engine_dir / "config.json").read_text())
    except FileNotFoundError:
        raise EngineRefused(f"Cannot find engine config file {engine_dir}/config.json") from None
    except ValueError as error:
        raise EngineRefused(f"[json.exception.parse_error.101] {engine_dir}/config.json: {error}") from None
    return config


def load_engine(engine_dir: Path, gpus: Sequence[Gpu]) -> Decoder:
    """The engine, loaded for all its ranks. Raises EngineRefused where the real runtime would refuse."""
    config = load_config(engine_dir)
    model, build = config["pretrained_config"], config["build_config"]
    tp, pp = int(model["mapping"]["tp_size"]), int(model["mapping"]["pp_size"])
    max_seq_len = int(build["max_seq_len"])
    plugins = build["plugin_config"]
    packed = plugins.get("remove_input_padding") and plugins.get("context_fmha")
    modern = release(config["version"]) >= (0, 11)
    # With packed input and fused attention max_input_len means nothing from 0.11 on: a prompt may fill the sequence.
    max_input_len = max_seq_len - 1 if packed and modern else int(build["max_input_len"])
    warnings: list[str] = []
    shards = []
    for rank in range(tp * pp):
        path = engine_dir / f"rank{rank}.engine"
        header, offset = read_header(path)
        warnings += check_header(header, gpus[rank % len(gpus)])
        shards.append((path, header, offset))
    ranks = [float_tensors(read_weights(*shard)) for shard in shards]
    stages = [ranks[i * tp : (i + 1) * tp] for i in range(pp)]
    return Decoder(Network(model, stages, max_seq_len), max_seq_len, max_input_len, warnings)
