"""The generated config.pbtxt files compared with the parameter table and with Triton's schema."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from google.protobuf import text_format  # type: ignore[import-untyped,unused-ignore]
from tritonclient.grpc import model_config_pb2  # type: ignore[import-untyped,unused-ignore]

from operations.plan.catalog.values import Value
from operations.plan.errors import PlanError
from operations.plan.profile.model_repository import (
    check_parameters,
    how_to_fill,
    render,
    unknown_placeholders,
)
from tests.lab.mirror import templates
from tests.lab.mirror.versions import IMAGE_TAGS, TAGS, number

TABLE = Path(__file__).parent / "template_parameters.csv"
PLACEHOLDER = re.compile(r"\$\{([A-Za-z0-9_]+)\}")
ALL = (*TAGS, *IMAGE_TAGS)
CASES = [(tag, model) for tag in ALL for model in templates.MODELS]

# Values of bare placeholders; every other one takes a whole number.
VALUES = {
    "decoupled_mode": "true",
    "encoder_input_features_data_type": "TYPE_FP16",
    "logits_datatype": "TYPE_FP32",
    "prompt_embedding_table_data_type": "TYPE_FP16",
    "triton_backend": "tensorrtllm",
}


def wanted(tag: str, model: str) -> dict[str, str]:
    with TABLE.open(newline="") as file:
        return {
            row["parameter"]: row[tag] for row in csv.DictReader(file) if row["model"] == model and row[tag]
        }


def found(text: str) -> dict[str, str]:
    """Placeholder -> X (must be filled), x (inside a string value) or c (only in a comment)."""
    kinds: dict[str, str] = {}
    rank = {"c": 0, "x": 1, "X": 2}
    for line in text.splitlines():
        code, _, comment = line.partition("#")
        for part, commented in ((code, False), (comment, True)):
            for name in PLACEHOLDER.findall(part):
                quoted = "string_value" in part
                kind = "c" if commented else "x" if quoted else "X"
                if name not in kinds or rank[kind] > rank[kinds[name]]:
                    kinds[name] = kind
    return kinds


@pytest.mark.parametrize(("tag", "model"), CASES)
def test_placeholders_match_the_parameter_table(tag: str, model: str) -> None:
    assert found(templates.config(tag, model)) == wanted(tag, model)


@pytest.mark.parametrize(("tag", "model"), CASES)
def test_filled_template_is_a_model_configuration(tag: str, model: str) -> None:
    text = templates.config(tag, model)
    bare = {name for name, kind in found(text).items() if kind == "X"}
    filled = PLACEHOLDER.sub(lambda m: VALUES.get(m[1], "4") if m[1] in bare else m[0], text)
    config = text_format.Parse(filled, model_config_pb2.ModelConfig())
    assert config.name == model
    assert config.max_batch_size == 4
    if model == "tensorrt_llm":
        assert config.backend == "tensorrtllm"
        assert config.parameters["gpt_model_path"].string_value == "${engine_dir}"
    if model == "ensemble":
        assert [step.model_name for step in config.ensemble_scheduling.step] == list(templates.STEPS)


@pytest.mark.parametrize(("tag", "model"), CASES)
def test_unfilled_template_does_not_parse(tag: str, model: str) -> None:
    with pytest.raises(text_format.ParseError):
        text_format.Parse(templates.config(tag, model), model_config_pb2.ModelConfig())


@pytest.mark.parametrize("tag", ALL)
def test_ensemble_wires_only_tensors_that_exist(tag: str) -> None:
    """Every mapped tensor is declared by its step, and every required input of a step is mapped."""

    def parse(model: str) -> model_config_pb2.ModelConfig:
        text = PLACEHOLDER.sub(lambda m: VALUES.get(m[1], "4"), templates.config(tag, model))
        return text_format.Parse(text, model_config_pb2.ModelConfig())

    ensemble = parse("ensemble")
    known = {tensor.name for tensor in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        model = parse(step.model_name)
        assert set(step.input_map) <= {tensor.name for tensor in model.input}
        assert set(step.output_map) <= {tensor.name for tensor in model.output}
        assert set(step.input_map.values()) <= known
        known |= set(step.output_map.values())
    assert {tensor.name for tensor in ensemble.output} <= known


@pytest.mark.parametrize("tag", ALL)
def test_plan_fills_every_placeholder_of_every_template(tag: str) -> None:
    """For a profile without parameters: the plan's paths and defaults fill every required placeholder."""
    paths: dict[str, Value] = {"engine_dir": "/engine", "tokenizer_dir": "/weights"}
    check_parameters(list(templates.MODELS), paths, {}, number(tag))
    filled = render({model: templates.config(tag, model) for model in templates.MODELS}, paths, {})
    assert set(filled) == set(templates.MODELS)
    for model, text in filled.items():
        for line in text.splitlines():
            assert "${" not in re.sub(r'"[^"]*"', "", line.partition("#")[0]), f"{model}: {line}"
    assert '"/engine"' in filled["tensorrt_llm"]


NEW = """
parameters {{
  key: "brand_new"
  value: {{
    string_value: "${{brand_new}}"
  }}
}}
# ${{said_in_a_comment}}
{bare}"""


@pytest.mark.parametrize("tag", ALL)
@pytest.mark.parametrize("bare", ["", "version_policy { latest { num_versions: ${brand_newer} } }\n"])
def test_unknown_placeholder_can_be_set(tag: str, bare: str) -> None:
    """A template that is newer than the tables: the message names its new placeholder, and its advice works."""
    paths: dict[str, Value] = {"engine_dir": "/engine", "tokenizer_dir": "/weights"}
    real = {model: templates.config(tag, model) for model in templates.MODELS}
    assert unknown_placeholders(real, number(tag)) == {}
    real["tensorrt_llm"] += NEW.format(bare=bare)
    names = ["brand_new", "brand_newer"] if bare else ["brand_new"]
    assert unknown_placeholders(real, number(tag)) == {"tensorrt_llm": names}
    if bare:
        with pytest.raises(PlanError) as caught:
            render(real, paths, {})
        assert str(caught.value).endswith(how_to_fill("brand_newer"))
    else:
        assert '"${brand_new}"' in render(real, paths, {})["tensorrt_llm"]
    said = {**paths, **dict.fromkeys(names, 7)}
    with pytest.raises(PlanError, match=r"repository\.unlisted = \['brand_new'\]"):
        check_parameters(list(templates.MODELS), said, {}, number(tag))
    check_parameters(list(templates.MODELS), said, {}, number(tag), names)
    assert unknown_placeholders(real, number(tag), names) == {}
    assert "brand" not in render(real, said, {})["tensorrt_llm"].replace('key: "brand_new"', "")


def test_unlisted_name_missing_from_all_templates_is_refused() -> None:
    real = {model: templates.config(TAGS[-1], model) for model in templates.MODELS}
    with pytest.raises(PlanError, match=r"repository\.unlisted: found brand_new, expected a placeholder"):
        unknown_placeholders(real, number(TAGS[-1]), ["brand_new"])


@pytest.mark.parametrize("model", ["tensorrt_llm", "tensorrt_llm_bls", "ensemble"])
def test_seed_and_shortest_answer_have_new_names_since_0_20(model: str) -> None:
    """tensorrtllm_backend c2e65b8 of 2025-05-13; Triton's own frontend followed for 25.06."""
    for tag in ALL:
        text = templates.config(tag, model)
        new = number(tag) >= (0, 20)
        for old_name, new_name in (("random_seed", "seed"), ("min_length", "min_tokens")):
            assert (f'"{new_name}"' in text, f'"{old_name}"' in text) == (new, not new), (tag, new_name)
