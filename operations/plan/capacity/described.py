"""Checks the hub's small files of a model against the profile, the release and the GPUs. config.json takes precedence.

They are read before the weights are downloaded. An operator writes a profile, often from another profile; config.json
came with the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from operations.plan.capacity.fit import check_capacity
from operations.plan.capacity.gpu import Gpu
from operations.plan.capacity.number_formats import check_stored
from operations.plan.catalog.models import CONVERTED, MODELS, ROPE_SINCE, VARIANTS
from operations.plan.catalog.support_matrix import RELEASES, StackRelease, converter_folder
from operations.plan.errors import PlanError, one_line
from operations.plan.profile.architecture import Architecture, printable, rope_type_of
from operations.plan.profile.profiles import EngineProfile, LlmApiProfile, PlanProfile, Profile
from operations.plan.profile.stored_format import StoredFormat, stored_format
from operations.plan.profile.tables import Encoder
from operations.plan.units import MIB, dotted, gib

# Files of a repository that describe it, and the sizes that the hub states for its weights
CONFIG, QUANTIZATION, SIZES = "config.json", "hf_quant_config.json", "hub-sizes.json"

# Words in a repository's name -> what its weights usually are
_NAMED = {
    **dict.fromkeys(
        ("awq", "gptq", "bnb", "fp8", "nvfp4", "int4", "int8", "w4a16", "w8a8"), "quantized already"
    ),
    **dict.fromkeys(
        (
            *(
                "qwen",
                "qwen2",
                "qwen3",
                "phi",
                "gemma",
                "falcon",
                "gpt-j",
                "gptj",
                "bloom",
                "mpt",
                "opt",
                "chatglm",
            ),
            *("glm", "internlm", "baichuan", "deepseek-v2", "deepseek-v3", "granite", "olmo", "mamba"),
        ),
        "of another architecture",
    ),
}


def named_otherwise(profile: EngineProfile) -> tuple[str, ...]:
    """
    A warning if the repository's name suggests that the converter cannot read it: known before the hub is queried.

    A name proves nothing, so nothing is refused here: config.json decides.
    """
    recipe = profile.checkpoint
    name = profile.weights.repository.partition("/")[2].lower()
    for word, what in _NAMED.items():
        told = recipe.model_type or str(recipe.flags.get("weight_only_precision", "")).endswith(f"_{word}")
        if not told and re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z])", name):
            return (
                f"weights.repository: {profile.weights.repository} may be {what} ({word}): {converter_folder(recipe.family)}'s "
                "converter reads 16-bit weights of its own models; config.json is read before the download",
            )
    return ()


@dataclass(frozen=True)
class Description:
    """
    The small files of one repository; empty if the hub has none.

    + weight_bytes: of the weights' files together; 0: not known
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    quantization: Mapping[str, Any] = field(default_factory=dict)
    weight_bytes: int = 0

    @property
    def stored(self) -> StoredFormat | None:
        """How the weights are quantized already; None for 16 or 32 bits."""
        return stored_format(self.config, self.quantization)


def check_described(
    profile: Profile, stack: StackRelease, gpus: tuple[Gpu, ...], described: Mapping[str, Description]
) -> tuple[str, ...]:
    """
    Refuse weights that are not what the profile says, or that the release or the GPUs cannot run.

    + described: by role: `weights`, or for kind plan the encoders' names

    Raises PlanError naming the file's key. Returns warnings, one line each.
    """
    if isinstance(profile, PlanProfile):
        for role, encoder in profile.encoders.items():
            _check_encoder(role, encoder, described[role])
        return ()
    described_model = described["weights"]
    if not described_model.config:
        raise PlanError(
            "config.json",
            "nothing",
            f"the model's own, in {profile.weights.repository} at {profile.weights.revision}",
            "choose a repository in the format of Hugging Face's transformers",
        )
    if isinstance(profile, EngineProfile):
        _check_converter(profile, stack, described_model)
        architecture, unread = _numbers(described_model)
        return (*unread, *check_capacity(profile, stack, gpus, architecture))
    return _check_llm_api(profile, stack, gpus, described_model)


def _check_converter(profile: EngineProfile, stack: StackRelease, described: Description) -> None:
    recipe = profile.checkpoint
    found = described.config.get("model_type")
    folder = converter_folder(recipe.family)
    allowed = CONVERTED[folder] | ({recipe.model_type} if recipe.model_type else set())
    if found not in allowed:
        raise PlanError(
            "config.json: model_type",
            "nothing" if found is None else printable(found),
            f"one of {', '.join(sorted(allowed))}, which {folder}'s converter reads (checkpoint.family is {recipe.family})",
            "use kind = 'llmapi', which serves the weights as they are, or weights of that family",
        )
    variant = recipe.flags.get("gpt_variant", "gpt2")
    if folder == "gpt" and variant not in VARIANTS.get(str(found), (variant,)):
        raise PlanError(
            "checkpoint.flags.gpt_variant",
            variant,
            f"{' or '.join(VARIANTS[str(found)])}, because config.json: model_type is {found}",
            "set it",
        )
    stored = described.stored
    if stored is not None and not _reads_quantized(recipe.flags, stored):
        raise PlanError(
            f"{stored.key}",
            f"weights of {stored.words}",
            "weights of 16 or 32 bits, which the converter reads",
            "use kind = 'llmapi', or the repository that they were quantized from",
        )
    rope = rope_type_of(described.config)
    check_rope(rope, stack, "config.json: rope_scaling")


