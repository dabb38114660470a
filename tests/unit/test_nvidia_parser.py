"""The graphs of files/image/plan/export_onnx.py, read and built by NVIDIA's own TensorRT, without a GPU.

TensorRT for RTX (extra `trt`: `pip install .[trt]`) takes types from the graph alone, as TensorRT 11 does, and builds for GPUs
that the machine does not have. It is another product than the TensorRT of Triton's images: it proves the graph.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.lab.standins.embedding_models import BERT, CLIP, SHAPES
from tests.lab.standins.safetensors_file import packed
from tests.unit.test_export_onnx import ENCODERS, calibrated, export

trt: Any = pytest.importorskip("tensorrt_rtx", reason="the extra trt is not installed")

__all__ = ["calibrated"]  # a fixture
Ends = tuple[dict[str, tuple[int, ...]], str]
ENDS: dict[str, Ends] = {
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

    built(tmp_path / "model.onnx", *ENDS[architecture])


def built(path: Path, inputs: dict[str, tuple[int, ...]], output: str) -> None:
    """NVIDIA's parser takes the graph, with these ends, and its builder makes an engine for the batches of the profile."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(path.read_bytes())
    assert parsed, [parser.get_error(number).desc() for number in range(parser.num_errors)]
    given = [network.get_input(number) for number in range(network.num_inputs)]
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


# The real models' shapes: openai/clip-vit-large-patch14 and sentence-transformers/all-MiniLM-L6-v2
REAL: dict[str, dict[str, Any]] = {
    "clip_vision": {
        **CLIP,
        "text_config": {**CLIP["text_config"], "num_hidden_layers": 1},
        "vision_config": {
            **CLIP["vision_config"],
            **{
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_attention_heads": 16,
                "num_hidden_layers": 24,
            },
        },
    },
    "bert": {**BERT, "intermediate_size": 1536, "num_hidden_layers": 6, "vocab_size": 30522},
}
SIZES: dict[str, dict[str, Any]] = {
    "clip_vision": {"embedding_size": 768, "image_size": 224},
    "bert": {"embedding_size": 384, "text_tokens": 128},
}
REAL_ENDS: dict[str, Ends] = {
    "clip_vision": ({"pixel_values": (-1, 3, 224, 224)}, "image_embedding"),
    "bert": ({"input_ids": (-1, 128), "attention_mask": (-1, 128)}, "text_embedding"),
}


@pytest.fixture(scope="module")
def real_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random weights in the real models' shapes; CLIP's has 304 million numbers."""
    made = {}
    for architecture, config in REAL.items():
        folder = tmp_path_factory.mktemp(architecture)
        shapes = SHAPES[str(config["model_type"])](config)
        random = np.random.default_rng(7)
        tensors = {
            name: np.arange(shape[-1], dtype=np.int64)[None, :]
            if name.endswith("position_ids")
            else (
                np.ones(shape, np.float32)
                if "norm" in name.lower()
                else random.normal(0, 0.02, shape).astype(np.float32)
            )
            for name, shape in shapes.items()
        }
        (folder / "model.safetensors").write_bytes(packed(tensors, "float32"))
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        made[architecture] = folder
    return made


@pytest.mark.slow
@pytest.mark.parametrize("architecture", REAL)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_nvidia_builds_the_graph_of_the_real_shapes(
    architecture: str, precision: str, real_weights: dict[str, Path], tmp_path: Path
) -> None:
    done = export(
        tmp_path, architecture, real_weights[architecture], precision=precision, **SIZES[architecture]
    )
    assert done.returncode == 0, done.stderr
    built(tmp_path / "model.onnx", *REAL_ENDS[architecture])
