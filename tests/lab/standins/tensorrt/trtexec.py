"""Stand-in for TensorRT's trtexec: from an ONNX file to a plan file, with the real tool's options and words.

Nothing is compiled: the plan is the ONNX model, checked, with a header.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from . import plan
from .gpu import Gpu, NoGpu, lab_delay, visible_gpus
from .plan import TYPED, VERSION, Plan, Range, Shape

OPTIONS = {
    "--onnx": "<file>            ONNX model",
    "--minShapes": "spec         Build with dynamic shapes using a profile with the min shapes provided",
    "--optShapes": "spec         Build with dynamic shapes using a profile with the opt shapes provided",
    "--maxShapes": "spec         Build with dynamic shapes using a profile with the max shapes provided",
    "--memPoolSize": "poolspec   Specify the size constraints of the designated memory pool(s)",
    "--builderOptimizationLevel": " Set the builder optimization level (0-5)",
    "--saveEngine": "<file>      Save the serialized engine",
}
TYPES = {
    "--fp16": "              Enable fp16 precision, in addition to fp32",
    "--int8": "              Enable int8 precision, in addition to fp32",
}
# TensorRT 11 has removed them: they are unknown options there
SWITCHES = {
    **({} if TYPED else TYPES),
    "--skipInference": "     Exit after the engine has been built and skip inference perf measurement",
    "--verbose": "           Use verbose logging",
}
POOLS = ("workspace", "dlaSRAM", "dlaLocalDRAM", "dlaGlobalDRAM", "tacticSharedMem")
NEWEST_OPSET = 20  # what the ONNX parser of TensorRT 10.4 was made for
LEVELS = range(6)


class Refused(Exception):
    """The plan is not built. `lines` are what the real tool would log."""

    def __init__(self, *lines: str) -> None:
        super().__init__(lines[0])
        self.lines = lines


class WrongUsage(Exception):
    """The command line is not one that the tool knows."""


@dataclass(frozen=True)
class Wish:
    """What the command line asks for."""

    onnx: str
    engine: str | None
    shapes: dict[str, Range] = field(default_factory=dict)
    fp16: bool = False
    int8: bool = False
    skip_inference: bool = False
    verbose: bool = False
    level: int = 3

    @property
    def precision(self) -> str:
        return "FP32" + "+FP16" * self.fp16 + "+INT8" * self.int8


def log(level: str, message: str) -> None:
    """A line as TensorRT's logger writes it: all but information goes to standard error."""
    stream = sys.stdout if level in "IV" else sys.stderr
    print(f"[{time.strftime('%m/%d/%Y-%H:%M:%S')}] [{level}] {message}", file=stream, flush=True)


