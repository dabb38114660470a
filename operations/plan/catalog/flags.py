"""Which flags TensorRT-LLM's scripts take at which version, so that a plan has no flag that a script would not know.

A flag that was renamed is translated; one that does not exist at the version is refused, with what to use instead.
Source: the argument parsers in NVIDIA/TensorRT-LLM at v0.9.0, v0.10.0 and v0.11.0 and at the development commits
be9cd719 (0.12), 78f5c293 (0.13), 40274aac (0.14) and c629546c (0.15); later versions from its release notes
(docs/source/release-notes.md). A change between two versions that were read is recorded at the later one.
Read later, each at its commit: llama's converter at v0.11.0, v0.13.0 and 368f8f2a (1.x), gpt's at v0.16.0 and 7edbcccb
(1.x), quantize.py at 059c97c1 (1.x), build.py at v0.16.0.

Omitted on purpose: what makes no checkpoint or engine of the profile's weights (nemo_ckpt_path, meta_ckpt_dir,
save_config_only, export_format), what changes the number of ranks (cp_size, auto_parallel), and what runs or reads files
that are not in the container (model_cls_file, build_config).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from operations.plan.catalog.support_matrix import converter_folder, version_tuple
from operations.plan.catalog.values import FlagValue
from operations.plan.errors import PlanError, suggestion

Version = tuple[int, ...]


@dataclass(frozen=True)
class Flag:
    """One flag of a script: the first version that has it, and the first that no longer has it."""

    since: Version = (0, 9)
    until: Version | None = None
    instead: str = ""  # what to use where it does not exist
    again: Version | None = None  # the version that brought it back
    words: tuple[tuple[Version, str], ...] = ()  # the values it takes, from each version on; none: any

    def exists_in(self, version: Version) -> bool:
        """Whether the script takes it at that version."""
        if self.again is not None and version >= self.again:
            return True
        return self.since <= version and (self.until is None or version < self.until)

    def words_in(self, version: Version) -> tuple[str, ...]:
        """The values it takes at that version; none: any."""
        return next((tuple(words.split()) for since, words in reversed(self.words) if since <= version), ())


def _always(names: str) -> dict[str, Flag]:
    return {name: Flag() for name in names.split()}


TRTLLM_BUILD: dict[str, Flag] = {
    **_always(
        "checkpoint_dir output_dir workers log_level max_beam_width logits_dtype gather_context_logits "
        "gather_generation_logits gather_all_token_logits max_batch_size max_input_len max_num_tokens "
        "remove_input_padding gpt_attention_plugin gemm_plugin use_paged_context_fmha context_fmha "
        "tokens_per_block opt_num_tokens max_prompt_embedding_table_size lora_plugin lora_dir lora_target_modules "
        "max_lora_rank moe_plugin use_fp8_context_fmha profiling_verbosity input_timing_cache "
        "output_timing_cache multiple_profiles use_fused_mlp max_draft_len nccl_plugin bert_attention_plugin "
        "lookup_plugin mamba_conv1d_plugin paged_state weight_sparsity enable_debug_output"
    ),
    "lora_ckpt_source": Flag(words=(((0, 9), "hf nemo"),)),
    "speculative_decoding_mode": Flag(since=(0, 10)),
    "max_encoder_input_len": Flag(since=(0, 11)),
    "visualize_network": Flag(since=(0, 10)),
    "streamingllm": Flag(until=(1, 0), instead="nothing"),
    "reduce_fusion": Flag(since=(0, 11), instead="nothing"),
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
        since=(0, 10), until=(0, 15), instead="the environment variable BUILDER_FORCE_NUM_PROFILES"
    ),
    "fast_build": Flag(since=(0, 12)),
    "monitor_memory": Flag(since=(0, 15)),
    "dry_run": Flag(since=(0, 10)),
    "weight_streaming": Flag(since=(0, 10)),
    "strip_plan": Flag(since=(0, 10)),
}

# What both converters take
_CONVERT: dict[str, Flag] = {
    **_always(
        "model_dir output_dir dtype tp_size pp_size use_weight_only workers int8_kv_cache smoothquant per_channel "
        "per_token use_parallel_embedding embedding_sharding_dim"
    ),
    "use_embedding_sharing": Flag(until=(0, 16), instead="nothing: it is automatic"),
    "calib_dataset": Flag(since=(0, 10)),
}

# Folder of the script -> its flags
CONVERT: dict[str, dict[str, Flag]] = {
    "llama": {
        **_CONVERT,
        **_always(
            "load_by_shard load_model_on_cpu per_group group_size rotary_base disable_weight_only_quant_plugin "
            # read from the model, so of no use here
            "hidden_act vocab_size n_positions n_layer n_head n_kv_head n_embd inter_size rms_norm_eps "
            "moe_num_experts moe_top_k moe_renorm_mode"
        ),
        "weight_only_precision": Flag(
            words=(
                ((0, 9), "int8 int4 int4_gptq"),
                ((0, 13), "int8 int4 int4_gptq int4_awq"),
                ((1, 0), "int8 int4 int8_gptq int4_gptq int4_awq"),
            )
        ),
        "moe_tp_mode": Flag(until=(0, 11), instead="moe_tp_size and moe_ep_size"),
        "moe_tp_size": Flag(since=(0, 11), instead="moe_tp_mode = 2 (tensor) or 1 (expert)"),
        "moe_ep_size": Flag(since=(0, 11), instead="moe_tp_mode = 2 (tensor) or 1 (expert)"),
        "ammo_quant_ckpt_path": Flag(until=(0, 10), instead="modelopt_quant_ckpt_path or quant_ckpt_path"),
        "modelopt_quant_ckpt_path": Flag(since=(0, 10), until=(0, 11), instead="quant_ckpt_path"),
        "quant_ckpt_path": Flag(
            since=(0, 11), instead="modelopt_quant_ckpt_path (0.10) or ammo_quant_ckpt_path (0.9)"
        ),
        "use_fp8": Flag(since=(0, 13)),
        "fp8_kv_cache": Flag(since=(0, 13)),
        "use_fp8_rowwise": Flag(since=(0, 13)),
        "multiple_of": Flag(since=(0, 13)),
        "ffn_dim_multiplier": Flag(since=(0, 13)),
        "remove_duplicated_kv_heads": Flag(since=(0, 13)),
        "log_level": Flag(since=(0, 13)),
        "use_qserve": Flag(since=(0, 15)),
        "use_meta_fp8_rowwise_recipe": Flag(since=(0, 15)),
        "calib_size": Flag(since=(0, 15)),
        "calib_max_seq_length": Flag(since=(0, 15)),
        "use_nvfp4": Flag(since=(1, 0)),
    },
    "gpt": {
        **_CONVERT,
        **_always("dataset_cache_dir log_level"),
        "weight_only_precision": Flag(words=(((0, 9), "int8 int4"),)),
        "gpt_variant": Flag(
            words=(
                ((0, 9), "gpt2 santacoder starcoder starcoder2 persimmon kosmos-2"),
                ((0, 16), "gpt2 santacoder starcoder starcoder2 persimmon kosmos-2 nemotron"),
            )
        ),
        "load_model_on_cpu": Flag(since=(0, 16)),
    },
}

QUANTIZE: dict[str, Flag] = {
    **_always(
        "model_dir output_dir dtype qformat kv_cache_dtype tp_size pp_size calib_size awq_block_size batch_size"
    ),
    "seed": Flag(since=(0, 10)),
    "max_seq_length": Flag(until=(0, 10), instead="calib_max_seq_length"),
    "calib_max_seq_length": Flag(since=(0, 10), instead="max_seq_length"),
    "tokenizer_max_seq_length": Flag(since=(0, 10), instead="max_seq_length"),
    "calib_dataset": Flag(since=(0, 10)),
    "device": Flag(until=(0, 10), again=(0, 11), instead="nothing", words=(((0, 9), "cuda cpu"),)),
    "device_map": Flag(since=(1, 0), words=(((1, 0), "auto sequential cpu gpu"),)),
    "quantize_lm_head": Flag(since=(1, 0)),
    "autoq_format": Flag(since=(0, 15)),
    "auto_quantize_bits": Flag(since=(0, 15)),
}

# quantize.py's nvfp4 came with 0.17 (its release notes).
QFORMATS_SINCE: dict[str, Version] = {"nvfp4": (0, 17)}

Values = dict[str, FlagValue]


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


def _fused_mlp(values: Values, version: Version) -> None:
    """A bare flag up to 0.12, enable or disable from 0.13 on."""
    name = "use_fused_mlp"
    if name not in values:
        return
    if values[name] not in (True, False, "enable", "disable"):
        raise PlanError(f"engine.{name}", values[name], "enable or disable")
    wanted = values[name] in (True, "enable")
    values[name] = ("enable" if wanted else "disable") if version >= (0, 13) else wanted


def _moe(values: Values, version: Version) -> None:
    if version >= (0, 11) and "moe_tp_mode" in values:
        size = values.get("tp_size", 1)
        values["moe_ep_size" if values.pop("moe_tp_mode") == 1 else "moe_tp_size"] = size
    elif version < (0, 11) and ("moe_tp_size" in values or "moe_ep_size" in values):
        tensor, expert = _size(values, "moe_tp_size"), _size(values, "moe_ep_size")
        if tensor > 1 and expert > 1:
            raise PlanError(
                "checkpoint.flags.moe_tp_size x moe_ep_size",
                f"{tensor} x {expert}",
                "one of them 1 before TensorRT-LLM 0.11, which knows expert or tensor parallelism only",
            )
        values["moe_tp_mode"] = 1 if expert > 1 else 2


def _size(values: Values, name: str) -> int:
    size = values.pop(name, 1)
    return size if isinstance(size, int) else 1


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


# Weights that another program quantized, in files of their own
QUANTIZED_ELSEWHERE = ("int4_gptq", "int8_gptq", "int4_awq")


def build_flags(values: Mapping[str, FlagValue], version: str) -> Values:
    """trtllm-build's flags as that TensorRT-LLM version writes them."""
    translations = (_seq_len, _kv_cache, _fused_mlp)
    return _translated("engine", values, version, "trtllm-build", TRTLLM_BUILD, translations)


