"""Fill the config.pbtxt templates of a model repository, strictly.

The project's own fill_template.py is not used: up to v0.15 it splits values at every comma and colon, it keeps a
forgotten placeholder without a word, and its in-place edit cannot be repeated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from operations.plan.errors import PlanError, suggestion
from operations.plan.profile_tables import Value
from operations.plan.template_parameters import Version, parameters_of

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z0-9_]+)\}")
# Quoted, and the server parses the file without them, but the model then does not load.
REQUIRED_QUOTED = frozenset({"engine_dir", "batching_strategy", "tokenizer_dir", "triton_backend"})
_BARE_VALUE = re.compile(r"[A-Za-z0-9_.+-]+")
_QUOTED_VALUE = re.compile(r"[^\"\\\x00-\x1f]*")

# What a template needs filled and a profile rarely wants to say. triton's data types follow the engine's defaults.
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
    "encoder_input_features_data_type": "TYPE_FP16",
    "logits_datatype": "TYPE_FP32",
    "prompt_embedding_table_data_type": "TYPE_FP16",
}


def text_of(value: Value) -> str:
    """A value as Triton's C++ reads it: booleans in lower case, numbers as they are written."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_parameters(
    models: list[str],
    common: Mapping[str, Value],
    per_model: Mapping[str, Mapping[str, Value]],
    version: Version,
) -> None:
    """
    Refuse parameters that no template of this version has, before any host is asked.

    Raises PlanError with the nearest name that exists.
    """
    known = {model: parameters_of(model, version) for model in models}
    everywhere = {name for names in known.values() for name in names}
    shown_version = ".".join(map(str, version))
    for name in common:
        if name not in everywhere:
            raise PlanError(
                f"repository.parameters.{name}",
                f"unknown parameter {name}",
                f"a template parameter of TensorRT-LLM {shown_version}",
                suggestion(name, everywhere),
            )
    for model, values in per_model.items():
        for name in values:
            if name not in known[model]:
                raise PlanError(
                    f"repository.model_parameters.{model}.{name}",
                    f"unknown parameter {name}",
                    f"a parameter of {model} of TensorRT-LLM {shown_version}",
                    suggestion(name, known[model]),
                )


def fill(model: str, template: str, values: Mapping[str, Value]) -> str:
    """
    One model's config.pbtxt out of its template.

    + model: its name, for the error
    + template: the text of the template
    + values: placeholder -> value; those the template does not have are left over without complaint, because one
      set of values serves all five models

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
            raise PlanError(
                where, "no value", "every mandatory placeholder filled", f"set repository.parameters.{name}"
            )
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