def _words(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _shapes(text: str) -> dict[str, Shape]:
    """`a:1x3,b:1x4` as {"a": (1, 3), "b": (1, 4)}."""
    result = {}
    for one in filter(None, text.split(",")):
        name, _, sizes = one.rpartition(":")
        try:
            shape = tuple(int(size) for size in sizes.split("x")) if sizes != "scalar" else ()
        except ValueError:
            shape = (-1,)
        if not name or any(size < 0 for size in shape):
            raise WrongUsage(
                "stoi conversion failure: failed to parse minShapes/optShapes/maxShapes."
                " Please double check your input string."
            )
        result[name.strip("'")] = shape
    return result


def _profile(given: dict[str, str]) -> dict[str, Range]:
    """The optimization profile; a shape that is not given is taken from one that is."""
    parsed = {kind: _shapes(given[f"--{kind}"]) for kind in KINDS if f"--{kind}" in given}
    result = {}
    for name in dict.fromkeys(name for shapes in parsed.values() for name in shapes):
        found: dict[str, Shape] = {}
        for kind, others in KINDS.items():
            source = next((one for one in (kind, *others) if name in parsed.get(one, {})), None)
            assert source is not None
            if source != kind:
                log("W", f"{source} is being broadcasted to {kind} for tensor {name}")
            found[kind] = parsed[source][name]
        result[name] = Range(found["minShapes"], found["optShapes"], found["maxShapes"])
    return result


# Each kind of shape, and what stands in for it where it is missing.
KINDS = {
    "minShapes": ("optShapes", "maxShapes"),
    "optShapes": ("maxShapes", "minShapes"),
    "maxShapes": ("optShapes", "minShapes"),
}


def _check_pools(text: str) -> None:
    for one in filter(None, text.split(",")):
        name, _, size = one.rpartition(":")
        if name not in POOLS:
            raise WrongUsage(f"Unknown memory pool: {name}")
        try:
            number = float(size.rstrip("BKMG"))
        except ValueError:
            raise WrongUsage(
                f"stod conversion failure: failed to parse {name} size. Please double check your input string."
            ) from None
        if number < 0:
            raise WrongUsage(f"Negative memory pool size: {number}")


def wish_of(words: list[str]) -> Wish:
    """What the command line asks for."""
    given = {}
    for word in words:
        name, _, value = word.partition("=")
        given[name] = value
    if unknown := [name for name in given if name not in OPTIONS and name not in SWITCHES]:
        raise WrongUsage("\n".join(f"Unknown option: {name} {given[name]}" for name in unknown))
    _check_pools(given.get("--memPoolSize", ""))
    shapes = _profile(given)
    level = given.get("--builderOptimizationLevel", "3")
    if not level.isdecimal():
        raise WrongUsage("stoi")
    if not given.get("--onnx"):
        raise WrongUsage("Model missing or format not recognized")
    return Wish(
        onnx=given["--onnx"],
        engine=given.get("--saveEngine") or None,
        shapes=shapes,
        fp16="--fp16" in given,
        int8="--int8" in given,
        skip_inference="--skipInference" in given,
        verbose="--verbose" in given,
        level=int(level),
    )


def _parsed(path: Path) -> Any:
    """The ONNX model, if the checker finds nothing wrong with it."""
    onnx: Any = importlib.import_module("onnx")
    failed = ("Failed to parse onnx file", "Parsing model failed")
    try:
        model = onnx.load(str(path))
    except FileNotFoundError:
        raise Refused(f"[TRT] ModelImporter.cpp: Could not open file {path}", *failed) from None
    except Exception as error:
        raise Refused(f"[TRT] ModelImporter.cpp: Failed to parse {path}: {error}", *failed) from None
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise Refused(f"[TRT] ModelImporter.cpp: ONNX model is not valid: {first}", *failed) from None
    return model


def _inputs(model: Any) -> dict[str, Shape]:
    """The network's inputs, -1 for a size that is not fixed."""
    constants = {constant.name for constant in model.graph.initializer}
    result = {}
    for one in model.graph.input:
        if one.name not in constants:
            sizes = one.type.tensor_type.shape.dim
            result[one.name] = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in sizes)
    return result


def _profiled(inputs: dict[str, Shape], asked: dict[str, Range]) -> dict[str, Range]:
    """The profile of all inputs; shapes that are asked for inputs of fixed size change nothing."""
    for name in asked:
        if name not in inputs:
            raise Refused(
                f'Cannot find input tensor with name "{name}" in the network inputs!'
                " Please make sure the input tensor names are correct.",
                "Network And Config setup failed",
            )
    result = {}
    for name, shape in inputs.items():
        if -1 not in shape:
            result[name] = Range(shape, shape, shape)
            continue
        if name not in asked:
            fixed = tuple(max(size, 1) for size in shape)
            log(
                "W",
                f"Dynamic dimensions required for input: {name}, but no shapes were provided. Automatically"
                f" overriding shape to: {_words(fixed)}",
            )
            result[name] = Range(fixed, fixed, fixed)
            continue
        result[name] = shapes = asked[name]
        for one in (shapes.smallest, shapes.best, shapes.largest):
            if len(one) != len(shape):
                raise Refused(
                    f"Error[4]: IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error ({name}: for profile 0,"
                    f" the number of dimensions is {len(one)} but the network has {len(shape)}.)",
                    "Engine could not be created from network",
                    "Building engine failed",
                )
        log(
            "I",
            f"Set shape of input tensor {name} for optimization profile 0 to: MIN={_words(shapes.smallest)}"
            f" OPT={_words(shapes.best)} MAX={_words(shapes.largest)}",
        )
        for place, size in enumerate(shape):
            low, best, high = (one[place] for one in (shapes.smallest, shapes.best, shapes.largest))
            if not low <= best <= high:
                raise Refused("Required optimization profile is invalid", "Network And Config setup failed")
            if size != -1 and (low, best, high) != (size, size, size):
                raise Refused(
                    f"Error[4]: IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error ({name}: for dimension"
                    f" number {place} in profile 0 does not match network definition (got min={low}, opt={best},"
                    f" max={high}), expected min=opt=max={size}).)",
                    "Engine could not be created from network",
                    "Building engine failed",
                )
    return result


