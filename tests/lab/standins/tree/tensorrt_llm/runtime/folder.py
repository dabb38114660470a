"""From a Hugging Face folder straight to a decoder, as the LLM API does: no checkpoint, no engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..checkpoint import family_of, load_model
from ..families import Split
from .decoder import Decoder
from .network import Network


def load_folder(folder: Path, max_seq_len: int | None = None) -> Decoder:
    """The folder's model, computed in 32-bit floats. Raises CheckpointError where it cannot be loaded."""
    config, tensors = load_model(folder)
    family = family_of(config)
    settings = family.settings(config)
    length = max_seq_len or int(settings["max_position_embeddings"])
    whole = family.tensors(config, tensors, Split(), 0, 0)
    weights = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in whole.items()}
    return Decoder(Network(settings, [[weights]], length), length, length - 1)
