"""From a Hugging Face folder straight to a decoder, as the LLM API does: no checkpoint, no engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import CheckpointError, check_rope, load_config, load_model
from ..families import SERVED, Family, Split
from ..releases import release
from ..version import __version__
from .decoder import Decoder
from .network import Network


def _registered(config: dict[str, Any]) -> Family:
    """The family of the architecture. The real backend looks for it before it reads weights, and refuses it in these words."""
    architecture = (config.get("architectures") or ["none"])[0]
    known = [family for family, since in SERVED if since <= release(__version__)]
    for family in known:
        if architecture in family.architectures:
            return family
    names = ", ".join(name for family in known for name in family.architectures)
    raise CheckpointError(
        f"Unknown architecture for AutoModelForCausalLM: {architecture} (this stand-in serves {names})"
    )


def load_folder(folder: Path, max_seq_len: int | None = None) -> Decoder:
    """The folder's model, computed in 32-bit floats. Raises CheckpointError where it cannot be loaded."""
    family = _registered(load_config(folder))
    config, tensors = load_model(folder)
    settings = family.settings(config)
    check_rope(settings)
    length = max_seq_len or int(settings["max_position_embeddings"])
    whole = family.tensors(config, tensors, Split(), 0, 0)
    weights = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in whole.items()}
    return Decoder(Network(settings, [[weights]], length), length, length - 1)
