"""The model families: from Hugging Face's names and shapes to TensorRT-LLM's, split over ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..tensors import Tensors
from . import gpt, llama
from .split import Split

RankTensors = Callable[[dict[str, Any], Tensors, Split, int, int], Tensors]


@dataclass(frozen=True)
class Family:
    """Which architectures (Hugging Face's names), their settings in a checkpoint, and one rank's tensors.

    `tensors` is called with config, Hugging Face's tensors, the split, and the ranks in tensor and pipeline parallel.
    """

    architectures: tuple[str, ...]
    settings: Callable[[dict[str, Any]], dict[str, Any]]
    tensors: RankTensors


LLAMA = Family(llama.ARCHITECTURES, llama.settings, llama.rank_tensors)
GPT = Family(gpt.ARCHITECTURES, gpt.settings, gpt.rank_tensors)
ALL = (LLAMA, GPT)

__all__ = ["ALL", "GPT", "LLAMA", "Family", "Split"]
