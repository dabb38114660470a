"""New profiles: for each model of the model table a reviewed file, and a line for each repository that cannot be served.

`python -m tests.unit.test_proposal` writes the files again; `make golden` does it too.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from operations.plan import PlanError
from operations.plan.catalog.models import MODELS as MODEL_TABLE
from operations.plan.explain import planned
from operations.plan.inventory.hosts import read_group_data
from operations.plan.paths import PROJECT
from operations.plan.profile.profiles import KINDS
from operations.plan.proposal.chat import golden_prompt, template_of
from operations.plan.proposal.choice import Wanted, choose
from operations.plan.proposal.propose import Proposal, propose
from operations.plan.proposal.repository import Repository
from operations.plan.proposal.text import check_name, name_for
from tests.unit import hub_models
from tests.unit.hub_models import BY_NAME, HubModel

DATA = read_group_data(PROJECT / "inventories" / "group_data" / "all.py")
GOLDEN = Path(__file__).parent / "golden_proposals"
LLAMA = BY_NAME["meta-llama/Llama-3.1-8B-Instruct"].repository
QWEN = BY_NAME["Qwen/Qwen2.5-7B-Instruct"].repository
GPT2 = BY_NAME["openai-community/gpt2"].repository
MIXTRAL = BY_NAME["mistralai/Mixtral-8x7B-Instruct-v0.1"].repository


def proposed(found: Repository, **wanted: Any) -> Proposal:
    return propose(found, Wanted(**wanted), name_for(found.name), DATA)


def refused(found: Repository, **wanted: Any) -> str:
    with pytest.raises(PlanError) as caught:
        proposed(found, **wanted)
    return str(caught.value)


@cache
def of_hub(name: str) -> Proposal:
    """What is proposed for a model of the table, without a wish."""
    return proposed(BY_NAME[name].repository)


def golden_of(model: HubModel) -> str:
    found = of_hub(model.name)
    comment = [*found.forecast(), "", *found.shapes, "", *found.warnings]
    return found.text + "\n" + "".join(f"# {line}".rstrip() + "\n" for line in comment)


@pytest.mark.slow
@pytest.mark.parametrize("model", hub_models.MODELS, ids=lambda model: model.name)
def test_profile_matches_its_golden_file(model: HubModel) -> None:
    assert golden_of(model) == (GOLDEN / f"{name_for(model.name)}.toml").read_text(encoding="utf-8")


def outcome_of(architecture: str) -> str:
    """What is proposed for a model of 8 billion numbers of this architecture on eight A100, or why none is."""
    row = MODEL_TABLE[architecture]
    config = {**LLAMA.config, "architectures": [architecture], "model_type": row.model_type}
    found = replace(LLAMA, name=f"someone/{architecture}", config=config)
    try:
        choice = proposed(found, gpus="NVIDIA A100-SXM4-80GB:8").choice
    except PlanError as error:
        return f"refused: {error}"
    return f"kind {choice.kind}, release {choice.stack.release}, {choice.tensor_parallel} x {choice.gpus[0].name}"


def outcomes() -> str:
    """A line for each row of the model table."""
    return "".join(f"{architecture}: {outcome_of(architecture)}\n" for architecture in MODEL_TABLE)


@pytest.mark.slow
def test_each_row_of_the_table_has_a_reviewed_outcome() -> None:
    found, wanted = outcomes(), (GOLDEN / "rows.txt").read_text(encoding="utf-8")
    assert found == wanted
    assert len(found.splitlines()) == len(MODEL_TABLE)


def test_every_golden_file_has_its_model() -> None:
    names = sorted(name_for(model.name) for model in hub_models.MODELS)
    assert sorted(path.stem for path in GOLDEN.glob("*.toml")) == names


@pytest.mark.slow
@pytest.mark.parametrize("model", hub_models.MODELS, ids=lambda model: model.name)
def test_text_is_a_profile_that_can_be_planned(model: HubModel) -> None:
    found = of_hub(model.name)
    profile = KINDS[found.choice.kind].model_validate(tomllib.loads(found.text))
    planned("new", profile, DATA, f"{found.choice.gpus[0].name}:{len(found.choice.gpus)}")


# --- what is chosen


@pytest.mark.slow
def test_engine_is_chosen_where_a_converter_reads_the_model() -> None:
    assert proposed(LLAMA).choice.kind == "engine"
    assert proposed(LLAMA, kind="llmapi").choice.kind == "llmapi"
    assert proposed(QWEN).choice.kind == "llmapi"


def test_kind_without_the_architecture_is_refused() -> None:
    assert "--kind: found engine, expected llmapi for Qwen2ForCausalLM" in refused(QWEN, kind="engine")
    assert "--kind: found llmapi, expected engine for GPT2LMHeadModel" in refused(GPT2, kind="llmapi")


def test_quantized_weights_are_served_as_they_are() -> None:
    found = BY_NAME["nvidia/Llama-3.1-8B-Instruct-FP8"].repository
    assert proposed(found).choice.kind == "llmapi"
    assert "weights of FP8" in refused(found, kind="engine")
    assert "compute capability 8.9 or above" in refused(found, shape="BM.GPU4.8")


def test_weights_of_another_tool_are_refused() -> None:
    awq = replace(QWEN, config={**QWEN.config, "quantization_config": {"quant_method": "awq", "bits": 4}})
    assert "found weights of AWQ, 4 bits" in refused(awq)


@pytest.mark.slow
def test_fewest_gpus_that_fit_are_used() -> None:
    assert proposed(LLAMA, gpus="NVIDIA A100-SXM4-80GB:8").choice.tensor_parallel == 1
    assert proposed(MIXTRAL, gpus="NVIDIA A100-SXM4-40GB:8").choice.tensor_parallel == 4


@pytest.mark.slow
def test_longer_context_takes_more_gpus() -> None:
    few, many = (
        proposed(LLAMA, shape="BM.GPU.A10.4", context=context, concurrency=4) for context in (8192, 32768)
    )
    assert (few.choice.tensor_parallel, many.choice.tensor_parallel) == (1, 2)
    assert many.choice.context == 32768


def test_context_beyond_the_model_is_refused() -> None:
    assert "8192" in refused(BY_NAME["meta-llama/Meta-Llama-3-8B"].repository, context=16384)


@pytest.mark.slow
def test_model_is_quantized_only_where_it_does_not_fit() -> None:
    assert proposed(LLAMA, gpus="NVIDIA A10:1", concurrency=4).choice.quantization == ""
    smaller = proposed(LLAMA, gpus="NVIDIA A10:1", concurrency=8, context=8192)
    assert smaller.choice.quantization == "int8_wo"
    assert "# 8 bits a weight, rounded" in smaller.text
    tiny = proposed(LLAMA, gpus="NVIDIA A10:1", concurrency=13, context=8192)
    assert tiny.choice.quantization == "int4_awq"
    assert 'repository = "abisee/cnn_dailymail"' in tiny.text


def test_model_that_does_not_fit_names_shapes_on_which_it_does() -> None:
    line = refused(BY_NAME["meta-llama/Llama-3.3-70B-Instruct"].repository, shape="VM.GPU.A10.1")
    assert "it fits on BM.GPU.L40S.4, BM.GPU4.8, BM.GPU.B4.8 and larger; --shape NAME plans for one" in line


def test_older_gpus_get_an_older_release() -> None:
    found = proposed(LLAMA, shape="VM.GPU3.2").choice
    assert (found.stack.release, found.dtype) == ("24.10", "float16")


def test_release_is_the_one_that_is_asked_for() -> None:
    assert proposed(LLAMA, release="24.08").choice.stack.release == "24.08"
    assert "0.12 or later" in refused(LLAMA, release="24.04")
    assert (
        "max_output_len = 1024"
        in proposed(BY_NAME["meta-llama/Llama-2-7b-hf"].repository, release="24.06", context=4096).text
    )


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        ({"gpus": "A10:1"}, "--gpus: found A10:1, expected NAME:COUNT"),
        ({"shape": "VM.GPU.A10.9"}, "--shape: found VM.GPU.A10.9, expected an OCI shape"),
        ({"release": "99.99"}, "--release: found 99.99, expected a release YY.MM"),
    ],
)
def test_unknown_hardware_or_release_is_refused(wanted: dict[str, str], line: str) -> None:
    assert refused(LLAMA, **wanted).startswith(line)


@pytest.mark.slow
def test_files_with_fewer_numbers_than_the_model_are_a_warning() -> None:
    assert not proposed(LLAMA).warnings
    [line] = proposed(replace(LLAMA, counts={"BF16": 8_000_000_000})).warnings
    assert "its files hold 8000000000 numbers, and a model of its config.json has 8030261248" in line


def test_folders_with_other_weights_are_left_out() -> None:
    files = {
        **LLAMA.files,
        "original/consolidated.safetensors": 16_060_522_496,
        "onnx/model.safetensors": 10**9,
    }
    assert 'exclude = ["consolidated*", "onnx/*", "original/*"]' in proposed(replace(LLAMA, files=files)).text


@pytest.mark.slow
def test_other_weights_do_not_count() -> None:
    gpt_oss = BY_NAME["openai/gpt-oss-20b"].repository
    files = {**gpt_oss.files, "original/model.safetensors": 13_761_264_768, "metal/model.bin": 10**10}
    assert proposed(replace(gpt_oss, files=files), gpus="NVIDIA A10:1").choice.tensor_parallel == 1
    twice = {**LLAMA.files, "model.fp16.safetensors": 16_060_522_496}
    assert sum(replace(LLAMA, files=twice).weight_files.values()) == sum(LLAMA.weight_files.values())
    assert (
        'exclude = ["consolidated*", "model.fp16.safetensors"]' in proposed(replace(LLAMA, files=twice)).text
    )


@pytest.mark.parametrize(
    "word",
    ["float16\nflags = {load_by_shard = true}", "a\x1b[31m\x00", "\ud800", "x" * 10_000, 7, None, ["a"]],
)
def test_words_of_a_config_stay_in_their_comment(word: object) -> None:
    found = replace(LLAMA, config={**LLAMA.config, "torch_dtype": word})
    tables = tomllib.loads(proposed(found).text)
    assert tables["checkpoint"] == {"family": "llama", "dtype": "float16"}


def test_starcoder_gets_a_variant_of_its_converter() -> None:
    config = {
        **{"architectures": ["GPTBigCodeForCausalLM"], "model_type": "gpt_bigcode", "torch_dtype": "float16"},
        **{"n_embd": 2048, "n_layer": 24, "n_head": 16, "n_positions": 2048, "vocab_size": 49280},
    }
    for name, variant in (
        ("bigcode/starcoder", "starcoder"),
        ("bigcode/gpt_bigcode-santacoder", "santacoder"),
    ):
        found = Repository(
            name, "a" * 40, {"config.json": 900, "model.safetensors": 2_200_000_000}, config=config
        )
        assert f'gpt_variant = "{variant}"' in proposed(found).text


def test_long_golden_request_fits_the_input_of_an_old_release() -> None:
    found = replace(LLAMA, config={k: v for k, v in LLAMA.config.items() if k != "rope_scaling"})
    assert (
        "filler_words"
        not in proposed(found, release="24.04", context=5600, gpus="NVIDIA A100-SXM4-80GB:1").text
    )


# --- repositories that cannot be served

CONFIG = {"config.json": 900}
WEIGHTS = {"model.safetensors": 10**9}


def of(files: dict[str, int], architecture: str = "LlamaForCausalLM", **config: Any) -> Repository:
    described = {**LLAMA.config, "architectures": [architecture], **config} if "config.json" in files else {}
    return Repository("o/n", "a" * 40, files, config=described)


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (
            replace(
                of({"adapter_config.json": 600, "adapter_model.safetensors": 10**7}),
                adapter={"base_model_name_or_path": "o/base"},
            ),
            "o/n: found an adapter without its model, expected a whole model; tritonhost new o/base",
        ),
        (
            of({"model.Q4_K_M.gguf": 10**9}),
            "o/n: found GGUF files alone, expected a model in the format of transformers",
        ),
        (
            of({**CONFIG, "model.Q4_K_M.gguf": 10**9}),
            "o/n: found GGUF files alone, expected weights in safetensors",
        ),
        (of({"model_index.json": 500}), "o/n: found a pipeline of diffusers"),
        (
            of({"params.json": 500, "consolidated.00.pth": 10**9}),
            "o/n: found weights in the format of their authors",
        ),
        (of({"README.md": 500}), "o/n: found no config.json"),
        (of({**CONFIG}), "o/n: found no weights"),
        (of({**CONFIG, "pytorch_model.bin": 10**9}), "o/n: found pickles alone (pytorch_model.bin)"),
        (
            of({**CONFIG, "consolidated.safetensors": 10**9}),
            "o/n: found weights in the format of their authors alone",
        ),
        (
            of({**CONFIG, "weights/model.safetensors": 10**9}),
            "o/n: found weights in a folder alone (weights/model.safetensors), expected weights in safetensors at the root",
        ),
        (
            of(
                {
                    **CONFIG,
                    "model-00001-of-00003.safetensors": 10**9,
                    "model-00003-of-00003.safetensors": 10**9,
                }
            ),
            "o/n: found 2 of 3 files of weights; model-00002-of-00003.safetensors is missing",
        ),
        (of({**CONFIG, **WEIGHTS, "modules.json": 200}, "BertModel"), "o/n: found an embedding model"),
        (of({**CONFIG, **WEIGHTS}, "BertModel"), "o/n: found BertModel, an encoder or a part of a model"),
        (of({**CONFIG, **WEIGHTS}, "RobertaForMaskedLM"), "o/n: found RobertaForMaskedLM, an encoder"),
        (
            of({**CONFIG, **WEIGHTS}, "Qwen2ForRewardModel"),
            "o/n: found Qwen2ForRewardModel, which rates a text",
        ),
        (
            of({**CONFIG, **WEIGHTS}, "T5ForConditionalGeneration", is_encoder_decoder=True),
            "o/n: found an encoder and a decoder (T5ForConditionalGeneration)",
        ),
        (
            of({**CONFIG, **WEIGHTS}, "NewForCausalLM"),
            "o/n: found NewForCausalLM, expected an architecture of the model table",
        ),
        (
            of({**CONFIG, **WEIGHTS}, "FalconForCausalLM"),
            "o/n: found FalconForCausalLM (Falcon 7B, 40B, 180B), expected an architecture",
        ),
        (
            of({**CONFIG, **WEIGHTS}, architectures=[]),
            "o/n: found no architectures in config.json, expected an architecture of the model table",
        ),
    ],
    ids=lambda value: value[11:50] if isinstance(value, str) else "",
)
def test_what_cannot_be_served_is_said(found: Repository, line: str) -> None:
    assert refused(found).startswith(line)


@pytest.mark.parametrize("model", hub_models.REFUSED, ids=lambda model: model.name)
def test_model_of_no_release_is_refused(model: HubModel) -> None:
    assert "no release's PyTorch backend has it" in refused(model.repository)


@pytest.mark.slow
def test_config_with_nonsense_is_refused_in_one_line() -> None:
    for key, value in (
        ("hidden_size", "x"),
        ("num_attention_heads", 0),
        ("vocab_size", -1),
        ("num_key_value_heads", 7),
    ):
        found = replace(LLAMA, config={**LLAMA.config, key: value})
        try:
            proposed(found)
        except PlanError as error:
            assert "\n" not in str(error)


# --- golden requests


def test_prompt_is_in_the_chat_template() -> None:
    prompt, how = golden_prompt(LLAMA.tokenizer["chat_template"], LLAMA.tokenizer)
    assert prompt.startswith(
        "<|start_header_id|>user<|end_header_id|>\n\nWhat is machine learning?<|eot_id|>"
    )
    assert prompt.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
    assert how == "a question in the model's own chat template"


@pytest.mark.parametrize(
    "template",
    [
        # each takes all the time that there is
        *(
            pytest.param(text, marks=pytest.mark.slow)
            for text in (
                "{% for n in range(99999) %}{% for m in range(99999) %}{% endfor %}{% endfor %}",
                "{{ 10 ** (10 ** 8) }}",
            )
        ),
        "{{ raise_exception('no system role') }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ 1 / 0 }}",
        "{% if %}",
        "{{ 'x' * 100000 }}",
        "{{ 'x' * (10 ** 13) }}",
        "{{ '\ud800' }}",
        "",
    ],
)
def test_template_that_fails_gives_a_plain_prompt(template: str) -> None:
    assert golden_prompt(template, {})[0] == "Machine learning is"


def test_template_is_found_in_each_place() -> None:
    assert template_of("a", {"chat_template": "b"}) == "a"
    assert template_of("", {"chat_template": "b"}) == "b"
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    assert template_of("", {"chat_template": named}) == "d"
    assert template_of("", {"chat_template": 3}) == ""
    assert template_of("", {"chat_template": [{"name": ["x"]}, 3, {"name": "default", "template": {}}]}) == ""


def test_date_of_a_template_does_not_change_the_prompt() -> None:
    assert golden_prompt("{{ strftime_now('%d %b %Y') }}", {})[0] == "26 Jul 2024"


@pytest.mark.slow
def test_long_context_gets_a_long_golden_request() -> None:
    assert "filler_words" not in proposed(LLAMA, gpus="NVIDIA H200:1", context=4096).text
    assert "filler_words = 4400" in proposed(LLAMA, gpus="NVIDIA H200:1", context=8192).text


# --- names


@pytest.mark.parametrize(
    ("repository", "name"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b-instruct"),
        ("o/UPPER__x", "upper__x"),
        ("o/..", "model"),
        ("o/a b", "a-b"),
    ],
)
def test_name_is_the_repositorys_in_lower_case(repository: str, name: str) -> None:
    assert name_for(repository) == name
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "../x", "A", "a/b", ".a", "a..b", "x" * 101])
def test_bad_name_is_refused(name: str) -> None:
    with pytest.raises(PlanError, match="expected a name of lower-case letters"):
        check_name(name)


def test_nothing_that_fits_is_chosen_by_the_smallest_shape() -> None:
    huge = replace(
        LLAMA,
        config={**LLAMA.config, "num_hidden_layers": 1000, "hidden_size": 65536, "intermediate_size": 2**19},
    )
    with pytest.raises(PlanError, match="found"):
        choose(huge, Wanted())


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for one in hub_models.MODELS:
        (GOLDEN / f"{name_for(one.name)}.toml").write_text(golden_of(one), encoding="utf-8")
    (GOLDEN / "rows.txt").write_text(outcomes(), encoding="utf-8")
