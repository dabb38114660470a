"""The small models under the real names: their files, and which of them the profiles download."""

from __future__ import annotations

import fnmatch
import json
import math
import struct
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from operations.hub_repository import read_directory
from operations.plan.inventory.hosts import read_group_data
from operations.plan.paths import PROJECT
from operations.plan.profile.architecture import Architecture
from operations.plan.proposal.choice import Wanted
from operations.plan.proposal.propose import propose
from tests.lab.mirror import content
from tests.lab.standins import embedding_models, small_models
from tests.lab.standins.installed import Installed

PIECES = ["<|endoftext|>", "a", "b", "Ġ", "ab", "Ġab", "abab"]
TOKENIZER = json.dumps(
    {
        "added_tokens": [{"id": 0, "content": "<|endoftext|>", "special": True}],
        "model": {
            "type": "BPE",
            "vocab": {word: number for number, word in enumerate(PIECES)} | {"abb": 5000},
            "merges": ["a b", "Ġ ab", "ab ab", "ab b"],
        },
    }
)


EMBEDDING = {
    name for name, model in small_models.MODELS.items() if model.config["model_type"] in ("clip", "bert")
}
CLIP, MINILM = "openai/clip-vit-large-patch14", "sentence-transformers/all-MiniLM-L6-v2"


def header_of(file: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<Q", file)
    header: dict[str, Any] = json.loads(file[8 : 8 + length])
    header.pop("__metadata__")
    assert len(file) == 8 + length + max(entry["data_offsets"][1] for entry in header.values())
    return header


def selected(name: str, weights: dict[str, Any], files: dict[str, bytes]) -> set[str]:
    """The files that a profile downloads: by its patterns or the default ones, but never a pickle."""
    include = weights.get("include", ["*.safetensors", "*.json", "tokenizer.model", "*.txt"])
    exclude = weights.get("exclude", ["consolidated*"])

    def any_of(path: str, patterns: list[str]) -> bool:
        return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)

    return {path for path in files if any_of(path, include) and not any_of(path, exclude)}


@pytest.fixture(scope="module", params=sorted(small_models.MODELS))
def made(request: pytest.FixtureRequest) -> tuple[str, dict[str, bytes]]:
    return request.param, small_models.folder_files(request.param, TOKENIZER)


def test_a_model_is_small_and_the_same_each_time(made: tuple[str, dict[str, bytes]]) -> None:
    name, files = made
    assert sum(map(len, files.values())) < 13_000_000
    assert files == small_models.folder_files(name, TOKENIZER)
    assert b"lab stand-in" in files["README.md"]
    assert b"gibberish" in files["README.md"]


def test_shards_hold_every_tensor_once(made: tuple[str, dict[str, bytes]]) -> None:
    name, files = made
    model = small_models.MODELS[name]
    label = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}[model.config["torch_dtype"]]
    places: dict[str, str] = {}
    for path in sorted(files):
        if not path.startswith("model") or not path.endswith(".safetensors"):
            continue
        for tensor, entry in header_of(files[path]).items():
            assert tensor not in places
            assert entry["dtype"] == ("I64" if tensor.endswith("position_ids") else label)
            places[tensor] = path
    assert len(set(places.values())) == model.shards
    if model.shards > 1:
        assert json.loads(files["model.safetensors.index.json"])["weight_map"] == places


def written(folder: Path, name: str) -> Path:
    for path, data in small_models.folder_files(name, TOKENIZER).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


@pytest.mark.parametrize("name", sorted(small_models.MODELS.keys() - EMBEDDING))
def test_weights_are_those_of_the_config(name: str) -> None:
    """A forecast counts what config.json says, and `new` warns where the files hold less."""
    files = small_models.folder_files(name, TOKENIZER)
    headers = [header_of(data) for path, data in files.items() if path.startswith("model-0")]
    headers = headers or [header_of(files["model.safetensors"])]
    stored = sum(math.prod(entry["shape"]) for header in headers for entry in header.values())
    assert Architecture.from_config(json.loads(files["config.json"])).parameters == stored


CHATS = {
    "mistralai/Mistral-7B-Instruct-v0.3": ("engine", "[INST] What is machine learning? [/INST]"),
    "Qwen/Qwen2.5-0.5B-Instruct": ("llmapi", "<|im_start|>user\nWhat is machine learning?<|im_end|>\n"),
    "Qwen/Qwen3-8B": ("llmapi", "<|im_start|>user\nWhat is machine learning?<|im_end|>\n"),
    "microsoft/Phi-3-mini-4k-instruct": ("llmapi", "<|user|>\nWhat is machine learning?<|end|>\n"),
}


