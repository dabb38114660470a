"""The backend's own metrics on Triton's page: names and labels as its README lists them."""

from __future__ import annotations

import time
from typing import Any

from tensorrt_llm.runtime.batch import Batch

TOKENS_PER_BLOCK = 64
# Setting a metric goes through Triton each time.
EVERY_S = 1.0

FAMILIES = {
    "nv_trt_llm_request_metrics": ("TRT LLM request metrics", "request_type"),
    "nv_trt_llm_kv_cache_block_metrics": ("TRT LLM KV cache block metrics", "kv_cache_block_type"),
}


class Metrics:
    """
    + utils: Triton's own module
    + labels: of all its metrics: the model's name and version
    + longest: tokens of the longest answer with its prompt; each answer in the batch holds the blocks of one
    """

    def __init__(self, utils: Any, labels: dict[str, str], batch: Batch, longest: int) -> None:
        self.batch, self.blocks = batch, -(-longest // TOKENS_PER_BLOCK)
        self.told = 0.0
        self.metrics: dict[tuple[str, str], Any] = {}
        # the stub frees a family's metrics with it
        self.families = []
        for name, (description, label) in FAMILIES.items():
            family = utils.MetricFamily(name=name, description=description, kind=utils.MetricFamily.GAUGE)
            self.families.append(family)
            for value in self._values()[name]:
                self.metrics[name, value] = family.Metric(labels={**labels, label: value})
        self.tell()

    def _values(self) -> dict[str, dict[str, int]]:
        active, waiting = len(self.batch.running), len(self.batch.waiting)
        most, used = self.batch.most * self.blocks, active * self.blocks
        return {
            "nv_trt_llm_request_metrics": {
                **{"active": active + waiting, "max": self.batch.most, "scheduled": active},
                **{"context": 0, "waiting": waiting},
            },
            "nv_trt_llm_kv_cache_block_metrics": {
                **{"max": most, "free": most - used, "used": used},
                "tokens_per": TOKENS_PER_BLOCK,
            },
        }

    def tell(self) -> None:
        """Let Triton's page say how it is now. Called in Triton's own thread alone."""
        if time.monotonic() - self.told < EVERY_S:
            return
        self.told = time.monotonic()
        for name, values in self._values().items():
            for value, number in values.items():
                self.metrics[name, value].set(number)
