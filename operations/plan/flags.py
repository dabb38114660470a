"""Which flags TensorRT-LLM's scripts take at which version: a plan says nothing a script would not understand.

A flag that was renamed is translated; one that does not exist at the version is refused with what to say instead.
Source: the argument parsers in NVIDIA/TensorRT-LLM at v0.9.0, v0.10.0 and v0.11.0 and at the development commits
be9cd719 (0.12), 78f5c293 (0.13), 40274aac (0.14) and c629546c (0.15); later versions from its release notes
(docs/source/release-notes.md). Versions between two that were read carry the one in which a change was first seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from operations.plan.errors import PlanError, suggestion
from operations.plan.profile_tables import Value
from operations.plan.support_matrix import version_tuple

Version = tuple[int, ...]


@dataclass(frozen=True)
class Flag:
    """One flag of a script: the first version that has it, and the first that has it no more."""

    since: Version = (0, 9)
    until: Version | None = None
    instead: str = ""  # what to say where it does not exist

    def exists_in(self, version: Version) -> bool:
        """Whether the script takes it at that version."""
        return self.since <= version and (self.until is None or version < self.until)


def _always(names: str) -> dict[str, Flag]:
    return {name: Flag() for name in names.split()}


TRTLLM_BUILD: dict[str, Flag] = {
    **_always(
        "checkpoint_dir output_dir workers log_level max_beam_width logits_dtype gather_context_logits "
        "gather_generation_logits gather_all_token_logits max_batch_size max_input_len max_num_tokens "
        "remove_input_padding gpt_attention_plugin gemm_plugin use_paged_context_fmha context_fmha "
        "tokens_per_block opt_num_tokens max_prompt_embedding_table_size lora_plugin lora_dir lora_target_modules "
        "max_lora_rank moe_plugin reduce_fusion use_fp8_context_fmha profiling_verbosity input_timing_cache "
        "output_timing_cache multiple_profiles use_fused_mlp"
    ),
    "max_output_len": Flag(until=(0, 12), instead="max_seq_len = max_input_len + max_output_len"),
    "max_seq_len": Flag(since=(0, 11), instead="max_output_len (and max_input_len)"),
    "tp_size": Flag(until=(0, 12), instead="nothing: it is read from the checkpoint"),
    "pp_size": Flag(until=(0, 12), instead="nothing: it is read from the checkpoint"),
    "paged_kv_cache": Flag(until=(0, 13), instead="kv_cache_type = paged or continuous"),
    "kv_cache_type": Flag(since=(0, 13), instead="paged_kv_cache = enable or disable"),
    "use_custom_all_reduce": Flag(until=(0, 12), instead="nothing: it is chosen at run time"),
    "multi_block_mode": Flag(until=(0, 12), instead="repository.parameters.multi_block_mode"),
    "context_fmha_fp32_acc": Flag(
        until=(0, 12), instead="repository.parameters.enable_context_fmha_fp32_acc"
    ),
    "enable_xqa": Flag(until=(0, 16), instead="nothing: it is always on"),
    "strongly_typed": Flag(until=(0, 11), instead="nothing: it is the default"),
    "weight_only_precision": Flag(until=(0, 11), instead="checkpoint.flags.weight_only_precision"),
    "attention_qk_half_accumulation": Flag(until=(0, 11), instead="nothing"),
    "use_context_fmha_for_generation": Flag(until=(0, 11), instead="nothing"),
    "builder_opt": Flag(until=(0, 14), instead="nothing"),
    "builder_force_num_profiles": Flag(
        until=(0, 15), instead="the environment variable BUILDER_FORCE_NUM_PROFILES"
    ),
    "fast_build": Flag(since=(0, 12)),
    "monitor_memory": Flag(since=(0, 15)),
    "dry_run": Flag(since=(0, 10)),
    "weight_streaming": Flag(since=(0, 10)),
    "strip_plan": Flag(since=(0, 10)),
}

CONVERT: dict[str, Flag] = {
    **_always(
        "model_dir output_dir dtype tp_size pp_size use_weight_only weight_only_precision workers load_by_shard "
        "load_model_on_cpu int8_kv_cache smoothquant per_channel per_token per_group use_parallel_embedding "
        "embedding_sharding_dim rotary_base disable_weight_only_quant_plugin hidden_act vocab_size"
    ),
    "use_embedding_sharing": Flag(until=(0, 16), instead="nothing: it is automatic"),
    "moe_tp_mode": Flag(until=(0, 11), instead="moe_tp_size and moe_ep_size"),
    "moe_num_experts": Flag(until=(0, 11), instead="nothing: it is read from the model"),
    "moe_top_k": Flag(until=(0, 11), instead="nothing: it is read from the model"),
    "moe_renorm_mode": Flag(until=(0, 11), instead="nothing: it is read from the model"),
    "moe_tp_size": Flag(since=(0, 11), instead="moe_tp_mode = 2 (tensor) or 1 (expert)"),
    "moe_ep_size": Flag(since=(0, 11), instead="moe_tp_mode = 2 (tensor) or 1 (expert)"),
    "ammo_quant_ckpt_path": Flag(until=(0, 10), instead="modelopt_quant_ckpt_path or quant_ckpt_path"),
    "modelopt_quant_ckpt_path": Flag(since=(0, 10), until=(0, 11), instead="quant_ckpt_path"),
    "quant_ckpt_path": Flag(
        since=(0, 11), instead="modelopt_quant_ckpt_path (0.10) or ammo_quant_ckpt_path (0.9)"
    ),
    "use_fp8": Flag(since=(0, 14)),
    "fp8_kv_cache": Flag(since=(0, 14)),
    "use_fp8_rowwise": Flag(since=(0, 14)),
    "use_qserve": Flag(since=(0, 15)),
    "calib_size": Flag(since=(0, 15)),
    "calib_max_seq_length": Flag(since=(0, 15)),
    "calib_dataset": Flag(since=(0, 10)),
    "gpt_variant": Flag(),
}

QUANTIZE: dict[str, Flag] = {
    **_always(
        "model_dir output_dir dtype qformat kv_cache_dtype tp_size pp_size calib_size awq_block_size batch_size seed"
    ),
    "max_seq_length": Flag(until=(0, 10), instead="calib_max_seq_length"),
    "calib_max_seq_length": Flag(since=(0, 10), instead="max_seq_length"),
    "tokenizer_max_seq_length": Flag(since=(0, 10), instead="max_seq_length"),
    "calib_dataset": Flag(since=(0, 10)),
    "device": Flag(since=(0, 11), instead="nothing"),
    "autoq_format": Flag(since=(0, 15)),
    "auto_quantize_bits": Flag(since=(0, 15)),
}

# quantize.py's nvfp4 came with 0.17 (its release notes).
QFORMATS_SINCE: dict[str, Version] = {"nvfp4": (0, 17)}

Values = dict[str, Value]


def _number(values: Values, name: str, default: int) -> int:
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise PlanError(f"engine.{name}", value, "a whole number")
    return value


def _seq_len(values: Values, version: Version) -> None:
    """max_output_len <-> max_seq_len, which is input and output together."""
    total, output, longest = "max_seq_len", "max_output_len", _number(values, "max_input_len", 1024)
    if version >= (0, 12) and output in values and total not in values:
        values[total] = longest + _number(values, output, 0)
        del values[output]
    elif version < (0, 11) and total in values and output not in values:
        if _number(values, total, 0) <= longest:
            raise PlanError(
                "engine.max_seq_len", values[total], f"more than max_input_len, which is {longest}"
            )
        values[output] = _number(values, total, 0) - longest
        del values[total]


def _kv_cache(values: Values, version: Version) -> None:
    if version >= (0, 13) and "paged_kv_cache" in values:
        paged = values.pop("paged_kv_cache") in ("enable", True)
        values.setdefault("kv_cache_type", "paged" if paged else "continuous")
    elif version < (0, 13) and values.get("kv_cache_type") in ("paged", "continuous"):
        values["paged_kv_cache"] = "enable" if values.pop("kv_cache_type") == "paged" else "disable"


def _moe(values: Values, version: Version) -> None:
    if version >= (0, 11) and "moe_tp_mode" in values:
        size = int(values.get("tp_size", 1))
        values["moe_ep_size" if int(values.pop("moe_tp_mode")) == 1 else "moe_tp_size"] = size
    elif version < (0, 11) and ("moe_tp_size" in values or "moe_ep_size" in values):
        tensor, expert = int(values.pop("moe_tp_size", 1)), int(values.pop("moe_ep_size", 1))
        if tensor > 1 and expert > 1:
            raise PlanError(
                "checkpoint.flags.moe_tp_size x moe_ep_size",
                f"{tensor} x {expert}",
                "one of them 1 before TensorRT-LLM 0.11, which knows expert or tensor parallelism only",
            )
        values["moe_tp_mode"] = 1 if expert > 1 else 2


def _quantized_input(values: Values, version: Version) -> None:
    names = ("ammo_quant_ckpt_path", "modelopt_quant_ckpt_path", "quant_ckpt_path")
    given = [name for name in names if name in values]
    if given:
        wanted = names[0] if version < (0, 10) else names[1] if version < (0, 11) else names[2]
        values[wanted] = values.pop(given[0])


def _calibration(values: Values, version: Version) -> None:
    old, new = "max_seq_length", "calib_max_seq_length"
    if version >= (0, 10) and old in values:
        values[new] = values.pop(old)
    elif version < (0, 10) and new in values:
        values[old] = values.pop(new)


_Translation = Callable[[Values, Version], None]


def build_flags(values: Mapping[str, Value], version: str) -> Values:
    """trtllm-build's flags as that TensorRT-LLM version writes them."""
    return _translated("engine", values, version, TRTLLM_BUILD, (_seq_len, _kv_cache))


