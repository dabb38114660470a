"""The one error a plan can end in: a single line that says what to change."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

# A token of the Hugging Face hub, wherever it stands
TOKEN = re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{8,}")
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")
_SHOWN, _LONGEST_KEY, _LONGEST_MESSAGE = 80, 200, 4000  # characters
# Looking for the nearest known word takes long where a word is long.
_LONGEST_WORD = 80


class PlanError(ValueError):
    """An input that cannot be deployed: one line with the key, the value found, what is allowed and what to do."""

    def __init__(self, key: str, found: object, expected: str, then: str = "") -> None:
        self.key = _bounded(one_line(key), _LONGEST_KEY)
        message = f"{self.key}: found {shown(found)}, expected {expected}"
        super().__init__(_bounded(one_line(f"{message}; {then}" if then else message), _LONGEST_MESSAGE))


def text_of(value: object) -> str:
    """A value as text; its type's name where Python refuses: thousands of digits, or a thousand levels."""
    if isinstance(value, str):
        return value
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return f"an unprintable {type(value).__name__}"


def shown(value: object) -> str:
    """A value as it may stand in a one-line message: bounded, without line breaks, without a secret's text."""
    text = text_of(value)
    if TOKEN.search(text):
        return "a value that looks like a Hugging Face token (not shown)"
    return _bounded(one_line(text), _SHOWN) or "nothing"


def one_line(text: str) -> str:
    """Without line breaks, control characters, tokens, and what stands before an @ of a URL."""
    # plain ASCII is left to the pattern, which is quick: a value may be a megabyte
    printable = _NOT_PLAIN.sub(lambda found: found[0] if found[0].isprintable() else " ", text)
    return TOKEN.sub("(not shown)", " ".join(_without_userinfo(word) for word in printable.split()))


def _without_userinfo(word: str) -> str:
    before, _, after = word.rpartition("@")
    start, slashes, _ = before.partition("//")
    if slashes:
        return f"{start}//(not shown)@{after}"
    # user:password@host, and not an image's name:tag@sha256:…
    user, colon, _ = before.partition(":")
    return f"(not shown)@{after}" if colon and "/" not in user else word


def _bounded(text: str, longest: int) -> str:
    return f"{text[: longest - 3]}..." if len(text) > longest else text


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """ "did you mean …?" for the nearest allowed word, or the whole list where nothing is near."""
    names = sorted(allowed)
    near = get_close_matches(word, names, n=1, cutoff=0.6) if len(word) <= _LONGEST_WORD else []
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"


def complaint(key: str, found: object, expected: str, within: tuple[str, ...] = ()) -> ValidationError:
    """For a validator of a whole table: what is wrong with the value of one of its keys, or `within` inner tables."""
    # imported here: what a run of a converged host needs of this module needs no pydantic
    from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

    kind = PydanticCustomError("value_error", "{expected}", {"expected": expected})
    return ValidationError.from_exception_data(
        "", [InitErrorDetails(type=kind, loc=(*within, key), input=found)]
    )


def from_validation(error: ValidationError, where: str, allowed: Iterable[str]) -> PlanError:
    """The first complaint of a pydantic model as a PlanError that names the key inside `where`."""
    errors = error.errors(include_url=False)
    # a misspelt key is the reason of the one that is missing
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    # "[key]" is pydantic's word for a complaint about the key itself
    loc = [part for part in first["loc"] if part != "[key]"]
    path = ".".join(str(part) for part in loc)
    key = f"{where}: {path}" if path else where
    if first["type"] == "extra_forbidden":
        last = str(loc[-1])
        return PlanError(key, f"unknown key {last}", "a known key", suggestion(last, allowed))
    if first["type"] == "missing":
        return PlanError(key, "nothing", "a value", f"add {path} to {where}")
    message = first["msg"].removeprefix("Value error, ")
    return PlanError(key, first["input"], message[:1].lower() + message[1:])
