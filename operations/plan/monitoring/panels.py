"""What Grafana's board shows: a row for each question of an operator, and the queries of its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "table"]
_HERE = 'host=~"$host"'
_NAME = "{{host}} {{service}}"
_GPU = "{{host}} GPU {{gpu}}"


@dataclass(frozen=True)
class Query:
    """One query. `legend`: a template of its labels."""

    expression: str
    legend: str = _NAME


@dataclass(frozen=True)
class Panel:
    """
    One picture.

    + unit: Grafana's name of it
    + steps: limit -> colour; the lowest has no limit
    + now: whether only the last value counts
    + words: value -> what is shown in its place
    """

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = "timeseries"
    steps: tuple[tuple[float | None, str], ...] = ((None, "green"),)
    text: str = ""
    words: tuple[tuple[str, str], ...] = ()

    @property
    def now(self) -> bool:
        """Whether only the last value counts."""
        return self.kind != "timeseries"


@dataclass(frozen=True)
class Row:
    """One question."""

    question: str
    panels: tuple[Panel, ...]


_BAD_ABOVE_0 = ((None, "green"), (1.0, "red"))
_BAD_BELOW_1 = ((None, "red"), (1.0, "green"))
_UP = (("0", "down"), ("1", "up"))
_MODEL = "sum by (host, service, model, le)"

ROWS = (
    Row(
        "Is it up?",
        (
            Panel(
                "Metrics are reached",
                (Query(f"min by (host, job) (up{{{_HERE}}})", "{{host}} {{job}}"),),
                kind="stat", steps=_BAD_BELOW_1, words=_UP,
            ),
            Panel(
                "Models are ready",
                (Query(f"min by (host, service) (tritonhost_model_ready{{{_HERE}}})"),),
                kind="stat", steps=_BAD_BELOW_1, words=_UP,
            ),
            Panel(
                "Requests that fail",
                (
                    Query(f"tritonhost:failures:ratio5m{{{_HERE}}}", "{{host}} {{service}} Triton"),
                    Query(f"tritonhost:door_failures:ratio5m{{{_HERE}}}", "{{host}} {{service}} door"),
                ),
                unit="percentunit", steps=((None, "green"), (0.02, "red")),
            ),
            Panel(
                "The certificate ends in",
                (Query(f"tritonhost:certificate:days{{{_HERE}}} * 86400"),),
                unit="s", kind="stat", steps=((None, "red"), (7 * 86400, "orange"), (21 * 86400, "green")),
            ),
        ),
    ),
    Row(
        "Is it fast?",
        (
            Panel(
                "First token, median and 95 %",
                (
                    Query(f"tritonhost:first_token:seconds{{{_HERE}}}", "{{host}} {{service}} median"),
                    Query(
                        f"max by (host, service) (histogram_quantile(0.95, {_MODEL} "
                        f"(rate(tritonhost_door_first_token_seconds_bucket{{{_HERE}}}[$__rate_interval]))))",
                        "{{host}} {{service}} 95 %, door",
                    ),
                    Query(
                        f"max by (host, service) (histogram_quantile(0.95, {_MODEL} "
                        f"(rate(nv_inference_first_response_histogram_ms_bucket{{{_HERE}}}[$__rate_interval])))) / 1000",
                        "{{host}} {{service}} 95 %, Triton",
                    ),
                    Query(f"tritonhost:first_token:baseline_seconds{{{_HERE}}}", "{{host}} {{service}} recorded"),
                ),
                unit="s",
                text="Recorded: when the release was proven. Triton's histogram is off unless metrics-config turns it on.",
            ),
            Panel(
                "Requests of the door, 95 %",
                (
                    Query(
                        f"histogram_quantile(0.95, {_MODEL} "
                        f"(rate(tritonhost_door_request_seconds_bucket{{{_HERE}}}[$__rate_interval])))",
                        "{{host}} {{model}}",
                    ),
                ),
                unit="s",
            ),
            Panel(
                "Mean time in Triton",
                (
                    Query(
                        f"sum by (host, service, model) (rate(nv_inference_request_duration_us{{{_HERE}}}[$__rate_interval])) / "
                        f"sum by (host, service, model) (rate(nv_inference_request_success{{{_HERE}}}[$__rate_interval])) / 1e6",
                        "{{host}} {{service}} {{model}}",
                    ),
                ),
                unit="s",
            ),
            Panel(
                "Tokens a second",
                (
                    Query(
                        "sum by (host, service) (rate(tritonhost_door_completion_tokens_total"
                        f"{{{_HERE}}}[$__rate_interval]))",
                        "{{host}} {{service}} written",
                    ),
                    Query(
                        f"sum by (host, service) (rate(tritonhost_door_prompt_tokens_total{{{_HERE}}}[$__rate_interval]))",
                        "{{host}} {{service}} read",
                    ),
                ),
            ),
        ),
    ),
    Row(
        "Is it full?",
        (
            Panel("Requests that wait", (Query(f"tritonhost:waiting:requests{{{_HERE}}}"),)),
            Panel("Mean time in the queue", (Query(f"tritonhost:queue:seconds5m{{{_HERE}}}"),), unit="s"),
            Panel(
                "KV cache in use",
                (Query(f"tritonhost:kv_cache:ratio{{{_HERE}}}"),),
                unit="percentunit", steps=((None, "green"), (0.95, "red")),
            ),
            Panel(
                "Requests a second",
                (
                    Query(
                        f"sum by (host, service) (rate(nv_inference_request_success{{{_HERE}}}[$__rate_interval]))",
                        "{{host}} {{service}} Triton",
                    ),
                    Query(
                        f"sum by (host, service, key) (rate(tritonhost_door_requests_total{{{_HERE}}}[$__rate_interval]))",
                        "{{host}} {{service}} {{key}}",
                    ),
                ),
                unit="reqps",
            ),
            Panel("Open streams", (Query(f"sum by (host, service) (tritonhost_door_streams{{{_HERE}}})"),)),
            Panel(
                "GPU memory in use",
                (
                    Query(
                        f"DCGM_FI_DEV_FB_USED{{{_HERE}}} / (DCGM_FI_DEV_FB_USED{{{_HERE}}} + DCGM_FI_DEV_FB_FREE{{{_HERE}}})",
                        _GPU,
                    ),
                    Query(
                        f"nv_gpu_memory_used_bytes{{{_HERE}}} / nv_gpu_memory_total_bytes{{{_HERE}}}",
                        "{{host}} {{gpu_uuid}}",
                    ),
                ),
                unit="percentunit",
            ),
            Panel(
                "Disk that is free",
                (Query(f"tritonhost:disk:free_ratio{{{_HERE}}}", "{{host}} {{mountpoint}}"),),
                unit="percentunit", steps=((None, "red"), (0.03, "orange"), (0.10, "green")),
            ),
            Panel(
                "Memory that is free",
                (
                    Query(
                        f"node_memory_MemAvailable_bytes{{{_HERE}}} / node_memory_MemTotal_bytes{{{_HERE}}}",
                        "{{host}}",
                    ),
                ),
                unit="percentunit",
            ),
        ),
    ),
    Row(
        "Is it hot?",
        (
            Panel(
                "GPU temperature",
                (
                    Query(f"DCGM_FI_DEV_GPU_TEMP{{{_HERE}}}", _GPU),
                    Query(f"DCGM_FI_DEV_MEMORY_TEMP{{{_HERE}}}", f"{_GPU} memory"),
                ),
                unit="celsius",
            ),
            Panel(
                "GPU utilization",
                (
                    Query(f"DCGM_FI_DEV_GPU_UTIL{{{_HERE}}} / 100", _GPU),
                    Query(f"nv_gpu_utilization{{{_HERE}}}", "{{host}} {{gpu_uuid}}"),
                ),
                unit="percentunit",
            ),
            Panel(
                "GPU power",
                (
                    Query(f"DCGM_FI_DEV_POWER_USAGE{{{_HERE}}}", _GPU),
                    Query(f"nv_gpu_power_usage{{{_HERE}}}", "{{host}} {{gpu_uuid}}"),
                ),
                unit="watt",
            ),
            Panel("SM clock", (Query(f"DCGM_FI_DEV_SM_CLOCK{{{_HERE}}} * 1e6", _GPU),), unit="hertz"),
            Panel(
                "Slowed down by heat",
                (
                    Query(
                        'floor({__name__=~"DCGM_FI_DEV_(CLOCKS_EVENT|CLOCK_THROTTLE)_REASONS",'
                        f"{_HERE}}} / 32) % 4 > bool 0",
                        _GPU,
                    ),
                ),
                kind="stat", steps=_BAD_ABOVE_0, words=(("0", "no"), ("1", "yes")),
            ),
            Panel(
                "GPU errors",
                (
                    Query(f"DCGM_FI_DEV_XID_ERRORS{{{_HERE}}}", f"{_GPU} last Xid"),
                    Query(f"DCGM_FI_DEV_ROW_REMAP_FAILURE{{{_HERE}}}", f"{_GPU} remap failed"),
                    Query(f"DCGM_FI_DEV_ROW_REMAP_PENDING{{{_HERE}}}", f"{_GPU} remap pending"),
                ),
                kind="stat", steps=_BAD_ABOVE_0,
            ),
        ),
    ),
    Row(
        "What changed?",
        (
            Panel(
                "Releases",
                (Query(f"tritonhost_release_info{{{_HERE}}}", "{{host}} {{service}} {{model}} {{release}}"),),
                kind="table",
            ),
            Panel(
                "Serves for",
                (Query(f"time() - tritonhost_service_active_since_timestamp_seconds{{{_HERE}}}"),),
                unit="s", kind="stat",
            ),
            Panel(
                "Golden answers given",
                (Query(f"time() - tritonhost_release_proven_timestamp_seconds{{{_HERE}}}", "{{host}} {{release}}"),),
                unit="s", kind="stat", text="How long ago the running release last gave its golden answers to a run.",
            ),
            Panel(
                "Last verdicts",
                (Query(f"time() - tritonhost_verdict_timestamp_seconds{{{_HERE}}}", "{{host}} {{service}} {{verdict}}"),),
                unit="s", kind="stat", text="How long ago a release was last proven, failed or withdrawn.",
            ),
            Panel(
                "Last run that changed something",
                (Query(f"time() - tritonhost_run_converged_timestamp_seconds{{{_HERE}}}"),),
                unit="s", kind="stat", text="A run that finds nothing to change leaves no trace on the host.",
            ),
            Panel(
                "Differences and changed files",
                (
                    Query(f"tritonhost_run_differences{{{_HERE}}}", "{{host}} {{service}} found by that run"),
                    Query(f"tritonhost_files_changed{{{_HERE}}}", "{{host}} {{service}} files changed since"),
                ),
                kind="stat", text="Differences that the run has found and removed, and files that were changed since.",
            ),
        ),
    ),
)  # fmt: skip

# A release begins to serve: a line in every picture
ANNOTATION = Query(
    f"tritonhost_service_active_since_timestamp_seconds{{{_HERE}}} * on (host, service) group_left (release, model) "
    f"tritonhost_release_info{{{_HERE}}} * 1000",
    "{{host}} {{service}}: {{release}}",
)


def queries() -> list[Query]:
    """Every query of the board."""
    own = [query for row in ROWS for panel in row.panels for query in panel.queries]
    return [*own, ANNOTATION]