def convert_flags(values: Mapping[str, Value], version: str) -> Values:
    """convert_checkpoint.py's flags as that TensorRT-LLM version writes them."""
    return _translated("checkpoint.flags", values, version, CONVERT, (_moe, _quantized_input))


def quantize_flags(values: Mapping[str, Value], version: str) -> Values:
    """quantize.py's flags as that TensorRT-LLM version writes them."""
    since = QFORMATS_SINCE.get(str(values.get("qformat")))
    if since is not None and version_tuple(version) < since:
        raise PlanError(
            "checkpoint.quantization.format",
            str(values["qformat"]),
            f"a format of TensorRT-LLM {version}",
            f"it came with {'.'.join(map(str, since))}",
        )
    return _translated("checkpoint.flags", values, version, QUANTIZE, (_calibration,))


def _translated(
    where: str,
    given: Mapping[str, Value],
    version: str,
    known: Mapping[str, Flag],
    translations: tuple[_Translation, ...],
) -> Values:
    numbers = version_tuple(version)
    values = dict(given)
    for translate in translations:
        translate(values, numbers)
    for name in values:
        flag = known.get(name)
        if flag is None:
            raise PlanError(
                f"{where}.{name}", f"unknown flag {name}", "a known flag", suggestion(name, known)
            )
        if not flag.exists_in(numbers):
            then = f"say {flag.instead}" if flag.instead else "leave it out"
            raise PlanError(f"{where}.{name}", f"flag {name}", f"a flag of TensorRT-LLM {version}", then)
    return values
