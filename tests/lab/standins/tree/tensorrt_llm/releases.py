"""What this stand-in knows of TensorRT-LLM's releases: how versions compare, and which TensorRT came with which."""

from __future__ import annotations

TENSORRT = {
    (0, 9): "9.3.0",
    (0, 10): "10.0.1",
    (0, 11): "10.1.0",
    (0, 12): "10.3.0",
    (0, 13): "10.4.0",
    (0, 14): "10.4.0",
    (0, 15): "10.6.0",
    (0, 16): "10.7.0",
    (0, 17): "10.8.0.43",
    (0, 18): "10.9.0.34",
    (0, 19): "10.9.0.34",
    (1, 0): "10.11.0.33",
    (1, 2): "10.14.1.48",
}

# 228 and 237 were seen in the field; the others only count on, one for each minor release of TensorRT.
_SERIALIZATION = {"9.3": 228, "10.0": 237}


def release(version: str) -> tuple[int, int]:
    """The (major, minor) of a version such as 0.13.0 or 0.17.0.post1."""
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def tensorrt_of(version: str) -> str:
    """The TensorRT version that the TensorRT-LLM version was built with."""
    return TENSORRT[release(version)]


def serialization_of(tensorrt: str) -> int:
    """The number that TensorRT writes into a plan and insists on when it reads one."""
    major, minor, *_ = tensorrt.split(".")
    return _SERIALIZATION.get(f"{major}.{minor}", 237 + int(minor))
