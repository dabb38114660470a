"""What NVIDIA's own files say, as data: names and versions alone, each beside the tag or commit that it was read at.

The plan is held against this, so that a table of the plan is never its own proof. BE is triton-inference-server/
tensorrtllm_backend, TRT is NVIDIA/TensorRT-LLM.
"""

from __future__ import annotations

# BE, dockerfile/Dockerfile.trt_llm_backend: tag -> defaults of BASE_TAG and of PYTORCH_IMAGE ("" where it has none).
# Later tags (v0.20.0, v0.21.0, v1.0.0) have no file of that name.
DOCKERFILES = {
    "v0.9.0": ("24.02-py3", ""),
    "v0.10.0": ("24.03-py3", ""),
    "v0.11.0": ("24.05-py3", ""),
    "v0.12.0": ("24.07-py3", ""),
    "v0.13.0": ("24.07-py3", ""),
    "v0.14.0": ("24.07-py3", ""),
    "v0.15.0": ("24.10-py3", ""),
    "v0.16.0": ("24.11-py3", ""),
    "v0.17.0": ("25.01-py3", "nvidia/pytorch:25.01-py3"),
    "v0.18.0": ("25.02-py3", "nvidia/pytorch:25.03-py3"),
    "v0.18.2": ("25.03-py3", "nvidia/pytorch:25.03-py3"),
    "v0.19.0": ("25.03-py3", "nvidia/pytorch:25.03-py3"),
}
# build.py of triton-inference-server/server at the tag v2.NN.0: the Triton of those bases
TRITON_OF_BASE = {
    "24.02": "2.43.0",
    "24.03": "2.44.0",
    "24.05": "2.46.0",
    "24.07": "2.48.0",
    "24.10": "2.51.0",
    "24.11": "2.52.0",
    "25.01": "2.54.0",
    "25.02": "2.55.0",
    "25.03": "2.56.0",
}

