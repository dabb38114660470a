import json
import time
from typing import Any

import pytest
from pydantic import ValidationError

from operations.plan.errors import PlanError
from operations.plan.profile.architecture import Architecture, Parameters, bytes_of, printable

# The keys that count of the config.json of each repository, at its published values.
LLAMA_2_7B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
LLAMA_3_1_8B = {
    **LLAMA_2_7B,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 8,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "rope_type": "llama3"},
    "vocab_size": 128256,
}
MIXTRAL_8X7B = {
    **LLAMA_2_7B,
    "model_type": "mixtral",
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
}
MISTRAL_NEMO = {
    **LLAMA_2_7B,
    "model_type": "mistral",
    "head_dim": 128,
    "hidden_size": 5120,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "vocab_size": 131072,
}
SMOLLM2_135M = {
    **LLAMA_2_7B,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}
GPT2_MEDIUM: dict[str, Any] = {
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 1024,
    "n_head": 16,
    "n_layer": 24,
    "n_positions": 1024,
    "vocab_size": 50257,
}
CONFIGS = [LLAMA_2_7B, LLAMA_3_1_8B, MIXTRAL_8X7B, MISTRAL_NEMO, SMOLLM2_135M, GPT2_MEDIUM]


@pytest.mark.parametrize(
    ("config", "billions"),
    [
        (LLAMA_2_7B, 6.738),
        (LLAMA_3_1_8B, 8.030),
        (MIXTRAL_8X7B, 46.70),
        (MISTRAL_NEMO, 12.25),
        (SMOLLM2_135M, 0.1345),
        (GPT2_MEDIUM, 0.3548),
    ],
)
def test_the_count_of_weights_is_the_published_one(config: dict[str, Any], billions: float) -> None:
    model = Architecture.from_config(config)
    assert model.parameters == pytest.approx(billions * 1e9, rel=1e-3)
    assert model.weight_bytes("bfloat16") == 2 * model.parameters
    assert model.weight_bytes("float32") == 4 * model.parameters


def test_config_is_read_completely() -> None:
    assert Architecture.from_config(GPT2_MEDIUM) == Architecture(
        hidden_size=1024,
        layers=24,
        heads=16,
        kv_heads=16,
        head_size=64,
        intermediate_size=4096,
        vocabulary=50257,
        max_positions=1024,
        tied_embeddings=True,
        gated_mlp=False,
    )
    assert Architecture.from_config(MISTRAL_NEMO).head_size == 128
    assert Architecture.from_config(MIXTRAL_8X7B).experts == 8


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        ({**LLAMA_2_7B, "num_key_value_heads": None}, "kv_heads", 32),
        ({k: v for k, v in LLAMA_2_7B.items() if k != "num_key_value_heads"}, "kv_heads", 32),
        ({**LLAMA_2_7B, "head_dim": None}, "head_size", 128),
        ({k: v for k, v in LLAMA_2_7B.items() if k != "tie_word_embeddings"}, "tied_embeddings", False),
        ({**GPT2_MEDIUM, "n_inner": None}, "intermediate_size", 4096),
        ({**GPT2_MEDIUM, "n_inner": 512}, "intermediate_size", 512),
        ({**GPT2_MEDIUM, "tie_word_embeddings": False}, "tied_embeddings", False),
        # rope scaling: llama3's limit is the config's own, linear scaling multiplies it
        (LLAMA_3_1_8B, "max_positions", 131072),
        ({**LLAMA_2_7B, "rope_scaling": {"type": "linear", "factor": 2.0}}, "max_positions", 8192),
        ({**LLAMA_2_7B, "rope_scaling": {"rope_type": "dynamic", "factor": 4}}, "max_positions", 16384),
        ({**LLAMA_2_7B, "rope_scaling": {}}, "max_positions", 4096),
    ],
)
def test_missing_config_keys_have_the_transformers_defaults(
    config: dict[str, Any], field: str, value: object
) -> None:
    assert getattr(Architecture.from_config(config), field) == value


