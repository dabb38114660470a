"""For each alert: metrics with which it fires, and metrics just below with which it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# A service, as targets and the host's own metrics name it
S = 'host="gpu-1",service="triton"'
OF_S = {"host": "gpu-1", "service": "triton"}
TRITON = f'instance="10.0.0.11:8002",job="triton",profile="llama",{S}'
DOOR = f'instance="10.0.0.11:8443",job="door",profile="llama",{S}'
NODE = f'instance="10.0.0.11:9100",job="node",{S}'
NODE_ALONE = 'instance="10.0.0.11:9100",job="node",host="gpu-1"'
DCGM = 'instance="10.0.0.11:9400",job="dcgm",host="gpu-1"'
OF_DCGM = {"instance": "10.0.0.11:9400", "job": "dcgm", "host": "gpu-1"}
FRONT = 'instance="10.0.1.5:8405",job="load-balancer",host="front-1"'
OF_FRONT = {"instance": "10.0.1.5:8405", "job": "load-balancer", "host": "front-1"}
DAY = 86400


@dataclass(frozen=True)
class Case:
    """
    + series: in promtool's notation, one sample a minute
    + minutes: when it is looked at
    + labels: of the alert, without its name and severity; None: it does not fire
    + summary: what it says
    """

    alert: str
    series: Mapping[str, str]
    minutes: int
    labels: Mapping[str, str] | None = None
    summary: str = ""


def _door(bad: int, good: int = 100) -> dict[str, str]:
    of = f'tritonhost_door_requests_total{{{DOOR},model="llama",key="shop",code='
    return {f'{of}"200"}}': f"0+{good}x60", f'{of}"503"}}': f"0+{bad}x60"}


def _triton(bad: int, good: int = 1000, reason: str = "BACKEND") -> dict[str, str]:
    of = f'{TRITON},model="ensemble",version="1"'
    return {
        f"nv_inference_request_success{{{of}}}": f"0+{good}x60",
        f'nv_inference_request_failure{{{of},reason="{reason}"}}': f"0+{bad}x60",
        f'nv_inference_request_failure{{{of},reason="CANCELED"}}': "0+9x60",
    }


def _waiting(pending: str, waiting: str = "0x60") -> dict[str, str]:
    of = f'{TRITON},model="tensorrt_llm",version="1"'
    return {
        f"nv_inference_pending_request_count{{{of}}}": pending,
        f'nv_trt_llm_request_metrics{{{of},request_type="waiting"}}': waiting,
        f'nv_trt_llm_request_metrics{{{of},request_type="active"}}': "100x60",
    }


def _cache(used: int) -> dict[str, str]:
    of = f'nv_trt_llm_kv_cache_block_metrics{{{TRITON},model="tensorrt_llm",version="1",kv_cache_block_type='
    return {f'{of}"used"}}': f"{used}x60", f'{of}"max"}}': "1000x60", f'{of}"free"}}': f"{1000 - used}x60"}


def _first_token(fast: int, slow: int, baseline: str = "answer") -> dict[str, str]:
    """Requests a minute up to 1 s, and from 1 to 4 s; the recorded one took half a second."""
    of = f'tritonhost_door_first_token_seconds_bucket{{{DOOR},model="llama",le='
    return {
        f'{of}"1"}}': f"0+{fast}x60",
        f'{of}"4"}}': f"0+{fast + slow}x60",
        f'{of}"+Inf"}}': f"0+{fast + slow}x60",
        f'tritonhost_measured_{baseline}_seconds{{{NODE},release="a"}}': "0.5x60",
    }


def _first_response(slow: int) -> dict[str, str]:
    """The same of Triton's histogram, in milliseconds; the steps of the ensemble are fast."""
    step, of = (
        f'nv_inference_first_response_histogram_ms_bucket{{{TRITON},version="1",model="{model}",le='
        for model in ("preprocessing", "ensemble")
    )
    return {
        f'{step}"1000"}}': "0+1000x60",
        f'{step}"+Inf"}}': "0+1000x60",
        f'{of}"1000"}}': "0+10x60",
        f'{of}"4000"}}': f"0+{10 + slow}x60",
        f'{of}"+Inf"}}': f"0+{10 + slow}x60",
        f'tritonhost_measured_answer_seconds{{{NODE},release="a"}}': "0.5x60",
    }


def _ends_in(days: float) -> dict[str, str]:
    """Looked at after two hours."""
    return {f"tritonhost_gateway_certificate_end_timestamp_seconds{{{NODE}}}": f"{7200 + days * DAY:.0f}x130"}


