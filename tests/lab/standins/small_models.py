"""Small models of the profiles' architectures, as Hugging Face folders under the real names.

Their weights are pseudo-random and the same on every machine: what they answer is gibberish, made of whole pieces of
words. The shapes keep what makes each architecture hard to serve (experts, a head size of its own, scaled rotary
embedding, several shards, other formats beside the safetensors) and divide by the ranks that the profiles ask for.
Embedding models come from `embedding_models`, templates and special tokens from `chat`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import chat, decoder_shapes, embedding_models, safetensors_file

VOCABULARY = 4096
# Rows of a chat model's table: its markup's tokens, and then none, as behind the last token of the real ones
CHAT_VOCABULARY = VOCABULARY + 64


@dataclass(frozen=True)
class Model:
    """One model: its config.json, how many shards its weights come in, and files beside them that nobody should want.

    `revision` is the one that is served where no profile pins another.
    """

    config: dict[str, Any]
    shards: int
    decoys: dict[str, bytes] = field(default_factory=dict)
    gated: bool = True
    revision: str | None = None
    chat: chat.Chat = field(default_factory=chat.Chat)


def _decoder(architecture: str, model_type: str, dtype: str, **values: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "torch_dtype": dtype,
        "vocab_size": VOCABULARY,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "use_cache": True,
        **values,
    }


def _mixtral() -> dict[str, Any]:
    return _decoder(
        "MixtralForCausalLM",
        "mixtral",
        "bfloat16",
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=16,
        num_key_value_heads=8,
        num_local_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=32768,
        rms_norm_eps=1e-5,
        rope_theta=1000000.0,
        sliding_window=None,
    )


_PICKLE = b"lab stand-in for a pickle: nothing is inside, and nobody should open it\n"
_CODE = b"raise SystemExit('lab stand-in: nobody should run this')\n"
_MISTRAL_DECOYS = {
    "params.json": b"{}\n",
    "consolidated.safetensors": b"lab stand-in: not a safetensors file\n",
}

MODELS: dict[str, Model] = {
    "mistralai/Mixtral-8x7B-Instruct-v0.1": Model(
        {**_mixtral(), "vocab_size": CHAT_VOCABULARY},
        3,
        {f"consolidated.{n:02d}.pt": _PICKLE for n in range(2)},
        chat=chat.MISTRAL,
    ),
    "mistralai/Mixtral-8x7B-v0.1": Model(
        _mixtral(),
        3,
        {f"consolidated.{n:02d}.pth": _PICKLE for n in range(2)},
        revision="fc7ac94680e38d7348cfa806e51218e6273104b0",
    ),
    "mistralai/Mistral-Nemo-Instruct-2407": Model(
        _decoder(
            "MistralForCausalLM",
            "mistral",
            "bfloat16",
            hidden_size=96,
            intermediate_size=224,
            num_hidden_layers=3,
            num_attention_heads=8,
            num_key_value_heads=2,
            # 8 heads of 20 are not the hidden size of 96, as 32 of 128 are not 5120.
            head_dim=20,
            max_position_embeddings=131072,
            rms_norm_eps=1e-5,
            rope_theta=1000000.0,
            sliding_window=None,
        ),
        2,
        _MISTRAL_DECOYS,
    ),
    "mistralai/Mistral-7B-Instruct-v0.3": Model(
        _decoder(
            "MistralForCausalLM",
            "mistral",
            "bfloat16",
            vocab_size=CHAT_VOCABULARY,
            hidden_size=128,
            intermediate_size=448,
            num_hidden_layers=3,
            num_attention_heads=8,
            num_key_value_heads=2,
            max_position_embeddings=32768,
            rms_norm_eps=1e-5,
            rope_theta=1000000.0,
            sliding_window=None,
        ),
        3,
        _MISTRAL_DECOYS,
        revision="e0bc86c23ce5aae1db576c8cca6f06f1f73af2db",
        chat=chat.MISTRAL,
    ),
    "Qwen/Qwen2.5-0.5B-Instruct": Model(
        _decoder(
            "Qwen2ForCausalLM",
            "qwen2",
            "bfloat16",
            vocab_size=CHAT_VOCABULARY,
            # 14 heads, two of keys and values, and one table of words, as the real one has
            hidden_size=112,
            intermediate_size=608,
            num_hidden_layers=3,
            num_attention_heads=14,
            num_key_value_heads=2,
            max_position_embeddings=32768,
            max_window_layers=21,
            rms_norm_eps=1e-6,
            rope_theta=1000000.0,
            sliding_window=32768,
            use_sliding_window=False,
            tie_word_embeddings=True,
        ),
        1,
        gated=False,
        revision="7ae557604adf67be50417f59c2c2f167def9a775",
        chat=chat.qwen(repetition_penalty=1.1, temperature=0.7, top_p=0.8, top_k=20),
    ),
    "Qwen/Qwen3-8B": Model(
        _decoder(
            "Qwen3ForCausalLM",
            "qwen3",
            "bfloat16",
            vocab_size=CHAT_VOCABULARY,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=16,
            attention_bias=False,
            max_position_embeddings=40960,
            max_window_layers=36,
            rms_norm_eps=1e-6,
            rope_theta=1000000.0,
            rope_scaling=None,
            sliding_window=None,
            use_sliding_window=False,
        ),
        5,
        gated=False,
        revision="b968826d9c46dd6066d109eabc6255188de91218",
        chat=chat.qwen(temperature=0.6, top_p=0.95, top_k=20),
    ),
    "microsoft/Phi-3-mini-4k-instruct": Model(
        _decoder(
            "Phi3ForCausalLM",
            "phi3",
            "bfloat16",
            vocab_size=CHAT_VOCABULARY,
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=8,
            num_key_value_heads=8,
            attention_bias=False,
            max_position_embeddings=4096,
            original_max_position_embeddings=4096,
            rms_norm_eps=1e-5,
            rope_theta=10000.0,
            rope_scaling=None,
            sliding_window=2047,
            auto_map={
                "AutoConfig": "configuration_phi3.Phi3Config",
                "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
            },
        ),
        2,
        {f"{part}_phi3.py": _CODE for part in ("configuration", "modeling")},
        gated=False,
        revision="0a67737cc96d2554230f90338b163bc6380a2a85",
        chat=chat.PHI_3,
    ),
    "meta-llama/Llama-3.1-8B-Instruct": Model(
        _decoder(
            "LlamaForCausalLM",
            "llama",
            "bfloat16",
            # Rows that blocks of 128 divide: what int4_awq quantizes by default.
            vocab_size=CHAT_VOCABULARY,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=8,
            num_key_value_heads=2,
            max_position_embeddings=131072,
            rms_norm_eps=1e-5,
            rope_theta=500000.0,
            rope_scaling={
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
            attention_bias=False,
            mlp_bias=False,
        ),
        4,
        {"original/consolidated.00.pth": _PICKLE, "original/params.json": b"{}\n"},
        chat=chat.LLAMA_3,
    ),
    "meta-llama/Llama-2-7b-hf": Model(
        _decoder(
            "LlamaForCausalLM",
            "llama",
            "float16",
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=3,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
            rope_scaling=None,
        ),
        2,
        {
            "pytorch_model-00001-of-00002.bin": _PICKLE,
            "pytorch_model-00002-of-00002.bin": _PICKLE,
            "pytorch_model.bin.index.json": b'{"metadata": {}, "weight_map": {}}\n',
        },
    ),
    "openai-community/gpt2-medium": Model(
        {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "torch_dtype": "float32",
            "vocab_size": VOCABULARY,
            "n_embd": 128,
            "n_head": 8,
            "n_layer": 3,
            "n_positions": 1024,
            "n_ctx": 1024,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
        },
        1,
        {
            "pytorch_model.bin": _PICKLE,
            "tf_model.h5": _PICKLE,
            "onnx/decoder_model.onnx": _PICKLE,
            "onnx/config.json": b"{}\n",
        },
        gated=False,
    ),
    "openai/clip-vit-large-patch14": Model(
        embedding_models.CLIP,
        1,
        {"pytorch_model.bin": _PICKLE, "tf_model.h5": _PICKLE, "flax_model.msgpack": _PICKLE},
        gated=False,
        revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
    ),
    "sentence-transformers/all-MiniLM-L6-v2": Model(
        embedding_models.BERT,
        1,
        {
            "pytorch_model.bin": _PICKLE,
            "tf_model.h5": _PICKLE,
            "rust_model.ot": _PICKLE,
            "onnx/model.onnx": _PICKLE,
            "train_script.py": b"raise SystemExit('lab stand-in: nothing is trained here')\n",
        },
        gated=False,
        revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    ),
}


_SHAPES = {**decoder_shapes.SHAPES, **embedding_models.SHAPES}


def _decoder_scaled(
    tensor: str, output: str, spread: NDArray[np.float32], unspoken: Sequence[int]
) -> NDArray[np.float32]:
    if spread.ndim == 1:
        return spread * np.float32(0.02) + np.float32(not tensor.endswith("bias"))
    if tensor == output:
        # A table that is the input too must be quieter than the layers: else each word is followed by itself.
        values = spread * np.float32(0.05 if "embed" in tensor else 0.3)
        values[unspoken] = 0
        return values
    return spread * np.float32(1 / np.sqrt(spread.shape[-1]))


def random_weights(
    name: str, config: dict[str, Any], unspoken: Sequence[int] = ()
) -> Iterator[tuple[str, NDArray[Any]]]:
    """The tensors in a fixed order, each by dice of its own; the tokens `unspoken` are never the likeliest."""
    kind = config["model_type"]
    for tensor, shape in _SHAPES[kind](config).items():
        seed = hashlib.sha256(f"{name}/{tensor}".encode()).digest()
        # Uniform: numpy promises its bit streams to stay as they are, but not its normal distribution.
        dice = np.random.Generator(np.random.PCG64(int.from_bytes(seed[:8], "little")))
        spread = np.float32(np.sqrt(12)) * (dice.random(shape, np.float32) - np.float32(0.5))
        if kind in embedding_models.SHAPES:
            yield tensor, embedding_models.scaled(tensor, np.asarray(spread, np.float32))
        else:
            yield tensor, _decoder_scaled(tensor, decoder_shapes.output_matrix(config), spread, unspoken)


def cut_tokenizer(whole: str, special: Sequence[str] = ()) -> tuple[str, dict[str, int], list[int]]:
    """
    The first words of a byte-level BPE's tokenizer.json: (tokenizer.json, word -> id, ids that are no pieces of words).

    + special: tokens that follow behind the words where these do not have them
    """
    document = json.loads(whole)
    model = document["model"]
    words = {word: number for word, number in model["vocab"].items() if number < VOCABULARY}
    model["vocab"] = words
    model["merges"] = [
        pair
        for pair in model["merges"]
        if all(piece in words for piece in (*pair.split(" "), pair.replace(" ", "")))
    ]
    sides = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for number, token in enumerate((token for token in special if token not in words), VOCABULARY):
        words[token] = number
        document["added_tokens"].append({"id": number, "content": token, **sides, "special": True})
    added = [token["id"] for token in document["added_tokens"]]
    unspoken = sorted({*added, *(number for word, number in words.items() if len(word.strip("Ġ")) < 3)})
    return json.dumps(document, ensure_ascii=False), words, unspoken


def _shards(model: Model, tensors: list[tuple[str, NDArray[Any]]]) -> dict[str, bytes]:
    dtype = model.config["torch_dtype"]
    size = sum(values.size for _, values in tensors)
    groups: list[dict[str, NDArray[Any]]] = [{} for _ in range(model.shards)]
    seen = 0
    for name, values in tensors:
        groups[(2 * seen + values.size) * model.shards // (2 * size)][name] = values
        seen += values.size
    contents = [safetensors_file.packed(group, dtype) for group in groups]
    if model.shards == 1:
        return {"model.safetensors": contents[0]}
    names = [f"model-{n + 1:05d}-of-{model.shards:05d}.safetensors" for n in range(model.shards)]
    files = dict(zip(names, contents, strict=True))
    index = {
        "metadata": {"total_size": size * (4 if dtype == "float32" else 2)},
        "weight_map": {key: name for name, group in zip(names, groups, strict=True) for key in sorted(group)},
    }
    return {**files, "model.safetensors.index.json": json.dumps(index, indent=2).encode() + b"\n"}


def _readme(name: str) -> bytes:
    return (
        f"# {name}: lab stand-in\n\n"
        "Not the model of this name: a very small one of the same architecture with pseudo-random weights, served by the\n"
        "lab's own hub. What it answers is gibberish.\n"
    ).encode()


def _document(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"


def folder_files(name: str, tokenizer: str) -> dict[str, bytes]:
    """All files of one model's folder, from the tokenizer.json of the real small model."""
    model = MODELS[name]
    kind = model.config["model_type"]
    if kind in embedding_models.FILES:
        unspoken = list[int]()
        files = {"config.json": _document(model.config), **embedding_models.FILES[kind](tokenizer)}
    else:
        text, words, unspoken = cut_tokenizer(tokenizer, model.chat.all_tokens)
        unspoken += range(VOCABULARY, model.config["vocab_size"])
        tables = model.chat.tables(words)
        tables["config.json"] = {**model.config, **tables["config.json"]}
        files = {path: _document(table) for path, table in tables.items()} | {"tokenizer.json": text.encode()}
    return {
        "README.md": _readme(name),
        **files,
        **_shards(model, list(random_weights(name, model.config, unspoken))),
        **model.decoys,
    }


def build(cache: Path, tokenizer: Path) -> dict[str, Path]:
    """The folder of every model in the cache: the same bytes each time, made once.

    :param tokenizer: tokenizer.json of the real small model
    :return: name -> folder
    """
    parts = ("chat", "decoder_shapes", "embedding_models", "safetensors_file")
    sources = (Path(__file__).with_name(f"{part}.py") for part in parts)
    source = b"".join(path.read_bytes() for path in (Path(__file__), *sources))
    text = tokenizer.read_text()
    folders = {}
    for name in MODELS:
        key = hashlib.sha256(source + text.encode() + name.encode()).hexdigest()[:16]
        folder = cache.resolve() / "weights" / f"{name.split('/')[1].lower()}-{key}"
        folders[name] = folder
        if folder.is_dir():  # it takes its name only when it is whole
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".make-") as scratch:
            whole = Path(scratch, "folder")
            for path, content in folder_files(name, text).items():
                (whole / path).parent.mkdir(parents=True, exist_ok=True)
                (whole / path).write_bytes(content)
            shutil.rmtree(folder, ignore_errors=True)
            whole.rename(folder)
    return folders
