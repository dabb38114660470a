"""CLIP and BERT sentence embedding as the profiles use them: the real names of tensors and files, small shapes.

What leaves the models keeps its real width (CLIP's projection of 768, MiniLM's 384), because tables are made for it.
Other inputs give clearly other embeddings; they say nothing about what is in a picture or a sentence.
"""

from __future__ import annotations

import json
import string
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shapes = dict[str, tuple[int, ...]]

CLIP: dict[str, Any] = {
    "architectures": ["CLIPModel"],
    "initializer_factor": 1.0,
    "logit_scale_init_value": 2.6592,
    "model_type": "clip",
    "projection_dim": 768,
    "text_config": {
        "model_type": "clip_text_model",
        "hidden_act": "quick_gelu",
        "hidden_size": 96,
        "intermediate_size": 192,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 77,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "projection_dim": 768,
        "vocab_size": 4096,
    },
    "torch_dtype": "float32",
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_act": "quick_gelu",
        "hidden_size": 128,
        "image_size": 224,
        "intermediate_size": 256,
        "layer_norm_eps": 1e-5,
        "num_attention_heads": 8,
        "num_channels": 3,
        "num_hidden_layers": 3,
        "patch_size": 14,
        "projection_dim": 768,
    },
}

BERT: dict[str, Any] = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 384,
    "initializer_range": 0.02,
    "intermediate_size": 512,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "torch_dtype": "float32",
    "type_vocab_size": 2,
    "use_cache": True,
    "vocab_size": 2048,
}

# As in the real file: whole numbers, no rescale_factor; transformers reads them as shortest edge, square and 1/255.
PREPROCESSOR: dict[str, Any] = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}


def _linear(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def _clip_encoder(prefix: str, config: dict[str, Any]) -> Shapes:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes: Shapes = {}
    for number in range(config["num_hidden_layers"]):
        layer = f"{prefix}.encoder.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{layer}.self_attn.{part}", hidden, hidden)
        shapes |= _linear(f"{layer}.mlp.fc1", inner, hidden) | _linear(f"{layer}.mlp.fc2", hidden, inner)
        shapes |= _norm(f"{layer}.layer_norm1", hidden) | _norm(f"{layer}.layer_norm2", hidden)
    return shapes


