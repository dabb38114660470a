"""Arguments of tensorrt_llm.LLM with the PyTorch backend, by version: what a profile's table [llm] may have.

LLM refuses an unknown name when the server starts, which is after the download. Source: the fields of TorchLlmArgs,
BaseLlmArgs and KvCacheConfig in tensorrt_llm/llmapi/llm_args.py of the releases 1.0.0, 1.1.0 and 1.2.1, from each one's
documentation (nvidia.github.io/TensorRT-LLM/<version>/_modules/tensorrt_llm/llmapi/llm_args.html).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from operations.plan.errors import PlanError, suggestion

Version = tuple[int, ...]


def _names(since: Mapping[Version, str]) -> dict[str, Version]:
    return {name: version for version, names in since.items() for name in names.split()}


# name -> the first version that has it
ARGUMENTS = _names(
    {
        (1, 0): (
            "model tokenizer tokenizer_mode skip_tokenizer_init trust_remote_code tensor_parallel_size dtype revision "
            "tokenizer_revision pipeline_parallel_size context_parallel_size gpus_per_node moe_cluster_parallel_size "
            "moe_tensor_parallel_size moe_expert_parallel_size enable_attention_dp cp_config load_format enable_lora "
            "max_lora_rank max_loras max_cpu_loras lora_config enable_prompt_adapter max_prompt_adapter_token "
            "kv_cache_config enable_chunked_prefill guided_decoding_backend batched_logits_processor "
            "iter_stats_max_iterations request_stats_max_iterations peft_cache_config scheduler_config "
            "cache_transceiver_config speculative_config max_batch_size max_input_len max_seq_len max_beam_width "
            "max_num_tokens gather_generation_logits num_postprocess_workers postprocess_tokenizer_dir "
            "reasoning_parser decoding_config backend return_perf_metrics garbage_collection_gen0_threshold "
            "cuda_graph_config attention_dp_config disable_overlap_scheduler moe_config attn_backend "
            "enable_iter_perf_stats enable_iter_req_stats print_iter_log torch_compile_config enable_autotuner "
            "enable_layerwise_nvtx_marker enable_min_latency stream_interval force_dynamic_quantization "
            "allreduce_strategy checkpoint_loader checkpoint_format build_config enable_mixed_sampler "
            "enable_trtllm_sampler"
        ),
        (1, 1): (
            "fail_fast_on_attention_window_too_large enable_lm_head_tp_in_adp sampler_type perf_metrics_max_requests "
            "batch_wait_timeout_ms batch_wait_timeout_iters batch_wait_max_tokens_ratio mm_encoder_only "
            "sparse_attention_config kv_connector_config orchestrator_type ray_worker_extension_cls"
        ),
        (1, 2): (
            "custom_tokenizer pp_partition otlp_traces_endpoint env_overrides nvfp4_gemm_config "
            "sampler_force_async_worker ray_placement_config enable_sleep disable_flashinfer_sampling max_stats_len"
        ),
    }
)
# The first version without it
REMOVED: dict[str, Version] = {
    "enable_mixed_sampler": (1, 1),
    "enable_trtllm_sampler": (1, 1),
    "build_config": (1, 2),
}
KV_CACHE = _names(
    {
        (1, 0): (
            "enable_block_reuse max_tokens max_attention_window sink_token_length free_gpu_memory_fraction "
            "host_cache_size onboard_blocks cross_kv_cache_fraction secondary_offload_min_priority "
            "event_buffer_max_size enable_partial_reuse copy_on_partial_reuse use_uvm dtype mamba_ssm_cache_dtype "
            "attention_dp_events_gather_period_ms max_gpu_total_bytes tokens_per_block"
        )
    }
)
# Arguments for LoRA adapters. LLM knows them, and no request to Triton's llmapi model can name an adapter before this version:
# the inputs of triton_backend/all_models/llmapi/tensorrt_llm/config.pbtxt at 1.2.1 have none; those of NVIDIA/TensorRT-LLM
# pull request 14079, of the 1.3 line, are lora_id, lora_name and lora_path.
ADAPTERS = frozenset(
    {"enable_lora", "lora_config", "max_lora_rank", "max_loras", "max_cpu_loras", "peft_cache_config"}
)
FIRST_ADAPTERS: Version = (1, 3)
# Before, that model gives LLM.generate_async its `streaming` in the place of lora_request (1/model.py at 1.2.1, and llmapi/llm.py, whose
# third argument is lora_request): a stream has one part, the whole answer. The same pull request repairs it.
FIRST_STREAMED: Version = (1, 3)
# Names of other programs and of other tables -> the name here. The nearest spelling would be another argument.
MEANT = {
    "gpu_memory_utilization": "kv_cache_config.free_gpu_memory_fraction",
    "kv_cache_free_gpu_memory_fraction": "kv_cache_config.free_gpu_memory_fraction",
    "kv_cache_free_gpu_mem_fraction": "kv_cache_config.free_gpu_memory_fraction",
    "free_gpu_memory_fraction": "kv_cache_config.free_gpu_memory_fraction",
    "free_gpu_mem_fraction": "kv_cache_config.free_gpu_memory_fraction",
    "max_model_len": "max_seq_len",
    "max_sequence_length": "max_seq_len",
    "max_context_len": "max_seq_len",
    "context_length": "max_seq_len",
    "max_num_seqs": "max_batch_size",
    "max_running_requests": "max_batch_size",
    "max_num_batched_tokens": "max_num_tokens",
    "kv_cache_dtype": "kv_cache_config.dtype",
    "enable_prefix_caching": "kv_cache_config.enable_block_reuse",
    "enable_kv_cache_reuse": "kv_cache_config.enable_block_reuse",
    "enable_chunked_context": "enable_chunked_prefill",
    "tp_size": "tensor_parallel_size",
    "tensor_parallel": "tensor_parallel_size",
    "pp_size": "pipeline_parallel_size",
    "pipeline_parallel": "pipeline_parallel_size",
    "ep_size": "moe_expert_parallel_size",
    "moe_ep_size": "moe_expert_parallel_size",
    "moe_tp_size": "moe_tensor_parallel_size",
    "quantization": "nothing: it is read from the weights' own files",
    "quant_config": "nothing: it is read from the weights' own files",
    "use_cuda_graph": "cuda_graph_config",
    "pytorch_backend_config": "its keys themselves",
    "decoupled": "decoupled, above the table [llm]",
}


def check_names(
    arguments: Mapping[str, Any], version: Version, release: str, unlisted: Collection[str] = ()
) -> None:
    """
    Refuse an argument that LLM of this version does not know.

    + arguments: the profile's table [llm]
    + unlisted: names that the profile declares as known, with a dot for those of kv_cache_config

    Raises PlanError with the name that is meant, otherwise the nearest name, otherwise all of them.
    """
    cache = arguments.get("kv_cache_config", {})
    tables = (("llm", "", ARGUMENTS, arguments), ("llm.kv_cache_config", "kv_cache_config.", KV_CACHE, cache))
    for table, prefix, known, said in tables:
        names = {name for name, since in known.items() if since <= version < REMOVED.get(name, (99,))}
        if version < FIRST_ADAPTERS:
            names -= ADAPTERS
        for name in said:
            if name in names or f"{prefix}{name}" in unlisted:
                continue
            raise PlanError(
                f"{table}.{name}",
                f"unknown argument {name}",
                f"an argument of LLM in TensorRT-LLM {'.'.join(map(str, version))} (release {release})",
                f"{_instead(name, prefix, names, known)}. Where LLM has it and this tool does not know it, also say "
                f"llm_unlisted = ['{prefix}{name}']",
            )


def one_part(decoupled: bool, version: Version) -> tuple[str, ...]:
    """A warning where a profile wants streams and this version's model gives the whole answer as one part."""
    if not decoupled or version >= FIRST_STREAMED:
        return ()
    found, first = (".".join(map(str, given)) for given in (version, FIRST_STREAMED))
    return (
        f"decoupled: found true with TensorRT-LLM {found}, expected {first} or later for answers in parts; a stream has one part, "
        "the whole answer: NVIDIA's model does not hand the wish on",
    )


def _instead(name: str, prefix: str, names: set[str], known: Mapping[str, Version]) -> str:
    meant = MEANT.get(name)
    if meant:
        return f"say {meant.removeprefix(prefix) if prefix else meant}"
    if name in ADAPTERS:
        first = ".".join(map(str, FIRST_ADAPTERS))
        return (
            f"no request to Triton's llmapi model names an adapter before TensorRT-LLM {first}: merge it into the weights, and "
            "serve those"
        )
    if name in REMOVED and name in known:
        return f"it was removed in TensorRT-LLM {'.'.join(map(str, REMOVED[name]))}: take it away"
    if name in known:
        return f"it came with TensorRT-LLM {'.'.join(map(str, known[name]))}: use a newer image.release"
    return suggestion(name, names)
