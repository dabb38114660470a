"""AIPerf as the tool that sends requests and measures, where it is installed: its configuration, its process, its figures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from operations.bench_results import NotMeasured
from operations.plan.errors import PlanError, one_line
from operations.plan.serving.bench_result import of_aiperf
from operations.plan.serving.benched import Figures, Phase, Slo

EXPORT = "profile_export_aiperf.json"
_PROFILING = {"name": "profiling", "kind": "profiling", "type": "poisson"}
# beside the time that the requests take: it starts a dozen processes
START_SECONDS = 120


def configuration(
    url: str,
    model: str,
    phase: Phase,
    rate: float,
    seed: int,
    slo: Slo,
    ignore_eos: bool,
    tokenizer: str,
    folder: str,
) -> dict[str, Any]:
    """
    What AIPerf is told: the same prompts as our own client, at a rate.

    + url: the door's base URL
    + tokenizer: a directory or a name that AIPerf loads; the door's own counts are used
    + folder: where it reads the prompts and writes its results

    The key is not in it: `${TRITONHOST_BENCH_KEY}` stands for it, which AIPerf takes from its environment.
    """
    told: dict[str, Any] = {"seed": seed, "temperature": 0, "max_tokens": phase.requests[0].max_tokens}
    if ignore_eos:
        told["ignore_eos"] = True
    return {
        "random_seed": seed,
        "benchmark": {
            "models": {"items": [{"name": model}]},
            "endpoint": {
                "urls": [url.removesuffix("/v1")],
                "type": "completions",
                "streaming": True,
                "use_server_token_count": True,
                "extra": told,
            },
            "datasets": [
                {
                    "name": "main",
                    "type": "file",
                    "path": f"{folder}/prompts.jsonl",
                    "format": "single_turn",
                    "sampling": "sequential",
                    "random_seed": seed,
                }
            ],
            "phases": [
                {**_PROFILING, "requests": len(phase.requests), "rate": rate},
            ],
            "artifacts": {"dir": f"{folder}/out", "auto_plot": False},
            "slos": {"time_to_first_token": slo.ttft_ms, "inter_token_latency": slo.itl_ms},
            "tokenizer": {"name": tokenizer},
            "gpu_telemetry": {"enabled": False},
            "server_metrics": {"enabled": False},
            "runtime": {"ui": "none"},
        },
    }


def measured(
    program: str, told: Mapping[str, Any], phase: Phase, folder: Path, limit_s: float, key: str | None
) -> tuple[str, Figures]:
    """
    AIPerf's version and figures.

    + told: see configuration
    + key: for the door; None: it wants none

    Raises NotMeasured, and PlanError for a result that is not AIPerf's.
    """
    document = json.loads(json.dumps(told))
    environment = dict(os.environ)
    if key is not None:
        document["benchmark"]["endpoint"]["api_key"] = "${TRITONHOST_BENCH_KEY}"
        environment["TRITONHOST_BENCH_KEY"] = key
    lines = [
        json.dumps({"text": request.prompt, "output_length": request.max_tokens})
        for request in phase.requests
    ]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    # JSON is YAML, which AIPerf reads by the name's end
    (folder / "aiperf.yaml").write_text(json.dumps(document), encoding="utf-8")
    try:
        done = subprocess.run(
            [program, "profile", "--config", str(folder / "aiperf.yaml")],
            capture_output=True,
            text=True,
            timeout=limit_s + START_SECONDS,
            env=environment,
            cwd=folder,
        )
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"aiperf: no result within {limit_s + START_SECONDS:.0f} s") from None
    except OSError as error:
        expected = "the program aiperf of an environment of its own"
        raise PlanError("--aiperf", f"{program}: {error.strerror}", expected, reference="no-aiperf") from None
    export = folder / "out" / EXPORT
    if done.returncode or not export.exists():
        raise NotMeasured(f"aiperf ended with {done.returncode}: {said(done.stdout + done.stderr)}")
    return of_aiperf(export.read_bytes(), EXPORT)


def said(output: str) -> str:
    """The first line of its output that says why, without the frame around it."""
    lines = [text for line in output.splitlines() if (text := line.strip(" │╭╮╰╯─"))]
    wrong = [
        text
        for text in lines
        if re.search(r"error|failed", text, re.IGNORECASE) and "Running AIPerf" not in text
    ]
    return one_line(" ".join((wrong or lines or ["no message"])[:2]))[:300]


def place() -> tempfile.TemporaryDirectory[str]:
    """A directory for one measurement, which nobody else reads."""
    return tempfile.TemporaryDirectory(prefix="tritonhost-bench-")