def clip_shapes(config: dict[str, Any]) -> Shapes:
    """The tensors of transformers' CLIPModel."""
    text, vision, width = config["text_config"], config["vision_config"], config["projection_dim"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    patch = (vision["num_channels"], vision["patch_size"], vision["patch_size"])
    return {
        "logit_scale": (),
        "text_model.embeddings.position_ids": (1, text["max_position_embeddings"]),
        "text_model.embeddings.token_embedding.weight": (text["vocab_size"], text["hidden_size"]),
        "text_model.embeddings.position_embedding.weight": (
            text["max_position_embeddings"],
            text["hidden_size"],
        ),
        **_clip_encoder("text_model", text),
        **_norm("text_model.final_layer_norm", text["hidden_size"]),
        "text_projection.weight": (width, text["hidden_size"]),
        "vision_model.embeddings.class_embedding": (vision["hidden_size"],),
        "vision_model.embeddings.patch_embedding.weight": (vision["hidden_size"], *patch),
        "vision_model.embeddings.position_embedding.weight": (patches + 1, vision["hidden_size"]),
        "vision_model.embeddings.position_ids": (1, patches + 1),
        # the real name, misspelt as it is
        **_norm("vision_model.pre_layrnorm", vision["hidden_size"]),
        **_clip_encoder("vision_model", vision),
        **_norm("vision_model.post_layernorm", vision["hidden_size"]),
        "visual_projection.weight": (width, vision["hidden_size"]),
    }


def bert_shapes(config: dict[str, Any]) -> Shapes:
    """The tensors of transformers' BertModel."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.position_ids": (1, config["max_position_embeddings"]),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
        **_norm("embeddings.LayerNorm", hidden),
    }
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{layer}.attention.self.{part}", hidden, hidden)
        shapes |= _linear(f"{layer}.attention.output.dense", hidden, hidden)
        shapes |= _norm(f"{layer}.attention.output.LayerNorm", hidden)
        shapes |= _linear(f"{layer}.intermediate.dense", inner, hidden)
        shapes |= _linear(f"{layer}.output.dense", hidden, inner)
        shapes |= _norm(f"{layer}.output.LayerNorm", hidden)
    return {**shapes, **_linear("pooler.dense", hidden, hidden)}


SHAPES = {"clip": clip_shapes, "bert": bert_shapes}

# (spread, middle) of a tensor's numbers by a part of its name, the first that fits. A picture's parts must outweigh
# its positions, and attention must choose: means over 257 patches of noise would make all pictures similar.
_SCALES: tuple[tuple[str, float, float], ...] = (
    ("logit_scale", 0.0, 4.6052),
    ("norm.weight", 0.02, 1.0),
    ("norm1.weight", 0.02, 1.0),
    ("norm2.weight", 0.02, 1.0),
    (".bias", 0.02, 0.0),
    ("word_embeddings", 0.05, 0.0),
    ("token_embedding", 0.02, 0.0),
    ("token_type_embeddings", 0.01, 0.0),
    ("position_embedding", 0.01, 0.0),
    ("class_embedding", 0.03, 0.0),
)
_GAIN: tuple[tuple[str, float], ...] = (
    ("q_proj", 1.6),
    ("k_proj", 1.6),
    ("v_proj", 2.0),
    ("out_proj", 2.0),
)


def scaled(tensor: str, spread: NDArray[np.float32]) -> NDArray[Any]:
    """The tensor's numbers out of noise with spread 1 around 0."""
    if tensor.endswith("position_ids"):
        return np.arange(spread.size, dtype=np.int64).reshape(spread.shape)
    lowered = tensor.lower()
    for part, width, middle in _SCALES:
        if part in lowered:
            return spread * np.float32(width) + np.float32(middle)
    gain = next((gain for part, gain in _GAIN if part in tensor), 1.0)
    return spread * np.float32(gain / np.sqrt(np.prod(spread.shape[1:])))


def word_piece(whole: str, size: int) -> tuple[str, list[str]]:
    """(tokenizer.json, vocabulary) of a lower-casing WordPiece with BERT's special tokens at their usual places.

    :param whole: tokenizer.json of the real small model, whose words it takes
    :param size: words in the vocabulary
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    known = json.loads(whole)["model"]["vocab"]
    words = [word[1:] for word in sorted(known, key=known.__getitem__) if word.startswith("Ġ")]
    words = [word for word in words if word.isascii() and word.isalpha() and word.islower() and len(word) > 1]
    single = [*string.digits, *string.ascii_lowercase, *string.punctuation]
    special = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner = [f"##{letter}" for letter in (*string.ascii_lowercase, *string.digits)]
    vocabulary = list(dict.fromkeys([*special, *single, *inner, *words]))[:size]
    vocabulary += [f"[unused{n}]" for n in range(99, 99 + size - len(vocabulary))]
    ids = {word: number for number, word in enumerate(vocabulary)}

    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(word, ids[word]) for word in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=ends
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    # The real file always truncates and pads to 128: a program that reads it must set both again.
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding(length=128, pad_id=ids["[PAD]"], pad_token="[PAD]")
    return tokenizer.to_str(), vocabulary


def _document(content: Any) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"


def clip_files(_: str) -> dict[str, bytes]:
    """What CLIP's folder has beside weights and config.json; the text side's tokenizer is not served."""
    return {"preprocessor_config.json": _document(PREPROCESSOR)}


def bert_files(whole: str) -> dict[str, bytes]:
    """What a sentence-transformers folder has beside weights and config.json."""
    tokenizer, vocabulary = word_piece(whole, BERT["vocab_size"])
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "mask", "pad", "sep", "unk")}
    pooling = {"cls_token": False, "mean_tokens": True, "max_tokens": False, "mean_sqrt_len_tokens": False}
    steps = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize")]
    return {
        "tokenizer.json": tokenizer.encode(),
        "tokenizer_config.json": _document(
            {
                "do_lower_case": True,
                **special,
                "tokenize_chinese_chars": True,
                "strip_accents": None,
                "model_max_length": 512,
                "tokenizer_class": "BertTokenizer",
            }
        ),
        "special_tokens_map.json": _document(special),
        "vocab.txt": "".join(f"{word}\n" for word in vocabulary).encode(),
        "sentence_bert_config.json": _document({"max_seq_length": 256, "do_lower_case": False}),
        "config_sentence_transformers.json": _document({"__version__": {"sentence_transformers": "2.0.0"}}),
        "modules.json": _document(
            [
                {
                    "idx": int(number),
                    "name": number,
                    "path": path,
                    "type": f"sentence_transformers.models.{kind}",
                }
                for number, path, kind in steps
            ]
        ),
        "1_Pooling/config.json": _document(
            {
                "word_embedding_dimension": BERT["hidden_size"],
                **{f"pooling_mode_{name}": value for name, value in pooling.items()},
            }
        ),
    }


FILES = {"clip": clip_files, "bert": bert_files}
