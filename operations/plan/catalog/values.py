"""Types of values that profiles and inventories share, and what a flag or a placeholder takes."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BeforeValidator, Field

Port = Annotated[int, Field(ge=1024, le=65535, strict=True)]
Switch = Annotated[bool, Field(strict=True)]


def _one_value(value: object) -> object:
    """What a script's argument or a placeholder takes; TOML knows nan and inf, but nothing that reads these does."""
    if isinstance(value, str):
        if not value.isprintable() or len(value) > 1024:
            raise ValueError("one line of text")
    elif not isinstance(value, bool | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("text, a finite number, true or false")
    return value


Value = Annotated[str | int | bool | float, BeforeValidator(_one_value)]


def _one_or_several(value: object) -> object:
    if not isinstance(value, list | tuple):
        return _one_value(value)
    if not value or not all(isinstance(word, str) and word.isprintable() and word for word in value):
        raise ValueError("a value, or a list of texts where the flag takes several")
    return tuple(value)


FlagValue = Annotated[str | int | bool | float | tuple[str, ...], BeforeValidator(_one_or_several)]