def _gpus(counted: str, wanted: int = 2) -> dict[str, str]:
    of = f'{DCGM},UUID="GPU-0",device="nvidia0",gpu='
    return {
        f'DCGM_FI_DEV_GPU_TEMP{{{of}"0"}}': "50x60",
        f'DCGM_FI_DEV_GPU_TEMP{{{of}"1"}}': counted,
        f"tritonhost_gpus{{{NODE}}}": f"{wanted}x60",
    }


def _dcgm(name: str, values: str, **labels: str) -> dict[str, str]:
    more = "".join(f',{label}="{value}"' for label, value in labels.items())
    return {f'{name}{{{DCGM},UUID="GPU-0",device="nvidia0",gpu="0"{more}}}': values}


def _disk(free: int, kind: str = "xfs") -> dict[str, str]:
    of = f'{NODE_ALONE},mountpoint="/",device="/dev/sda3",fstype="{kind}"'
    return {
        f"node_filesystem_avail_bytes{{{of}}}": f"{free}x60",
        f"node_filesystem_size_bytes{{{of}}}": "1000x60",
    }


def _verdict(word: str, values: str = "6000x1600") -> dict[str, str]:
    return {f'tritonhost_verdict_timestamp_seconds{{{NODE},verdict="{word}"}}': values}


def _run(start: int, converged: str) -> dict[str, str]:
    found = {
        f"tritonhost_run_differences{{{NODE}}}": "3x2000",
        f"tritonhost_run_start_timestamp_seconds{{{NODE}}}": f"{start}x2000",
    }
    if converged:
        found[f"tritonhost_run_converged_timestamp_seconds{{{NODE}}}"] = converged
    return found


_UP = {"instance": "10.0.0.11:8002", "job": "triton", "profile": "llama", **OF_S}
_DOOR_UP = {"instance": "10.0.0.11:8443", "job": "door", "profile": "llama", **OF_S}
_GPU = {**OF_DCGM, "UUID": "GPU-0", "device": "nvidia0", "gpu": "0"}
_READY = f"tritonhost_model_ready{{{NODE},triton_model="
_PROM = f'{NODE_ALONE},file="/var/lib/node_exporter/textfile_collector/tritonhost-triton.prom"'
_OF_PROM = {
    "instance": "10.0.0.11:9100",
    "job": "node",
    "host": "gpu-1",
    "file": "/var/lib/node_exporter/textfile_collector/tritonhost-triton.prom",
}
_SLOW = "gpu-1 triton: half of the clients wait more than {} for a first token"

