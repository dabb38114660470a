"""Files of named tensors (safetensors), bfloat16 included.

numpy has no bfloat16: such a tensor is widened to 32-bit floats when it is read, which loses nothing, and written from
its 16 bits, kept as unsigned integers under the label BF16.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]

_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
_LABELS = {np.dtype(kind): label for label, kind in _TYPES.items()}


class TensorsError(Exception):
    """The bytes are not a whole safetensors file, or hold a type that is not known here."""


@dataclass(frozen=True)
class BFloat16:
    """A tensor in bfloat16: the upper halves of 32-bit floats."""

    bits: NDArray[np.uint16]


def rounded(values: NDArray[Any]) -> BFloat16:
    """The values in bfloat16, each rounded to the nearest, ties to even."""
    whole = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return BFloat16(((whole + 0x7FFF + ((whole >> 16) & 1)) >> 16).astype(np.uint16))


def widened(stored: BFloat16) -> NDArray[np.float32]:
    """The same values in 32-bit floats."""
    return (stored.bits.astype(np.uint32) << 16).view(np.float32)


def pack(tensors: Mapping[str, NDArray[Any] | BFloat16], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file: the same for the same tensors, whatever their order."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    parts: list[bytes] = []
    offset = 0
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, BFloat16):
            label, content, shape = "BF16", tensor.bits.astype("<u2").tobytes(), tensor.bits.shape
        else:
            label = _LABELS[tensor.dtype]
            content, shape = np.ascontiguousarray(tensor).tobytes(), tensor.shape
        header[name] = {
            "dtype": label,
            "shape": list(shape),
            "data_offsets": [offset, offset + len(content)],
        }
        offset += len(content)
        parts.append(content)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return b"".join([struct.pack("<Q", len(head)), head, *parts])


def unpack(content: bytes) -> Tensors:
    """All tensors of a safetensors file's bytes; bfloat16 ones widened."""
    try:
        (length,) = struct.unpack_from("<Q", content)
        header: dict[str, Any] = json.loads(content[8 : 8 + length])
        result: Tensors = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            half = entry["dtype"] == "BF16"
            kind = np.dtype("<u2" if half else _TYPES[entry["dtype"]])
            flat = np.frombuffer(content, kind, (end - begin) // kind.itemsize, begin)
            result[name] = (widened(BFloat16(flat)) if half else flat).reshape(entry["shape"])
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise TensorsError(f"not a whole safetensors file: {type(error).__name__}: {error}") from None
    return result


def read(path: Path) -> Tensors:
    """All tensors of a safetensors file."""
    try:
        return unpack(path.read_bytes())
    except TensorsError as error:
        raise TensorsError(f"{path}: {error}") from None
