"""The graphs of files/image/plan/export_onnx.py, read and built by NVIDIA's own TensorRT, without a GPU.

TensorRT for RTX (extra `trt`: `pip install .[trt]`) takes types from the graph alone, as TensorRT 11 does, and builds for GPUs
that the machine does not have. It is another product than the TensorRT of Triton's images: it proves the graph.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_export_onnx import ENCODERS, calibrated, export

trt: Any = pytest.importorskip("tensorrt_rtx", reason="the extra trt is not installed")

__all__ = ["calibrated"]  # a fixture
ENDS = {
    "clip_vision": ({"pixel_values": (-1, 3, 28, 28)}, "image_embedding"),
    "bert": ({"input_ids": (-1, 16), "attention_mask": (-1, 16)}, "text_embedding"),
}
BATCHES = (1, 4, 8)


@pytest.mark.parametrize("architecture", ENDS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_nvidia_builds_the_exported_graph(
    architecture: str, precision: str, calibrated: Path, tmp_path: Path
) -> None:
    for name in ("model.safetensors", "config.json"):
        shutil.copy(ENCODERS / architecture / name, calibrated / name)
    done = export(tmp_path, architecture, calibrated, precision=precision)
    assert done.returncode == 0, done.stderr

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse((tmp_path / "model.onnx").read_bytes())
    assert parsed, [parser.get_error(number).desc() for number in range(parser.num_errors)]
    given = [network.get_input(number) for number in range(network.num_inputs)]
    inputs, output = ENDS[architecture]
    assert {tensor.name: tuple(tensor.shape) for tensor in given} == inputs
    [made] = [network.get_output(number) for number in range(network.num_outputs)]
    assert (made.name, made.dtype) == (output, trt.DataType.FLOAT)

    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for name, (_, *sizes) in inputs.items():
        profile.set_shape(name, *((batch, *sizes) for batch in BATCHES))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    assert builder.build_serialized_network(network, config)