# BE, all_models/inflight_batcher_llm/tensorrt_llm_bls/1/model.py: whether a placeholder that nobody filled counts as
# absent; where it does not, it is taken for the name of the model to call
LITERAL_IS_ABSENT = {
    **dict.fromkeys(("v0.9.0", "v0.10.0", "v0.11.0", "v0.12.0"), False),
    **dict.fromkeys(
        ("v0.13.0", "v0.14.0", "v0.15.0", "v0.16.0", "v0.17.0", "v0.18.0", "v0.18.2", "v0.19.0"), True
    ),
}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# TRT, argument parsers: script -> (version, commit, its flags)
_QUANTIZED = (
    "use_weight_only weight_only_precision smoothquant per_channel per_token int8_kv_cache calib_dataset"
)
_SPLIT = "tp_size pp_size workers use_parallel_embedding embedding_sharding_dim"
_LLAMA_0_11 = (
    f"model_dir meta_ckpt_dir output_dir dtype {_SPLIT} {_QUANTIZED} moe_tp_size moe_ep_size vocab_size n_positions "
    "n_layer n_head n_kv_head n_embd inter_size rms_norm_eps disable_weight_only_quant_plugin quant_ckpt_path "
    "per_group load_by_shard hidden_act rotary_base group_size load_model_on_cpu use_embedding_sharing "
    "moe_num_experts moe_top_k moe_renorm_mode save_config_only"
)
_LLAMA_0_13 = (
    f"{_LLAMA_0_11} multiple_of ffn_dim_multiplier fp8_kv_cache use_fp8 use_fp8_rowwise remove_duplicated_kv_heads "
    "log_level"
)
_GPT_0_16 = (
    f"model_dir nemo_ckpt_path gpt_variant output_dir dtype {_SPLIT} {_QUANTIZED} load_model_on_cpu "
    "dataset_cache_dir log_level nemo_rename_key"
)
FLAGS: dict[str, tuple[tuple[str, str, frozenset[str]], ...]] = {
    "llama": (
        ("0.11.0", "05316d3313360012536ace46c781518f5afae75e", _names(_LLAMA_0_11)),
        ("0.13.0", "201135e58aa525af7e523d091d4c9584229524bc", _names(_LLAMA_0_13)),
        (
            "1.2.1",
            "368f8f2ade001e8fcb955be39e4812f918d7fb92",
            _names(
                f"{_LLAMA_0_13} cp_size calib_size calib_max_seq_length use_qserve use_nvfp4 "
                "use_meta_fp8_rowwise_recipe"
            )
            - {"use_embedding_sharing"},
        ),
    ),
    "gpt": (
        # a development commit before 0.12
        (
            "0.11.0",
            "1020a8d799d04a1776f8eec19496ecafa2558506",
            _names(f"{_GPT_0_16} load_nemo_on_gpu use_embedding_sharing") - {"load_model_on_cpu"},
        ),
        ("0.16.0", "42a7b0922fc9e095f173eab9a7efa0bcdceadd0d", _names(_GPT_0_16)),
        ("1.2.1", "7edbcccb7f6baa8375008e1f2978067873e7cf14", _names(_GPT_0_16)),
    ),
    "quantize": (
        (
            "1.2.1",
            "059c97c10c12e948e91676c8db3c9f137b0a2389",
            _names(
                "model_dir nemo_ckpt_path decoder_type device device_map calib_dataset calib_tp_size calib_pp_size dtype "
                "qformat seed tokenizer_max_seq_length batch_size calib_size calib_max_seq_length output_dir tp_size "
                "pp_size cp_size awq_block_size kv_cache_dtype quantize_lm_head num_medusa_heads num_medusa_layers "
                "max_draft_len medusa_hidden_act medusa_model_dir quant_medusa_head autoq_format auto_quantize_bits "
                "export_format"
            ),
        ),
    ),
    # commands/build.py alone: the plugins' flags are made elsewhere
    "build": (
        (
            "0.16.0",
            "42a7b0922fc9e095f173eab9a7efa0bcdceadd0d",
            _names(
                "checkpoint_dir model_config build_config model_cls_file model_cls_name output_dir max_batch_size "
                "max_input_len max_seq_len max_beam_width max_num_tokens opt_num_tokens max_encoder_input_len "
                "max_prompt_embedding_table_size kv_cache_type paged_kv_cache input_timing_cache output_timing_cache "
                "profiling_verbosity strip_plan weight_sparsity weight_streaming fast_build workers log_level "
                "enable_debug_output visualize_network dry_run monitor_memory logits_dtype gather_context_logits "
                "gather_generation_logits gather_all_token_logits lora_dir lora_ckpt_source lora_target_modules "
                "max_lora_rank speculative_decoding_mode max_draft_len auto_parallel gpus_per_node "
                "cluster_key"
            ),
        ),
    ),
}
# TRT, plugin/plugin.py at 035b99e0 (0.9): those of the plugins' flags that are no sizes or switches of build.py
PLUGIN_FLAGS_0_9 = _names(
    "bert_attention_plugin gpt_attention_plugin gemm_plugin lookup_plugin lora_plugin moe_plugin mamba_conv1d_plugin "
    "nccl_plugin context_fmha remove_input_padding paged_state streamingllm"
)
# the values of --weight_only_precision, by script and version, at the same commits
WEIGHT_ONLY = {
    ("llama", "0.11.0"): {"int8", "int4", "int4_gptq"},
    ("llama", "0.13.0"): {"int8", "int4", "int4_gptq", "int4_awq"},
    ("llama", "1.2.1"): {"int8", "int4", "int8_gptq", "int4_gptq", "int4_awq"},
    ("gpt", "0.11.0"): {"int8", "int4"},
    ("gpt", "0.16.0"): {"int8", "int4"},
    ("gpt", "1.2.1"): {"int8", "int4"},
}
# Real flags that the plan does not take on purpose (flags.py says why)
LEFT_OUT = _names(
    "meta_ckpt_dir nemo_ckpt_path nemo_rename_key load_nemo_on_gpu save_config_only cp_size decoder_type calib_tp_size "
    "calib_pp_size num_medusa_heads num_medusa_layers max_draft_len medusa_hidden_act medusa_model_dir "
    "quant_medusa_head export_format model_config build_config model_cls_file model_cls_name auto_parallel "
    "gpus_per_node cluster_key paged_kv_cache"
)
# TRT, models/gpt/config.py at 201135e5 (v0.13.0) and the converter before it: the variant is looked for in the path of
# the weights alone, and a path that names none ends the conversion. 603070900 (after it) looks at model_type, too.
GPT_VARIANT_FROM_PATH_UNTIL = "0.13.0"

# BE and TRT, tensorrt_llm/config.pbtxt: (placeholder, version) -> whether it is there. 1.2.1: TRT at 0c8de69a.
PLACEHOLDERS = {
    ("speculative_decoding_fast_logits", "0.14.0"): False,
    ("speculative_decoding_fast_logits", "0.15.0"): True,
    ("enable_trt_overlap", "0.9.0"): True,
    ("enable_trt_overlap", "0.10.0"): False,
    ("enable_trt_overlap", "0.19.0"): False,
    ("enable_trt_overlap", "1.2.1"): True,
}


# The first openai package with the class that TensorRT-LLM 1.2 imports in tensorrt_llm/serve/responses_utils.py: of the wheels that
# were opened, 1.108.0 lacks PartReasoningText and 1.108.2 has it
OPENAI_FROM = (1, 108, 2)
