"""The new profile as a file: TOML with the reason beside each choice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from operations.plan.errors import PlanError, one_line
from operations.plan.proposal.profile_tables import QUANTIZATIONS, Choice
from operations.plan.proposal.repository import Repository
from operations.plan.units import dotted, gib

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}\Z")
GOLDEN_TOKENS = 32
LONG = 4400  # words before a second golden prompt, about a token each


def name_for(repository: str) -> str:
    """The profile's name: the repository's own, in lower case."""
    short = repository.rpartition("/")[2].lower()
    return re.sub(r"[^a-z0-9._-]+", "-", short).strip("-._") or "model"


def check_name(name: str) -> str:
    """The name, if a profile's file may have it. Raises PlanError."""
    if not _NAME.match(name) or ".." in name:
        expected = "a name of lower-case letters, digits, dots, _ and -, such as llama-3.1-8b"
        raise PlanError("--name", name or "nothing", expected, reference="wrong-name")
    return name


def profile_text(found: Repository, choice: Choice, prompt: str, how: str) -> str:
    """
    The file's text.

    + prompt: of the golden request; how: how it was made, in words
    """
    golden = {**choice.data["golden"][0], "prompt": prompt, "max_tokens": _golden_tokens(choice)}
    requests = [(golden, f'{how}; expect = "" accepts any answer of at least one word')]
    longest = min(choice.context, choice.data.get("engine", {}).get("max_input_len", choice.context))
    if longest >= LONG + LONG // 4:
        long = {**golden, "filler_words": LONG}
        requests.append((long, f"the same behind {LONG} words: some faults show only in long prompts"))
    said = dict(reasons(found, choice))
    lines = [
        "#:schema ../../files/schema/profile.json",
        "",
        f"# {found.name}, proposed by `tritonhost new`. Every line may be changed; `tritonhost plan check` reads the file.",
        "",
    ]
    tables = choice.data
    lines += _table(
        "", {key: value for key, value in tables.items() if not isinstance(value, Mapping | list)}, said
    )
    for key, value in tables.items():
        if isinstance(value, Mapping):
            lines += _tables(key, value, said)
    for request, reason in requests:
        lines += ["", *_comment(reason), "[[golden]]", *_table("golden", request, {})]
    return "\n".join(lines) + "\n"


def _golden_tokens(choice: Choice) -> int:
    return min(GOLDEN_TOKENS, max(1, choice.context // 8))


def _tables(title: str, table: Mapping[str, Any], said: Mapping[str, str]) -> Iterator[str]:
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    own = {key: value for key, value in table.items() if key not in inner}
    if own:
        yield from ("", *_comment(said.get(title, "")), f"[{title}]")
        yield from _table(title, own, said)
    for key, value in inner.items():
        yield from _tables(f"{title}.{_key(key)}", value, said)


def _table(title: str, table: Mapping[str, Any], said: Mapping[str, str]) -> Iterator[str]:
    for key, value in table.items():
        yield from _comment(said.get(f"{title}.{key}".lstrip("."), ""))
        yield f"{_key(key)} = {_value(value)}"


def _comment(text: str) -> list[str]:
    # a config.json may say anything, and a line break would begin a line of its own
    return [f"# {one_line(text)[:300]}"] if text else []


def _key(name: str) -> str:
    return name if _BARE.match(name) else json.dumps(name, ensure_ascii=False)


def _value(value: object) -> str:
    """A value as TOML writes it, which for text, numbers, switches and lists is JSON's form."""
    return json.dumps(value, ensure_ascii=False)


def reasons(found: Repository, choice: Choice) -> Iterator[tuple[str, str]]:
    """Dotted key or table -> why it is so, in one line."""
    count = len(choice.gpus)
    yield "kind", _of_kind(found, choice)
    if choice.shape:
        yield "hardware", f"what the profile was planned for: {choice.tensor_parallel} of its {count} GPUs"
    yield "weights.revision", "the newest commit when this file was written; another one is another model"
    if found.gated:
        yield "weights.gated", "a download needs HF_TOKEN, of somebody who has accepted the licence"
    yield (
        "image.release",
        f"TensorRT-LLM {dotted(choice.stack.version)}, the newest that serves this model on these GPUs",
    )
    if found.architecture:
        yield "architecture", "from config.json, for a forecast before the download"
    degree = "checkpoint.tensor_parallel" if choice.kind == "engine" else "llm.tensor_parallel_size"
    yield degree, f"the fewest of {count} GPUs on which weights and KV cache fit, and which divide the model"
    yield (
        "checkpoint.dtype",
        f"config.json says {found.config.get('torch_dtype', found.config.get('dtype', 'nothing'))}",
    )
    if choice.quantization:
        yield (
            "checkpoint.quantization",
            f"{QUANTIZATIONS[choice.quantization][1]}; without it the model does not fit",
        )
    table = "engine" if choice.kind == "engine" else "llm"
    yield f"{table}.max_seq_len", _of_length(found, choice)
    if choice.seen is None:
        yield (
            f"{table}.max_batch_size",
            "sequences at a time; not forecast, because config.json is of a form that is not read",
        )
    elif choice.seen.max_concurrent is not None:
        fits = f"{choice.seen.max_concurrent} fit, by the forecast"
        yield f"{table}.max_batch_size", f"sequences at a time; of {choice.context} tokens {fits}"
        memory = gib(choice.seen.kv_memory or 0)
        fraction = f"of what weights and activations leave on a GPU: {memory} of KV cache, by the forecast"
        yield "repository.parameters.kv_cache_free_gpu_mem_fraction", fraction
        yield "llm.kv_cache_config.free_gpu_memory_fraction", fraction


def _of_kind(found: Repository, choice: Choice) -> str:
    if choice.kind == "engine":
        other = "; --kind llmapi serves the weights as they are" if found.row.pytorch else ""
        return f"a converter of TensorRT-LLM reads {found.row.architecture}{other}"
    stored = found.description.stored
    if stored:
        return f"the weights are {stored.words}: served as they are"
    return f"the PyTorch backend of TensorRT-LLM has {found.row.architecture}: the weights are served as they are"


def _of_length(found: Repository, choice: Choice) -> str:
    architecture = found.architecture
    longest = f"; the model's own limit is {architecture.max_positions}" if architecture else ""
    return f"tokens of one sequence, input and output together{longest}"