def _check_types(model: Any, wish: Wish) -> None:
    """What is float16 in the graph has to be allowed, before TensorRT 11."""
    half = 10  # TensorProto.FLOAT16
    if not TYPED and not wish.fp16 and any(one.data_type == half for one in model.graph.initializer):
        raise Refused(
            "Error[4]: IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Fp16 precision has been set for"
            " a layer or layer output, but fp16 is not configured in the builder)",
            "Engine could not be created from network",
            "Building engine failed",
        )


def _check_quantization(model: Any, wish: Wish) -> None:
    """int8 and the graph's Q/DQ nodes go together or not at all; TensorRT 11 goes by the nodes alone."""
    if TYPED:
        return
    explicit = any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)
    if wish.int8 and not explicit:
        log(
            "W",
            "[TRT] Implicit quantization has been deprecated in TensorRT 10.1. Superseded by explicit quantization.",
        )
        log(
            "W",
            "[TRT] Calibrator is not being used. Users must provide dynamic range for all tensors that are not Int32"
            " or Bool.",
        )
        raise Refused(
            "[stand-in] --int8: calibration is missing, and the graph has no QuantizeLinear and DequantizeLinear"
            " nodes. The real trtexec goes on with made-up ranges, and the plan answers nonsense.",
            "Engine could not be created from network",
            "Building engine failed",
        )
    if explicit and not wish.int8:
        raise Refused(
            "Error[4]: IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Int8 precision has been set for"
            " a layer or layer output, but int8 is not configured in the builder)",
            "Engine could not be created from network",
            "Building engine failed",
        )


