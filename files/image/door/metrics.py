"""The door's numbers, in Prometheus' form. Those that count tokens go on after a restart."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from .usage import Usage

disable_created_metrics()  # type: ignore[no-untyped-call]
FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)
WHOLE = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600)


class _Tokens(Collector):
    """The totals of the file of counters."""

    def __init__(self, usage: Usage) -> None:
        self.usage = usage

    def collect(self) -> Iterator[CounterMetricFamily]:
        """One counter for prompts and one for answers."""
        for kind in ("prompt", "completion"):
            family = CounterMetricFamily(
                f"tritonhost_door_{kind}_tokens", f"Tokens of {kind}s.", labels=["model", "key"]
            )
            for name, count in sorted(self.usage.totals.items()):
                found, model, key = name.split("\t")
                if found == kind:
                    family.add_metric([model, key], count)
            yield family


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self, usage: Usage) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Tokens(usage))
        self.requests = Counter(
            "tritonhost_door_requests",
            "Requests by the HTTP status of their answer; 499: the client went away.",
            ["model", "key", "code"],
            registry=self.registry,
        )
        self.streams = Gauge(
            "tritonhost_door_streams", "Requests that are being answered.", registry=self.registry
        )
        self.first = Histogram(
            "tritonhost_door_first_token_seconds",
            "From a request to the first part of its answer.",
            ["model"],
            buckets=FIRST_TOKEN,
            registry=self.registry,
        )
        self.whole = Histogram(
            "tritonhost_door_request_seconds",
            "From a request to the end of its answer.",
            ["model"],
            buckets=WHOLE,
            registry=self.registry,
        )

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self.registry)
