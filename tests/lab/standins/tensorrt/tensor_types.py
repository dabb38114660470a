"""One table of tensor types: as onnxruntime names them, as Triton's configuration names them, and numpy's own."""

from __future__ import annotations

from typing import Any

import numpy as np

_TYPES: tuple[tuple[str, str, type[np.generic]], ...] = (
    ("tensor(float)", "TYPE_FP32", np.float32),
    ("tensor(float16)", "TYPE_FP16", np.float16),
    ("tensor(int64)", "TYPE_INT64", np.int64),
    ("tensor(int32)", "TYPE_INT32", np.int32),
    ("tensor(int8)", "TYPE_INT8", np.int8),
    ("tensor(uint8)", "TYPE_UINT8", np.uint8),
    ("tensor(bool)", "TYPE_BOOL", np.bool_),
)
NUMPY: dict[str, Any] = {name: kind for name, _, kind in _TYPES}
TRITON = {name: triton for name, triton, _ in _TYPES}
