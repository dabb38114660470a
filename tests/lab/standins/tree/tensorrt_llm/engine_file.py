"""The engine file (rankN.engine) of the stand-in, and the reasons for which one is refused.

Like a real TensorRT plan it holds what it was made with: TensorRT's version, the GPU and its compute capability. Here
that is a JSON header before the weights (safetensors). Refusals use the real libraries' words.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .gpu import Gpu
from .quantization import dequantize
from .releases import serialization_of, tensorrt_of
from .tensors import unpack
from .version import __version__

MAGIC = b"stand-in for a TensorRT plan\n"


class EngineRefused(Exception):
    """The engine cannot be used here. `lines` are what the real libraries would log, the last one the verdict."""

    def __init__(self, *lines: str) -> None:
        super().__init__(lines[-1])
        self.lines = lines


def _not_deserialized(*reasons: str) -> EngineRefused:
    return EngineRefused(*reasons, "Assertion failed: Failed to deserialize cuda engine")


def write_engine(path: Path, weights: bytes, gpu: Gpu, rank: int) -> None:
    """Write the engine of one rank, built on `gpu`, from the bytes of a safetensors file."""
    header = json.dumps(
        {
            "tensorrt": tensorrt_of(__version__),
            "tensorrt_llm": __version__,
            "gpu_name": gpu.name,
            "compute_capability": gpu.compute_capability,
            "rank": rank,
            "size": len(weights),
            "crc32": zlib.crc32(weights),
        },
        sort_keys=True,
    ).encode()
    with path.open("wb") as stream:
        stream.write(MAGIC + struct.pack("<Q", len(header)) + header)
        stream.write(weights)


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The engine's header and the offset of its weights."""
    try:
        stream = path.open("rb")
    except OSError:
        raise EngineRefused(f"Error opening engine file: {path}") from None
    with stream:
        start = stream.read(len(MAGIC) + 8)
        if len(start) < len(MAGIC) + 8 or not start.startswith(MAGIC):
            raise _not_deserialized(
                "[TRT] Serialization assertion magicTagRead == kMAGIC_TAG failed.Magic tag does not match"
            )
        (length,) = struct.unpack("<Q", start[len(MAGIC) :])
        raw = stream.read(min(length, 1 << 20))
    if len(raw) != length:
        raise _not_deserialized("[TRT] Serialization assertion size failed.The engine plan file is truncated")
    header: dict[str, Any] = json.loads(raw)
    return header, len(start) + length


def check_header(header: dict[str, Any], gpu: Gpu) -> list[str]:
    """Refuse an engine of another TensorRT or compute capability; returns warnings for one that may be used."""
    here, there = tensorrt_of(__version__), str(header["tensorrt"])
    current, serialized = serialization_of(here), serialization_of(there)
    if current != serialized:
        raise _not_deserialized(
            "[TRT] Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match."
            f" Note: Current Version: {current}, Serialized Engine Version: {serialized}"
        )
    if here != there:
        raise _not_deserialized(
            "[TRT] The engine plan file is not compatible with this version of TensorRT,"
            f" expecting library version {here} got {there}, please rebuild."
        )
    if header["compute_capability"] != gpu.compute_capability:
        raise _not_deserialized(
            "[TRT] The engine plan file is generated on an incompatible device, expecting compute"
            f" {gpu.compute_capability} got compute {header['compute_capability']}, please rebuild."
        )
    if header["gpu_name"] != gpu.name:
        return [
            "[TRT] Using an engine plan file across different models of devices is not recommended and is likely to"
            " affect performance or even cause errors."
        ]
    return []


def read_weights(path: Path, header: dict[str, Any], offset: int) -> dict[str, NDArray[Any]]:
    """The engine's tensors by name; a file cut short or changed is refused."""
    with path.open("rb") as stream:
        stream.seek(offset)
        weights = stream.read()
    if len(weights) != header["size"] or zlib.crc32(weights) != header["crc32"]:
        raise _not_deserialized(
            f"[TRT] Serialization assertion size failed.{len(weights)} bytes of weights, expected {header['size']}"
            " with their checksum: the engine plan file is truncated or damaged"
        )
    return unpack(weights)


def float_tensors(stored: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """All tensors as 32-bit floats (numpy multiplies no faster type), quantized ones restored by their scales."""
    suffix = ".per_channel_scale"
    result = {}
    for name, tensor in stored.items():
        if name.endswith(suffix):
            continue
        scale = stored.get(name.removesuffix(".weight") + suffix)
        result[name] = tensor.astype(np.float32) if scale is None else dequantize(tensor, scale)
    return result