def check_rope(rope: str | None, stack: StackRelease, key: str) -> None:
    """Refuse a rope type that the release's converters do not know: Llama 3.1 before 24.08."""
    since = ROPE_SINCE.get(rope or "")
    if since is not None and stack.version < since:
        raise PlanError(
            key,
            f"rope type {rope}",
            f"TensorRT-LLM {dotted(since)} or later for it; release {stack.release} has {stack.tensorrt_llm}",
            f"set image.release to {min(r for r, row in RELEASES.items() if row.version >= since)} or later",
        )


def _reads_quantized(flags: Mapping[str, object], stored: StoredFormat) -> bool:
    """Whether the converter was told to read weights of this format: AutoGPTQ's and AutoAWQ's by weight_only_precision."""
    said = str(flags.get("weight_only_precision", ""))
    return bool(flags.get("use_weight_only")) and said.endswith(f"_{stored.method}")


def _check_llm_api(
    profile: LlmApiProfile, stack: StackRelease, gpus: tuple[Gpu, ...], described: Description
) -> tuple[str, ...]:
    warnings = _registered(stack, first_architecture(described.config))
    stored = described.stored
    if stored is not None:
        check_stored(stored, stack, gpus[0])
    _check_heads(profile, described.config)
    _check_size(profile, gpus[0], described)
    architecture, unread = _numbers(described)
    return (*warnings, *unread, *check_capacity(profile, stack, gpus, architecture, stored))


def first_architecture(config: Mapping[str, Any]) -> str:
    """The class by which TensorRT-LLM and transformers select a model's code; empty if config.json names none."""
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""


def _registered(stack: StackRelease, name: str) -> list[str]:
    """Refuse an architecture that the release's PyTorch backend does not have; warnings for what only may go wrong."""
    row = MODELS.get(name)
    if row is None:
        return [
            f"config.json: architectures: {one_line(name)[:80] or 'none'} is in no list of the PyTorch backend that was read: "
            f"whether TensorRT-LLM {stack.tensorrt_llm} has it shows when the server starts"
        ]
    if row.pytorch is None or stack.version < row.pytorch:
        newest = max(RELEASES)
        there = row.pytorch is not None and RELEASES[newest].version >= row.pytorch
        raise PlanError(
            "config.json: architectures",
            name,
            f"an architecture of the PyTorch backend of TensorRT-LLM {stack.tensorrt_llm} (release {stack.release})",
            f"use image.release {newest}" if there else "no release has it; choose another model",
        )
    if row.purpose:
        raise PlanError(
            "config.json: architectures",
            f"{name}, which {row.purpose}",
            "a model that continues a text",
            "choose another model",
        )
    return (
        [f"config.json: architectures: {name} also takes pictures; only text is served"] if row.sees else []
    )


def _numbers(described: Description) -> tuple[Architecture | None, tuple[str, ...]]:
    """The model's own numbers. If they cannot be read, None and a warning: then the profile's count is used, if any."""
    try:
        return Architecture.from_config(described.config), ()
    except PlanError as error:
        return None, (f"not forecast beyond the size of the weights: {one_line(str(error))}",)


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that describes the language model, if the model also sees or hears."""
    inner = config.get("text_config", config.get("llm_config"))
    return inner if isinstance(inner, Mapping) else config


def _check_heads(profile: LlmApiProfile, config: Mapping[str, Any]) -> None:
    """Each rank must have the same number of heads, in any architecture."""
    heads, size = _text(config).get("num_attention_heads"), profile.tensor_parallel
    if type(heads) is not int or heads < 1 or profile.llm.get("enable_attention_dp") or heads % size == 0:
        return
    degrees = ", ".join(str(n) for n in range(1, 65) if heads % n == 0)
    raise PlanError(
        "llm.tensor_parallel_size",
        size,
        f"one of {degrees}",
        f"config.json: num_attention_heads {heads} is not divisible by it",
    )


def _check_size(profile: LlmApiProfile, gpu: Gpu, described: Description) -> None:
    """Checks the size of the files, for which no architecture is needed: a rank holds at least its share of them."""
    share, memory = described.weight_bytes // profile.gpus_needed, gpu.memory_total_mib * MIB
    if not memory or share <= memory:
        return
    raise PlanError(
        "llm.tensor_parallel_size",
        f"{profile.tensor_parallel}: {gib(share)} of weights for each GPU",
        f"at most {gib(memory)}, all the memory of one {one_line(gpu.name)[:60]}",
        f"raise it to {-(-described.weight_bytes // memory)} or more, or use weights of fewer bits",
    )


# config.json's model types of each kind of encoder
_ENCODERS = {"clip_vision": ("clip", "clip_vision_model"), "bert": ("bert",)}


def _check_encoder(role: str, encoder: Encoder, described: Description) -> None:
    config = described.config
    if not config:
        return  # the exporter reports what it lacks
    found = config.get("model_type")
    if found not in _ENCODERS[encoder.architecture]:
        raise PlanError(
            f"encoders.{role}: config.json: model_type",
            "nothing" if found is None else printable(found),
            f"{' or '.join(_ENCODERS[encoder.architecture])}, as encoders.{role}.architecture is {encoder.architecture}",
            "correct the architecture or the repository",
        )
    vision = config.get("vision_config")
    inner = vision if isinstance(vision, Mapping) else config
    size = (
        config.get("projection_dim") if encoder.architecture == "clip_vision" else config.get("hidden_size")
    )
    pairs = [("embedding_size", encoder.embedding_size, size)]
    if encoder.architecture == "clip_vision":
        pairs.append(("image_size", encoder.image_size, inner.get("image_size")))
    for name, said, is_there in pairs:
        if type(is_there) is int and is_there != said:
            raise PlanError(f"encoders.{role}.{name}", said, f"{is_there}, as config.json says", "correct it")
