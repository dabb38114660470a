"""Small models of the profiles' architectures, as Hugging Face folders under the real names.

Their weights are pseudo-random and the same on every machine: what they answer is gibberish, made of whole pieces of
words. The shapes keep what makes each architecture hard to serve (experts, a head size of its own, scaled rotary
embedding, several shards, other formats beside the safetensors) and divide by the ranks that the profiles ask for.
Embedding models come from `embedding_models`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import embedding_models, safetensors_file

VOCABULARY = 4096
Shapes = dict[str, tuple[int, ...]]


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
_MISTRAL_DECOYS = {
    "params.json": b"{}\n",
    "consolidated.safetensors": b"lab stand-in: not a safetensors file\n",
}

MODELS: dict[str, Model] = {
    "mistralai/Mixtral-8x7B-Instruct-v0.1": Model(
        _mixtral(), 3, {f"consolidated.{n:02d}.pt": _PICKLE for n in range(2)}
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
    "meta-llama/Llama-3.1-8B-Instruct": Model(
        _decoder(
            "LlamaForCausalLM",
            "llama",
            "bfloat16",
            # Rows that blocks of 128 divide: what int4_awq quantizes by default.
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


def _llama_shapes(config: dict[str, Any]) -> Shapes:
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    size = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, shared = size * config["num_attention_heads"], size * config["num_key_value_heads"]
    shapes: Shapes = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}."
        for part, rows, columns in (
            ("q_proj", queries, hidden),
            ("k_proj", shared, hidden),
            ("v_proj", shared, hidden),
            ("o_proj", hidden, queries),
        ):
            shapes[f"{layer}self_attn.{part}.weight"] = (rows, columns)
        if "num_local_experts" in config:
            block = layer + "block_sparse_moe."
            shapes[block + "gate.weight"] = (config["num_local_experts"], hidden)
            for expert in range(config["num_local_experts"]):
                for part, rows, columns in (
                    ("w1", inner, hidden),
                    ("w2", hidden, inner),
                    ("w3", inner, hidden),
                ):
                    shapes[f"{block}experts.{expert}.{part}.weight"] = (rows, columns)
        else:
            for part, rows, columns in (
                ("gate_proj", inner, hidden),
                ("up_proj", inner, hidden),
                ("down_proj", hidden, inner),
            ):
                shapes[f"{layer}mlp.{part}.weight"] = (rows, columns)
        for part in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}{part}.weight"] = (hidden,)
    return {**shapes, "model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def _gpt_shapes(config: dict[str, Any]) -> Shapes:
    hidden = config["n_embd"]
    shapes: Shapes = {
        "wte.weight": (config["vocab_size"], hidden),
        "wpe.weight": (config["n_positions"], hidden),
    }
    for number in range(config["n_layer"]):
        layer = f"h.{number}."
        for part, rows, columns in (
            ("attn.c_attn", hidden, 3 * hidden),
            ("attn.c_proj", hidden, hidden),
            ("mlp.c_fc", hidden, 4 * hidden),
            ("mlp.c_proj", 4 * hidden, hidden),
        ):
            # (in, out): GPT-2 keeps its matrices transposed
            shapes |= {f"{layer}{part}.weight": (rows, columns), f"{layer}{part}.bias": (columns,)}
        for part in ("ln_1", "ln_2"):
            shapes |= {f"{layer}{part}.weight": (hidden,), f"{layer}{part}.bias": (hidden,)}
    return {**shapes, "ln_f.weight": (hidden,), "ln_f.bias": (hidden,)}


_SHAPES: dict[str, Callable[[dict[str, Any]], Shapes]] = {"gpt2": _gpt_shapes, **embedding_models.SHAPES}


def _decoder_scaled(tensor: str, spread: NDArray[np.float32], unspoken: Sequence[int]) -> NDArray[np.float32]:
    if spread.ndim == 1:
        return spread * np.float32(0.02) + np.float32(not tensor.endswith("bias"))
    if tensor in ("lm_head.weight", "wte.weight"):
        values = spread * np.float32(0.3)
        values[unspoken] = 0
        return values
    return spread * np.float32(1 / np.sqrt(spread.shape[-1]))


def random_weights(
    name: str, config: dict[str, Any], unspoken: Sequence[int] = ()
) -> Iterator[tuple[str, NDArray[Any]]]:
    """The tensors in a fixed order, each by dice of its own; the tokens `unspoken` are never the likeliest."""
    kind = config["model_type"]
    for tensor, shape in _SHAPES.get(kind, _llama_shapes)(config).items():
        seed = hashlib.sha256(f"{name}/{tensor}".encode()).digest()
        # Uniform: numpy promises its bit streams to stay as they are, but not its normal distribution.
        dice = np.random.Generator(np.random.PCG64(int.from_bytes(seed[:8], "little")))
        spread = np.float32(np.sqrt(12)) * (dice.random(shape, np.float32) - np.float32(0.5))
        if kind in embedding_models.SHAPES:
            yield tensor, embedding_models.scaled(tensor, np.asarray(spread, np.float32))
        else:
            yield tensor, _decoder_scaled(tensor, spread, unspoken)


def cut_tokenizer(whole: str) -> tuple[str, dict[str, int], list[int]]:
    """The first words of a byte-level BPE's tokenizer.json: (tokenizer.json, word -> id, ids that are no pieces of words)."""
    document = json.loads(whole)
    model = document["model"]
    words = {word: number for word, number in model["vocab"].items() if number < VOCABULARY}
    model["vocab"] = words
    model["merges"] = [
        pair
        for pair in model["merges"]
        if all(piece in words for piece in (*pair.split(" "), pair.replace(" ", "")))
    ]
    special = [token["id"] for token in document["added_tokens"]]
    unspoken = sorted({*special, *(number for word, number in words.items() if len(word.strip("Ġ")) < 3)})
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


def _decoder_files(config: dict[str, Any], text: str, words: dict[str, int]) -> dict[str, bytes]:
    """A decoder's config.json and its tokenizer."""
    end = words["<|endoftext|>"]
    special = {"bos_token_id": end, "eos_token_id": end}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
    }
    return {
        "config.json": _document({**config, **special}),
        "generation_config.json": _document(special),
        "tokenizer.json": text.encode(),
        "tokenizer_config.json": _document(tokenizer_config),
    }


def folder_files(name: str, tokenizer: str) -> dict[str, bytes]:
    """All files of one model's folder, from the tokenizer.json of the real small model."""
    model = MODELS[name]
    kind = model.config["model_type"]
    if kind in embedding_models.FILES:
        unspoken = list[int]()
        files = {"config.json": _document(model.config), **embedding_models.FILES[kind](tokenizer)}
    else:
        text, words, unspoken = cut_tokenizer(tokenizer)
        files = _decoder_files(model.config, text, words)
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
    sources = (Path(__file__).with_name(f"{part}.py") for part in ("embedding_models", "safetensors_file"))
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
