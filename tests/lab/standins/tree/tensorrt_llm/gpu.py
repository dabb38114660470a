"""The GPUs of this machine or container, by asking nvidia-smi."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

SETTINGS_FILE = Path("/etc/lab/gpus")


@dataclass(frozen=True)
class Gpu:
    """One GPU: its marketing name and compute capability, e.g. ("NVIDIA A10", "8.6")."""

    name: str
    compute_capability: str


class NoGpu(Exception):
    """No GPU is visible here."""


def visible_gpus() -> list[Gpu]:
    """All visible GPUs in order, at least one."""
    query = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        raise NoGpu("no CUDA-capable device is detected (nvidia-smi is not here)") from None
    found = [line.rsplit(", ", 1) for line in done.stdout.splitlines() if ", " in line]
    if done.returncode or not found:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise NoGpu(f"no CUDA-capable device is detected (nvidia-smi: {said[-1] if said else 'no GPU'})")
    return [Gpu(name, capability) for name, capability in found]


def free_bytes() -> int | None:
    """What the fullest visible GPU has left; None where nvidia-smi does not say."""
    query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    found = [int(line) for line in done.stdout.split() if line.isdecimal()]
    return min(found) * 2**20 if found and not done.returncode else None


def token_delay() -> float:
    """Seconds that each token takes longer: LAB_TOKEN_SECONDS in the server's environment, for a release that is slow."""
    return float(os.environ.get("LAB_TOKEN_SECONDS", "0"))


def wrong_every() -> int:
    """Each how many requests are answered wrongly: LAB_WRONG_EVERY in the server's environment. 0: none is."""
    return int(os.environ.get("LAB_WRONG_EVERY", "0"))


def lab_delay() -> float:
    """Seconds that the lab wants a build to take (build_seconds= beside its GPUs), to interrupt one in the middle."""
    try:
        lines = SETTINGS_FILE.read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split("=", 1)[1]) for line in lines if line.startswith("build_seconds=")), 0.0)
