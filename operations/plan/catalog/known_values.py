"""Which values the known flags and template parameters take, so that a wrong one is refused before hours of work.

A name that is not here is checked only against the version's list of names (flags.py, template_parameters.py). Bounds are
those of forecast.py if it has some; words are those of TensorRT-LLM's argument parsers and of its Triton backend
(model_instance_state.cc).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from operations.plan.errors import suggestion
from operations.plan.wording import complaint


class Allowed(Protocol):
    """The values of one name."""

    def complaint(self, value: object) -> str:
        """What is expected instead of the value; empty if it is allowed."""


@dataclass(frozen=True)
class Whole:
    """A whole number, with a unit."""

    low: int
    high: int
    unit: str = ""

    def complaint(self, value: object) -> str:
        """See Allowed."""
        unit = f" of {self.unit}" if self.unit else ""
        fits = type(value) is int and self.low <= value <= self.high
        return "" if fits else f"a whole number{unit} from {self.low} to {self.high}"


@dataclass(frozen=True)
class Fraction:
    """A number up to 1; `zero`: 0 is allowed too."""

    zero: bool = False

    def complaint(self, value: object) -> str:
        """See Allowed."""
        # nan compares false
        fits = type(value) in (int, float) and (0 if self.zero else 1e-9) <= value <= 1  # type: ignore[operator]
        return "" if fits else f"a number {'from 0' if self.zero else 'above 0 and up'} to 1"


@dataclass(frozen=True)
class Words:
    """One of some words."""

    words: tuple[str, ...]

    def complaint(self, value: object) -> str:
        """See Allowed."""
        if isinstance(value, str) and value in self.words:
            return ""
        near = suggestion(value, self.words) if isinstance(value, str) else ""
        return f"one of {', '.join(self.words)}{f'; {near}' if near.startswith('did') else ''}"


@dataclass(frozen=True)
class Switch:
    """True or false."""

    def complaint(self, value: object) -> str:
        """See Allowed."""
        return "" if isinstance(value, bool) else "true or false, without quotes"


@dataclass(frozen=True)
class Window:
    """A number of tokens, or several with commas between them: one per layer."""

    def complaint(self, value: object) -> str:
        """See Allowed."""
        several = isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,9}(,[1-9][0-9]{0,9})*", value)
        one = type(value) is int and 1 <= value < 2**31
        return "" if several or one else f"a whole number of tokens from 1 to {2**31 - 1}, or several"


@dataclass(frozen=True)
class Windows:
    """Numbers of tokens, as a list: one per layer, or one for all."""

    def complaint(self, value: object) -> str:
        """See Allowed."""
        fits = (
            isinstance(value, list | tuple)
            and value
            and all(type(n) is int and 1 <= n < 2**31 for n in value)
        )
        return "" if fits else f"a list of whole numbers of tokens from 1 to {2**31 - 1}, as [4096]"


@dataclass(frozen=True)
class Nowhere:
    """A value that the plan itself sets; `instead`: the profile's key for it."""

    instead: str = ""

    def complaint(self, value: object) -> str:
        """See Allowed."""
        return f"nothing, because the plan sets it{f'; say {self.instead}' if self.instead else ''}"


@dataclass(frozen=True)
class OnlyFalse:
    """A switch that would run the code of a model's repository."""

    def complaint(self, value: object) -> str:
        """See Allowed."""
        if value is False:
            return ""
        return (
            "false: code of a model's repository is not run here, reviewed or not; "
            "use a model that transformers knows"
        )


def check_values(
    allowed: Mapping[str, Allowed], values: Mapping[str, object], within: tuple[str, ...] = ()
) -> None:
    """Raise pydantic's error for the first name whose value is not allowed."""
    for name, value in values.items():
        kind = allowed.get(name)
        if expected := kind.complaint(value) if kind else "":
            raise complaint(name, value, expected, within)


def _each(names: str, kind: Allowed) -> dict[str, Allowed]:
    return dict.fromkeys(names.split(), kind)


_TENSOR, _PIPELINE = Nowhere("checkpoint.tensor_parallel"), Nowhere("checkpoint.pipeline_parallel")
_TOKENS = Whole(1, 2**27, "tokens")
REMOTE_CODE: dict[str, Allowed] = {"trust_remote_code": OnlyFalse(), "trust-remote-code": OnlyFalse()}

ENGINE: dict[str, Allowed] = {
    **_each("checkpoint_dir output_dir", Nowhere()),
    "tp_size": _TENSOR,
    "pp_size": _PIPELINE,
    **_each("max_input_len max_output_len max_seq_len", _TOKENS),
    **_each("max_num_tokens opt_num_tokens", Whole(1, 2**31 - 1, "tokens")),
    "max_batch_size": Whole(1, 2**20, "requests"),
    "max_beam_width": Whole(1, 1024),
    "tokens_per_block": Whole(1, 2**16, "tokens"),
    "workers": Whole(1, 64),
    "max_lora_rank": Whole(1, 2**16),
    "max_prompt_embedding_table_size": Whole(0, 2**31 - 1),
    **_each(
        "remove_input_padding context_fmha use_paged_context_fmha use_fp8_context_fmha multiple_profiles",
        Words(("enable", "disable")),
    ),
    "kv_cache_type": Words(("paged", "continuous", "disabled")),
    **_each("fast_build monitor_memory dry_run weight_streaming strip_plan", Switch()),
    **REMOTE_CODE,
}

