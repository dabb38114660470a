"""trtllm-build: from a checkpoint to an engine directory, with the flags of the installed version."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from ..engine_file import write_engine
from ..flags import Flag, Release, flag, parser, switches
from ..gpu import NoGpu, lab_delay, visible_gpus
from ..releases import release
from ..version import __version__

ENABLE = ("enable", "disable")


def _plugin(
    name: str, default: str | None, *values: str, since: Release = (0, 0), until: Release = (99, 0)
) -> Flag:
    return flag(f"--{name}", default=default, choices=list(values or ENABLE), since=since, until=until)


TYPES = ("float16", "float32", "bfloat16", "int32", "disable")
PLUGINS = [
    _plugin("gpt_attention_plugin", "float16", *TYPES, until=(0, 11)),
    _plugin("gpt_attention_plugin", "auto", "auto", *TYPES, since=(0, 11)),
    _plugin("bert_attention_plugin", "float16", *TYPES, until=(0, 11)),
    _plugin("bert_attention_plugin", "auto", "auto", *TYPES, since=(0, 11)),
    _plugin("gemm_plugin", None, "float16", "float32", "bfloat16", "disable", until=(0, 11)),
    _plugin("gemm_plugin", None, "auto", *TYPES, "fp8", since=(0, 11), until=(0, 17)),
    _plugin("gemm_plugin", None, "auto", *TYPES, "fp8", "nvfp4", since=(0, 17)),
    _plugin("gemm_swiglu_plugin", None, "fp8", "disable", since=(0, 11)),
    _plugin("nccl_plugin", "float16", *TYPES, until=(0, 11)),
    _plugin("nccl_plugin", "auto", "auto", *TYPES, since=(0, 11)),
    _plugin("lookup_plugin", None, "auto", *TYPES),
    _plugin("lora_plugin", None, "auto", *TYPES),
    _plugin("moe_plugin", "float16", *TYPES, until=(0, 11)),
    _plugin("moe_plugin", "auto", "auto", *TYPES, since=(0, 11)),
    _plugin("mamba_conv1d_plugin", "float16", *TYPES, until=(0, 11)),
    _plugin("mamba_conv1d_plugin", "auto", "auto", *TYPES, since=(0, 11)),
    _plugin("context_fmha", "enable"),
    _plugin("context_fmha_fp32_acc", "disable", until=(0, 12)),
    _plugin("remove_input_padding", "enable"),
    _plugin("paged_kv_cache", "enable", until=(0, 13)),
    _plugin("paged_kv_cache", None, since=(0, 13)),
    _plugin("use_custom_all_reduce", "enable", until=(0, 12)),
    _plugin("multi_block_mode", "disable", until=(0, 12)),
    _plugin("enable_xqa", "enable", until=(0, 16)),
    _plugin("attention_qk_half_accumulation", "disable", until=(0, 11)),
    _plugin("use_context_fmha_for_generation", "disable", until=(0, 11)),
    _plugin("use_paged_context_fmha", "disable"),
    _plugin("use_fp8_context_fmha", "disable"),
    _plugin("multiple_profiles", "disable"),
    _plugin("paged_state", "enable"),
    _plugin("streamingllm", "disable", until=(1, 0)),
    _plugin("reduce_fusion", "disable", since=(0, 11)),
    _plugin("use_fused_mlp", "enable", since=(0, 13)),
    _plugin("user_buffer", "disable", since=(0, 16)),
    flag("--tokens_per_block", type=int, default=128, until=(0, 10)),
    flag("--tokens_per_block", type=int, default=64, since=(0, 10)),
]
SIZES = [
    flag("--max_batch_size", type=int, default=1, until=(0, 11)),
    flag("--max_batch_size", type=int, default=256, since=(0, 11), until=(0, 14)),
    flag("--max_batch_size", type=int, default=2048, since=(0, 14)),
    flag("--max_input_len", type=int, default=1024),
    flag("--max_output_len", type=int, default=1024, until=(0, 11)),
    flag("--max_output_len", type=int, default=None, since=(0, 11), until=(0, 12)),
    flag("--max_seq_len", "--max_decoder_seq_len", dest="max_seq_len", type=int, default=None, since=(0, 11)),
    flag("--max_beam_width", type=int, default=1),
    flag("--max_num_tokens", type=int, default=None, until=(0, 11)),
    flag("--max_num_tokens", type=int, default=8192, since=(0, 11)),
    flag("--opt_num_tokens", type=int, default=None),
    flag("--max_encoder_input_len", type=int, default=1024, since=(0, 11)),
    flag("--max_prompt_embedding_table_size", "--max_multimodal_len", type=int, default=0),
    flag("--max_draft_len", type=int, default=0),
    flag("--max_lora_rank", type=int, default=64),
]
OTHERS = [
    flag("--checkpoint_dir", default=None),
    flag("--output_dir", default="engine_outputs"),
    flag("--model_config", default=None),
    flag("--build_config", default=None),
    flag("--model_cls_file", default=None),
    flag("--model_cls_name", default=None),
    flag("--workers", type=int, default=1),
    flag(
        "--log_level",
        default="info",
        choices=["internal_error", "error", "warning", "info", "verbose", "debug"],
    ),
    flag(
        "--profiling_verbosity", default="layer_names_only", choices=["layer_names_only", "detailed", "none"]
    ),
    flag("--input_timing_cache", default=None),
    flag("--output_timing_cache", default="model.cache"),
    flag("--logits_dtype", default=None, choices=["float16", "float32"]),
    flag("--kv_cache_type", default=None, choices=["continuous", "paged", "disabled"], since=(0, 13)),
    flag("--tp_size", type=int, default=1, until=(0, 12)),
    flag("--pp_size", type=int, default=1, until=(0, 12)),
    flag("--weight_only_precision", default=None, choices=["int8", "int4"], until=(0, 11)),
    flag("--builder_opt", type=int, default=None, until=(0, 14)),
    flag("--builder_force_num_profiles", type=int, default=None, since=(0, 10), until=(0, 15)),
    flag("--lora_dir", nargs="+", default=None),
    flag("--lora_ckpt_source", default="hf", choices=["hf", "nemo"]),
    flag("--lora_target_modules", nargs="+", default=None),
    flag("--speculative_decoding_mode", default=None, since=(0, 10)),
    flag("--auto_parallel", type=int, default=1),
    flag("--gpus_per_node", type=int, default=8),
    flag("--cluster_key", default=None),
    *switches("--enable_debug_output", "--gather_all_token_logits", "--weight_sparsity"),
    *switches("--gather_context_logits", "--gather_generation_logits"),
    *switches("--strongly_typed", until=(0, 11)),
    *switches("--use_fused_mlp", until=(0, 13)),
    *switches("--strip_plan", "--weight_streaming", "--dry_run", "--visualize_network", since=(0, 10)),
    *switches("--fast_build", since=(0, 12)),
    *switches("--monitor_memory", since=(0, 15)),
]


class BuildError(Exception):
    """The engine cannot be built as asked."""


def _log(level: str, message: str) -> None:
    now = time.strftime("%m/%d/%Y-%H:%M:%S")
    print(f"[{now}] [TRT-LLM] [{level}] {message}", flush=True)


def _lengths(arguments: argparse.Namespace, limit: int) -> None:
    """Settle max_input_len and max_seq_len as the installed version does."""
    at = release(__version__)
    asked = getattr(arguments, "max_seq_len", None)
    output = getattr(arguments, "max_output_len", None)
    if output is not None and at >= (0, 11):
        _log("W", "--max_output_len has been deprecated in favor of --max_seq_len")
    if asked is None:
        asked = limit if output is None else arguments.max_input_len + output
        if output is None:
            _log("I", f"max_seq_len is not specified, using value {limit}")
    if asked > limit:
        _log("W", f"max_seq_len {asked} is larger than max_position_embeddings {limit}")
    if arguments.max_input_len > asked:
        _log(
            "W",
            f"max_input_len is {arguments.max_input_len} is larger than max_seq_len {asked}, clipping it to max_seq_len",
        )
        arguments.max_input_len = asked
    arguments.max_seq_len = asked


def _build_config(arguments: argparse.Namespace, checkpoint: dict[str, Any]) -> dict[str, Any]:
    at = release(__version__)
    plugins: dict[str, Any] = {}
    for one in PLUGINS:
        name = one.names[0].removeprefix("--")
        if not one.exists(at):
            continue
        value = getattr(arguments, name)
        if value == "auto":
            value = checkpoint["dtype"]
        if value == "disable":
            value = False if one.options.get("choices") == list(ENABLE) else None
        plugins[name] = True if value == "enable" else value
    kind = getattr(arguments, "kv_cache_type", None)
    if kind is None:
        kind = "continuous" if arguments.paged_kv_cache == "disable" else "paged"
    plugins["paged_kv_cache"] = kind == "paged"
    sizes = {
        name: getattr(arguments, name)
        for name in ("max_input_len", "max_seq_len", "max_batch_size", "max_beam_width", "max_num_tokens")
    }
    if at < (0, 11):
        sizes["max_output_len"] = arguments.max_output_len
    gather = arguments.gather_all_token_logits
    return {
        **sizes,
        "opt_num_tokens": arguments.opt_num_tokens,
        "kv_cache_type": kind.upper(),
        "gather_context_logits": gather or arguments.gather_context_logits,
        "gather_generation_logits": gather or arguments.gather_generation_logits,
        "strongly_typed": at >= (0, 11) or getattr(arguments, "strongly_typed", False),
        "plugin_config": plugins,
    }


def build(arguments: argparse.Namespace) -> None:
    """Bring about the engine directory, config.json last."""
    if arguments.checkpoint_dir is None:
        raise BuildError("--checkpoint_dir is missing: expected a directory made by convert_checkpoint.py")
    source, target = Path(arguments.checkpoint_dir), Path(arguments.output_dir)
    try:
        checkpoint: dict[str, Any] = json.loads((source / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise BuildError(f"{source}/config.json cannot be read: {error}") from None
    gpus = visible_gpus()
    mapping = checkpoint["mapping"]
    for name in ("tp_size", "pp_size"):
        asked = getattr(arguments, name, 1)
        if asked not in (1, mapping[name]):
            raise BuildError(f"--{name} {asked} is not the checkpoint's {mapping[name]}")
    if arguments.workers > len(gpus):
        _log(
            "W", f"workers {arguments.workers} is more than the {len(gpus)} GPU(s) visible, using {len(gpus)}"
        )
    if arguments.logits_dtype:
        checkpoint["logits_dtype"] = arguments.logits_dtype
    _lengths(arguments, int(checkpoint["max_position_embeddings"]))
    document = {
        "version": __version__,
        "pretrained_config": checkpoint,
        "build_config": _build_config(arguments, checkpoint),
    }
    if getattr(arguments, "dry_run", False):
        _log("I", "Dry run: no engine is built")
        return
    target.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + lab_delay()
    while time.monotonic() < end:
        time.sleep(min(1.0, max(0.0, end - time.monotonic())))
        _log("I", "[stand-in] still building, as the lab asked for")
    for rank in range(mapping["world_size"]):
        shard = source / f"rank{rank}.safetensors"
        try:
            weights = shard.read_bytes()
        except OSError as error:
            raise BuildError(f"{shard}: {error.strerror}") from None
        path = target / f"rank{rank}.engine"
        _log("I", f"Serializing engine to {path}...")
        write_engine(path, weights, gpus[rank % len(gpus)], rank)
        _log("I", f"Engine serialized. Size: {len(weights) / 2**20:.1f} MiB")
    (target / "config.json").write_text(json.dumps(document, indent=4) + "\n")


def main() -> None:
    """trtllm-build."""
    made = parser("trtllm-build", "build an engine from a checkpoint", [*OTHERS, *SIZES, *PLUGINS])
    made.add_argument("--version", action="version", version=__version__)
    arguments = made.parse_args()
    _log(
        "I",
        f"[stand-in] trtllm-build of TensorRT-LLM {__version__}: no TensorRT, weights are packed for a CPU",
    )
    start = time.time()
    try:
        build(arguments)
    except (BuildError, NoGpu) as error:
        _log("E", str(error))
        sys.exit(1)
    _log(
        "I",
        f"Total time of building all engines: {time.strftime('%H:%M:%S', time.gmtime(time.time() - start))}",
    )