CASES = (
    Case("TritonhostDown", {f"up{{{TRITON}}}": "1x4 0x20"}, 11, _UP, "gpu-1 triton: no metrics of Triton"),
    Case("TritonhostDown", {f"up{{{TRITON}}}": "1x4 0x20"}, 9),
    Case("TritonhostDown", {f"up{{{TRITON}}}": "0x3 1 0x3 1 0x3 1"}, 11),
    Case(
        "TritonhostNotReady",
        {f'{_READY}"a"}}': "1x20", f'{_READY}"b"}}': "0x20"},
        6,
        OF_S,
        "gpu-1 triton: a model is not ready",
    ),
    Case("TritonhostNotReady", {f'{_READY}"a"}}': "1x20", f'{_READY}"b"}}': "1x20"}, 6),
    Case("TritonhostNotReady", {f'{_READY}"a"}}': "0x4 1x20"}, 6),
    Case(
        "TritonhostDoorDown", {f"up{{{DOOR}}}": "0x20"}, 6, _DOOR_UP, "gpu-1 triton: the OpenAI door is down"
    ),
    Case("TritonhostDoorDown", {f"up{{{DOOR}}}": "0x20"}, 4),
    Case("TritonhostFailures", _triton(40), 20, OF_S, "gpu-1 triton: 3.813% of the requests fail"),
    Case("TritonhostFailures", _triton(19), 20),
    Case("TritonhostFailures", _triton(40, reason="CANCELED"), 20),
    Case(
        "TritonhostDoorFailures",
        _door(3),
        20,
        OF_S,
        "gpu-1 triton: the door answers 2.913% of the requests with an error of its own",
    ),
    Case("TritonhostDoorFailures", _door(2), 20),
    Case(
        "TritonhostQueueGrows",
        _waiting("0+1x60"),
        30,
        OF_S,
        "gpu-1 triton: 30 requests wait, and more each minute",
    ),
    Case(
        "TritonhostQueueGrows",
        _waiting("0x60", "0+1x60"),
        30,
        OF_S,
        "gpu-1 triton: 30 requests wait, and more each minute",
    ),
    Case("TritonhostQueueGrows", _waiting("50x60"), 30),
    Case("TritonhostQueueGrows", _waiting("8-0.1x60"), 30),
    Case("TritonhostQueueGrows", _waiting("0+0.2x60"), 40),
    Case("TritonhostFirstTokenSlow", _first_token(10, 30), 40, OF_S, _SLOW.format("2s")),
    Case("TritonhostFirstTokenSlow", _first_token(10, 30, "first_token"), 40, OF_S, _SLOW.format("2s")),
    Case("TritonhostFirstTokenSlow", _first_response(30), 40, OF_S, _SLOW.format("2s")),
    Case("TritonhostFirstTokenSlow", _first_response(9), 40),
    Case("TritonhostFirstTokenSlow", _first_token(30, 10), 40),
    Case("TritonhostFirstTokenSlow", _first_token(10, 30), 14),
    Case("TritonhostKvCacheFull", _cache(960), 12, OF_S, "gpu-1 triton: the KV cache is 96% full"),
    Case("TritonhostKvCacheFull", _cache(950), 12),
    Case(
        "TritonhostCertificateEndsSoon",
        _ends_in(20.9),
        120,
        OF_S,
        "gpu-1 triton: the gateway's certificate ends in 21 days",
    ),
    Case("TritonhostCertificateEndsSoon", _ends_in(21.1), 120),
    Case("TritonhostCertificateEndsSoon", _ends_in(6.9), 120),
    Case(
        "TritonhostCertificateEnds",
        _ends_in(6.9),
        120,
        OF_S,
        "gpu-1 triton: the gateway's certificate ends in 7 days",
    ),
    Case("TritonhostCertificateEnds", _ends_in(7.1), 120),
    Case("TritonhostGpuLost", _gpus("50x10 _x50"), 30, {"host": "gpu-1"}, "gpu-1: 1 GPUs are left"),
    Case("TritonhostGpuLost", _gpus("50x10 _x50", wanted=1), 30, {"host": "gpu-1"}, "gpu-1: 1 GPUs are left"),
    Case("TritonhostGpuLost", _gpus("_x60"), 30, {"host": "gpu-1"}, "gpu-1: 1 GPUs are left"),
    Case("TritonhostGpuLost", _gpus("50x60"), 30),
    Case("TritonhostGpuLost", _gpus("_x60", wanted=1), 30),
    Case(
        "TritonhostXidNeedsReset",
        _dcgm("DCGM_FI_DEV_XID_ERRORS", "0x5 79x20", err_code="79", err_msg="GPU has fallen off the bus"),
        6,
        {**_GPU, "err_code": "79", "err_msg": "GPU has fallen off the bus"},
        "gpu-1 GPU 0: Xid 79",
    ),
    Case(
        "TritonhostXidNeedsReset",
        _dcgm("DCGM_FI_DEV_XID_ERRORS", "0x5 48x20"),
        6,
        _GPU,
        "gpu-1 GPU 0: Xid 48",
    ),
    # a program's own fault
    Case("TritonhostXidNeedsReset", _dcgm("DCGM_FI_DEV_XID_ERRORS", "0x5 31x20", err_code="31"), 6),
    Case("TritonhostXidNeedsReset", _dcgm("DCGM_FI_DEV_XID_ERRORS", "0x20"), 6),
    Case(
        "TritonhostRowRemapFailed",
        _dcgm("DCGM_FI_DEV_ROW_REMAP_FAILURE", "1x20"),
        1,
        _GPU,
        "gpu-1 GPU 0: a row of its memory could not be replaced",
    ),
    Case("TritonhostRowRemapFailed", _dcgm("DCGM_FI_DEV_ROW_REMAP_FAILURE", "0x20"), 1),
    Case(
        "TritonhostRowRemapPending",
        _dcgm("DCGM_FI_DEV_ROW_REMAP_PENDING", "1x20"),
        16,
        _GPU,
        "gpu-1 GPU 0: a row of its memory is replaced at the next reset",
    ),
    Case("TritonhostRowRemapPending", _dcgm("DCGM_FI_DEV_ROW_REMAP_PENDING", "1x20"), 14),
    Case("TritonhostRowRemapPending", _dcgm("DCGM_FI_DEV_ROW_REMAP_PENDING", "0x20"), 16),
    # idle and power (1, 4) are no heat; the bits of heat are 32 and 64
    *(
        Case(
            "TritonhostGpuThrottled",
            _dcgm(f"DCGM_FI_DEV_{name}_REASONS", f"{bits}x20"),
            11,
            _GPU,
            "gpu-1 GPU 0: slowed down by heat",
        )
        for name, bits in (("CLOCKS_EVENT", 32), ("CLOCKS_EVENT", 64 + 4), ("CLOCK_THROTTLE", 256 + 96))
    ),
    *(
        Case("TritonhostGpuThrottled", _dcgm("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", f"{bits}x20"), 11)
        for bits in (0, 1 + 4, 8, 16, 128, 256)
    ),
    Case("TritonhostGpuThrottled", _dcgm("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "32x8 0x3"), 11),
    Case("TritonhostExporterDown", {f"up{{{DCGM}}}": "0x20"}, 11, OF_DCGM, "gpu-1: no metrics of dcgm"),
    Case("TritonhostExporterDown", {f"up{{{DCGM}}}": "0x20", f"up{{{NODE_ALONE}}}": "1x20"}, 9),
    Case(
        "TritonhostMetricsOld",
        {f"node_textfile_mtime_seconds{{{_PROM}}}": "0x60"},
        12,
        _OF_PROM,
        "gpu-1: its own metrics are 12m 0s old",
    ),
    Case("TritonhostMetricsOld", {f"node_textfile_mtime_seconds{{{_PROM}}}": "0+60x60"}, 12),
    Case(
        "TritonhostMetricsOld",
        {f'node_textfile_mtime_seconds{{{NODE_ALONE},file="/var/lib/other.prom"}}': "0x60"},
        12,
    ),
    Case(
        "TritonhostDiskLow",
        _disk(99),
        16,
        {"host": "gpu-1", "mountpoint": "/"},
        "gpu-1: 9.9% of / is free",
    ),
    Case("TritonhostDiskLow", _disk(100), 16),
    Case("TritonhostDiskLow", _disk(29), 16),
    Case("TritonhostDiskLow", _disk(50, "tmpfs"), 16),
    Case(
        "TritonhostDiskFull",
        _disk(29),
        6,
        {"host": "gpu-1", "mountpoint": "/"},
        "gpu-1: 2.9% of / is free",
    ),
    Case("TritonhostDiskFull", _disk(30), 6),
    *(
        Case(
            "TritonhostRolledBack",
            _verdict(word),
            160,
            OF_S,
            "gpu-1 triton: a release was put back or withdrawn 1h 0m 0s ago",
        )
        for word in ("failed", "withdrawn")
    ),
    Case("TritonhostRolledBack", _verdict("proven"), 160),
    Case("TritonhostRolledBack", _verdict("failed"), 100 + 1441),
    Case(
        "TritonhostGoldenDrift",
        {f"tritonhost_golden_drift_timestamp_seconds{{{NODE}}}": "6000x1600"},
        160,
        OF_S,
        "gpu-1 triton: a release answered its golden requests differently 1h 0m 0s ago",
    ),
    Case(
        "TritonhostGoldenDrift",
        {f"tritonhost_golden_drift_timestamp_seconds{{{NODE}}}": "6000x1600"},
        100 + 1441,
    ),
    Case("TritonhostGoldenDrift", _verdict("failed"), 160),
    Case(
        "TritonhostDrift",
        {f"tritonhost_files_changed{{{NODE}}}": "0x5 2x30"},
        21,
        OF_S,
        "gpu-1 triton: 2 files were changed since the last run",
    ),
    Case("TritonhostDrift", {f"tritonhost_files_changed{{{NODE}}}": "0x5 2x30"}, 19),
    Case("TritonhostDrift", {f"tritonhost_files_changed{{{NODE}}}": "0x40"}, 21),
    *(
        Case(
            "TritonhostRunUnfinished",
            _run(600, converged),
            380,
            OF_S,
            "gpu-1 triton: a run found 3 differences and did not come to its end",
        )
        for converged in ("", "300x2000")
    ),
    Case("TritonhostRunUnfinished", _run(600, "900x2000"), 380),
    Case("TritonhostRunUnfinished", _run(600, ""), 340),
    Case("TritonhostRunUnfinished", _run(600, ""), 1460),
    Case(
        "TritonhostLoadBalancerDown",
        {f"up{{{FRONT}}}": "0x20"},
        3,
        OF_FRONT,
        "front-1: the load balancer does not answer",
    ),
    Case("TritonhostLoadBalancerDown", {f"up{{{FRONT}}}": "0x20"}, 1),
    Case(
        "TritonhostNoHostServes",
        {f'haproxy_backend_active_servers{{{FRONT},proxy="http"}}': "0x20"},
        3,
        {**OF_FRONT, "proxy": "http"},
        "front-1: no host takes requests",
    ),
    Case("TritonhostNoHostServes", {f'haproxy_backend_active_servers{{{FRONT},proxy="http"}}': "1x20"}, 3),
    Case(
        "TritonhostHostLeftOut",
        {f'haproxy_server_status{{{FRONT},proxy="http",server="gpu-1",state="UP"}}': "0x60"},
        31,
        {**OF_FRONT, "proxy": "http", "server": "gpu-1", "state": "UP"},
        "front-1: gpu-1 gets no requests",
    ),
    # an upgrade
    Case(
        "TritonhostHostLeftOut",
        {f'haproxy_server_status{{{FRONT},proxy="http",server="gpu-1",state="UP"}}': "0x20 1x40"},
        31,
    ),
)