@pytest.mark.parametrize("name", CHATS)
def test_new_proposes_a_profile_for_a_chat_model(tmp_path: Path, name: str) -> None:
    kind, prompt = CHATS[name]
    revision = small_models.MODELS[name].revision
    found = read_directory(written(tmp_path / "model", name), name, revision)
    data = read_group_data(PROJECT / "inventories" / "group_data" / "all.py")
    proposal = propose(found, Wanted("NVIDIA A10:1", context=512), "from-hub", data)
    profile = tomllib.loads(proposal.text)
    assert (profile["kind"], profile["image"]["release"]) == (kind, "26.07")
    assert profile["golden"][0]["prompt"].startswith(prompt)
    assert proposal.warnings == ()


@pytest.mark.parametrize("name", CHATS)
def test_markup_is_tokens_of_their_own(name: str) -> None:
    chat = small_models.MODELS[name].chat
    text, words, unspoken = small_models.cut_tokenizer(TOKENIZER, chat.all_tokens)
    special = {token["content"]: token["id"] for token in json.loads(text)["added_tokens"]}
    files = small_models.folder_files(name, TOKENIZER)
    assert files["tokenizer.json"] == text.encode()
    for token in chat.all_tokens:
        assert special[token] == words[token] < small_models.CHAT_VOCABULARY
        assert words[token] in unspoken
    ends = json.loads(files["generation_config.json"])["eos_token_id"]
    assert {words[token] for token in chat.ends} == set(ends if isinstance(ends, list) else [ends])
    assert json.loads(files["config.json"])["eos_token_id"] == words[chat.tokens["eos_token"] or ""]


def decoder_profiles() -> list[Path]:
    """The profiles whose weights are one of the small decoders."""
    named = {
        path: tomllib.loads(path.read_text()).get("weights", {}).get("repository")
        for path in sorted(content.PROFILES.glob("*.toml"))
    }
    return [path for path, name in named.items() if name in small_models.MODELS and name not in EMBEDDING]


@pytest.mark.parametrize("path", decoder_profiles(), ids=lambda path: path.stem)
def test_profiles_select_the_model_and_no_other_format(path: Path) -> None:
    weights = tomllib.loads(path.read_text())["weights"]
    name = weights["repository"]
    model = small_models.MODELS[name]
    assert weights.get("gated", False) == model.gated
    files = small_models.folder_files(name, TOKENIZER)
    taken = selected(name, weights, files)
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= taken
    assert sum(part.endswith(".safetensors") for part in taken) == model.shards
    # An index of pickles and similar JSON files may be downloaded, but no weights in another format.
    assert {part for part in taken & model.decoys.keys() if not part.endswith(".json")} == set()


def test_the_tokenizer_is_cut_to_whole_pieces() -> None:
    text, words, unspoken = small_models.cut_tokenizer(TOKENIZER)
    model = json.loads(text)["model"]
    assert list(words) == PIECES
    assert model["merges"] == ["a b", "Ġ ab", "ab ab"]
    assert unspoken == [0, 1, 2, 3, 4, 5]  # special, single letters, and pieces too short to look like words


@pytest.mark.parametrize(
    ("name", "family", "version", "ranks"),
    [
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "llama", "v0.13.0", 8),
        ("meta-llama/Llama-2-7b-hf", "llama", "v0.9.0", 4),
        ("openai-community/gpt2-medium", "gpt", "v1.2.1", 1),
        ("mistralai/Mistral-7B-Instruct-v0.3", "llama", "v1.2.1", 2),
    ],
)
def test_small_models_convert_at_their_profiles_release(
    tmp_path: Path, name: str, family: str, version: str, ranks: int
) -> None:
    folder = written(tmp_path / "model", name)
    installed = Installed(tmp_path / "install", version)
    installed.see(f"NVIDIA A100-SXM4-40GB:{ranks}")
    done = installed.convert(folder, "--dtype", "float16", "--tp_size", str(ranks), family=family)
    assert done.returncode == 0, done.stderr
    assert installed.build("--gemm_plugin", "float16").returncode == 0
    tokens = installed.decode(8)
    assert len(tokens) == 8
    assert not {0, 1, 2, 3, 4, 5} & set(tokens)


def test_clip_has_the_tensors_of_both_towers() -> None:
    files = small_models.folder_files(CLIP, TOKENIZER)
    shapes = {name: entry["shape"] for name, entry in header_of(files["model.safetensors"]).items()}
    assert shapes["vision_model.embeddings.patch_embedding.weight"] == [128, 3, 14, 14]
    assert shapes["vision_model.embeddings.position_embedding.weight"] == [257, 128]
    assert shapes["visual_projection.weight"] == [768, 128]
    assert shapes["logit_scale"] == []
    for name in (
        "vision_model.embeddings.class_embedding",
        "vision_model.pre_layrnorm.bias",
        "vision_model.encoder.layers.2.self_attn.out_proj.bias",
        "vision_model.encoder.layers.0.layer_norm2.weight",
        "vision_model.encoder.layers.0.mlp.fc2.bias",
        "vision_model.post_layernorm.weight",
        "text_model.encoder.layers.1.self_attn.q_proj.weight",
        "text_model.final_layer_norm.weight",
        "text_projection.weight",
    ):
        assert name in shapes
    preprocessor = json.loads(files["preprocessor_config.json"])
    assert (preprocessor["size"], preprocessor["crop_size"], preprocessor["resample"]) == (224, 224, 3)