def _device() -> Gpu:
    print(flush=True)
    log("I", "=== Device Information ===")
    try:
        gpus = visible_gpus()
    except NoGpu as error:
        print(f"Cuda failure: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    log("I", "Available Devices: ")
    for number, gpu in enumerate(gpus):
        log("I", f'  Device {number}: "{gpu.name}"')
    log("I", f"Selected Device: {gpus[0].name}")
    log("I", "Selected Device ID: 0")
    log("I", f"Compute Capability: {gpus[0].compute_capability}")
    log("I", f"TensorRT version: {VERSION.rpartition('.')[0]}")
    return gpus[0]


def _measure(session: Any, shapes: dict[str, Range]) -> None:
    """The real tool runs the plan for three seconds; here it runs once, on zeros."""
    import numpy as np

    from .tensor_types import NUMPY

    log("I", "Starting inference")
    feed = {one.name: np.zeros(shapes[one.name].best, NUMPY[one.type]) for one in session.get_inputs()}
    began = time.monotonic()
    session.run(None, feed)
    took = 1000 * (time.monotonic() - began)
    log("I", "=== Performance summary ===")
    log("I", f"[stand-in] Latency: {took:.3f} ms for one run on one CPU thread; it says nothing of a GPU")


def build(wish: Wish) -> None:
    """Bring about the plan file."""
    log("I", "=== Model Options ===")
    log("I", "Format: ONNX")
    log("I", f"Model: {wish.onnx}")
    log("I", "=== Build Options ===")
    log("I", f"Precision: {wish.precision}")
    log("I", f"Builder optimization level: {wish.level}")
    gpu = _device()
    if wish.level not in LEVELS:
        raise Refused(
            "Error[3]: IBuilderConfig::setBuilderOptimizationLevel: Error Code 3: API Usage Error (Parameter check"
            " failed, condition: level >= 0 && level <= 5)"
        )
    log("I", "Start parsing network model.")
    began = time.monotonic()
    model = _parsed(Path(wish.onnx))
    opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
    log("I", f"[TRT] ONNX IR version:  {model.ir_version}")
    log("I", f"[TRT] Opset version:    {opset}")
    if opset > NEWEST_OPSET:
        log(
            "W",
            f"[stand-in] TensorRT {VERSION} knows opset {NEWEST_OPSET} and older; a newer operator would fail",
        )
    log("I", f"Finished parsing network model. Parse time: {time.monotonic() - began:.6f}")
    shapes = _profiled(_inputs(model), wish.shapes)
    _check_types(model, wish)
    _check_quantization(model, wish)
    content = model.SerializeToString()
    try:
        session = plan.session(content)
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise Refused(
            f"[stand-in] onnxruntime cannot load the model: {first}",
            "Engine could not be created from network",
            "Building engine failed",
        ) from None
    log("I", "[TRT] Local timing cache in use. Profiling results in this builder pass will not be stored.")
    end = time.monotonic() + lab_delay()
    while time.monotonic() < end:
        time.sleep(min(1.0, max(0.0, end - time.monotonic())))
        log("I", "[stand-in] still building, as the lab asked for")
    outputs = len(session.get_outputs())
    log("I", f"[TRT] Detected {len(shapes)} inputs and {outputs} output network tensors.")
    log("I", f"Engine built in {time.monotonic() - began:.5g} sec.")
    log("I", f"Created engine with size: {len(content) / 2**20:.6g} MiB")
    if wish.engine:
        try:
            plan.write(Path(wish.engine), Plan(content, shapes, wish.precision, gpu))
        except OSError as error:
            raise Refused(
                f"Cannot open engine file: {wish.engine} ({error.strerror})", "Saving engine to file failed."
            ) from None
    if wish.skip_inference:
        log("I", "Skipped inference phase since --skipInference is added.")
    else:
        _measure(session, shapes)


def _help() -> None:
    print("=== Options of this stand-in; the real tool has more ===")
    for name, text in {**OPTIONS, **SWITCHES}.items():
        print(f"  {name}{'=' if name in OPTIONS else ''}{text}")


def main() -> NoReturn:
    """trtexec."""
    *numbers, number = (int(part) for part in VERSION.split("."))
    name = f"TensorRT.trtexec [TensorRT v{10000 * numbers[0] + 100 * numbers[1] + numbers[2]}] [b{number}]"
    line = " ".join(sys.argv)

    def end(word: str, status: int) -> NoReturn:
        print(f"&&&& {word} {name} # {line}", flush=True)
        sys.exit(status)

    print(f"&&&& RUNNING {name} # {line}", flush=True)
    log("I", f"[stand-in] trtexec of TensorRT {VERSION}: nothing is compiled, the plan is for a CPU")
    asked = sys.argv[1:]
    if not asked or {"--help", "-h"} & set(asked):
        _help()
        end("PASSED", 0)
    try:
        build(wish_of(asked))
    except WrongUsage as error:
        _help()
        for one in str(error).splitlines():
            log("E", one)
        end("FAILED", 1)
    except Refused as refused:
        _log_all(refused.lines, lambda text: log("E", text))
        end("FAILED", 1)
    end("PASSED", 0)


def _log_all(lines: tuple[str, ...], say: Callable[[str], None]) -> None:
    for line in (*lines, "Failed to create engine from model or file.", "Engine set up failed"):
        say(line)
