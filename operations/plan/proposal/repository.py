"""What a model's repository holds, and whether it is a model that can be served at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from operations.plan.capacity.described import Description, first_architecture
from operations.plan.catalog.models import MODELS, Model
from operations.plan.errors import PlanError, one_line
from operations.plan.profile.architecture import Architecture
from operations.plan.profile.tables import PICKLE_SUFFIXES

# Small files that are read, and the most bytes of one
SMALL_FILES = (
    *("config.json", "generation_config.json", "tokenizer_config.json", "hf_quant_config.json"),
    *("adapter_config.json", "chat_template.jinja"),
)
LARGEST_SMALL_FILE = 16 * 2**20  # bytes; a tokenizer_config.json lists every added token
DEEPEST = 100  # levels of tables in one of them

_SHARD = re.compile(r"(?P<name>model)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors")
_WHOLE = ("model.safetensors",)
# Files by which sentence-transformers knows its models
_EMBEDDING = frozenset({"modules.json", "config_sentence_transformers.json"})
_CONTINUES = re.compile(r"(CausalLM|LMHead|LMHeadModel|ConditionalGeneration)$")


@dataclass(frozen=True)
class Repository:
    """
    A repository at one commit.

    + files: path -> bytes; 0 where the size is not known
    + gated: whether a download needs a token
    + template: the chat template; empty without one
    + counts: type of the stored numbers -> how many, by the headers of the safetensors files; empty where they were not read
    """

    name: str
    revision: str
    files: Mapping[str, int]
    gated: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    quantization: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    adapter: Mapping[str, Any] = field(default_factory=dict)
    template: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def weight_files(self) -> dict[str, int]:
        """The files that are the model's weights: path -> bytes. Other formats lie in folders, or beside them under other names."""
        there = {path: size for path, size in self.files.items() if path in _WHOLE or _SHARD.fullmatch(path)}
        if _WHOLE[0] in there:
            return {_WHOLE[0]: there[_WHOLE[0]]}
        return there or {
            path: size
            for path, size in self.files.items()
            if path.endswith(".safetensors") and "/" not in path and not path.startswith("consolidated")
        }

    @property
    def other_weights(self) -> list[str]:
        """Patterns of the safetensors files that are not downloaded: folders, and names beside the weights."""
        others = [
            path for path in self.files if path.endswith(".safetensors") and path not in self.weight_files
        ]
        return sorted({f"{path.partition('/')[0]}/*" if "/" in path else path for path in others})

    @property
    def description(self) -> Description:
        """What the checks before a download read."""
        return Description(self.config, self.quantization, sum(self.weight_files.values()))

    @cached_property
    def architecture(self) -> Architecture | None:
        """The model's own numbers; None where config.json has them in a form that is not read."""
        try:
            return Architecture.from_config(self.config)
        except PlanError:
            return None

    @property
    def row(self) -> Model:
        """The architecture's row of the model table. Raises PlanError where it has none."""
        name = first_architecture(self.config)
        if name not in MODELS:
            raise _refused(
                self,
                one_line(name)[:80] or "no architectures in config.json",
                "an architecture of the model table",
                "`tritonhost models` lists them",
                "unknown-architecture",
            )
        return MODELS[name]


def check_servable(found: Repository) -> None:
    """
    Refuse a repository that has no whole model that continues a text, in files that can be read safely.

    Raises PlanError that says what it is instead.
    """
    _check_kind_of_repository(found)
    _check_kind_of_model(found)
    _check_weights(found)


def _check_kind_of_repository(found: Repository) -> None:
    if "adapter_config.json" in found.files and not found.weight_files.keys() - {_ADAPTER}:
        base = found.adapter.get("base_model_name_or_path")
        then = f"tritonhost new {base}" if isinstance(base, str) and "/" in base else "name its base model"
        raise _refused(found, "an adapter without its model", "a whole model", then, "adapter-only")
    if found.config:
        return
    for suffix, what, then in (
        (".gguf", "GGUF files alone", "name the repository that they were converted from"),
        ("model_index.json", "a pipeline of diffusers", "choose a model that continues a text"),
        (
            "params.json",
            "weights in the format of their authors",
            "name the repository in the format of transformers",
        ),
    ):
        if any(path.endswith(suffix) for path in found.files):
            raise _refused(
                found, what, "a model in the format of transformers, with config.json", then, "no-config"
            )
    then = "choose a repository in the format of Hugging Face's transformers"
    raise _refused(found, "no config.json", "a model in the format of transformers", then, "no-config")


_ADAPTER = "adapter_model.safetensors"


def _check_kind_of_model(found: Repository) -> None:
    name = first_architecture(found.config)
    expected = "a model that continues a text"
    if _EMBEDDING & found.files.keys():
        then = "an embedding model is an encoder of kind plan: docs/how-to/documents.md"
        raise _refused(found, "an embedding model", expected, then, "not-a-language-model")
    if found.config.get("is_encoder_decoder") is True:
        then = "choose a model that is a decoder alone"
        raise _refused(found, f"an encoder and a decoder ({name})", expected, then, "not-a-language-model")
    row = MODELS.get(name)
    if (row and row.purpose) or (name and row is None and not _CONTINUES.search(name)):
        what = (
            f"{name}, which {row.purpose}"
            if row
            else f"{one_line(name)[:80]}, an encoder or a part of a model"
        )
        raise _refused(found, what, expected, "choose another model", "not-a-language-model")


def _check_weights(found: Repository) -> None:
    weights = found.weight_files
    expected = "weights in safetensors"
    if not weights:
        pickles = [path for path in found.files if path.lower().endswith(PICKLE_SUFFIXES)]
        if pickles:
            then = (
                "loading a pickle runs the code in it: choose a repository with safetensors, or write the profile yourself "
                "with weights.allow_pickle = true"
            )
            raise _refused(found, f"pickles alone ({pickles[0]})", expected, then, "pickled-weights")
        inner = [path for path in found.files if path.endswith(".safetensors")]
        if any("/" not in path for path in inner):
            then = "name the repository in the format of transformers"
            raise _refused(
                found, "weights in the format of their authors alone", expected, then, "no-weights"
            )
        if inner:
            then = "choose a repository with the model's files at its root"
            raise _refused(
                found,
                f"weights in a folder alone ({inner[0]})",
                f"{expected} at the root",
                then,
                "no-weights",
            )
        if any(path.endswith(".gguf") for path in found.files):
            then = "name the repository that they were converted from"
            raise _refused(found, "GGUF files alone", expected, then, "no-weights")
        raise _refused(found, "no weights", expected, "choose another repository", "no-weights")
    for path in sorted(weights):
        if shard := _SHARD.fullmatch(path):
            total = int(shard["total"])
            names = [
                f"{shard['name']}-{n:05}-of-{shard['total']}.safetensors"
                for n in range(1, min(total, 9999) + 1)
            ]
            if missing := [name for name in names if name not in weights]:
                what = f"{total - len(missing)} of {total} files of weights; {missing[0]} is missing"
                raise _refused(found, what, "all of them", "its upload is not complete", "incomplete-weights")


def _refused(found: Repository, what: str, expected: str, then: str, reference: str) -> PlanError:
    return PlanError(found.name, what, expected, then, reference=reference)
