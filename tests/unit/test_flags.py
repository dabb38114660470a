import pytest

from operations.plan.catalog.flags import build_flags, convert_flags, quantize_flags
from operations.plan.catalog.values import Value
from operations.plan.errors import PlanError

Flags = dict[str, Value]


@pytest.mark.parametrize(
    ("given", "version", "written"),
    [
        ({"gemm_plugin": "auto"}, "0.9.0", {"gemm_plugin": "auto"}),
        # input and output together, under the name the version has for it
        (
            {"max_input_len": 1000, "max_seq_len": 1500},
            "0.10.0",
            {"max_input_len": 1000, "max_output_len": 500},
        ),
        (
            {"max_input_len": 1000, "max_output_len": 500},
            "0.12.0",
            {"max_input_len": 1000, "max_seq_len": 1500},
        ),
        ({"max_output_len": 1000}, "0.17.0.post1", {"max_seq_len": 2024}),
        ({"max_seq_len": 2048}, "0.11.0", {"max_seq_len": 2048}),
        ({"max_output_len": 512}, "0.11.0", {"max_output_len": 512}),
        ({"paged_kv_cache": "enable"}, "0.13.0", {"kv_cache_type": "paged"}),
        ({"paged_kv_cache": "disable"}, "0.13.0", {"kv_cache_type": "continuous"}),
        ({"kv_cache_type": "paged"}, "0.12.0", {"paged_kv_cache": "enable"}),
        ({"paged_kv_cache": "enable"}, "0.9.0", {"paged_kv_cache": "enable"}),
    ],
)
def test_engine_flags_are_written_for_each_version(given: Flags, version: str, written: Flags) -> None:
    before = dict(given)
    assert build_flags(given, version) == written
    assert given == before


@pytest.mark.parametrize(
    ("given", "version", "expected"),
    [
        (
            {"max_batchsize": 8},
            "0.13.0",
            "unknown flag max_batchsize, expected a known flag of trtllm-build; did you mean max_batch_size?",
        ),
        ({"use_custom_all_reduce": "disable"}, "0.13.0", "it is chosen at run time"),
        ({"fast_build": True}, "0.11.0", "a flag of TensorRT-LLM 0.11.0"),
        ({"multi_block_mode": "enable"}, "0.13.0", "say repository.parameters.multi_block_mode"),
        ({"kv_cache_type": "disabled"}, "0.12.0", "say paged_kv_cache"),
        ({"max_output_len": "many"}, "0.13.0", "engine.max_output_len"),
        ({"max_seq_len": 512, "max_input_len": 1024}, "0.10.0", "max_seq_len"),
    ],
)
def test_engine_flag_unknown_to_the_version_is_refused(given: Flags, version: str, expected: str) -> None:
    with pytest.raises(PlanError) as caught:
        build_flags(given, version)
    assert str(caught.value).startswith("engine.")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("given", "version", "written"),
    [
        ({"quant_ckpt_path": "/q"}, "0.9.0", {"ammo_quant_ckpt_path": "/q"}),
        ({"ammo_quant_ckpt_path": "/q"}, "0.10.0", {"modelopt_quant_ckpt_path": "/q"}),
        ({"ammo_quant_ckpt_path": "/q"}, "0.13.0", {"quant_ckpt_path": "/q"}),
        ({"tp_size": 4, "moe_tp_mode": 1}, "0.11.0", {"tp_size": 4, "moe_ep_size": 4}),
        ({"tp_size": 4, "moe_tp_mode": 2}, "0.11.0", {"tp_size": 4, "moe_tp_size": 4}),
        ({"tp_size": 4, "moe_ep_size": 4}, "0.9.0", {"tp_size": 4, "moe_tp_mode": 1}),
    ],
)
def test_a_converter_s_flags(given: Flags, version: str, written: Flags) -> None:
    assert convert_flags(given, version, "llama") == written


def test_expert_and_tensor_parallelism_together_need_0_11() -> None:
    with pytest.raises(PlanError, match="moe_tp_size x moe_ep_size: found 2 x 2"):
        convert_flags({"moe_tp_size": 2, "moe_ep_size": 2}, "0.10.0", "mixtral")
    assert convert_flags({"moe_tp_size": 2, "moe_ep_size": 2}, "0.11.0", "mixtral") == {
        "moe_tp_size": 2,
        "moe_ep_size": 2,
    }


@pytest.mark.parametrize(
    ("given", "version", "written"),
    [
        ({"max_seq_length": 512}, "0.13.0", {"calib_max_seq_length": 512}),
        ({"calib_max_seq_length": 512}, "0.9.0", {"max_seq_length": 512}),
        ({"qformat": "nvfp4"}, "0.17.0.post1", {"qformat": "nvfp4"}),
    ],
)
def test_a_quantizer_s_flags(given: Flags, version: str, written: Flags) -> None:
    assert quantize_flags(given, version) == written


def test_a_format_that_came_later_is_refused() -> None:
    with pytest.raises(PlanError, match=r"format: found nvfp4, .*it came with 0\.17"):
        quantize_flags({"qformat": "nvfp4"}, "0.16.0")
