"""Fill the config.pbtxt templates of a model repository, strictly.

tensorrtllm_backend's own fill_template.py is not used: up to v0.15 it splits values at every comma and colon, it silently
keeps a forgotten placeholder, and its in-place edit cannot be repeated.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from operations.plan.catalog.template_parameters import PARAMETERS, Version, parameters_of
from operations.plan.catalog.values import Value
from operations.plan.errors import PlanError, suggestion

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z0-9_]+)\}")
# Quoted placeholders that the server can parse unfilled, but then the model does not load.
REQUIRED_QUOTED = frozenset({"engine_dir", "batching_strategy", "tokenizer_dir", "triton_backend"})
_BARE_VALUE = re.compile(r"[A-Za-z0-9_.+-]+")
_QUOTED_VALUE = re.compile(r"[^\"\\\x00-\x1f]*")

# Values that a template needs and a profile rarely sets. Triton's data types follow the engine's defaults.
DEFAULTS: dict[str, Value] = {
    "triton_backend": "tensorrtllm",
    "triton_max_batch_size": 1,
    "batching_strategy": "inflight_fused_batching",
    "decoupled_mode": False,
    "max_queue_delay_microseconds": 0,
    "max_queue_size": 0,
    "preprocessing_instance_count": 1,
    "postprocessing_instance_count": 1,
    "bls_instance_count": 1,
    # before 0.13 tensorrt_llm_bls takes the literal for the name of a model, which no model has
    "tensorrt_llm_model_name": "tensorrt_llm",
    "encoder_input_features_data_type": "TYPE_FP16",
    "logits_datatype": "TYPE_FP32",
    "prompt_embedding_table_data_type": "TYPE_FP16",
}


# How to fill a placeholder that is newer than this tool's tables
_NEWER = " Where a template has it and this tool does not know it, also say repository.unlisted = ['{name}']"


def text_of(value: Value) -> str:
    """A value as Triton's C++ reads it: booleans in lower case, numbers as they are written."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_parameters(
    models: list[str],
    common: Mapping[str, Value],
    per_model: Mapping[str, Mapping[str, Value]],
    version: Version,
    unlisted: Collection[str] = (),
) -> None:
    """
    Refuse parameters that no template of this version has, before any host is contacted.

    + unlisted: names that the profile declares to be in the templates

    Raises PlanError with the nearest name that exists.
    """
    known = {model: parameters_of(model, version) for model in models}
    everywhere = {name for names in known.values() for name in names}
    shown_version = ".".join(map(str, version))
    for name in common:
        if name not in everywhere and name not in unlisted:
            raise PlanError(
                f"repository.parameters.{name}",
                f"unknown parameter {name}",
                f"a template parameter of TensorRT-LLM {shown_version}",
                f"{suggestion(name, everywhere)}{_NEWER.format(name=name)}",
            )
    for model, values in per_model.items():
        for name in values:
            if name not in known[model] and name not in unlisted:
                raise PlanError(
                    f"repository.model_parameters.{model}.{name}",
                    f"unknown parameter {name}",
                    f"a parameter of {model} of TensorRT-LLM {shown_version}",
                    f"{suggestion(name, known[model])}{_NEWER.format(name=name)}",
                )


def unknown_placeholders(
    templates: Mapping[str, str], version: Version, unlisted: Collection[str] = ()
) -> dict[str, list[str]]:
    """
    The placeholders of each real template that neither a table here nor the profile names: they are not filled.

    Raises PlanError for a name that the profile calls unlisted and no template has.
    """
    found = {
        model: {
            match.group(1)
            for line in template.splitlines()
            if not line.lstrip().startswith("#")
            for match in _PLACEHOLDER.finditer(line)
        }
        for model, template in templates.items()
    }
    everywhere = {name for names in found.values() for name in names}
    for name in unlisted:
        if name not in everywhere:
            near = suggestion(name, everywhere)
            raise PlanError("repository.unlisted", name, "a placeholder of a template of this release", near)
    new = {
        model: sorted(names - set(parameters_of(model, version)) - set(unlisted))
        for model, names in found.items()
    }
    return {model: names for model, names in new.items() if names}


def how_to_fill(name: str) -> str:
    """The profile's keys for a placeholder that this tool does not know."""
    return f"set repository.parameters.{name} and repository.unlisted = ['{name}']"


def fill(model: str, template: str, values: Mapping[str, Value]) -> str:
    """
    One model's config.pbtxt, from its template.

    + model: its name, for the error
    + template: the text of the template
    + values: placeholder -> value; those that the template does not have are ignored, because one set of values
    serves all five models

    An optional quoted placeholder without a value stays as it is: the backend takes the literal for "not given".
    Raises PlanError for a bare or required placeholder without a value, and for a value that would break out of
    the place it is put into.
    """
    lines = []
    for number, line in enumerate(template.splitlines(), start=1):
        if not line.lstrip().startswith("#"):
            line = _fill_line(model, number, line, values)
        lines.append(line)
    return "\n".join(lines) + "\n"


def _fill_line(model: str, number: int, line: str, values: Mapping[str, Value]) -> str:
    def replacement(match: re.Match[str]) -> str:
        name = match.group(1)
        where = f"{model}/config.pbtxt line {number}: {name}"
        quoted = line[: match.start()].count('"') % 2 == 1
        if name not in values:
            if quoted and name not in REQUIRED_QUOTED:
                return match.group(0)
            listed = any(name == parameter.name for parameter in PARAMETERS.get(model, ()))
            then = f"set repository.parameters.{name}" if listed else how_to_fill(name)
            raise PlanError(where, "no value", "every mandatory placeholder filled", then)
        text = text_of(values[name])
        if not (_QUOTED_VALUE if quoted else _BARE_VALUE).fullmatch(text):
            raise PlanError(where, text, "a value without quotes, backslashes or line breaks")
        return text

    return _PLACEHOLDER.sub(replacement, line)


def parsed(model: str, text: str) -> None:
    """
    Read a filled config.pbtxt with the schema that tritonserver reads it with.

    Raises PlanError with the line the parser stopped at.
    """
    # Imported here: tritonclient brings gRPC along, which would cost each run of a converged host half a second.
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise PlanError(f"{model}/config.pbtxt", str(error), "a text Triton's ModelConfig accepts") from None
    if config.name and config.name != model:
        raise PlanError(f"{model}/config.pbtxt: name", config.name, f"{model}, as its directory is called")


def render(
    templates: Mapping[str, str], common: Mapping[str, Value], per_model: Mapping[str, Mapping[str, Value]]
) -> dict[str, str]:
    """Every model's config.pbtxt, filled and parsed, as model -> text."""
    result = {}
    for model, template in templates.items():
        result[model] = fill(model, template, {**DEFAULTS, **common, **per_model.get(model, {})})
        parsed(model, result[model])
    return result
