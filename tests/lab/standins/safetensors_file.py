"""Writing a safetensors file; the package's own writers know no bfloat16 without PyTorch."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

LABELS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def _bytes(values: NDArray[Any], dtype: str) -> bytes:
    if dtype != "bfloat16":
        return values.astype(np.dtype(dtype)).tobytes()
    # numpy has no bfloat16: the upper halves of 32-bit floats, rounded to the nearest, ties to even
    whole = np.ascontiguousarray(values).view(np.uint32)
    return ((whole + 0x7FFF + ((whole >> 16) & 1)) >> 16).astype("<u2").tobytes()


def packed(tensors: Mapping[str, NDArray[Any]], dtype: str) -> bytes:
    """The file's bytes: floats in the dtype, integers as they are (64 bits)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    contents, end = [], 0
    for name, values in sorted(tensors.items()):
        whole = values.dtype == np.int64
        contents.append(_bytes(values, "int64" if whole else dtype))
        begin, end = end, end + len(contents[-1])
        header[name] = {
            "dtype": "I64" if whole else LABELS[dtype],
            "shape": list(values.shape),
            "data_offsets": [begin, end],
        }
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return b"".join([struct.pack("<Q", len(head)), head, *contents])
