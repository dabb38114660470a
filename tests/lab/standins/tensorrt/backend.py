"""Stand-in for Triton's tensorrt backend: a Python-based backend that runs plan files with onnxruntime on the CPU.

It refuses what the real backend refuses, in its words: plans of another GPU or TensorRT, tensors that the plan does
not have, shapes that the plan was not built for.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .gpu import NoGpu, visible_gpus
from .plan import VERSION, Plan, PlanRefused, Shape, check, read, session, shape_error
from .tensor_types import NUMPY, TRITON

pb_utils: Any = importlib.import_module(
    "triton_python_backend_utils"
)  # given by Triton, only inside its stub

PLAN = "model.plan"


def _words(shape: Shape) -> str:
    return f"[{','.join(map(str, shape))}]"


class Refused(Exception):
    """The model is not loaded."""


class TritonPythonModel:
    """One instance of the model, as Triton's Python backend wants it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the plan, or refuse."""
        self.model: dict[str, Any] = json.loads(args["model_config"])
        self.name, self.instance = args["model_name"], args["model_instance_name"]
        self.log = pb_utils.Logger
        self.log.log_info(
            f"[stand-in] tensorrt backend for TensorRT {VERSION}: onnxruntime on the CPU, no TensorRT"
        )
        folder = Path(args["model_repository"])
        file = self.model.get("default_model_filename") or PLAN
        try:
            self._refuse_cpu(folder / "config.pbtxt")
            self.plan = self._load(folder / args["model_version"] / file)
            self.session = session(self.plan.model)
            self._check_configuration()
        except Refused as refused:
            raise pb_utils.TritonModelException(str(refused)) from None
        self.outputs = [output["name"] for output in self.model["output"]]
        self.log.log_info(
            f"[stand-in] {file}: {self.plan.precision}, built on {self.plan.gpu.name}, inputs "
            + ", ".join(
                f"{name} {_words(shapes.smallest)} to {_words(shapes.largest)}"
                for name, shapes in self.plan.shapes.items()
            )
        )

    def _refuse_cpu(self, config: Path) -> None:
        """Only the file tells a wish for the CPU: without a GPU the server itself writes KIND_CPU into every model."""
        if config.is_file() and re.search(r"^[^#]*\bkind\s*:\s*KIND_CPU\b", config.read_text(), re.MULTILINE):
            raise Refused(f"unable to load model '{self.name}', TensorRT backend supports only GPU device")

    def _load(self, path: Path) -> Plan:
        if not path.is_file():
            raise Refused(f"unable to find '{path}' for model instance '{self.instance}'")
        try:
            gpu = visible_gpus()[0]
        except NoGpu as error:
            raise Refused(f"unable to set device for {self.instance}: {error}") from None
        try:
            plan = read(path)
            for warning in check(plan, gpu):
                self.log.log_warn(warning)
        except PlanRefused as refused:
            self.log.log_error(str(refused))
            raise Refused(f"unable to create TensorRT engine: {refused}") from None
        return plan

    def _check_configuration(self) -> None:
        """The configuration's tensors are the plan's, and its largest batch is one that the plan was built for."""
        batch = int(self.model["max_batch_size"])
        for what, here, there in (
            ("input", self.model["input"], self.session.get_inputs()),
            ("output", self.model["output"], self.session.get_outputs()),
        ):
            known = {one.name: one for one in there}
            if what == "input" and len(here) != len(known):
                raise Refused(
                    f"unable to load model '{self.name}', configuration expects {len(here)} inputs, model provides"
                    f" at most {len(known)}"
                )
            for one in here:
                name = one["name"]
                if name not in known:
                    raise Refused(
                        f"unexpected inference {what} '{name}', allowed {what}s are: {', '.join(sorted(known))}"
                    )
                kind = TRITON.get(known[name].type, "TYPE_INVALID")
                if one["data_type"] != kind:
                    raise Refused(
                        f"unexpected datatype {kind} for inference {what} '{name}', expecting {one['data_type']} for"
                        f" {self.instance}"
                    )
                dims = (one.get("reshape") or {}).get("shape") or one["dims"]
                self._check_dims(name, [int(size) for size in dims], known[name].shape, batch)
                if what == "input":
                    self._check_largest(name, [int(size) for size in dims], batch)

    def _check_dims(self, name: str, dims: list[int], found: list[Any], batch: int) -> None:
        model = tuple(size if isinstance(size, int) else -1 for size in found)
        whole = ([-1] if batch else []) + dims
        fits = len(model) == len(whole) and all(
            -1 in (there, here) or there == here for there, here in zip(model, whole, strict=True)
        )
        if fits and not (batch and model[0] != -1):
            return
        because = (
            "(an initial batch dimension because max_batch_size > 0 followed by the explicit tensor shape, making"
            f" complete shape {_words(tuple(whole))})"
        )
        raise Refused(
            f"model '{self.name}', tensor '{name}': the model expects {len(model)} dimensions (shape {_words(model)})"
            f" but the model configuration specifies {len(whole)} dimensions "
            + (because if batch else f"(shape {_words(tuple(whole))})")
        )

    def _check_largest(self, name: str, dims: list[int], batch: int) -> None:
        """Sizes that the configuration fixes, the largest batch among them, are within the plan's profile."""
        shapes = self.plan.shapes[name]
        whole = tuple(([batch] if batch else []) + dims)
        fixed = tuple(
            largest if size == -1 else size for size, largest in zip(whole, shapes.largest, strict=True)
        )
        if error := shape_error(fixed, shapes):
            raise Refused(
                f"model configuration specified invalid shape for input '{name}' for model {self.name}."
                f" Error details: {error}"
            )

    def _feed(self, request: Any) -> dict[str, NDArray[Any]]:
        feed = {}
        for one in self.session.get_inputs():
            tensor = pb_utils.get_input_tensor_by_name(request, one.name)
            if tensor is None:
                raise ValueError(f"failed to obtain the input '{one.name}'")
            value = np.asarray(tensor.as_numpy())
            if error := shape_error(value.shape, self.plan.shapes[one.name]):
                raise ValueError(
                    f"request specifies invalid shape for input '{one.name}' for {self.instance}."
                    f" Error details: {error}"
                )
            feed[one.name] = np.ascontiguousarray(value, NUMPY[one.type])
        return feed

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests, each by itself: what the real backend would put into one batch gives the same."""
        answers = []
        for request in requests:
            try:
                wanted = [name for name in self.outputs if name in request.requested_output_names()]
                values = self.session.run(wanted, self._feed(request)) if wanted else []
                tensors = [pb_utils.Tensor(name, value) for name, value in zip(wanted, values, strict=True)]
                answers.append(pb_utils.InferenceResponse(tensors))
            except Exception as failure:  # whatever it was, the client must get an answer
                answers.append(
                    pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(failure)))
                )
        return answers
