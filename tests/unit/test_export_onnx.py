"""files/image/plan/export_onnx.py against transformers: tests/unit/encoders holds what that library computed."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parents[1] / "files" / "image" / "plan" / "export_onnx.py"
ENCODERS = HERE / "encoders"
REFERENCE = np.load(ENCODERS / "reference.npz")
REQUEST = {"embedding_size": 24, "image_size": 28, "text_tokens": 16, "precision": "fp32"}
INPUTS: dict[str, dict[str, Any]] = {
    "clip_vision": {"pixel_values": REFERENCE["x"]},
    "bert": {"input_ids": REFERENCE["ids"], "attention_mask": REFERENCE["mask"]},
}
WANTED = {"clip_vision": REFERENCE["e"], "bert": REFERENCE["t"]}


def export(
    tmp_path: Path, architecture: str, weights: Path | None = None, **changed: Any
) -> subprocess.CompletedProcess[str]:
    request = tmp_path / "request.json"
    request.write_text(json.dumps({**REQUEST, "architecture": architecture, **changed}), "utf-8")
    argv = [str(SCRIPT), str(request), str(weights or ENCODERS / architecture), str(tmp_path)]
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=False)


def run(path: Path, inputs: dict[str, Any]) -> Any:
    return onnxruntime.InferenceSession(str(path)).run(None, inputs)[0]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["clip_vision", "bert"])
def test_graph_matches_transformers(architecture: str, tmp_path: Path) -> None:
    done = export(tmp_path, architecture)
    assert done.returncode == 0, done.stderr
    assert np.abs(run(tmp_path / "model.onnx", INPUTS[architecture]) - WANTED[architecture]).max() < 1e-5
    # the batch is free: one alone gives the same
    alone = run(tmp_path / "model.onnx", {name: value[:1] for name, value in INPUTS[architecture].items()})
    assert np.abs(alone - WANTED[architecture][:1]).max() < 1e-5
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [given.name for given in graph.input] == list(INPUTS[architecture])
    assert [found.name for found in graph.output] == [
        "image_embedding" if architecture == "clip_vision" else "text_embedding"
    ]


IN_FLOAT32 = {"LayerNormalization", "Softmax", "ReduceL2", "ReduceSum", "Div"}


@pytest.mark.parametrize("architecture", ["clip_vision", "bert"])
@pytest.mark.slow
def test_float16_is_in_the_graph_and_close_to_float32(architecture: str, tmp_path: Path) -> None:
    """TensorRT 11 takes types from the graph alone; what adds many numbers up stays in float32, as do the ends."""
    assert export(tmp_path, architecture).returncode == 0
    exact = run(tmp_path / "model.onnx", INPUTS[architecture])
    done = export(tmp_path, architecture, precision="fp16")
    assert done.returncode == 0, done.stderr
    model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "model.onnx"), strict_mode=True)
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    types |= {value.name: value.type.tensor_type.elem_type for value in graph.output}
    types |= {value.name: value.data_type for value in graph.initializer}
    half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    for node in graph.node:
        found = {types[name] for name in node.input if types[name] in (half, full)}
        assert len(found) < 2, f"{node.name}: two types"
        if node.op_type in IN_FLOAT32:
            assert found == {full}, node.name
        elif node.op_type == "Conv" or node.op_type == "MatMul":
            pooled = architecture == "bert" and node.output[0] == last_matmul(graph)
            assert found == {full if pooled else half}, node.name
    wanted = {full} if architecture == "clip_vision" else {onnx.TensorProto.INT32}
    assert {types[given.name] for given in graph.input} == wanted
    assert [types[given.name] for given in graph.output] == [full]
    rounded = run(tmp_path / "model.onnx", INPUTS[architecture])
    assert np.abs(rounded - exact).max() > 1e-7, "rounded"
    assert (rounded * exact).sum(axis=-1).min() > 0.9999, "cosine to what float32 gives"


def last_matmul(graph: Any) -> str:
    """The mean over the tokens."""
    return str([node.output[0] for node in graph.node if node.op_type == "MatMul"][-1])


@pytest.fixture
def calibrated(tmp_path: Path) -> Path:
    """Weights with what prepares documents, beside documents to calibrate with."""
    weights = tmp_path / "weights"
    shutil.copytree(ENCODERS / "clip_vision", weights)
    preprocessor = {"size": 28, "crop_size": 28, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (weights / "preprocessor_config.json").write_text(json.dumps(preprocessor), "utf-8")
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "red": 2, "blue": 3}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(weights / "tokenizer.json"))
    lines = []
    for number, color in enumerate(("red", "blue", "teal", "white", "black", "gray")):
        file = io.BytesIO()
        Image.linear_gradient("L").rotate(40 * number).convert("RGB").resize((50, 40 + number)).save(
            file, "PNG"
        )
        image = base64.b64encode(file.getvalue()).decode()
        words = " ".join(
            ("red", "blue", "else")[(number + 2 * place + place // 3) % 3] for place in range(16 - number)
        )
        lines.append(json.dumps({"id": color, "text": words, "image": image}))
    (tmp_path / "documents.jsonl").write_text("\n".join(lines), "utf-8")
    return weights


@pytest.mark.parametrize("architecture", ["clip_vision", "bert"])
@pytest.mark.slow
def test_int8_is_calibrated_and_close_to_float32(architecture: str, calibrated: Path, tmp_path: Path) -> None:
    if architecture == "bert":
        for name in ("model.safetensors", "config.json"):
            shutil.copy(ENCODERS / "bert" / name, calibrated / name)
    assert export(tmp_path, architecture, calibrated).returncode == 0
    # of the words the documents have: int8 is calibrated for what it has seen
    inputs = {
        name: value % 4 if name == "input_ids" else value for name, value in INPUTS[architecture].items()
    }
    exact = run(tmp_path / "model.onnx", inputs)
    done = export(tmp_path, architecture, calibrated, precision="int8")
    assert done.returncode == 0, done.stderr
    assert "int8, calibrated with 6 documents" in done.stdout
    kinds = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    found = run(tmp_path / "model.onnx", inputs)
    assert np.abs(found - exact).max() > 1e-6, "rounded"
    assert (found * exact).sum(axis=-1).min() > 0.95, "cosine to what float32 gives"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"embedding_size": 32}, "embeddings of 24 numbers; the profile says embedding_size 32"),
        ({"image_size": 224}, "image_size 28; the profile says 224"),
    ],
)
def test_a_model_that_is_not_the_profile_s_is_refused(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    done = export(tmp_path, "clip_vision", **changed)
    assert (done.returncode, done.stderr) == (65, f"export: found {message}\n")


@pytest.mark.slow
def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    done = export(tmp_path, "bert", ENCODERS / "clip_vision")
    assert done.returncode == 65
    assert done.stderr.startswith("export: found no 'hidden_size'")
    assert "Traceback" not in done.stderr
