"""Values of a profile that must agree with one another: engine against config.pbtxt, server against engine.

Each value alone may be valid. TensorRT-LLM and Triton compare them when the server starts, or when a request comes, after
hours of work. Here they are compared before anything is downloaded.

The backend itself does not compare triton_max_batch_size with the engine: batches above the engine's fail when they come.

Sources: model_instance_state.cc and executor's checks in NVIDIA's tensorrtllm_backend and TensorRT-LLM, and reports of their
users: tensorrtllm_backend issues 115, 130, 140, 271, 511, 624 and 645, TensorRT-LLM issues 478, 718, 2166, 6539 and 9277.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from operations.plan.errors import PlanError
from operations.plan.profile.model_repository import DEFAULTS
from operations.plan.profile.profiles import EngineProfile, LlmApiProfile, Profile
from operations.plan.units import dotted

Version = tuple[int, ...]

# From this version on trtllm-build makes engines with paged context FMHA by default: "commands/trtllm-build" in the
# documentation of 0.18.2 and 0.19.0
PAGED_CONTEXT_FMHA_FROM: Version = (0, 19)
# Batching without in-flight requests was removed: model_instance_state.cc after v0.19.0 refuses V1
LAST_V1: Version = (0, 19)
# Beam search for streaming: in the release notes of 0.13, in the executor's code of 0.12
STREAMED_BEAMS_FROM: Version = (0, 12)
# The PyTorch backend's defaults in 1.x: llm_args.py
LLM_MAX_NUM_TOKENS = 8192


@dataclass(frozen=True)
class Values:
    """A profile's values by their keys, and TensorRT-LLM's defaults for the others."""

    said: Mapping[str, Any]
    version: Version
    ranks: int

    def __getitem__(self, key: str) -> Any:
        return self.said.get(key, self.default(key))

    def default(self, key: str) -> Any:
        """The value without a setting; None if that is not a single value."""
        table, _, name = key.rpartition(".")
        if key in _DEFAULTS:
            return _DEFAULTS[key](self.version)
        return DEFAULTS.get(name) if table == "repository.parameters" else None

    def shown(self, key: str) -> object:
        """The value for an error, and whether it is the default."""
        return self[key] if key in self.said else f"{self[key]}, the default"


_DEFAULTS: dict[str, Callable[[Version], Any]] = {
    "engine.max_beam_width": lambda version: 1,
    "engine.max_batch_size": lambda version: 1 if version < (0, 11) else 256 if version < (0, 14) else 2048,
    "engine.max_num_tokens": lambda version: None if version < (0, 11) else 8192,
    "engine.use_paged_context_fmha": lambda version: (
        "enable" if version >= PAGED_CONTEXT_FMHA_FROM else "disable"
    ),
    "engine.remove_input_padding": lambda version: "enable",
    "engine.gpt_attention_plugin": lambda version: "auto",
    "engine.paged_kv_cache": lambda version: "enable",
    "engine.kv_cache_type": lambda version: "paged",
    "repository.parameters.max_beam_width": lambda version: 1,
    "repository.parameters.enable_kv_cache_reuse": lambda version: False,
    "repository.parameters.enable_chunked_context": lambda version: False,
    "llm.tensor_parallel_size": lambda version: 1,
    "llm.max_num_tokens": lambda version: LLM_MAX_NUM_TOKENS,
    "llm.max_beam_width": lambda version: 1,
    "llm.enable_chunked_prefill": lambda version: False,
}


@dataclass(frozen=True)
class Relation:
    """
    One relation of two or more values.

    + keys: those that disagree; the first is the one to correct
    + broken: what is expected of the first key's value; empty if the relation holds
    + then: what to do
    + certain: false for a value that only limits requests: a warning
    """

    keys: tuple[str, ...]
    broken: Callable[[Values], str]
    then: str
    certain: bool = True


_REPOSITORY = "repository.parameters"
_PAGED = "engine.use_paged_context_fmha"


def _at_most(left: str, right: str) -> Callable[[Values], str]:
    def broken(values: Values) -> str:
        if not isinstance(values[left], int) or not isinstance(values[right], int):
            return ""
        return f"at most {values.shown(right)} of {right}" if values[left] > values[right] else ""

    return broken


def _needs_paged_context(switch: str) -> Callable[[Values], str]:
    def broken(values: Values) -> str:
        lacks = values[switch] is True and values[_PAGED] != "enable"
        return f"false where {_PAGED} is {values.shown(_PAGED)}" if lacks else ""

    return broken


def _onboarded(values: Values) -> str:
    off = values[f"{_REPOSITORY}.kv_cache_onboard_blocks"] is False and values[_PAGED] == "enable"
    return f"true where {_PAGED} is {values.shown(_PAGED)}" if off else ""


def _in_flight(values: Values) -> bool:
    return str(values[f"{_REPOSITORY}.batching_strategy"]).startswith("inflight")


def _needs_in_flight(key: str, off: tuple[str, ...]) -> Callable[[Values], str]:
    def broken(values: Values) -> str:
        if key not in values.said or values[key] not in off or not _in_flight(values):
            return ""
        strategy = values.shown(f"{_REPOSITORY}.batching_strategy")
        return f"another value with batching_strategy {strategy}, which takes requests while others run"

    return broken


def _no_v1(values: Values) -> str:
    old = not _in_flight(values) and values.version[:2] > LAST_V1
    return (
        f"inflight_fused_batching with TensorRT-LLM {dotted(values.version)}: V1 was removed" if old else ""
    )


def _streamed_beams(values: Values) -> str:
    beams = values[f"{_REPOSITORY}.max_beam_width"]
    both = values[f"{_REPOSITORY}.decoupled_mode"] is True and isinstance(beams, int) and beams > 1
    if not both or values.version >= STREAMED_BEAMS_FROM:
        return ""
    return f"1 with decoupled_mode true: TensorRT-LLM {dotted(values.version)} streams one beam (0.12 and later several)"


_ONE_BEAM_MODES = ("top_k", "top_p", "top_k_top_p", "medusa", "lookahead", "eagle", "explicit_draft_tokens")


def _mode_of_beams(values: Values) -> str:
    mode, beams = values[f"{_REPOSITORY}.decoding_mode"], values[f"{_REPOSITORY}.max_beam_width"]
    if mode in _ONE_BEAM_MODES and isinstance(beams, int) and beams > 1:
        return f"beam_search, or none, with max_beam_width {beams}"
    return ""


def _devices(values: Values) -> str:
    said = values[f"{_REPOSITORY}.gpu_device_ids"]
    if said is None or said == "":
        return ""
    groups = [group.split(",") for group in str(said).split(";")]
    ids = [word.strip() for group in groups for word in group]
    if not all(word.isdigit() for word in ids):
        return "numbers of GPUs with commas between them, as 0,1"
    if any(len(group) != values.ranks for group in groups):
        return f"{values.ranks} of them, one for each rank (tensor_parallel x pipeline_parallel)"
    return (
        f"different GPUs from 0 on, of the {values.ranks} that the container sees"
        if len(set(ids)) != len(ids)
        else ""
    )


def _long_prompts(table: str, chunks: str) -> Callable[[Values], str]:
    """A prompt must not be longer than what is computed at once, unless its context is cut into chunks."""
    limit, longest, whole = (f"{table}.{name}" for name in ("max_num_tokens", "max_input_len", "max_seq_len"))

    def broken(values: Values) -> str:
        key = longest if values[longest] else whole
        if not isinstance(values[limit], int) or not isinstance(values[key], int) or values[chunks] is True:
            return ""
        if values[key] <= values[limit]:
            return ""
        return f"at least {values[key]}, which is {key}: longer prompts are refused when they come"

    return broken


def _experts(tensor: str, expert: str, ranks: str) -> Callable[[Values], str]:
    """Experts are split by width, by number or both: the product of the two degrees is the number of ranks."""

    def broken(values: Values) -> str:
        by_width, by_number, whole = values[tensor], values[expert], values[ranks]
        if not all(isinstance(size, int) for size in (by_width, by_number, whole)):
            return ""
        if by_width * by_number == whole:
            return ""
        return f"a number whose product with {expert} ({by_number}) is {whole}, which is {ranks}"

    return broken


def _less_than(left: str, right: str, why: str) -> Callable[[Values], str]:
    def broken(values: Values) -> str:
        if not isinstance(values[left], int) or not isinstance(values[right], int):
            return ""
        return f"less than {values.shown(right)} of {right}, {why}" if values[left] >= values[right] else ""

    return broken


def _speculative(mode: str, *keys: str) -> list[Relation]:
    """A mode of speculative decoding: the engine must be built for it, or config.pbtxt must not use it."""

    def broken_by(key: str) -> Callable[[Values], str]:
        def broken(values: Values) -> str:
            word = values[key]
            asks = (
                word == mode.removesuffix("_decoding")
                if key.endswith("decoding_mode")
                else word not in (None, "")
            )
            engine = values["engine.speculative_decoding_mode"]
            return f"nothing for an engine that was not built for {mode}" if asks and engine != mode else ""

        return broken

    return [
        Relation(
            (f"{_REPOSITORY}.{key}", "engine.speculative_decoding_mode"),
            broken_by(f"{_REPOSITORY}.{key}"),
            f"set engine.speculative_decoding_mode = '{mode}', or remove it",
        )
        for key in keys
    ]


def _plugin_dtype(key: str) -> Callable[[Values], str]:
    def broken(values: Values) -> str:
        plugin, dtype = values[key], values["checkpoint.dtype"]
        differs = plugin in ("float16", "bfloat16", "float32") and plugin != dtype
        return f"auto, or {dtype} as checkpoint.dtype is" if differs else ""

    return broken


def _needs_lora(key: str) -> Callable[[Values], str]:
    def broken(values: Values) -> str:
        off = values["engine.lora_plugin"] in (None, "disable")
        return "nothing for an engine without engine.lora_plugin" if key in values.said and off else ""

    return broken


_LOGITS = {"float32": "TYPE_FP32", "float16": "TYPE_FP16"}


def _logits(values: Values) -> str:
    said = values.said.get(f"{_REPOSITORY}.logits_datatype")
    engine = _LOGITS.get(str(values["engine.logits_dtype"] or "float32"))
    return f"{engine}, as engine.logits_dtype is" if said and engine and said != engine else ""


ENGINE: tuple[Relation, ...] = (
    Relation(
        (f"{_REPOSITORY}.max_beam_width", "engine.max_beam_width"),
        _at_most(f"{_REPOSITORY}.max_beam_width", "engine.max_beam_width"),
        "raise engine.max_beam_width, which builds the engine again, or lower the other",
    ),
    Relation(
        (f"{_REPOSITORY}.triton_max_batch_size", "engine.max_batch_size"),
        _at_most(f"{_REPOSITORY}.triton_max_batch_size", "engine.max_batch_size"),
        "raise engine.max_batch_size, which builds the engine again, or lower the other",
    ),
    *(
        Relation(
            (f"{_REPOSITORY}.{name}", _PAGED),
            _needs_paged_context(f"{_REPOSITORY}.{name}"),
            "set engine.use_paged_context_fmha = 'enable', or leave it off",
        )
        for name in ("enable_kv_cache_reuse", "enable_chunked_context")
    ),
    *(
        Relation(
            (key, f"{_REPOSITORY}.batching_strategy"), _needs_in_flight(key, off), "leave it at its default"
        )
        for key, off in (
            ("engine.remove_input_padding", ("disable",)),
            ("engine.paged_kv_cache", ("disable",)),
            ("engine.kv_cache_type", ("continuous", "disabled")),
            ("engine.gpt_attention_plugin", ("disable",)),
        )
    ),
    Relation(
        (f"{_REPOSITORY}.kv_cache_onboard_blocks", _PAGED), _onboarded, "leave it out, or disable the other"
    ),
    Relation((f"{_REPOSITORY}.batching_strategy",), _no_v1, "leave it at its default"),
    Relation(
        (f"{_REPOSITORY}.max_beam_width", f"{_REPOSITORY}.decoupled_mode"), _streamed_beams, "choose one"
    ),
    Relation((f"{_REPOSITORY}.decoding_mode", f"{_REPOSITORY}.max_beam_width"), _mode_of_beams, "choose one"),
    Relation(
        (f"{_REPOSITORY}.gpu_device_ids", "checkpoint.tensor_parallel"),
        _devices,
        "leave it out: gpu_ids of the inventory chooses GPUs",
    ),
    Relation(
        ("engine.opt_num_tokens", "engine.max_num_tokens"),
        _at_most("engine.opt_num_tokens", "engine.max_num_tokens"),
        "lower it",
    ),
    Relation(
        ("checkpoint.flags.moe_tp_size", "checkpoint.flags.moe_ep_size"),
        _experts(
            "checkpoint.flags.moe_tp_size", "checkpoint.flags.moe_ep_size", "checkpoint.tensor_parallel"
        ),
        "correct one of them, or leave one out",
    ),
    *_speculative("medusa", "medusa_choices", "decoding_mode"),
    *_speculative("eagle", "eagle_choices", "decoding_mode"),
    *_speculative("lookahead_decoding", "lookahead_window_size", "decoding_mode"),
    *(
        Relation((key, "checkpoint.dtype"), _plugin_dtype(key), "correct one of them", certain=False)
        for key in (
            "engine.gemm_plugin",
            "engine.gpt_attention_plugin",
            "engine.moe_plugin",
            "engine.lora_plugin",
        )
    ),
    *(
        Relation(
            (key, "engine.lora_plugin"),
            _needs_lora(key),
            "set engine.lora_plugin = 'auto', or remove it",
            certain=False,
        )
        for key in ("engine.lora_dir", "engine.lora_target_modules")
    ),
    Relation(
        (f"{_REPOSITORY}.logits_datatype", "engine.logits_dtype"),
        _logits,
        "correct one of them",
        certain=False,
    ),
    Relation(
        ("engine.max_num_tokens", "engine.max_input_len"),
        _long_prompts("engine", f"{_REPOSITORY}.enable_chunked_context"),
        "raise it, lower the other, or set enable_chunked_context (with use_paged_context_fmha)",
        certain=False,
    ),
)

LLM: tuple[Relation, ...] = (
    Relation(
        ("llm.max_input_len", "llm.max_seq_len"),
        _less_than("llm.max_input_len", "llm.max_seq_len", "which counts input and output together"),
        "lower it, or raise the other",
    ),
    Relation(
        ("llm.moe_tensor_parallel_size", "llm.moe_expert_parallel_size"),
        _experts("llm.moe_tensor_parallel_size", "llm.moe_expert_parallel_size", "llm.tensor_parallel_size"),
        "correct one of them, or leave one out",
    ),
    Relation(
        ("llm.max_num_tokens", "llm.max_seq_len"),
        _long_prompts("llm", "llm.enable_chunked_prefill"),
        "raise it, lower the other, or set llm.enable_chunked_prefill = true",
        certain=False,
    ),
)


def check_relations(profile: Profile, version: Version) -> tuple[str, ...]:
    """
    Refuse values that contradict one another. Returns warnings, one line each, for those that only limit requests.

    + version: TensorRT-LLM's

    Raises PlanError naming both keys.
    """
    warnings = []
    for table, values in _tables(profile, version):
        for relation in table:
            if not (expected := relation.broken(values)):
                continue
            first = relation.keys[0]
            if relation.certain:
                raise PlanError(first, values.shown(first), expected, relation.then)
            warnings.append(f"{first}: found {values.shown(first)}, expected {expected}; {relation.then}")
    if isinstance(profile, EngineProfile):
        _check_batches(profile)
        _check_golden(profile, "engine.max_seq_len", profile.engine.get("max_seq_len"))
    if isinstance(profile, LlmApiProfile):
        _check_golden(profile, "llm.max_seq_len", profile.llm.get("max_seq_len"))
    return tuple(warnings)


def _tables(profile: Profile, version: Version) -> list[tuple[tuple[Relation, ...], Values]]:
    if isinstance(profile, EngineProfile):
        serving = {
            **profile.repository.parameters,
            **profile.repository.model_parameters.get("tensorrt_llm", {}),
        }
        said = {
            **{f"engine.{name}": value for name, value in profile.engine.items()},
            **{f"{_REPOSITORY}.{name}": value for name, value in serving.items()},
            **{f"checkpoint.flags.{name}": value for name, value in profile.checkpoint.flags.items()},
            "checkpoint.dtype": profile.checkpoint.dtype,
            "checkpoint.tensor_parallel": profile.checkpoint.tensor_parallel,
        }
        return [(ENGINE, Values(said, version, profile.ranks))]
    if isinstance(profile, LlmApiProfile):
        said = {f"llm.{name}": value for name, value in profile.llm.items()}
        return [(LLM, Values(said, version, profile.gpus_needed))]
    return []


def _check_batches(profile: EngineProfile) -> None:
    """The ensemble's batch must not be larger than that of its steps, or Triton does not load it (ensemble_utils.cc)."""
    name = "triton_max_batch_size"

    def size(model: str) -> Any:
        own = profile.repository.model_parameters.get(model, {})
        return own.get(name, profile.repository.parameters.get(name, DEFAULTS[name]))

    for part in ("preprocessing", "tensorrt_llm", "postprocessing"):
        if "ensemble" in profile.models and size("ensemble") > size(part):
            raise PlanError(
                f"repository.model_parameters.ensemble.{name}",
                size("ensemble"),
                f"at most {size(part)}, which {part} has",
                "set one value in repository.parameters",
            )


def _check_golden(profile: EngineProfile | LlmApiProfile, key: str, longest: object) -> None:
    table = profile.engine if isinstance(profile, EngineProfile) else profile.llm
    input_key, longest_input = f"{key.partition('.')[0]}.max_input_len", table.get("max_input_len")
    for number, golden in enumerate(profile.golden):
        place = f"golden.{number}"
        if isinstance(longest_input, int) and golden.filler_words >= longest_input:
            expected = f"less than {input_key}, which is {longest_input}"
            raise PlanError(f"{place}.filler_words", golden.filler_words, expected, "lower it")
        if not isinstance(longest, int) or golden.filler_words + golden.max_tokens < longest:
            continue
        counts = f"less than {key}, which is {longest} and counts prompt and answer together"
        if golden.max_tokens < longest:
            raise PlanError(
                f"{place}.filler_words", golden.filler_words, f"with max_tokens {counts}", "lower it"
            )
        raise PlanError(f"{place}.max_tokens", golden.max_tokens, counts, "lower it")
