"""The `${...}` template parameters of inflight_batcher_llm's config.pbtxt, per model and version, as data.

Source: all_models/inflight_batcher_llm/<model>/config.pbtxt at the tags v0.9.0, v0.10.0, v0.11.0, v0.12.0, v0.13.0,
v0.15.0, v0.16.0, v0.17.0 and v0.19.0 of https://github.com/triton-inference-server/tensorrtllm_backend. A parameter that
first appears between two of these tags has the version of the docs that first name it, otherwise the later tag. What came
after v0.19.0 is from single files of NVIDIA/TensorRT-LLM's triton_backend/ (commits 08dc37e, 0c8de69, 0193dbd)
and a documentation change (tensorrtllm_backend PR 822): the exact release of each was not read.
"""

from __future__ import annotations

from dataclasses import dataclass

Version = tuple[int, ...]


@dataclass(frozen=True)
class Parameter:
    """One placeholder. `bare`: it is outside quotes, so the file does not parse until it is filled."""

    name: str
    since: Version
    until: Version | None = None  # the first version without it
    bare: bool = False
    again: Version | None = None  # the version that brought it back

    def exists_in(self, version: Version) -> bool:
        """Whether the template of that TensorRT-LLM version has it."""
        if self.again is not None and version >= self.again:
            return True
        return self.since <= version and (self.until is None or version < self.until)


def _table(
    since: dict[Version, str],
    bare: str,
    until: dict[str, Version] | None = None,
    again: dict[str, Version] | None = None,
) -> tuple[Parameter, ...]:
    unquoted = set(bare.split())
    return tuple(
        Parameter(name, version, (until or {}).get(name), name in unquoted, (again or {}).get(name))
        for version, names in since.items()
        for name in names.split()
    )


PARAMETERS: dict[str, tuple[Parameter, ...]] = {
    "preprocessing": _table(
        {
            (0, 9): "add_special_tokens preprocessing_instance_count tokenizer_dir triton_max_batch_size",
            (0, 12): "engine_dir visual_model_path",
            (0, 15): "max_num_images",
            (0, 19): "max_queue_delay_microseconds max_queue_size multimodal_model_path",
            (0, 20): "hf_model_path",
        },
        bare="max_queue_delay_microseconds max_queue_size preprocessing_instance_count triton_max_batch_size",
        until={"visual_model_path": (0, 19)},
    ),
    "postprocessing": _table(
        {
            (0, 9): "postprocessing_instance_count tokenizer_dir triton_max_batch_size",
            (0, 11): "skip_special_tokens",
        },
        bare="postprocessing_instance_count triton_max_batch_size",
    ),
    "tensorrt_llm": _table(
        {
            (0, 9): (
                "batch_scheduler_policy batching_strategy decoding_mode decoupled_mode "
                "enable_chunked_context enable_kv_cache_reuse enable_trt_overlap engine_dir "
                "exclude_input_in_output gpu_device_ids kv_cache_free_gpu_mem_fraction "
                "lora_cache_gpu_memory_fraction lora_cache_host_memory_bytes "
                "lora_cache_max_adapter_size lora_cache_optimal_adapter_size max_attention_window_size "
                "max_beam_width max_queue_delay_microseconds max_tokens_in_paged_kv_cache "
                "medusa_choices normalize_log_probs triton_max_batch_size"
            ),
            (0, 10): (
                "cancellation_check_period_ms gpu_weights_percent iter_stats_max_iterations "
                "kv_cache_host_memory_bytes kv_cache_onboard_blocks request_stats_max_iterations "
                "sink_token_length stats_check_period_ms triton_backend"
            ),
            (0, 11): "encoder_engine_dir",
            (0, 12): "enable_context_fmha_fp32_acc max_queue_size multi_block_mode",
            (0, 13): "participant_ids",
            (0, 14): "cross_kv_cache_fraction",
            (0, 15): (
                "cuda_graph_cache_size cuda_graph_mode encoder_input_features_data_type "
                "speculative_decoding_fast_logits"
            ),
            (0, 16): "eagle_choices",
            (0, 17): "logits_datatype",
            (0, 19): (
                "guided_decoding_backend lookahead_ngram_size lookahead_verification_set_size "
                "lookahead_window_size lora_prefetch_dir num_nodes tokenizer_dir "
                "xgrammar_tokenizer_info_path"
            ),
            (1, 1): "prompt_embedding_table_data_type",
        },
        bare="decoupled_mode encoder_input_features_data_type logits_datatype max_queue_delay_microseconds "
        "max_queue_size prompt_embedding_table_data_type triton_max_batch_size",
        until={"enable_trt_overlap": (0, 10)},
        # a comment from v0.10.0 to v0.19.0; in the file of 0c8de69 it is a parameter again
        again={"enable_trt_overlap": (0, 20)},
    ),
    "tensorrt_llm_bls": _table(
        {
            (0, 9): (
                "accumulate_tokens bls_instance_count decoupled_mode tensorrt_llm_draft_model_name "
                "tensorrt_llm_model_name triton_max_batch_size"
            ),
            (0, 13): "multimodal_encoders_name",
            (0, 17): "logits_datatype",
        },
        bare="bls_instance_count decoupled_mode logits_datatype triton_max_batch_size",
    ),
    "ensemble": _table(
        {
            (0, 9): "triton_max_batch_size",
            (0, 17): "logits_datatype",
        },
        bare="logits_datatype triton_max_batch_size",
    ),
}


def parameters_of(model: str, version: Version) -> dict[str, Parameter]:
    """The placeholders of one model's template at one TensorRT-LLM version, by name; empty for an unknown model."""
    return {p.name: p for p in PARAMETERS.get(model, ()) if p.exists_in(version)}
