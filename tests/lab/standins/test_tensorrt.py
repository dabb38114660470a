"""trtexec and the tensorrt backend: options and refusals with the real texts, and plans that a real tritonserver serves."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from operations.plan.artifacts import commands
from operations.plan.profile.tables import Encoder
from tests.lab.standins import base_image, images
from tests.lab.standins.base_image import PYTHON_PACKAGES
from tests.lab.standins.chroot import CACHE, Container, Server
from tests.lab.standins.installed import BIN
from tests.lab.standins.tensorrt import plan
from tests.lab.standins.tensorrt.gpu import Gpu
from tests.lab.standins.tensorrt.plan import Plan, Range

PROJECT = Path(__file__).resolve().parents[3]
WEIGHTS = {"repository": "owner/name", "revision": "c" * 40}
TRTEXEC = "usr/src/tensorrt/bin/trtexec"
A10 = Gpu("NVIDIA A10", "8.6")
PLAN = Plan(b"not read here", {"x": Range((1, 3), (2, 3), (8, 3))}, "FP32+FP16", A10)


# ---- what needs no onnx: the command line, and the plan's header


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The stand-in's files laid out as in the image, and an nvidia-smi."""
    for name, content in images.tensorrt_files().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[0] if isinstance(content, tuple) else content)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvidia-smi").symlink_to(BIN / "nvidia-smi")
    (tmp_path / "gpus").write_text("NVIDIA A10:1\n")
    return tmp_path


def trtexec(root: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{root}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(root / PYTHON_PACKAGES),
        "LAB_GPUS_FILE": str(root / "gpus"),
        **variables,
    }
    return subprocess.run(
        [sys.executable, str(root / TRTEXEC), *words],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--onnx=a", "--buildOnly"], "[E] Unknown option: --buildOnly "),
        (["--onnx=a", "--workspace=4096"], "[E] Unknown option: --workspace 4096"),
        (["--fp16"], "[E] Model missing or format not recognized"),
        (["--onnx=a", "--minShapes=x:1xA"], "failed to parse minShapes/optShapes/maxShapes"),
        (["--onnx=a", "--maxShapes=1x3"], "failed to parse minShapes/optShapes/maxShapes"),
        (["--onnx=a", "--memPoolSize=heap:1024"], "[E] Unknown memory pool: heap"),
        (["--onnx=a", "--memPoolSize=workspace:much"], "failed to parse workspace size"),
    ],
)
def test_wrong_usage_is_refused_as_the_real_tool_does(root: Path, words: list[str], said: str) -> None:
    done = trtexec(root, *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stdout.startswith("&&&& RUNNING TensorRT.trtexec [TensorRT v100400] [b26] # ")
    assert "\n&&&& FAILED TensorRT.trtexec [TensorRT v100400] [b26] # " in done.stdout


def test_a_plan_needs_a_gpu(root: Path) -> None:
    (root / "gpus").write_text("driver=missing\n")
    done = trtexec(root, "--onnx=a", "--saveEngine=b", "--memPoolSize=workspace:2G,tacticSharedMem:64K")
    assert done.returncode == 1
    assert "Cuda failure: no CUDA-capable device is detected" in done.stderr
    assert not (root / "b").exists()


def test_missing_shape_is_copied_from_another(root: Path) -> None:
    (root / "gpus").write_text("driver=missing\n")
    done = trtexec(root, "--onnx=a", "--optShapes=x:1x3,y:1x4", "--maxShapes=x:8x3")
    assert "[W] optShapes is being broadcasted to minShapes for tensor x" in done.stderr
    assert "[W] optShapes is being broadcasted to maxShapes for tensor y" in done.stderr
    assert "maxShapes for tensor x" not in done.stderr


@pytest.mark.parametrize(
    ("tensorrt", "precision", "words", "said"),
    [
        ("10.4.0.26", "fp16", ["--fp16"], ""),
        ("10.4.0.26", "fp16", [], "Fp16 precision has been set for"),
        ("11.0.0.1", "fp16", [], ""),
        ("11.0.0.1", "fp32", [], ""),
        ("11.0.0.1", "fp16", ["--fp16"], "[E] Unknown option: --fp16 "),
        ("11.0.0.1", "fp16", ["--int8"], "[E] Unknown option: --int8 "),
    ],
)
def test_precision_flags_exist_only_before_11(
    root: Path, tensorrt: str, precision: str, words: list[str], said: str
) -> None:
    """The plan's graph of a small encoder: one export for both versions."""
    request = {"architecture": "bert", "embedding_size": 24, "text_tokens": 16, "precision": precision}
    (root / "request.json").write_text(json.dumps({**request, "image_size": 28}))
    export = [str(PROJECT / "files/image/plan/export_onnx.py"), str(root / "request.json")]
    weights = str(PROJECT / "tests/unit/encoders/bert")
    subprocess.run([sys.executable, *export, weights, str(root)], check=True, capture_output=True)
    encoder = Encoder.model_validate({**request, "weights": WEIGHTS})
    options = [
        word for word in commands.trtexec(encoder, int(tensorrt.split(".")[0])) if word.startswith("--")
    ]
    ours = [word for word in options if word.split("=")[0] in ("--fp16", "--int8")]
    assert (ours == words) is (not said)
    shapes = [word for word in options if "Shapes" in word]
    onnx, engine = f"--onnx={root}/model.onnx", f"--saveEngine={root}/b"
    done = trtexec(root, onnx, engine, "--skipInference", *shapes, *words, TENSORRT_STAND_IN=tensorrt)
    assert (done.returncode == 0) is (not said), done.stderr
    assert said in done.stderr
    assert (root / "b").exists() is (not said)


def test_plan_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "model.plan"
    plan.write(path, PLAN)
    assert plan.read(path) == PLAN
    assert plan.check(PLAN, A10) == []


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("10.3.0.26", "Note: Current Version: 241, Serialized Engine Version: 240"),
        ("10.4.0.25", "expecting library version 10.4.0.26 got 10.4.0.25, please rebuild"),
    ],
)
def test_a_plan_of_another_tensorrt_is_refused(tmp_path: Path, version: str, words: str) -> None:
    path = tmp_path / "model.plan"
    plan.write(path, dataclasses.replace(PLAN, tensorrt=version))
    with pytest.raises(plan.PlanRefused, match=words):
        plan.read(path)


