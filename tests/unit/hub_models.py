"""What hubs say of the models of the model table, in their format: the keys of config.json that count, and the published counts of numbers.

Values are facts of each repository; the texts are this project's own. Counts are those that the hub states for the safetensors files, unless
a comment says what a file holds beside the model's own numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from operations.plan.proposal.repository import Repository
from tests.lab.standins.chat import CHATML, INST

# The form of Llama 3's template, in our own words
_HEADERS = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_TURNS = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message.role }}\n{{ message.content }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


@dataclass(frozen=True)
class HubModel:
    """One repository. + count: of its numbers; 0: not compared, because the reader of its config.json is not there"""

    name: str
    config: dict[str, Any]
    count: int
    template: str = ""
    bos: str = ""
    gated: bool = False
    bytes_each: float = 2
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def repository(self) -> Repository:
        """As a hub or a mirror answers."""
        files = {"config.json": 900, "tokenizer_config.json": 2000, "tokenizer.json": 9_000_000}
        size = int((self.count or self.more["size"] // self.bytes_each) * self.bytes_each)
        shards = max(1, -(-size // 5_000_000_000))
        names = [f"model-{n:05}-of-{shards:05}.safetensors" for n in range(1, shards + 1)]
        files |= dict.fromkeys(names if shards > 1 else ["model.safetensors"], size // shards)
        tokenizer = {"bos_token": self.bos, "chat_template": self.template} if self.template else {}
        counts = {"BF16": self.count} if self.count else {}
        return Repository(
            self.name,
            "c0ffee" * 6 + "c0de",
            files,
            self.gated,
            self.config,
            self.more.get("quantization", {}),
            tokenizer,
            counts=counts,
        )


def _config(architecture: str, model_type: str, dtype: str = "bfloat16", **keys: Any) -> dict[str, Any]:
    return {"architectures": [architecture], "model_type": model_type, "torch_dtype": dtype, **keys}


def _decoder(
    architecture: str,
    model_type: str,
    width: int,
    layers: int,
    heads: int,
    kv: int,
    inner: int,
    words: int,
    length: int,
    **keys: Any,
) -> dict[str, Any]:
    return _config(
        architecture,
        model_type,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        intermediate_size=inner,
        vocab_size=words,
        max_position_embeddings=length,
        **keys,
    )


def _llama(*numbers: int, **keys: Any) -> dict[str, Any]:
    return _decoder("LlamaForCausalLM", "llama", *numbers, **keys)


def _qwen2(*numbers: int, **keys: Any) -> dict[str, Any]:
    return _decoder("Qwen2ForCausalLM", "qwen2", *numbers, **keys)


LLAMA_3 = {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}}
TIED = {"tie_word_embeddings": True}

MODELS = (
    # 2048 more numbers are in the files: rotary frequencies, which are computed
    HubModel(
        "meta-llama/Llama-2-7b-hf",
        _llama(4096, 32, 32, 32, 11008, 32000, 4096) | {"torch_dtype": "float16"},
        6_738_415_616,
        gated=True,
    ),
    HubModel(
        "meta-llama/Meta-Llama-3-8B", _llama(4096, 32, 32, 8, 14336, 128256, 8192), 8_030_261_248, gated=True
    ),
    HubModel(
        "meta-llama/Llama-3.1-8B-Instruct",
        _llama(4096, 32, 32, 8, 14336, 128256, 131072, **LLAMA_3),
        8_030_261_248,
        _HEADERS,
        "<|begin_of_text|>",
        gated=True,
    ),
    HubModel(
        "meta-llama/Llama-3.2-1B-Instruct",
        _llama(2048, 16, 32, 8, 8192, 128256, 131072, head_dim=64, **LLAMA_3, **TIED),
        1_235_814_400,
        _HEADERS,
        "<|begin_of_text|>",
        gated=True,
    ),
    HubModel(
        "meta-llama/Llama-3.3-70B-Instruct",
        _llama(8192, 80, 64, 8, 28672, 128256, 131072, **LLAMA_3),
        70_553_706_496,
        _HEADERS,
        "<|begin_of_text|>",
        gated=True,
    ),
    HubModel(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        _llama(576, 30, 9, 3, 1536, 49152, 8192, **TIED),
        134_515_008,
        CHATML,
    ),
    HubModel(
        "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
        _llama(8192, 80, 64, 8, 28672, 128256, 131072, **LLAMA_3),
        70_553_706_496,
    ),
    HubModel(
        "nvidia/Llama-3.1-Nemotron-70B-Instruct-HF",
        _llama(8192, 80, 64, 8, 28672, 128256, 131072, **LLAMA_3),
        70_553_706_496,
        _HEADERS,
        "<|begin_of_text|>",
    ),
    HubModel(
        "nvidia/Llama-3.1-8B-Instruct-FP8",
        _llama(4096, 32, 32, 8, 14336, 128256, 131072, **LLAMA_3),
        8_030_261_248,
        _HEADERS,
        "<|begin_of_text|>",
        bytes_each=1.13,
        more={"quantization": {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}},
    ),
    HubModel(
        "mistralai/Mistral-7B-Instruct-v0.3",
        _decoder("MistralForCausalLM", "mistral", 4096, 32, 32, 8, 14336, 32768, 32768),
        7_248_023_552,
        INST,
        "<s>",
        gated=True,
    ),
    HubModel(
        "mistralai/Mistral-Nemo-Instruct-2407",
        _decoder("MistralForCausalLM", "mistral", 5120, 40, 32, 8, 14336, 131072, 1024000, head_dim=128),
        12_247_782_400,
        INST,
        "<s>",
        gated=True,
    ),
    HubModel(
        "mistralai/Mistral-Small-24B-Instruct-2501",
        _decoder("MistralForCausalLM", "mistral", 5120, 40, 32, 8, 32768, 131072, 32768, head_dim=128),
        23_572_403_200,
        INST,
        "<s>",
    ),
    HubModel(
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        _decoder("MixtralForCausalLM", "mixtral", 4096, 32, 32, 8, 14336, 32000, 32768, num_local_experts=8),
        46_702_792_704,
        INST,
        "<s>",
    ),
    HubModel(
        "mistralai/Mixtral-8x22B-Instruct-v0.1",
        _decoder("MixtralForCausalLM", "mixtral", 6144, 56, 48, 8, 16384, 32768, 65536, num_local_experts=8),
        140_630_071_296,
        INST,
        "<s>",
        gated=True,
    ),
    # 12 582 912 more numbers are in the file: the masks of attention, which are computed
    HubModel(
        "openai-community/gpt2",
        _config(
            "GPT2LMHeadModel",
            "gpt2",
            "float32",
            n_embd=768,
            n_layer=12,
            n_head=12,
            n_positions=1024,
            vocab_size=50257,
        ),
        124_439_808,
        bytes_each=4,
    ),
    HubModel(
        "Qwen/Qwen2-1.5B-Instruct",
        _qwen2(1536, 28, 12, 2, 8960, 151936, 32768, **TIED),
        1_543_714_304,
        CHATML,
    ),
    HubModel(
        "Qwen/Qwen2.5-0.5B-Instruct",
        _qwen2(896, 24, 14, 2, 4864, 151936, 32768, **TIED),
        494_032_768,
        CHATML,
    ),
    HubModel(
        "Qwen/Qwen2.5-7B-Instruct", _qwen2(3584, 28, 28, 4, 18944, 152064, 32768), 7_615_616_512, CHATML
    ),
    HubModel(
        "Qwen/Qwen2.5-72B-Instruct", _qwen2(8192, 80, 64, 8, 29568, 152064, 32768), 72_706_203_648, CHATML
    ),
    HubModel(
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
        _qwen2(5120, 64, 40, 8, 27648, 152064, 131072),
        32_763_876_352,
    ),
    HubModel(
        "Qwen/Qwen3-8B",
        _decoder("Qwen3ForCausalLM", "qwen3", 4096, 36, 32, 8, 12288, 151936, 40960, head_dim=128),
        8_190_735_360,
        CHATML,
    ),
    HubModel(
        "Qwen/Qwen3-30B-A3B",
        _decoder(
            *("Qwen3MoeForCausalLM", "qwen3_moe", 2048, 48, 32, 4, 6144, 151936, 40960),
            head_dim=128,
            num_experts=128,
            moe_intermediate_size=768,
            decoder_sparse_step=1,
            mlp_only_layers=[],
        ),
        30_532_122_624,
        CHATML,
    ),
    HubModel(
        "microsoft/Phi-3-mini-4k-instruct",
        _decoder("Phi3ForCausalLM", "phi3", 3072, 32, 32, 32, 8192, 32064, 4096),
        3_821_079_552,
    ),
    HubModel(
        "microsoft/phi-4",
        _decoder("Phi3ForCausalLM", "phi3", 5120, 40, 40, 10, 17920, 100352, 16384),
        14_659_507_200,
        CHATML,
    ),
    HubModel(
        "google/gemma-3-1b-it",
        _decoder("Gemma3ForCausalLM", "gemma3_text", 1152, 26, 4, 1, 6912, 262144, 32768, head_dim=256),
        999_885_952,
        _TURNS,
        "<bos>",
        gated=True,
    ),
    # read by their size alone
    HubModel(
        "google/gemma-3-27b-it",
        _config(
            "Gemma3ForConditionalGeneration",
            "gemma3",
            text_config={"num_attention_heads": 32, "hidden_size": 5376},
            vision_config={},
        ),
        0,
        _TURNS,
        "<bos>",
        gated=True,
        more={"size": 54_864_812_256},
    ),
    HubModel(
        "openai/gpt-oss-20b",
        _config(
            "GptOssForCausalLM",
            "gpt_oss",
            num_attention_heads=64,
            quantization_config={"quant_method": "mxfp4"},
        ),
        0,
        _HEADERS,
        more={"size": 13_761_264_768},
    ),
    HubModel(
        "deepseek-ai/DeepSeek-V3",
        _config(
            *("DeepseekV3ForCausalLM", "deepseek_v3"),
            num_attention_heads=128,
            quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]},
        ),
        0,
        more={"size": 688_586_727_753},
    ),
)

# served by no release: what is refused, with a count all the same
REFUSED = (
    HubModel(
        "google/gemma-2b",
        _decoder("GemmaForCausalLM", "gemma", 2048, 18, 8, 1, 16384, 256000, 8192, head_dim=256),
        2_506_172_416,
    ),
    HubModel(
        "google/gemma-2-9b-it",
        _decoder("Gemma2ForCausalLM", "gemma2", 3584, 42, 16, 8, 14336, 256000, 8192, head_dim=256),
        9_241_705_984,
    ),
)

BY_NAME = {model.name: model for model in (*MODELS, *REFUSED)}
