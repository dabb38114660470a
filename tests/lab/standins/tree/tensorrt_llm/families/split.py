"""How a model is split over ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Split:
    """Tensor and pipeline parallelism; a mixture's experts by tensor (moe_tp) or by whole experts (moe_ep)."""

    tp: int = 1
    pp: int = 1
    moe_tp: int = 1
    moe_ep: int = 1
    parallel_embedding: bool = False

    @property
    def world(self) -> int:
        """The number of ranks."""
        return self.tp * self.pp


def part(weight: NDArray[Any], rank: int, of: int, axis: int = 0) -> NDArray[Any]:
    """The rank's slice of a weight that is cut into `of` equal ones."""
    size = weight.shape[axis] // of
    return weight.take(range(rank * size, (rank + 1) * size), axis)