def test_plan_is_refused_on_another_gpu_but_not_on_a_sibling() -> None:
    with pytest.raises(plan.PlanRefused, match=r"expecting compute 8\.0 got compute 8\.6, please rebuild"):
        plan.check(PLAN, Gpu("NVIDIA A100-SXM4-40GB", "8.0"))
    (warning,) = plan.check(PLAN, Gpu("NVIDIA A10G", "8.6"))
    assert "across different models of devices is not recommended" in warning


@pytest.mark.parametrize("cut", [10, 60, -4])
def test_a_damaged_plan_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "model.plan"
    plan.write(path, PLAN)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(plan.PlanRefused, match="Serialization assertion"):
        plan.read(path)


def test_shapes_outside_the_profile_get_distinct_errors() -> None:
    shapes = PLAN.shapes["x"]
    assert plan.shape_error((8, 3), shapes) is None
    assert plan.shape_error((9, 3), shapes) == (
        "model expected the shape of dimension 0 to be between 1 and 8 but received 9"
    )
    assert plan.shape_error((3,), shapes) == "model expected 2 dimensions but received 1 dimensions"


# ---- what needs the image

MAKE = """
import sys
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

weight = np.arange(12, dtype=np.float32).reshape(3, 4)
x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", s]) for n, s in (("x", 3), ("y", 4)))
scale, zero = numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(0), "z")
plain = [helper.make_node("MatMul", ["x", "w"], ["y"])]
quantized = [
    helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
    helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
    helper.make_node("MatMul", ["d", "w"], ["y"]),
]
for name, nodes in (("plain", plain), ("quantized", quantized)):
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(weight, "w"), scale, zero])
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), f"/w/{name}.onnx")
"""
CONFIG = """
name: "m"
backend: "tensorrt"
platform: "tensorrt_plan"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
dynamic_batching { }
"""
SHAPES = ("--minShapes=x:1x3", "--optShapes=x:2x3", "--maxShapes=x:8x3")


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Container:
    layers = [*base_image.base_layers(CACHE), *images.plan_layers(CACHE)]
    made = Container(tmp_path_factory.mktemp("tensorrt"), layers)
    (made.work / "make.py").write_text(MAKE)
    made.run("python3", "/w/make.py")
    return made


def built(container: Container, *words: str) -> subprocess.CompletedProcess[str]:
    return container.attempt(f"/{TRTEXEC}", "--saveEngine=/w/model.plan", *words)


