"""Weight-only quantization by rounding: int8 per row, or int4 (two to a byte) per row or per group of columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ALGORITHMS = {"int8": "W8A16", "int4": "W4A16", "int4_awq": "W4A16_AWQ"}


def quantize(weight: NDArray[Any], bits: int, group: int) -> tuple[NDArray[Any], NDArray[np.float16]]:
    """(stored, scales) of a (…, rows, columns) weight; `group` columns share a scale, 0 = the whole row does."""
    *rows, columns = weight.shape
    group = group or columns
    if columns % group:
        raise ValueError(f"group of {group} columns does not divide {columns}; choose a divisor")
    top = 2 ** (bits - 1) - 1
    grouped = weight.astype(np.float32).reshape(*rows, columns // group, group)
    scales = (np.abs(grouped).max(-1) / top).clip(1e-7).astype(np.float16)
    stored = np.rint(grouped / scales.astype(np.float32)[..., None]).clip(-top, top).astype(np.int8)
    stored = stored.reshape(weight.shape)
    if bits == 4:
        unsigned = (stored + 8).astype(np.uint8)
        return unsigned[..., ::2] | unsigned[..., 1::2] << 4, scales
    return stored, scales


def dequantize(stored: NDArray[Any], scales: NDArray[np.float16]) -> NDArray[np.float32]:
    """The (…, rows, columns) weight in 32-bit floats."""
    if stored.dtype == np.uint8:  # two int4 to a byte
        pair = np.stack([stored & 15, stored >> 4], -1).astype(np.int8) - 8
        stored = pair.reshape(*stored.shape[:-1], -1)
    grouped = stored.reshape(*scales.shape, -1).astype(np.float32)
    restored: NDArray[np.float32] = (grouped * scales.astype(np.float32)[..., None]).reshape(stored.shape)
    return restored
