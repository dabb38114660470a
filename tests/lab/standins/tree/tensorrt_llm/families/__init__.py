"""The model families: from Hugging Face's names and shapes to TensorRT-LLM's, split over ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..tensors import Tensors
from . import gpt, llama, phi
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
# What the converters and quantize.py read.
ALL = (LLAMA, GPT)
QWEN = Family(("Qwen2ForCausalLM", "Qwen3ForCausalLM"), llama.settings, llama.rank_tensors)
PHI = Family(phi.ARCHITECTURES, llama.settings, phi.rank_tensors)
# What the LLM API serves, and from which release on: the PyTorch backend has no GPT-2, and no converter played here reads Qwen or Phi.
SERVED = ((LLAMA, (1, 0)), (QWEN, (1, 0)), (PHI, (1, 1)))

__all__ = ["ALL", "GPT", "LLAMA", "SERVED", "Family", "Split"]
