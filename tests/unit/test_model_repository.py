import pytest

from operations.plan.catalog.values import Value
from operations.plan.errors import PlanError
from operations.plan.profile.model_repository import DEFAULTS, check_parameters, fill, parsed, render, text_of

QUOTED = 'parameters { key: "k" value { string_value: "${tokenizer_dir}" } }'


def filled(line: str, **values: Value) -> str:
    return fill("m", line, values).removesuffix("\n")


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (False, "false"), (8, "8"), (0.5, "0.5"), ("TYPE_FP16", "TYPE_FP16")]
)
def test_values_are_written_as_triton_reads_them(value: Value, text: str) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize(
    ("line", "values", "expected"),
    [
        ("max_batch_size: ${triton_max_batch_size}", {"triton_max_batch_size": 8}, "max_batch_size: 8"),
        ("decoupled: ${decoupled_mode}", {"decoupled_mode": True}, "decoupled: true"),
        ('value: "${tokenizer_dir}"', {"tokenizer_dir": "/weights"}, 'value: "/weights"'),
        ('value: "${a}${b}"', {"a": 1, "b": 2}, 'value: "12"'),
        ('"${a}" ${b}', {"a": "x y", "b": 2}, '"x y" 2'),
        # the upstream script splits at these
        ('value: "${a}"', {"a": "one,two:three"}, 'value: "one,two:three"'),
        ('value: "${a}"', {"a": "$1 \\g<0>".replace("\\", "")}, 'value: "$1 g<0>"'),
        # optional, without a value: the backend takes the literal for "not given"
        ('value: "${lora_cache_max_adapter_size}"', {}, 'value: "${lora_cache_max_adapter_size}"'),
        ("# ${triton_max_batch_size} and ${anything}", {}, "# ${triton_max_batch_size} and ${anything}"),
        ("  # ${triton_max_batch_size}", {"triton_max_batch_size": 8}, "  # ${triton_max_batch_size}"),
        ('name: "x"', {"unused": 1}, 'name: "x"'),
    ],
)
def test_fill(line: str, values: dict[str, Value], expected: str) -> None:
    assert filled(line, **values) == expected


@pytest.mark.parametrize(
    ("line", "values", "expected"),
    [
        ("max_batch_size: ${triton_max_batch_size}", {}, "triton_max_batch_size: found no value"),
        ('value: "${engine_dir}"', {}, "engine_dir: found no value"),
        ('value: "${tokenizer_dir}"', {}, "set repository.parameters.tokenizer_dir"),
        ('"${ok}" ${bare}', {"ok": 1}, "bare: found no value"),
        # out of the place it is put into
        ("size: ${a}", {"a": "8 } model_x {"}, "a value without quotes"),
        ("size: ${a}", {"a": ""}, "a value without quotes"),
        ('value: "${a}"', {"a": 'x" } }'}, "a value without quotes"),
        ('value: "${a}"', {"a": "x\\n"}, "a value without quotes"),
        ('value: "${a}"', {"a": "x\ny"}, "a value without quotes"),
        ('value: "${a}"', {"a": "x\n"}, "a value without quotes"),
        ("size: ${a}", {"a": "8\n"}, "a value without quotes"),
    ],
)
def test_fill_refuses(line: str, values: dict[str, Value], expected: str) -> None:
    with pytest.raises(PlanError) as caught:
        filled(f"one\n{line}", **values)
    assert str(caught.value).startswith("m/config.pbtxt line 2: ")
    assert expected in str(caught.value)


COMMON: dict[str, Value] = {"triton_max_batch_size": 8}


@pytest.mark.parametrize(
    ("common", "per_model", "expected"),
    [
        ({"triton_max_batchsize": 8}, {}, "did you mean triton_max_batch_size?"),
        # of another version
        ({"guided_decoding_backend": "xgrammar"}, {}, "a template parameter of TensorRT-LLM 0.13"),
        (
            {},
            {"ensemble": {"tokenizer_dir": "/x"}},
            "repository.model_parameters.ensemble.tokenizer_dir: found unknown parameter tokenizer_dir, "
            "expected a parameter of ensemble",
        ),
    ],
)
def test_parameter_missing_from_all_templates_is_refused(
    common: dict[str, Value], per_model: dict[str, dict[str, Value]], expected: str
) -> None:
    with pytest.raises(PlanError) as caught:
        check_parameters(["ensemble", "tensorrt_llm"], common, per_model, (0, 13))
    assert expected in str(caught.value)


def test_parameters_of_any_model_of_the_repository_are_accepted() -> None:
    common: dict[str, Value] = {**COMMON, "kv_cache_free_gpu_mem_fraction": 0.5}
    check_parameters(["ensemble", "tensorrt_llm"], common, {"tensorrt_llm": {"max_beam_width": 1}}, (0, 13))


def test_a_config_of_triton_s_schema_is_accepted() -> None:
    parsed("ensemble", 'name: "ensemble" platform: "ensemble" max_batch_size: 8 ' + QUOTED)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_batchsize: 8", "max_batchsize"),
        ("max_batch_size: ${triton_max_batch_size}", "a text Triton's ModelConfig accepts"),
        ('max_batch_size: "8"', "a text Triton's ModelConfig accepts"),
        ('name: "ensemble', "a text Triton's ModelConfig accepts"),
        ('name: "other"', "m/config.pbtxt: name: found other, expected m"),
    ],
)
def test_invalid_config_is_refused_with_the_model_s_name(text: str, expected: str) -> None:
    with pytest.raises(PlanError) as caught:
        parsed("m", text)
    assert str(caught.value).startswith("m/config.pbtxt")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_render_prefers_model_values_to_common_ones_to_defaults() -> None:
    size = "max_batch_size: ${triton_max_batch_size}\n"
    delay = "dynamic_batching { max_queue_delay_microseconds: ${max_queue_delay_microseconds} }\n"
    templates = {"ensemble": size, "tensorrt_llm": size + delay}
    found = render(templates, COMMON, {"tensorrt_llm": {"triton_max_batch_size": 4}})
    assert found["ensemble"] == "max_batch_size: 8\n"
    assert found["tensorrt_llm"] == (
        "max_batch_size: 4\n"
        f"dynamic_batching {{ max_queue_delay_microseconds: {DEFAULTS['max_queue_delay_microseconds']} }}\n"
    )


def test_render_refuses_text_triton_cannot_parse() -> None:
    with pytest.raises(PlanError, match=r"ensemble/config\.pbtxt"):
        render(
            {"ensemble": "max_batch_size: ${triton_max_batch_size}"}, {"triton_max_batch_size": "many"}, {}
        )
