"""The small models under the real names: their files, and what the profiles take of them."""

from __future__ import annotations

import fnmatch
import json
import struct
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.lab.mirror import content
from tests.lab.standins import small_models
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


def header_of(file: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<Q", file)
    header: dict[str, Any] = json.loads(file[8 : 8 + length])
    header.pop("__metadata__")
    assert len(file) == 8 + length + max(entry["data_offsets"][1] for entry in header.values())
    return header


def selected(name: str, weights: dict[str, Any], files: dict[str, bytes]) -> set[str]:
    """What a profile downloads: its patterns, or the ones of a profile that says nothing; never a pickle."""
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
    assert sum(map(len, files.values())) < 8_000_000
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
            assert entry["dtype"] == label
            places[tensor] = path
    assert len(set(places.values())) == model.shards
    if model.shards > 1:
        assert json.loads(files["model.safetensors.index.json"])["weight_map"] == places


@pytest.mark.parametrize("path", sorted(content.PROFILES.glob("*.toml")), ids=lambda path: path.stem)
def test_profiles_take_the_model_and_leave_the_rest(path: Path) -> None:
    weights = tomllib.loads(path.read_text()).get("weights", {})
    name = weights.get("repository")
    if name not in small_models.MODELS:
        pytest.skip("not one of the small models")
    model = small_models.MODELS[name]
    assert weights.get("gated", False) == model.gated
    files = small_models.folder_files(name, TOKENIZER)
    taken = selected(name, weights, files)
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= taken
    assert sum(part.endswith(".safetensors") for part in taken) == model.shards
    # An index of pickles and the like may come along; no weights in another format do.
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
    ],
)
def test_they_are_converted_at_their_profiles_release(
    tmp_path: Path, name: str, family: str, version: str, ranks: int
) -> None:
    folder = tmp_path / "model"
    for path, data in small_models.folder_files(name, TOKENIZER).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    installed = Installed(tmp_path / "install", version)
    installed.see(f"NVIDIA A100-SXM4-40GB:{ranks}")
    done = installed.convert(folder, "--dtype", "float16", "--tp_size", str(ranks), family=family)
    assert done.returncode == 0, done.stderr
    assert installed.build("--gemm_plugin", "float16").returncode == 0
    tokens = installed.decode(8)
    assert len(tokens) == 8
    assert not {0, 1, 2, 3, 4, 5} & set(tokens)