def convert_flags(values: Mapping[str, FlagValue], version: str, family: str) -> Values:
    """convert_checkpoint.py's flags as that TensorRT-LLM version writes them, for the script that converts a family."""
    folder = converter_folder(family)
    # Up to at least 0.13 the variant is guessed from the path of the weights, which is the same for all models here.
    given = {**values, "gpt_variant": values.get("gpt_variant", "gpt2")} if folder == "gpt" else values
    script = f"{folder}/convert_checkpoint.py"
    wanted = _translated(
        "checkpoint.flags", given, version, script, CONVERT[folder], (_moe, _quantized_input)
    )
    said = wanted.get("weight_only_precision")
    if said in QUANTIZED_ELSEWHERE and not any(name.endswith("quant_ckpt_path") for name in wanted):
        raise PlanError(
            "checkpoint.flags.weight_only_precision",
            said,
            "int8 or int4, which round weights of 16 bits",
            "it reads weights that were quantized before: say where in flags.quant_ckpt_path; the download is at /weights",
        )
    return wanted


def quantize_flags(values: Mapping[str, FlagValue], version: str) -> Values:
    """quantize.py's flags as that TensorRT-LLM version writes them."""
    since = QFORMATS_SINCE.get(str(values.get("qformat")))
    if since is not None and version_tuple(version) < since:
        raise PlanError(
            "checkpoint.quantization.format",
            str(values["qformat"]),
            f"a format of TensorRT-LLM {version}",
            f"it came with {'.'.join(map(str, since))}",
        )
    return _translated("checkpoint.flags", values, version, "quantize.py", QUANTIZE, (_calibration,))


def _translated(
    where: str,
    given: Mapping[str, FlagValue],
    version: str,
    script: str,
    known: Mapping[str, Flag],
    translations: tuple[_Translation, ...],
) -> Values:
    numbers = version_tuple(version)
    values = dict(given)
    for translate in translations:
        translate(values, numbers)
    for name, value in values.items():
        flag = known.get(name)
        if flag is None:
            there = [other for other in known if known[other].exists_in(numbers)]
            raise PlanError(
                f"{where}.{name}",
                f"unknown flag {name}",
                f"a known flag of {script}",
                suggestion(name, there),
            )
        if not flag.exists_in(numbers):
            then = f"say {flag.instead}" if flag.instead else "leave it out"
            raise PlanError(f"{where}.{name}", f"flag {name}", f"a flag of TensorRT-LLM {version}", then)
        words = flag.words_in(numbers)
        if words and value not in words:
            near = suggestion(str(value), words)
            expected = f"one of {', '.join(words)}, which {script} of TensorRT-LLM {version} takes"
            raise PlanError(f"{where}.{name}", value, expected, near if near.startswith("did") else "")
    return values
