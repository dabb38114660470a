"""What Prometheus derives from the metrics, and when it tells somebody: names, expressions, limits.

Metrics of others, each where its name stands:
- Triton: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/metrics.md
- TensorRT-LLM in Triton: https://github.com/triton-inference-server/tensorrtllm_backend/blob/main/README.md#triton-metrics
- dcgm-exporter: https://github.com/NVIDIA/dcgm-exporter/blob/main/etc/default-counters.csv; Xid errors have the code as their value,
  and err_code in newer versions
- haproxy: https://github.com/haproxy/haproxy/blob/master/addons/promex/README
- node_exporter: https://github.com/prometheus/node_exporter#textfile-collector
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from operations.plan.preflight.gpus import FATAL_XIDS

Severity = Literal["critical", "warning", "info"]
DAY = 86400

# of DCGM_FI_DEV_CLOCKS_EVENT_REASONS: 0x20 and 0x40, slowed by heat in software and in hardware
# (dcgm_fields.h of https://github.com/NVIDIA/DCGM). PromQL has no bits: what is left of them after a division.
THROTTLED = "floor({} / 32) % 4 > 0"
# The name before DCGM 3.3, too
CLOCK_REASONS = '{__name__=~"DCGM_FI_DEV_(CLOCKS_EVENT|CLOCK_THROTTLE)_REASONS",job="dcgm"}'
# File systems that are on no disk of the host
NOT_ON_A_DISK = "tmpfs|devtmpfs|overlay|squashfs|iso9660|ramfs|nsfs"


@dataclass(frozen=True)
class Record:
    """A series that rules and panels share."""

    name: str
    expression: str

    def rule(self) -> dict[str, object]:
        """As Prometheus reads it."""
        return {"record": self.name, "expr": self.expression}


@dataclass(frozen=True)
class Alert:
    """
    One alert.

    + lasts: for how long it must hold
    + summary, description: templates of Prometheus, for people
    """

    name: str
    severity: Severity
    expression: str
    lasts: str
    summary: str
    description: str

    @property
    def anchor(self) -> str:
        """Of its heading in docs/how-to/alerts.md."""
        return self.name.lower()

    def rule(self, runbooks: str) -> dict[str, object]:
        """As Prometheus reads it. `runbooks`: URL of the page with a heading for each alert."""
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.lasts,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{runbooks}#{self.anchor}",
            },
        }


_OF = "by (host, service)"
_MS = "nv_inference_first_response_histogram_ms_bucket"
_DOOR_S = "tritonhost_door_first_token_seconds_bucket"

RECORDS = (
    Record(
        "tritonhost:waiting:requests",
        # what waits in Triton's queues, and what the batch manager has taken and not begun
        f'sum {_OF} (nv_inference_pending_request_count{{job="triton"}} or '
        'nv_trt_llm_request_metrics{job="triton",request_type="waiting"})',
    ),
    Record(
        "tritonhost:failures:ratio5m",
        # a client that went away is no failure of the server
        f'sum {_OF} (rate(nv_inference_request_failure{{job="triton",reason!="CANCELED"}}[5m])) / '
        f'(sum {_OF} (rate(nv_inference_request_success{{job="triton"}}[5m])) + '
        f'sum {_OF} (rate(nv_inference_request_failure{{job="triton"}}[5m])))',
    ),
    Record(
        "tritonhost:door_failures:ratio5m",
        # a code has no counter before its first answer: 0, not nothing
        f'(sum {_OF} (rate(tritonhost_door_requests_total{{job="door",code=~"5.."}}[5m])) or '
        f'sum {_OF} (rate(tritonhost_door_requests_total{{job="door"}}[5m])) * 0) / '
        f'sum {_OF} (rate(tritonhost_door_requests_total{{job="door"}}[5m]))',
    ),
    Record(
        "tritonhost:queue:seconds5m",
        f'sum {_OF} (rate(nv_inference_queue_duration_us{{job="triton"}}[5m])) / '
        f'sum {_OF} (rate(nv_inference_request_success{{job="triton"}}[5m])) / 1e6',
    ),
    Record(
        "tritonhost:kv_cache:ratio",
        f'max {_OF} (nv_trt_llm_kv_cache_block_metrics{{job="triton",kv_cache_block_type="used"}} / '
        'ignoring (kv_cache_block_type) (nv_trt_llm_kv_cache_block_metrics{job="triton",kv_cache_block_type="max"} > 0))',
    ),
    Record(
        "tritonhost:first_token:seconds",
        # of an ensemble and its steps the ensemble, which is the slowest; the door's where there is one, as clients see it
        f'max {_OF} (histogram_quantile(0.5, sum by (host, service, model, le) (rate({_DOOR_S}{{job="door"}}[10m])))) or '
        f'max {_OF} (histogram_quantile(0.5, sum by (host, service, model, le) (rate({_MS}{{job="triton"}}[10m]))) / 1000)',
    ),
    Record(
        "tritonhost:first_token:baseline_seconds",
        f"max {_OF} (tritonhost_measured_first_token_seconds) or max {_OF} (tritonhost_measured_answer_seconds)",
    ),
    Record("tritonhost:gpus:count", 'count by (host) (DCGM_FI_DEV_GPU_TEMP{job="dcgm"})'),
    Record(
        "tritonhost:certificate:days",
        f"min {_OF} (tritonhost_gateway_certificate_end_timestamp_seconds - time()) / {DAY}",
    ),
    Record(
        "tritonhost:disk:free_ratio",
        f'min by (host, mountpoint) (node_filesystem_avail_bytes{{job="node",fstype!~"{NOT_ON_A_DISK}"}} / '
        f'node_filesystem_size_bytes{{job="node",fstype!~"{NOT_ON_A_DISK}"}})',
    ),
)

_HOST = "{{ $labels.host }}"
_SERVICE = "{{ $labels.host }} {{ $labels.service }}"
_GPU = "{{ $labels.host }} GPU {{ $labels.gpu }}"
_PERCENT = "{{ $value | humanizePercentage }}"
_DAYS = '{{ $value | printf "%.0f" }} days'
_XIDS = " or ".join(f'DCGM_FI_DEV_XID_ERRORS{{job="dcgm"}} == {code}' for code in sorted(FATAL_XIDS))

SERVICE_ALERTS = (
    Alert(
        "TritonhostDown",
        "critical",
        'up{job="triton"} == 0',
        "5m",
        f"{_SERVICE}: no metrics of Triton",
        "Prometheus has not reached Triton's metrics for 5 minutes: the server is down, loads a model, or is not let through.",
    ),
    Alert(
        "TritonhostNotReady",
        "critical",
        f"min {_OF} (tritonhost_model_ready) == 0",
        "5m",
        f"{_SERVICE}: a model is not ready",
        "On the host itself, a model has not answered for 5 minutes that it is ready. Loading a large one takes longer.",
    ),
    Alert(
        "TritonhostDoorDown",
        "critical",
        'up{job="door"} == 0',
        "5m",
        f"{_SERVICE}: the OpenAI door is down",
        "Prometheus has not reached the door's metrics for 5 minutes: its clients get no answer.",
    ),
    Alert(
        "TritonhostFailures",
        "critical",
        "tritonhost:failures:ratio5m > 0.02",
        "5m",
        f"{_SERVICE}: {_PERCENT} of the requests fail",
        "More than 2 % of the requests of the last 5 minutes failed in Triton. Requests that clients gave up are not counted.",
    ),
    Alert(
        "TritonhostDoorFailures",
        "critical",
        "tritonhost:door_failures:ratio5m > 0.02",
        "5m",
        f"{_SERVICE}: the door answers {_PERCENT} of the requests with an error of its own",
        "More than 2 % of the door's answers of the last 5 minutes had a status of 500 or more.",
    ),
    Alert(
        "TritonhostQueueGrows",
        "warning",
        "tritonhost:waiting:requests > 8 and deriv(tritonhost:waiting:requests[10m]) > 0",
        "10m",
        f"{_SERVICE}: {{{{ $value }}}} requests wait, and more each minute",
        "More requests arrive than the service answers: they will wait longer and longer.",
    ),
    Alert(
        "TritonhostFirstTokenSlow",
        "warning",
        "tritonhost:first_token:seconds > on (host, service) 2 * tritonhost:first_token:baseline_seconds",
        "15m",
        f"{_SERVICE}: half of the clients wait more than {{{{ $value | humanizeDuration }}}} for a first token",
        "The median time to the first token is more than twice what was recorded when the release was proven.",
    ),
    Alert(
        "TritonhostKvCacheFull",
        "warning",
        "tritonhost:kv_cache:ratio > 0.95",
        "10m",
        f"{_SERVICE}: the KV cache is {_PERCENT} full",
        "More than 95 % of the KV cache's blocks have been in use for 10 minutes: further requests wait, or running ones are paused.",
    ),
    Alert(
        "TritonhostCertificateEndsSoon",
        "warning",
        "tritonhost:certificate:days < 21 and tritonhost:certificate:days >= 7",
        "1h",
        f"{_SERVICE}: the gateway's certificate ends in {_DAYS}",
        "The certificate of the gateway, or one of its chain, ends within 21 days.",
    ),
    Alert(
        "TritonhostCertificateEnds",
        "critical",
        "tritonhost:certificate:days < 7",
        "10m",
        f"{_SERVICE}: the gateway's certificate ends in {_DAYS}",
        "The certificate of the gateway, or one of its chain, ends within 7 days, or has ended: clients then refuse it.",
    ),
)

GPU_ALERTS = (
    Alert(
        "TritonhostGpuLost",
        "critical",
        "tritonhost:gpus:count < on (host) sum by (host) (tritonhost_gpus) or "
        "tritonhost:gpus:count < max_over_time(tritonhost:gpus:count[1d])",
        "5m",
        f"{_HOST}: {{{{ $value }}}} GPUs are left",
        "dcgm-exporter reports fewer GPUs than the services use, or than it did within the last day.",
    ),
    Alert(
        "TritonhostXidNeedsReset",
        "critical",
        _XIDS,
        "0m",
        f"{_GPU}: Xid {{{{ $value }}}}",
        "The driver reported an error after which the GPU has to be reset. The value stays until the exporter is started again.",
    ),
    Alert(
        "TritonhostRowRemapFailed",
        "critical",
        'DCGM_FI_DEV_ROW_REMAP_FAILURE{job="dcgm"} > 0',
        "0m",
        f"{_GPU}: a row of its memory could not be replaced",
        "The GPU has no spare row left for a broken one: have it replaced.",
    ),
    Alert(
        "TritonhostRowRemapPending",
        "warning",
        'DCGM_FI_DEV_ROW_REMAP_PENDING{job="dcgm"} > 0',
        "15m",
        f"{_GPU}: a row of its memory is replaced at the next reset",
        "The GPU has found a broken row, and uses the spare one from its next reset on.",
    ),
    Alert(
        "TritonhostGpuThrottled",
        "warning",
        THROTTLED.format(CLOCK_REASONS),
        "10m",
        f"{_GPU}: slowed down by heat",
        "The GPU has lowered its clock for 10 minutes because it is too hot.",
    ),
)

HOST_ALERTS = (
    Alert(
        "TritonhostExporterDown",
        "warning",
        'up{job=~"node|dcgm"} == 0',
        "10m",
        f"{_HOST}: no metrics of {{{{ $labels.job }}}}",
        "Prometheus has not reached the exporter for 10 minutes: what it watches is not watched.",
    ),
    Alert(
        "TritonhostMetricsOld",
        "warning",
        'time() - node_textfile_mtime_seconds{job="node",file=~".*tritonhost-[^/]*\\\\.prom"} > 300',
        "5m",
        f"{_HOST}: its own metrics are {{{{ $value | humanizeDuration }}}} old",
        "The timer on the host has not written its metrics for 5 minutes: all others of them are out of date.",
    ),
    Alert(
        "TritonhostDiskLow",
        "warning",
        "tritonhost:disk:free_ratio < 0.10 and tritonhost:disk:free_ratio >= 0.03",
        "15m",
        f"{_HOST}: {_PERCENT} of {{{{ $labels.mountpoint }}}} is free",
        "Less than 10 % of the file system is free. An upgrade needs space for a second release.",
    ),
    Alert(
        "TritonhostDiskFull",
        "critical",
        "tritonhost:disk:free_ratio < 0.03",
        "5m",
        f"{_HOST}: {_PERCENT} of {{{{ $labels.mountpoint }}}} is free",
        "Less than 3 % of the file system is free: containers, logs and downloads fail next.",
    ),
)

LOAD_BALANCER_ALERTS = (
    Alert(
        "TritonhostLoadBalancerDown",
        "critical",
        'up{job="load-balancer"} == 0',
        "2m",
        f"{_HOST}: the load balancer does not answer",
        "Prometheus has not reached haproxy for 2 minutes: clients may not reach any host.",
    ),
    Alert(
        "TritonhostNoHostServes",
        "critical",
        'haproxy_backend_active_servers{job="load-balancer",proxy="http"} == 0',
        "1m",
        f"{_HOST}: no host takes requests",
        "No host behind the load balancer says that a proven release serves: clients get 503.",
    ),
    Alert(
        "TritonhostHostLeftOut",
        "warning",
        'haproxy_server_status{job="load-balancer",proxy="http",state="UP"} == 0',
        "30m",
        f"{_HOST}: {{{{ $labels.server }}}} gets no requests",
        "The load balancer has sent nothing to this host for 30 minutes: it does not answer, or its gateway says that no proven release "
        "serves there.",
    ),
)

RELEASE_ALERTS = (
    Alert(
        "TritonhostRolledBack",
        "warning",
        f'time() - max {_OF} (tritonhost_verdict_timestamp_seconds{{verdict=~"failed|withdrawn"}}) < {DAY}',
        "0m",
        f"{_SERVICE}: a release was put back or withdrawn {{{{ $value | humanizeDuration }}}} ago",
        "A new release did not pass its gates, or an operator rolled it back. The previous one serves.",
    ),
    Alert(
        "TritonhostGoldenDrift",
        "warning",
        f"time() - max {_OF} (tritonhost_golden_drift_timestamp_seconds) < {DAY}",
        "0m",
        f"{_SERVICE}: a release answered its golden requests differently {{{{ $value | humanizeDuration }}}} ago",
        "A release was held back because its golden answers were wrong, or not those on record.",
    ),
    Alert(
        "TritonhostDrift",
        "warning",
        f"max {_OF} (tritonhost_files_changed) > 0",
        "15m",
        f"{_SERVICE}: {{{{ $value }}}} files were changed since the last run",
        "Files of units, rules or of the running release are not as the last run left them.",
    ),
    Alert(
        "TritonhostRunUnfinished",
        "warning",
        # a day at most: a run that finds nothing notes nothing, so that nothing says whether it was cured
        f"max {_OF} (tritonhost_run_differences) and on (host, service) (tritonhost_run_start_timestamp_seconds > "
        f"(tritonhost_run_converged_timestamp_seconds or 0 * tritonhost_run_start_timestamp_seconds) and "
        f"time() - tritonhost_run_start_timestamp_seconds < {DAY})",
        "6h",
        f"{_SERVICE}: a run found {{{{ $value }}}} differences and did not come to its end",
        "The last run that found differences began more than 6 hours ago, and has not left the host converged. This ends after a day.",
    ),
)

GROUPS: Mapping[str, tuple[Alert, ...]] = {
    "tritonhost-service": SERVICE_ALERTS,
    "tritonhost-gpu": GPU_ALERTS,
    "tritonhost-host": HOST_ALERTS,
    "tritonhost-load-balancer": LOAD_BALANCER_ALERTS,
    "tritonhost-release": RELEASE_ALERTS,
}
ALERTS = tuple(alert for group in GROUPS.values() for alert in group)


def rules(runbooks: str) -> dict[str, object]:
    """The file of rules. `runbooks`: URL of the page with a heading for each alert."""
    records = {"name": "tritonhost-records", "rules": [record.rule() for record in RECORDS]}
    groups = [
        {"name": name, "rules": [alert.rule(runbooks) for alert in alerts]} for name, alerts in GROUPS.items()
    ]
    return {"groups": [records, *groups]}