CHECKPOINT: dict[str, Allowed] = {
    **_each("model_dir output_dir", Nowhere()),
    "dtype": Nowhere("checkpoint.dtype"),
    "tp_size": _TENSOR,
    "pp_size": _PIPELINE,
    "qformat": Nowhere("checkpoint.quantization.format"),
    "kv_cache_dtype": Nowhere("checkpoint.quantization.kv_cache_dtype"),
    **_each("moe_tp_size moe_ep_size workers", Whole(1, 64)),
    "moe_tp_mode": Whole(1, 2),
    "smoothquant": Fraction(),
    "weight_only_precision": Words(("int8", "int4", "int4_gptq", "int8_gptq", "int4_awq")),
    **_each(
        "use_weight_only load_by_shard load_model_on_cpu int8_kv_cache per_channel per_token per_group "
        "use_parallel_embedding use_embedding_sharing disable_weight_only_quant_plugin use_fp8 fp8_kv_cache "
        "use_fp8_rowwise use_qserve",
        Switch(),
    ),
    **REMOTE_CODE,
}

# With a table quantization, which sets the same options of quantize.py
QUANTIZED: dict[str, Allowed] = {
    "calib_size": Nowhere("checkpoint.quantization.calibration_size"),
    "batch_size": Nowhere("checkpoint.quantization.calibration_batch"),
    "awq_block_size": Nowhere("checkpoint.quantization.awq_block_size"),
    "calib_dataset": Nowhere("checkpoint.quantization.calibration"),
}

PARAMETERS: dict[str, Allowed] = {
    **_each("engine_dir tokenizer_dir", Nowhere()),
    "triton_max_batch_size": Whole(1, 2**20, "requests"),
    "triton_backend": Words(("tensorrtllm", "python")),
    "decoding_mode": Words(
        ("top_k", "top_p", "top_k_top_p", "beam_search", "medusa", "redrafter", "lookahead", "eagle", "auto")
    ),
    "batching_strategy": Words(("inflight_fused_batching", "inflight_batching", "V1", "v1")),
    "batch_scheduler_policy": Words(("guaranteed_no_evict", "max_utilization")),
    "max_beam_width": Whole(1, 1024),
    "max_tokens_in_paged_kv_cache": Whole(1, 2**40, "tokens"),
    "max_attention_window_size": Window(),
    "kv_cache_free_gpu_mem_fraction": Fraction(),
    **_each(
        "lora_cache_gpu_memory_fraction cross_kv_cache_fraction gpu_weights_percent", Fraction(zero=True)
    ),
    "max_queue_delay_microseconds": Whole(0, 3_600_000_000, "microseconds"),
    "max_queue_size": Whole(0, 2**31 - 1, "requests"),
    **_each("preprocessing_instance_count postprocessing_instance_count bls_instance_count", Whole(1, 4096)),
    **_each(
        "decoupled_mode exclude_input_in_output enable_kv_cache_reuse enable_chunked_context accumulate_tokens "
        "add_special_tokens skip_special_tokens normalize_log_probs multi_block_mode enable_context_fmha_fp32_acc "
        "cuda_graph_mode kv_cache_onboard_blocks",
        Switch(),
    ),
    **_each("logits_datatype", Words(("TYPE_FP32", "TYPE_FP16"))),
    **_each(
        "encoder_input_features_data_type prompt_embedding_table_data_type",
        Words(("TYPE_FP16", "TYPE_BF16", "TYPE_FP32")),
    ),
    **REMOTE_CODE,
}

LLM: dict[str, Allowed] = {
    **_each("max_input_len max_seq_len", _TOKENS),
    "max_num_tokens": Whole(1, 2**31 - 1, "tokens"),
    "max_batch_size": Whole(1, 2**20, "requests"),
    "max_beam_width": Whole(1, 1024),
    "dtype": Words(("auto", "float16", "bfloat16", "float32")),
    # from 1.0 on Triton's LLM-API model has no other (release notes of 1.0)
    "backend": Words(("pytorch", "_autodeploy")),
    "tokenizer_mode": Words(("auto", "slow")),
    "guided_decoding_backend": Words(("xgrammar", "llguidance")),
    "sampler_type": Words(("TRTLLMSampler", "TorchSampler", "auto")),
    **_each("moe_expert_parallel_size moe_tensor_parallel_size moe_cluster_parallel_size", Whole(1, 64)),
    **_each(
        "enable_attention_dp enable_chunked_prefill skip_tokenizer_init enable_lora gather_generation_logits "
        "return_perf_metrics disable_overlap_scheduler enable_iter_perf_stats enable_iter_req_stats print_iter_log "
        "enable_autotuner enable_min_latency force_dynamic_quantization",
        Switch(),
    ),
    **REMOTE_CODE,
    "trust_remote_code": Switch(),  # a profile takes true only beside weights.code_revision
}
TRITON_CONFIG: dict[str, Allowed] = {
    # model.py of triton_backend/all_models/llmapi: 100 where it is not said
    "cancellation_check_period_ms": Whole(1, 3_600_000, "milliseconds"),
}
LLM_KV_CACHE: dict[str, Allowed] = {
    "free_gpu_memory_fraction": Fraction(),
    "max_tokens": Whole(1, 2**40, "tokens"),
    "tokens_per_block": Whole(1, 2**16, "tokens"),
    "max_attention_window": Windows(),
    "sink_token_length": Whole(0, 2**27, "tokens"),
    "host_cache_size": Whole(0, 2**50, "bytes"),
    "dtype": Words(("auto", "fp8", "nvfp4", "float16", "bfloat16", "float32")),
    **_each("enable_block_reuse onboard_blocks enable_partial_reuse copy_on_partial_reuse use_uvm", Switch()),
}