@pytest.mark.parametrize("config", CONFIGS)
def test_a_missing_key_is_named(config: dict[str, Any]) -> None:
    optional = {"rope_scaling", "tie_word_embeddings", "head_dim", "n_ctx"}
    if config["model_type"] == "llama":
        optional |= {"num_key_value_heads"}
    # without its head_dim Nemo's would be 5120 / 32, which is another model and not an error
    for name in set(config) - optional:
        without = {k: v for k, v in config.items() if k != name}
        with pytest.raises(PlanError, match=f"^config.json: {name}: found nothing, expected "):
            Architecture.from_config(without)


HUGE = int("9" * 4000) ** 2  # more digits than Python prints


def each(*values: object) -> list[Any]:
    """Parameters with ids of their own: pytest would print them, and Python does not print HUGE."""
    return [pytest.param(value, id=f"{type(value).__name__}{i}") for i, value in enumerate(values)]


ODD = [0, -1, True, 4096.0, float("nan"), float("inf"), "4096", "", [], {}, [HUGE], 10**30, HUGE, -HUGE]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("value", each(*ODD))
def test_invalid_value_is_one_line_that_names_its_key(config: dict[str, Any], value: object) -> None:
    for name in set(config) - {"model_type", "rope_scaling", "n_ctx", "tie_word_embeddings"}:
        with pytest.raises(PlanError, match=f"config.json: .*{name}") as caught:
            Architecture.from_config({**config, name: value})
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("value", each(0, 1, "yes", [], HUGE, float("nan")))
def test_tied_embeddings_are_a_switch(value: object) -> None:
    with pytest.raises(PlanError, match=r"^config\.json: tie_word_embeddings: found "):
        Architecture.from_config({**LLAMA_2_7B, "tie_word_embeddings": value})


@pytest.mark.parametrize("factor", each(0, -1, float("nan"), float("inf"), "2", True, HUGE, None))
def test_a_factor_of_rope_scaling_is_checked(factor: object) -> None:
    with pytest.raises(PlanError, match=r"^config\.json: rope_scaling\.factor: found .*a number from 1"):
        Architecture.from_config({**LLAMA_2_7B, "rope_scaling": {"type": "linear", "factor": factor}})


@pytest.mark.parametrize("value", each(1, "linear", [1], {"type": ["linear"]}, {"factor": HUGE}))
def test_invalid_rope_scaling_is_ignored(value: object) -> None:
    assert Architecture.from_config({**LLAMA_2_7B, "rope_scaling": value}).max_positions == 4096


@pytest.mark.parametrize("value", each("lama", "qwen2_moe", None, 5, [], "x" * 10**6, HUGE))
def test_an_unknown_model_type_is_refused(value: object) -> None:
    started = time.process_time()
    with pytest.raises(PlanError, match=r"^config\.json: model_type: .*one of llama, mistral, mixtral, gpt2"):
        Architecture.from_config({**LLAMA_2_7B, "model_type": value})
    assert time.process_time() - started < 1


@pytest.mark.parametrize("near", ["mixtrl", "gptj", "mllama", "mistral3", "phi4"])
def test_similar_model_type_is_not_suggested(near: str) -> None:
    """The file's own word is right; a similar one is another architecture."""
    with pytest.raises(PlanError) as caught:
        Architecture.from_config({"model_type": near})
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("config", [None, [], "llama", 5])
def test_config_that_is_not_a_table_is_refused(config: Any) -> None:
    with pytest.raises(PlanError, match=r"^config\.json: found .*, expected a table"):
        Architecture.from_config(config)


def test_widths_that_do_not_divide_are_refused() -> None:
    with pytest.raises(
        PlanError, match="hidden_size: found 4100, expected a multiple of num_attention_heads"
    ):
        Architecture.from_config({**LLAMA_2_7B, "hidden_size": 4100})
    with pytest.raises(
        PlanError, match=r"num_key_value_heads: found 5, expected a divisor of .* which is 32"
    ):
        Architecture.from_config({**LLAMA_2_7B, "num_key_value_heads": 5})


def test_a_table_of_a_profile_is_checked() -> None:
    table = json.loads(Architecture.from_config(LLAMA_2_7B).model_dump_json())
    assert Architecture.model_validate(table) == Architecture.from_config(LLAMA_2_7B)
    for wrong in ({"layer": 1}, {"layers": True}, {"layers": 0}, {"layers": 2**40}, {"gated_mlp": 1}):
        with pytest.raises(ValidationError):
            Architecture.model_validate({**table, **wrong})


