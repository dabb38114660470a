"""The config.pbtxt templates of the five models, per tag, generated from tables.

Three tables hold the facts (names, types and shapes of the inflight_batcher_llm models as they changed between tags):
tensors.csv (inputs and outputs; `scalar` = reshaped to no dimension), parameters.csv, ensemble.csv (how the
ensemble wires its steps). `since` and `until` are tags, both included; an empty `until` has no end.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator
from pathlib import Path

from tests.lab.mirror.versions import at_version, number, within

MODELS = ("preprocessing", "postprocessing", "tensorrt_llm", "tensorrt_llm_bls", "ensemble")
STEPS = ("preprocessing", "tensorrt_llm", "postprocessing")
_HERE = Path(__file__).parent
CODE = _HERE.parent / "source" / "models"


@functools.cache
def _table(name: str) -> tuple[dict[str, str], ...]:
    with (_HERE / f"{name}.csv").open(newline="") as file:
        return tuple(csv.DictReader(file))


def _rows(name: str, tag: str, **where: str) -> Iterator[dict[str, str]]:
    for row in _table(name):
        if within(tag, row["since"], row["until"]) and all(row[key] == value for key, value in where.items()):
            yield row


def _tensors(tag: str, model: str, direction: str) -> str:
    entries = []
    for row in _rows("tensors", tag, model=model, direction=direction):
        flags = row["flags"].split()
        lines = [
            f'    name: "{row["name"]}"',
            f"    data_type: {row['type']}",
            f"    dims: [ {', '.join(row['dims'].split())} ]",
        ]
        if "scalar" in flags:
            lines.append("    reshape: { shape: [ ] }")
        if "ragged" in flags:
            lines.append("    allow_ragged_batch: true")
        if "optional" in flags:
            lines.append("    optional: true")
        entries.append("  {\n" + "\n".join(lines) + "\n  }")
    return f"{direction} [\n" + ",\n".join(entries) + "\n]\n"


def _parameter(key: str, value: str, comment: str = "") -> str:
    lines = ("parameters: {", f'  key: "{key}"', "  value: {", f'    string_value: "{value}"', "  }", "}")
    return "".join(f"{comment}{line}\n" for line in lines)


def _parameters(tag: str, model: str) -> str:
    text = "".join(_parameter(row["key"], row["value"]) for row in _rows("parameters", tag, model=model))
    if model == "tensorrt_llm" and (0, 10, 0) <= number(tag) < (1, 1, 0):
        # Withdrawn in between, but its placeholder still stands there in a comment: a trap for a naive scan.
        text += _parameter("enable_trt_overlap", "${enable_trt_overlap}", comment="# ")
    return text


def _scheduling(tag: str) -> str:
    steps = []
    for step in STEPS:
        maps = "".join(
            f'      {kind} {{\n        key: "{row["tensor"]}"\n        value: "{row["ensemble_tensor"]}"\n      }}\n'
            for kind in ("input_map", "output_map")
            for row in _rows("ensemble", tag, step=step, map=kind)
        )
        steps.append(f'    {{\n      model_name: "{step}"\n      model_version: -1\n{maps}    }}')
    return "ensemble_scheduling {\n  step [\n" + ",\n".join(steps) + "\n  ]\n}\n"


def _batching(tag: str, model: str) -> str:
    """The dynamic_batching block, where the model has one at this tag."""
    if model == "postprocessing" and number(tag) >= (0, 13, 0):
        return "dynamic_batching { }\n"
    queue = model == "tensorrt_llm" or (model == "preprocessing" and number(tag) >= (0, 19, 0))
    if not queue:
        return ""
    text = (
        "dynamic_batching {\n"
        "  preferred_batch_size: [ ${triton_max_batch_size} ]\n"
        "  max_queue_delay_microseconds: ${max_queue_delay_microseconds}\n"
    )
    if number(tag) >= (0, 12, 0):
        text += "  default_queue_policy: { max_queue_size: ${max_queue_size} }\n"
    return text + "}\n"


def _head(tag: str, model: str) -> str:
    if model == "ensemble":
        kind = 'platform: "ensemble"\n'
    elif model == "tensorrt_llm":
        kind = f'backend: "{"${triton_backend}" if number(tag) >= (0, 10, 0) else "tensorrtllm"}"\n'
    else:
        kind = 'backend: "python"\n'
    text = f'name: "{model}"\n{kind}max_batch_size: ${{triton_max_batch_size}}\n'
    if model in ("tensorrt_llm", "tensorrt_llm_bls"):
        text += "model_transaction_policy {\n  decoupled: ${decoupled_mode}\n}\n"
    return text + _batching(tag, model)


def _instances(model: str) -> str:
    if model == "ensemble":
        return ""
    count = {
        "preprocessing": "${preprocessing_instance_count}",
        "postprocessing": "${postprocessing_instance_count}",
        "tensorrt_llm_bls": "${bls_instance_count}",
    }.get(model, "1")
    return f"instance_group [\n  {{\n    count: {count}\n    kind: KIND_CPU\n  }}\n]\n"


def config(tag: str, model: str) -> str:
    """The unfilled config.pbtxt of `model` at `tag`."""
    parts = [
        f"# Lab stand-in for the {model} model's configuration at {tag}: same names and shapes, generated.\n",
        _head(tag, model),
        _tensors(tag, model, "input"),
        _tensors(tag, model, "output"),
        _parameters(tag, model),
        _instances(model),
    ]
    if model == "ensemble":
        parts.append(_scheduling(tag))
    return "\n".join(part for part in parts if part)


def repository(tag: str) -> dict[str, bytes]:
    """The files below inflight_batcher_llm at `tag`: unfilled templates, and the models' Python code."""
    files: dict[str, bytes] = {}
    for model in MODELS:
        files[f"{model}/config.pbtxt"] = config(tag, model).encode()
        code = CODE / f"{model}.py"
        if code.is_file():
            files[f"{model}/1/model.py"] = at_version(code.read_bytes(), tag)
        else:
            files[f"{model}/1/.gitkeep"] = b""
    return files
