"""The GPUs of this machine or container, by asking nvidia-smi."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass


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
