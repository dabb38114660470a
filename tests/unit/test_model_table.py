"""The model table, and the counts that a forecast is made of, against those that hubs publish."""

from __future__ import annotations

import json

import pytest

from operations.plan.__main__ import main
from operations.plan.catalog.models import CONVERTED, MODELS, VARIANTS
from operations.plan.catalog.support_matrix import FAMILIES, converter_folder
from operations.plan.model_table import model_rows
from operations.plan.profile.architecture import Architecture
from tests.unit import hub_models
from tests.unit.hub_models import HubModel

COUNTED = [model for model in (*hub_models.MODELS, *hub_models.REFUSED) if model.count]


@pytest.mark.parametrize("model", COUNTED, ids=lambda model: model.name)
def test_count_is_that_of_the_hub(model: HubModel) -> None:
    assert Architecture.from_config(model.config).parameters == model.count


@pytest.mark.parametrize("model", COUNTED, ids=lambda model: model.name)
def test_kv_cache_of_a_token_is_that_of_the_formula(model: HubModel) -> None:
    config = model.config
    heads = config.get("num_attention_heads") or config["n_head"]
    size = config.get("head_dim") or (config.get("hidden_size") or config["n_embd"]) // heads
    layers = config.get("num_hidden_layers") or config["n_layer"]
    # a key and a value for each layer and KV head, of 2 bytes a number
    by_hand = sum(2 * size * config.get("num_key_value_heads", heads) * 2 for _ in range(layers))
    assert Architecture.from_config(config).kv_bytes_per_token("bfloat16") == by_hand


def test_every_family_has_a_row_and_every_row_a_family() -> None:
    assert {row.family for row in MODELS.values() if row.family} == FAMILIES
    for row in MODELS.values():
        assert not row.family or row.model_type in CONVERTED[converter_folder(row.family)]
        assert row.family != "gpt" or row.model_type in VARIANTS


def test_rows_name_their_models_once() -> None:
    names = [row.models for row in MODELS.values()]
    assert len(set(names)) == len(names) and all(names)
    assert all(row.architecture == name for name, row in MODELS.items())


def test_models_prints_each_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(MODELS)
    assert next(line for line in lines if line.startswith("GPT2LMHeadModel")).split()[1:5] == [
        "24.04",
        "to",
        "26.07",
        "-",
    ]
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == model_rows()


def test_kinds_of_a_row_name_their_first_release() -> None:
    rows = {row["architecture"]: row for row in model_rows()}
    assert rows["GptOssForCausalLM"]["llmapi"] == "from 25.12"
    assert rows["NemotronForCausalLM"]["engine"] == "24.12 to 26.07"
    assert (rows["FalconForCausalLM"]["engine"], rows["FalconForCausalLM"]["llmapi"]) == (None, None)
    assert rows["BertForSequenceClassification"]["llmapi"] is None
