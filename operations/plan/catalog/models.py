"""The model table: which architecture is served by which kind, from which TensorRT-LLM on.

A row is one class of config.json's `architectures`: that is what TensorRT-LLM selects a model by. A family of models with a name of its
own, such as Llama 3.1, may be several rows' or a part of one; `models` names them.

Sources. Kind engine: LLaMAConfig.from_hugging_face and GPTConfig.from_hugging_face at v0.9.0 to v1.2.1, and the README files of
examples/llama, examples/mixtral and examples/gpt. Kind llmapi: "Supported models" of the documentation of 1.0.0 and 1.2, the release
notes of 1.1 and 1.2, the imports of _torch/models at 1.0, and _torch/models/_arch_index.py of the main branch of 2026 for what no
version has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Version = tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """
    One architecture.

    + architecture: config.json's `architectures`, its first
    + model_type: config.json's
    + models: what people call the models that have it
    + family: `checkpoint.family` of kind engine; empty: this tool has no converter for it
    + engine: the first TensorRT-LLM whose converter reads it
    + pytorch: the first whose PyTorch backend, kind llmapi, registers it; None: none does
    + sees: it has inputs beside text, which this tool does not send
    + purpose: what it is for, if it does not go on with a text
    """

    architecture: str
    model_type: str
    models: str
    family: str = ""
    engine: Version = (0, 9)
    pytorch: Version | None = None
    sees: bool = False
    purpose: str = ""


def _registered(since: Version, rows: Iterable[tuple[str, str, str]], sees: bool = False) -> Iterator[Model]:
    for architecture, model_type, models in rows:
        yield Model(architecture, model_type, models, pytorch=since, sees=sees)


_ROWS = (
    # with a converter
    Model(
        "LlamaForCausalLM",
        "llama",
        "Llama 2, 3, 3.1, 3.2 (1B, 3B), 3.3; SmolLM2; DeepSeek-R1-Distill-Llama; Llama-3.1-Nemotron-70B",
        "llama",
        pytorch=(1, 0),
    ),
    Model(
        "MistralForCausalLM",
        "mistral",
        "Mistral 7B, Mistral-Nemo, Mistral-Small 2409 and 2501",
        "mistral",
        pytorch=(1, 0),
    ),
    Model("MixtralForCausalLM", "mixtral", "Mixtral 8x7B, 8x22B", "mixtral", pytorch=(1, 0)),
    Model("GPT2LMHeadModel", "gpt2", "GPT-2", "gpt"),
    Model("GPTBigCodeForCausalLM", "gpt_bigcode", "StarCoder, SantaCoder", "gpt"),
    Model("Starcoder2ForCausalLM", "starcoder2", "StarCoder2", "gpt", pytorch=(1, 2)),
    Model("NemotronForCausalLM", "nemotron", "Nemotron-4, Minitron", "gpt", engine=(0, 16), pytorch=(1, 0)),
    # registered by the PyTorch backend
    *_registered(
        (1, 0),
        [
            ("DeciLMForCausalLM", "nemotron-nas", "Llama-3.3-Nemotron-Super"),
            ("DeepseekV3ForCausalLM", "deepseek_v3", "DeepSeek-V3, DeepSeek-R1"),
            ("Exaone4ForCausalLM", "exaone4", "EXAONE 4.0"),
            ("Gemma3ForCausalLM", "gemma3_text", "Gemma 3 1B"),
            ("NemotronHForCausalLM", "nemotron_h", "Nemotron-H, Nemotron Nano 2"),
            ("NemotronNASForCausalLM", "nemotron-nas", "Llama-3.1-Nemotron-Ultra"),
            ("Qwen2ForCausalLM", "qwen2", "Qwen2, Qwen2.5, QwQ; DeepSeek-R1-Distill-Qwen"),
            ("Qwen2MoeForCausalLM", "qwen2_moe", "Qwen1.5-MoE, Qwen2-57B-A14B"),
            ("Qwen3ForCausalLM", "qwen3", "Qwen3"),
            ("Qwen3MoeForCausalLM", "qwen3_moe", "Qwen3-30B-A3B, Qwen3-235B-A22B"),
        ],
    ),
    *_registered(
        (1, 1),
        [
            ("GptOssForCausalLM", "gpt_oss", "gpt-oss-20b, gpt-oss-120b"),
            ("HunYuanDenseV1ForCausalLM", "hunyuan_v1_dense", "Hunyuan dense"),
            ("HunYuanMoEV1ForCausalLM", "hunyuan_v1_moe", "Hunyuan-A13B"),
            ("Phi3ForCausalLM", "phi3", "Phi-3, Phi-3.5-mini, Phi-4"),
            ("SeedOssForCausalLM", "seed_oss", "Seed-OSS"),
        ],
    ),
    *_registered(
        (1, 2),
        [
            ("DeepseekV32ForCausalLM", "deepseek_v32", "DeepSeek-V3.2"),
            ("ExaoneMoEForCausalLM", "exaone_moe", "K-EXAONE"),
            ("Glm4MoeForCausalLM", "glm4_moe", "GLM-4.5, GLM-4.6"),
            ("MiniMaxM2ForCausalLM", "minimax_m2", "MiniMax-M2"),
            ("Qwen3NextForCausalLM", "qwen3_next", "Qwen3-Next"),
        ],
    ),
    *_registered(
        (1, 0),
        [
            ("Gemma3ForConditionalGeneration", "gemma3", "Gemma 3 4B, 12B, 27B"),
            ("HCXVisionForCausalLM", "hyperclovax_vlm", "HyperCLOVA X SEED Vision"),
            ("Llama4ForConditionalGeneration", "llama4", "Llama 4 Scout, Maverick"),
            ("LlavaLlamaModel", "llava_llama", "VILA, NVILA"),
            ("LlavaNextForConditionalGeneration", "llava_next", "LLaVA-NeXT"),
            ("Mistral3ForConditionalGeneration", "mistral3", "Mistral-Small 2503 and later"),
            ("MllamaForConditionalGeneration", "mllama", "Llama 3.2 11B and 90B Vision"),
            ("Phi4MMForCausalLM", "phi4mm", "Phi-4-multimodal"),
            ("Qwen2VLForConditionalGeneration", "qwen2_vl", "Qwen2-VL"),
            ("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl", "Qwen2.5-VL"),
        ],
        sees=True,
    ),
    *_registered(
        (1, 2),
        [
            ("Qwen3VLForConditionalGeneration", "qwen3_vl", "Qwen3-VL"),
            ("Qwen3VLMoeForConditionalGeneration", "qwen3_vl_moe", "Qwen3-VL-30B-A3B"),
        ],
        sees=True,
    ),
    # registered, but no model that goes on with a text
    Model(
        "BertForSequenceClassification",
        "bert",
        "BERT classifiers",
        pytorch=(1, 0),
        purpose="classifies a text",
    ),
    Model(
        "Qwen2ForProcessRewardModel",
        "qwen2",
        "Qwen2.5-Math-PRM",
        pytorch=(1, 0),
        purpose="rates a text",
    ),
    Model("Qwen2ForRewardModel", "qwen2", "Qwen2.5-Math-RM", pytorch=(1, 0), purpose="rates a text"),
    # in no version of the PyTorch backend; TensorRT-LLM has had converters for some, whose flags this tool does not know
    Model("BloomForCausalLM", "bloom", "BLOOM"),
    Model("CohereForCausalLM", "cohere", "Command R"),
    Model("FalconForCausalLM", "falcon", "Falcon 7B, 40B, 180B"),
    Model("GPTJForCausalLM", "gptj", "GPT-J"),
    Model("GPTNeoForCausalLM", "gpt_neo", "GPT-Neo"),
    Model("GPTNeoXForCausalLM", "gpt_neox", "GPT-NeoX, Pythia"),
    Model("Gemma2ForCausalLM", "gemma2", "Gemma 2"),
    Model("GemmaForCausalLM", "gemma", "Gemma"),
    Model("MptForCausalLM", "mpt", "MPT"),
    Model("OPTForCausalLM", "opt", "OPT"),
    Model("PhiForCausalLM", "phi", "Phi-1.5, Phi-2"),
    Model("RWForCausalLM", "RefinedWeb", "Falcon, as it was first published"),
)

MODELS = {row.architecture: row for row in _ROWS}

# For gpt's converter: model_type -> the values that flags.gpt_variant may have; this tool's default is gpt2
VARIANTS = {
    "gpt2": ("gpt2",),
    "gpt_bigcode": ("starcoder", "santacoder"),
    **{name: (name,) for name in ("starcoder2", "persimmon", "jais", "nemotron")},
}
# What a converter reads, by its folder and config.json's model_type. A converter does not check it: it reads another model's numbers
# under the same names, and then keys are missing or the engine's answers are wrong (TensorRT-LLM issues 1116, 1208, 1347 and 1785).
CONVERTED: dict[str, frozenset[str]] = {
    "llama": frozenset(row.model_type for row in _ROWS if row.family in ("llama", "mistral", "mixtral")),
    "gpt": frozenset(VARIANTS),
}

# rope type -> the first TensorRT-LLM whose converters know it: layers/attention.py asserts linear or dynamic up to 0.11; llama3 and
# longrope came with 0.12, yarn with 0.15
ROPE_SINCE: dict[str, Version] = {"llama3": (0, 12), "longrope": (0, 12), "yarn": (0, 15)}
