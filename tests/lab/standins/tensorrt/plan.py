"""The plan file (model.plan) of the TensorRT stand-in, and the reasons for which one is refused, in TensorRT's words.

Like a real plan it holds what it was built with: TensorRT's version, the GPU and its compute capability. Here that is
a JSON header before the ONNX model, beside the optimization profile and the precision.
"""

from __future__ import annotations

import importlib
import json
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .gpu import Gpu
from .releases import serialization_of

VERSION = os.environ.get("TENSORRT_STAND_IN", "10.4.0.26")
"""The TensorRT of the image that is played: 24.09's, where the image says no other."""

TYPED = int(VERSION.partition(".")[0]) >= 11
"""Whether every type is taken from the graph: TensorRT 11 knows no other way."""

MAGIC = b"stand-in for TensorRT: a plan\n"
Shape = tuple[int, ...]


class PlanRefused(Exception):
    """The plan cannot be used here."""


@dataclass(frozen=True)
class Range:
    """The shapes of one input that the plan was built for."""

    smallest: Shape
    best: Shape
    largest: Shape


@dataclass(frozen=True)
class Plan:
    """A plan as it was built: the ONNX model, and what TensorRT would have made of it."""

    model: bytes
    shapes: dict[str, Range]
    precision: str
    gpu: Gpu
    tensorrt: str = VERSION


def write(path: Path, plan: Plan) -> int:
    """Write the plan file; returns its size."""
    header = json.dumps(
        {
            "tensorrt": plan.tensorrt,
            "gpu_name": plan.gpu.name,
            "compute_capability": plan.gpu.compute_capability,
            "precision": plan.precision,
            "shapes": {
                name: {"min": shapes.smallest, "opt": shapes.best, "max": shapes.largest}
                for name, shapes in plan.shapes.items()
            },
            "size": len(plan.model),
            "crc32": zlib.crc32(plan.model),
        },
        sort_keys=True,
    ).encode()
    return path.write_bytes(MAGIC + struct.pack("<Q", len(header)) + header + plan.model)


def _not_deserialized(number: int, kind: str, reason: str) -> PlanRefused:
    return PlanRefused(f"IRuntime::deserializeCudaEngine: Error Code {number}: {kind} ({reason})")


def _assertion(reason: str) -> PlanRefused:
    return _not_deserialized(1, "Serialization", f"Serialization assertion {reason}")


def read(path: Path) -> Plan:
    """The plan in a file, whole and of this TensorRT."""
    content = path.read_bytes()
    start = len(MAGIC) + 8
    if not content.startswith(MAGIC):
        raise _assertion("magicTagRead == kMAGIC_TAG failed.Magic tag does not match")
    try:
        (length,) = struct.unpack_from("<Q", content, len(MAGIC))
        header: dict[str, Any] = json.loads(content[start : start + length])
    except (struct.error, ValueError):
        raise _assertion("plan->header.size == blobSize failed.") from None
    # A plan of another version is told by its number, before anything else in it is believed.
    there = str(header["tensorrt"])
    current, serialized = serialization_of(VERSION), serialization_of(there)
    if current != serialized:
        raise _assertion(
            "stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match."
            f" Note: Current Version: {current}, Serialized Engine Version: {serialized}"
        )
    if there != VERSION:
        raise _not_deserialized(
            6,
            "API Usage Error",
            "The engine plan file is not compatible with this version of TensorRT, expecting library version"
            f" {VERSION} got {there}, please rebuild.",
        )
    model = content[start + length :]
    if len(model) != header["size"] or zlib.crc32(model) != header["crc32"]:
        raise _assertion("plan->header.size == blobSize failed.")
    shapes = {
        name: Range(tuple(shape["min"]), tuple(shape["opt"]), tuple(shape["max"]))
        for name, shape in header["shapes"].items()
    }
    gpu = Gpu(header["gpu_name"], header["compute_capability"])
    return Plan(model, shapes, header["precision"], gpu, there)


def check(plan: Plan, gpu: Gpu) -> list[str]:
    """Refuse a plan of another compute capability; returns warnings for one that may be used."""
    if plan.gpu.compute_capability != gpu.compute_capability:
        raise _not_deserialized(
            6,
            "API Usage Error",
            "The engine plan file is generated on an incompatible device, expecting compute"
            f" {gpu.compute_capability} got compute {plan.gpu.compute_capability}, please rebuild.",
        )
    if plan.gpu.name != gpu.name:
        return [
            "Using an engine plan file across different models of devices is not recommended and is likely to"
            " affect performance or even cause errors."
        ]
    return []


def shape_error(shape: Shape, shapes: Range) -> str | None:
    """What Triton's backend says of an input of this shape; None where the plan was built for it."""
    if len(shape) != len(shapes.largest):
        return f"model expected {len(shapes.largest)} dimensions but received {len(shape)} dimensions"
    for place, (size, smallest, largest) in enumerate(
        zip(shape, shapes.smallest, shapes.largest, strict=True)
    ):
        if not smallest <= size <= largest:
            return (
                f"model expected the shape of dimension {place} to be between {smallest} and {largest}"
                f" but received {size}"
            )
    return None


def session(model: bytes) -> Any:
    """An onnxruntime session on one CPU thread: waiting threads would spin and take the other cores."""
    # Here and not above: a plan is refused, and a command line read, without it.
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
