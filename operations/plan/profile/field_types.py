"""The types of a profile's values, with what each takes in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from operations.plan.catalog import known_values
from operations.plan.catalog.values import FlagValue, Value
from operations.plan.wording import Form, complaint

Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Dtype = Literal["float16", "bfloat16", "float32"]


def _line(value: str) -> str:
    if not value.isprintable() or not 1 <= len(value) <= 200:
        raise ValueError("one line of at most 200 characters")
    return value


Line = Annotated[str, AfterValidator(_line)]
FileStem = Annotated[
    str,
    Field(pattern=r"^[a-z0-9][a-z0-9_-]*$"),
    Form("a name of lower-case letters, digits, _ and -, such as cnn_dailymail"),
]
ModelType = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_.-]{1,60}$"),
    Form("a model_type of config.json: letters, digits and _ . -, 60 at most, such as llama"),
]
ParameterName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_]{1,100}$"),
    Form("the name of a placeholder: letters, digits and _, such as max_beam_width"),
]


def _argument(name: str, value: object) -> None:
    """A flag of a script: its value must not be taken for another flag."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,99}", name):
        raise complaint(name, name, "a flag's name without dashes in front")
    for word in value if isinstance(value, tuple) else (value,):
        if isinstance(word, str) and word.startswith("-"):
            raise complaint(name, word, "a value that does not begin with -")


# What trtllm-build takes several words of
SEVERAL = frozenset({"lora_dir", "lora_target_modules"})


def _engine(flags: dict[str, FlagValue]) -> dict[str, FlagValue]:
    for name, value in flags.items():
        _argument(name, value)
        if isinstance(value, tuple) and name not in SEVERAL:
            raise complaint(
                name, list(value), f"one value: {' and '.join(sorted(SEVERAL))} alone take a list"
            )
    known_values.check_values(known_values.ENGINE, flags)
    longest, total = flags.get("max_input_len"), flags.get("max_seq_len")
    if isinstance(longest, int) and isinstance(total, int) and longest >= total:
        expected = f"less than max_seq_len, which is {total} and counts input and output together"
        raise complaint("max_input_len", longest, expected)
    return flags


def _checkpoint_flags(flags: dict[str, Value]) -> dict[str, Value]:
    for name, value in flags.items():
        _argument(name, value)
    known_values.check_values(known_values.CHECKPOINT, flags)
    return flags


def _parameters(values: dict[str, Value]) -> dict[str, Value]:
    for name, value in values.items():
        if isinstance(value, str) and (re.search(r"[\"\\]", value) or "${" in value):
            raise complaint(
                name, value, 'a value without ", \\ and ${, which would break out of config.pbtxt'
            )
    known_values.check_values(known_values.PARAMETERS, values)
    return values


def _llm_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    known_values.check_values(known_values.LLM, arguments)
    cache = arguments.get("kv_cache_config", {})
    if not isinstance(cache, Mapping):
        raise complaint("kv_cache_config", cache, "a table")
    known_values.check_values(known_values.LLM_KV_CACHE, cache, ("kv_cache_config",))
    waiting: list[tuple[object, tuple[str, ...]]] = [(arguments, ())]
    while waiting:
        table, path = waiting.pop()
        if isinstance(table, Mapping):
            if path:  # of the arguments themselves, the profile looks whether the code was reviewed
                known_values.check_values(known_values.REMOTE_CODE, table, path)
            waiting.extend((value, (*path, name)) for name, value in table.items())
        elif isinstance(table, list | tuple):
            waiting.extend((value, (*path, str(number))) for number, value in enumerate(table))
    return arguments


# trtllm-build's flags and the converter's, by their names without dashes; placeholders; arguments of tensorrt_llm.LLM
EngineFlags = Annotated[dict[str, FlagValue], AfterValidator(_engine)]
CheckpointFlags = Annotated[dict[str, Value], AfterValidator(_checkpoint_flags)]
Parameters = Annotated[dict[str, Value], AfterValidator(_parameters)]
LlmArguments = Annotated[dict[str, Any], AfterValidator(_llm_arguments)]


def _image_reference(value: object) -> object:
    """name:tag of an image, without registry and digest: both are the inventory's."""
    pattern = r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
    if not isinstance(value, str) or not re.fullmatch(pattern, value) or value.endswith(":latest"):
        raise ValueError(
            "an image as name:tag, with a tag other than latest and without registry: it is pulled from the "
            "inventory's, by the sha256 digest in image_digests"
        )
    return value


ImageReference = Annotated[str, BeforeValidator(_image_reference)]


def mib_of(size: object) -> int:
    """A size of memory as docker takes it, such as 2g, in MiB; 0 for what is none."""
    match = re.fullmatch(r"([0-9]{1,7})([mg])", size) if isinstance(size, str) else None
    return int(match[1]) * (1024 if match[2] == "g" else 1) if match else 0


def shared_memory(least_mib: int) -> Any:
    """A size of /dev/shm, such as 2g. + least_mib: in MiB"""

    def check(value: object) -> object:
        if not least_mib <= mib_of(value) <= 1024 * 1024:
            raise ValueError(
                f"a size from {least_mib}m to 1024g, such as 2g: docker's own 64m ends in bus errors"
            )
        return value

    return BeforeValidator(check)