@pytest.mark.parametrize(
    ("config", "dtype", "tp", "pp", "size"),
    [
        (LLAMA_2_7B, "float16", 1, 1, 2 * 32 * 32 * 128 * 2),
        # 63.44 GiB for 259840 tokens, in docs/source/reference/memory.md of TensorRT-LLM
        (LLAMA_2_7B, "float16", 2, 1, 262144),
        (LLAMA_3_1_8B, "bfloat16", 1, 1, 131072),
        (LLAMA_3_1_8B, "fp8", 1, 1, 65536),
        (LLAMA_3_1_8B, "int8", 4, 1, 16384),
        (LLAMA_3_1_8B, "float16", 1, 4, 32768),
        # eight KV heads on 16 ranks: one each, on two ranks
        (LLAMA_3_1_8B, "float16", 8, 1, 16384),
        (LLAMA_3_1_8B, "float16", 16, 1, 16384),
    ],
)
def test_a_token_s_kv_cache(config: dict[str, Any], dtype: str, tp: int, pp: int, size: int) -> None:
    assert Architecture.from_config(config).kv_bytes_per_token(dtype, tp, pp) == size


@pytest.mark.parametrize("dtype", each("float8", "", None, 16, ["float16"], HUGE))
def test_an_unknown_dtype_is_refused(dtype: Any) -> None:
    with pytest.raises(PlanError, match=r"^dtype: found .*, expected one of float32, float16"):
        bytes_of(dtype)


@pytest.mark.parametrize("config", CONFIGS)
def test_one_rank_holds_the_whole_model(config: dict[str, Any]) -> None:
    model = Architecture.from_config(config)
    assert model.rank_parameters() == model.all_ranks_parameters()
    assert model.rank_parameters().total == model.parameters


def test_tensor_parallel_ranks_share_only_the_matrices() -> None:
    model = Architecture.from_config(LLAMA_2_7B)
    whole, half = model.rank_parameters(), model.rank_parameters(2)
    embedding, norms = 32000 * 4096, 65 * 4096
    assert whole == Parameters(whole.matrices, 2 * embedding + norms)
    assert half == Parameters(whole.matrices // 2, embedding + embedding // 2 + norms)
    assert model.rank_parameters(2, 1, True).others == embedding + norms
    assert model.all_ranks_parameters(2).total == 2 * half.total
    # engine of 6695 MiB a rank, in docs/source/reference/memory.md of TensorRT-LLM
    assert 2 * half.total == pytest.approx(6695 * 2**20, rel=0.03)


def test_an_engine_of_llama_3_1_on_two_ranks() -> None:
    # "Loaded engine size: 8231 MiB": https://github.com/triton-inference-server/tensorrtllm_backend/issues/577
    half = Architecture.from_config(LLAMA_3_1_8B).rank_parameters(2)
    assert 2 * half.total == pytest.approx(8231 * 2**20, rel=0.01)


def test_pipeline_stages_share_the_layers() -> None:
    model = Architecture.from_config(LLAMA_2_7B)
    stage = model.rank_parameters(1, 4)
    assert stage.matrices == model.rank_parameters().matrices // 4
    # the embedding is on the first stage, the head on the last, and nothing is there twice
    assert model.all_ranks_parameters(1, 4).total == model.parameters
    assert model.all_ranks_parameters(1, 2).total == model.parameters


def test_tied_embedding_counts_twice_on_different_ranks() -> None:
    model = Architecture.from_config(SMOLLM2_135M)
    embedding = 49152 * 576
    norms = 61 * 576
    assert model.rank_parameters().others == embedding + norms
    assert model.rank_parameters(3).others == embedding + embedding // 3 + norms
    assert model.rank_parameters(3, 1, True).others == embedding // 3 + norms
    assert model.all_ranks_parameters(1, 2).total == model.parameters + embedding


def test_experts_are_split_over_ranks() -> None:
    model = Architecture.from_config(MIXTRAL_8X7B)
    assert model.rank_parameters(8).matrices == model.rank_parameters().matrices // 8


@pytest.mark.parametrize("value", each(5, "text", None, [1], {"a": HUGE}, HUGE))
def test_any_value_can_be_printed(value: object) -> None:
    assert repr(printable(value))