@pytest.mark.lab
def test_trtexec_builds_a_plan_and_refuses_bad_input(container: Container) -> None:
    done = built(container, "--onnx=/w/plain.onnx", *SHAPES, "--fp16", "--skipInference")
    assert done.returncode == 0, done.stderr
    assert "Precision: FP32+FP16" in done.stdout
    assert "MIN=1x3 OPT=2x3 MAX=8x3" in done.stdout
    assert "&&&& PASSED TensorRT.trtexec" in done.stdout
    made = plan.read(container.work / "model.plan")
    assert (made.gpu, made.precision, made.shapes) == (A10, "FP32+FP16", PLAN.shapes)
    assert "Performance summary" in built(container, "--onnx=/w/quantized.onnx", *SHAPES, "--int8").stdout

    def refusal(*words: str) -> str:
        refused = built(container, *words)
        assert refused.returncode == 1
        assert "Engine set up failed" in refused.stderr
        assert "&&&& FAILED TensorRT.trtexec" in refused.stdout
        return refused.stderr

    assert "calibration is missing" in refusal("--onnx=/w/plain.onnx", "--int8", *SHAPES)
    assert "int8 is not configured in the builder" in refusal("--onnx=/w/quantized.onnx", *SHAPES)
    assert 'Cannot find input tensor with name "z"' in refusal("--onnx=/w/plain.onnx", "--minShapes=z:1x3")
    assert "does not match network definition" in refusal("--onnx=/w/plain.onnx", "--optShapes=x:1x5")
    assert "profile is invalid" in refusal("--onnx=/w/plain.onnx", "--minShapes=x:9x3", *SHAPES[1:])
    assert "Could not open file" in refusal("--onnx=/w/none.onnx")
    (container.work / "broken.onnx").write_bytes(b"no model")
    assert "Failed to parse" in refusal("--onnx=/w/broken.onnx")


@pytest.fixture
def served(container: Container, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """The model's folder with a plan for batches of 1 to 8, and where the log of its server goes."""
    folder = container.work / "repository" / "m"
    (folder / "1").mkdir(parents=True, exist_ok=True)
    assert built(container, "--onnx=/w/plain.onnx", *SHAPES, "--skipInference").returncode == 0
    (container.work / "model.plan").rename(folder / "1" / "model.plan")
    (folder / "config.pbtxt").write_text(CONFIG)
    yield folder, tmp_path / "server.log"
    shutil.rmtree(folder.parent)


def body(rows: list[list[float]]) -> dict[str, Any]:
    flat = [number for row in rows for number in row]
    return {"inputs": [{"name": "x", "shape": [len(rows), 3], "datatype": "FP32", "data": flat}]}


@pytest.mark.lab
def test_a_real_server_serves_the_plan(container: Container, served: tuple[Path, Path]) -> None:
    folder, log = served
    (folder / "config.pbtxt").write_text(CONFIG.replace("max_batch_size: 8", "max_batch_size: 4"))
    server = Server(container, log)
    try:
        server.wait_ready("m")
        status, answer = server.post("m", "infer", body([[1, 0, 0], [0, 1, 0]]))
        assert status == 200, answer
        (output,) = json.loads(answer)["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [2, 4])
        assert output["data"] == [0, 1, 2, 3, 4, 5, 6, 7]
        status, answer = server.post("m", "infer", body([[0, 0, 1]] * 5))
        assert status == 400
        assert "batch-size must be <= 4" in answer
        assert "[stand-in] tensorrt backend" in log.read_text()
        assert server.stop() == 0
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


MISFITS = {
    "batch": ("batch_size: 8", "batch_size: 16", "between 1 and 8 but received 16"),
    "datatype": ('"y" data_type: TYPE_FP32', '"y" data_type: TYPE_FP16', "unexpected datatype TYPE_FP32"),
    "name": ('name: "x"', 'name: "pixels"', "unexpected inference input 'pixels', allowed inputs are: x"),
    "dims": ("dims: [ 3 ]", "dims: [ 5 ]", "the model expects 2 dimensions (shape [-1,3])"),
    "cpu": ("dynamic_batching", "instance_group [ { kind: KIND_CPU } ] dynamic_batching", "only GPU device"),
}


@pytest.mark.lab
def test_config_that_does_not_match_the_plan_stops_the_server(
    container: Container, served: tuple[Path, Path]
) -> None:
    folder, log = served
    for name, (was, now, _) in MISFITS.items():
        shutil.copytree(folder, folder.with_name(name))
        config = CONFIG.replace(was, now).replace('name: "m"', f'name: "{name}"')
        (folder.with_name(name) / "config.pbtxt").write_text(config)
    # A plan that was built on another GPU model, among plans for this one.
    other = Gpu("NVIDIA A100-SXM4-40GB", "8.0")
    mine = folder / "1" / "model.plan"
    plan.write(mine, dataclasses.replace(plan.read(mine), gpu=other))
    refused = Server(container, log)
    assert refused.process.wait(60) == 1
    said = log.read_text()
    assert "expecting compute 8.6 got compute 8.0, please rebuild" in said
    for name, (_, _, words) in MISFITS.items():
        assert f"failed to load '{name}' version 1" in said
        assert words in said
    assert "failed to load all models" in said
