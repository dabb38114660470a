"""The one error a plan can end in: a single line that says what to change."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class PlanError(ValueError):
    """An input that cannot be deployed: one line with the key, the value found, what is allowed and what to do."""

    def __init__(self, key: str, found: object, expected: str, then: str = "") -> None:
        self.key = key
        message = f"{key}: found {shown(found)}, expected {expected}"
        super().__init__(f"{message}; {then}" if then else message)


def shown(value: object) -> str:
    """A value as it may stand in a one-line message: bounded, without line breaks, without a token's text."""
    text = value if isinstance(value, str) else repr(value)
    if "hf_" in text:
        return "a value that looks like a Hugging Face token (not shown)"
    text = " ".join(text.split())
    return f"{text[:77]}..." if len(text) > 80 else (text or "nothing")


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """ "did you mean …?" for the nearest allowed word, or the whole list where nothing is near."""
    names = sorted(allowed)
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"


def from_validation(error: ValidationError, where: str, allowed: Iterable[str]) -> PlanError:
    """The first complaint of a pydantic model as a PlanError that names the key inside `where`."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    key = f"{where}: {path}" if path else where
    if first["type"] == "extra_forbidden":
        last = str(first["loc"][-1])
        return PlanError(key, f"unknown key {last}", "a known key", suggestion(last, allowed))
    if first["type"] == "missing":
        return PlanError(key, "nothing", "a value", f"add {path} to {where}")
    message = first["msg"].removeprefix("Value error, ")
    return PlanError(key, first["input"], message[0].lower() + message[1:])