def test_bert_has_the_names_that_sentence_transformers_reads() -> None:
    files = small_models.folder_files(MINILM, TOKENIZER)
    shapes = {name: entry["shape"] for name, entry in header_of(files["model.safetensors"]).items()}
    config = json.loads(files["config.json"])
    assert shapes["embeddings.word_embeddings.weight"] == [config["vocab_size"], 384]
    for name in (
        "embeddings.token_type_embeddings.weight",
        "embeddings.LayerNorm.bias",
        "encoder.layer.1.attention.self.query.bias",
        "encoder.layer.0.attention.output.dense.weight",
        "encoder.layer.0.attention.output.LayerNorm.weight",
        "encoder.layer.0.intermediate.dense.bias",
        "encoder.layer.0.output.dense.weight",
        "encoder.layer.0.output.LayerNorm.bias",
        "pooler.dense.weight",
    ):
        assert name in shapes
    assert json.loads(files["1_Pooling/config.json"])["pooling_mode_mean_tokens"] is True
    assert json.loads(files["sentence_bert_config.json"])["max_seq_length"] == 256


def test_word_pieces_cover_any_lower_case_text() -> None:
    words = json.dumps({"added_tokens": [], "model": {"vocab": {"Ġcat": 7, "Ġdata": 8, "Ġa": 9, "Cat": 10}}})
    text, vocabulary = embedding_models.word_piece(words, 400)
    assert len(vocabulary) == len(set(vocabulary)) == 400
    assert [vocabulary[n] for n in (0, 100, 101, 102, 103)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer.from_str(text)
    assert len(tokenizer.encode("A cat").ids) == 128  # padded and cut, as the real file says
    tokenizer.no_padding()
    assert tokenizer.encode("A Cat, database!").tokens == [
        "[CLS]", "a", "cat", ",", "data", "##b", "##a", "##s", "##e", "!", "[SEP]",
    ]  # fmt: skip
    assert tokenizer.encode("a", "cat").type_ids == [0, 0, 0, 1, 1]


def _normed(x: Any, weights: dict[str, Any], name: str, epsilon: float) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _linear(x: Any, weights: dict[str, Any], name: str) -> Any:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _attended(x: Any, weights: dict[str, Any], names: list[str], heads: int) -> Any:
    size = x.shape[-1] // heads
    q, k, v = (_linear(x, weights, name).reshape(len(x), heads, size).swapaxes(0, 1) for name in names)
    score = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(size))
    return (score / score.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(x), -1)


def picture_embedding(weights: dict[str, Any], picture: Any) -> Any:
    """CLIP's vision tower in a plain implementation."""
    config = small_models.MODELS[CLIP].config["vision_config"]
    side, patch, width = 16, config["patch_size"], config["hidden_size"]
    cut = picture.reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
    x = cut @ weights["vision_model.embeddings.patch_embedding.weight"].reshape(width, -1).T
    x = np.vstack([weights["vision_model.embeddings.class_embedding"], x])
    x = x + weights["vision_model.embeddings.position_embedding.weight"]
    x = _normed(x, weights, "vision_model.pre_layrnorm", 1e-5)
    for number in range(config["num_hidden_layers"]):
        layer = f"vision_model.encoder.layers.{number}"
        names = [f"{layer}.self_attn.{part}_proj" for part in "qkv"]
        heads = config["num_attention_heads"]
        inner = _attended(_normed(x, weights, f"{layer}.layer_norm1", 1e-5), weights, names, heads)
        x = x + _linear(inner, weights, f"{layer}.self_attn.out_proj")
        inner = _linear(_normed(x, weights, f"{layer}.layer_norm2", 1e-5), weights, f"{layer}.mlp.fc1")
        x = x + _linear(inner / (1 + np.exp(-1.702 * inner)), weights, f"{layer}.mlp.fc2")
    pooled = (
        _normed(x[0], weights, "vision_model.post_layernorm", 1e-5) @ weights["visual_projection.weight"].T
    )
    return pooled / np.linalg.norm(pooled)


def test_different_pictures_have_different_embeddings() -> None:
    weights = dict(small_models.random_weights(CLIP, small_models.MODELS[CLIP].config))
    colours = {"red": (2, -2, -1), "dark red": (1.5, -1.5, -1), "blue": (-2, -2, 2), "white": (2, 2, 2)}
    found = {
        name: picture_embedding(weights, np.broadcast_to(np.reshape(rgb, (3, 1, 1)), (3, 224, 224)))
        for name, rgb in colours.items()
    }
    assert found["red"].shape == (768,)
    assert found["red"] @ found["dark red"] > 0.9
    assert (
        max(found["red"] @ found["blue"], found["red"] @ found["white"], found["blue"] @ found["white"]) < 0.5
    )
