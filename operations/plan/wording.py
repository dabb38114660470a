"""The complaints of pydantic models in words of our own: no pattern, no type's name and no text of pydantic's reaches a message."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from operations.plan.errors import Origin, PlanError, nearest, suggestion, typed

_UNKNOWN = "another value"


@dataclass(frozen=True)
class Form:
    """What a type takes, in words, with an example: beside its pattern in `Annotated`."""

    words: str


@dataclass(frozen=True)
class Place:
    """
    A key of a model.

    + path: the names that lead to it, as a person writes them
    + words: what it takes
    + keys: those of the table that it stands in
    """

    path: tuple[str | int, ...]
    words: str
    keys: frozenset[str]
    annotation: Any = None

    def advice(self, value: object) -> str:
        """What to write instead of a value, where that can be told from it."""
        kinds = set(_kinds(self.annotation))
        if isinstance(value, str):
            if str not in kinds and kinds & {int, float} and _is_number(value):
                return f"write {value.strip()} without quotes"
            if str not in kinds and bool in kinds and value.strip().lower() in ("true", "false"):
                return f"write {value.strip().lower()} without quotes"
            near = nearest(value, [word for word in _words(self.annotation) if isinstance(word, str)])
            return f'did you mean "{near}"?' if near else ""
        if kinds == {str} and isinstance(value, int | float) and not isinstance(value, bool):
            return "put it in quotes"
        return ""


def place_of(model: type[BaseModel], loc: Sequence[str | int]) -> Place:
    """The key that pydantic means by the `loc` of an error, without the names of types in it."""
    annotation: Any = model
    metadata: tuple[Any, ...] = ()
    keys: frozenset[str] = frozenset()
    path: list[str | int] = []
    for number, part in enumerate(loc):
        annotation, metadata = _bare(annotation, metadata)
        if members := _members(annotation):
            # pydantic puts the kind that it tried in here
            tagged = [m for m in members if str(part).split("[")[0].split("-")[-1] == _tag(m)]
            if tagged and number + 1 < len(loc):
                annotation, metadata = tagged[0], ()
            continue
        if part == "[key]":
            continue
        path.append(part)
        keys = frozenset(_keys(annotation))
        about_the_key = loc[number + 1 : number + 2] == ("[key]",)
        annotation, metadata = _inner(annotation, part, about_the_key)
    return Place(tuple(path), described(annotation, metadata), keys, annotation)


def described(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """What a value of that type is, in words."""
    annotation, known = _bare(annotation, tuple(metadata))
    if said := [each.words for each in known if isinstance(each, Form)]:
        return said[-1]
    if members := _members(annotation):
        return ", or ".join(described(member) for member in members)
    origin = get_origin(annotation)
    if origin is Literal:
        words = [f'"{word}"' if isinstance(word, str) else str(word) for word in get_args(annotation)]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    if annotation is bool:
        return "true or false, without quotes"
    if annotation in (int, float):
        return _number("a whole number" if annotation is int else "a number", known)
    if annotation is str:
        return _text(known)
    if annotation is date:
        return 'a date as YYYY-MM-DD in quotes, such as "2027-01-31"'
    if origin in (list, tuple, set, frozenset):
        least = _bound(known, "min_length") or 0
        some = (
            "a list in [ ]"
            if least < 1
            else f"a list in [ ] with at least {least} entr{'y' if least == 1 else 'ies'}"
        )
        inner = [each for each in get_args(annotation) if each is not Ellipsis]
        each_one = described(inner[0]) if inner else _UNKNOWN
        return some if each_one == _UNKNOWN else f"{some}, each {each_one}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel | dict)):
        return "a table"
    return _UNKNOWN


def _bound(known: Iterable[Any], name: str) -> Any:
    """A bound of annotated_types: Ge has `ge`, MinLen has `min_length`."""
    return next((bound for each in known if (bound := getattr(each, name, None)) is not None), None)


def _number(kind: str, known: Sequence[Any]) -> str:
    low, high = _bound(known, "ge"), _bound(known, "le")
    if low is not None and high is not None:
        return f"{kind} from {low} to {high}"
    bounds = (("of at least", "ge"), ("above", "gt"), ("of at most", "le"), ("below", "lt"))
    said = [f"{word} {_bound(known, name)}" for word, name in bounds if _bound(known, name) is not None]
    return " ".join((kind, *([" and ".join(said)] if said else [])))


def _text(known: Sequence[Any]) -> str:
    least, most = _bound(known, "min_length") or 0, _bound(known, "max_length")
    if most is not None:
        return f"text of {least} to {most} characters, in quotes"
    return "text in quotes" if least < 2 else f"text of at least {least} characters, in quotes"


def _bare(annotation: Any, metadata: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Without Annotated and without None, and what was said beside it."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            metadata = (*metadata, *more)
            continue
        parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
        left = [part for part in parts if part is not type(None)]
        if len(left) == 1:
            annotation = left[0]
            continue
        flat: list[Any] = []
        for each in metadata:
            flat += each.metadata if isinstance(each, FieldInfo) else [each]
        return annotation, tuple(flat)


def _members(annotation: Any) -> list[Any]:
    """The kinds of a union, without None."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return []
    return [member for member in get_args(annotation) if member is not type(None)]


def _tag(member: Any) -> str:
    """How pydantic calls a member of a union."""
    bare, _ = _bare(member, ())
    return str(getattr(get_origin(bare) or bare, "__name__", "")).lower()


def _keys(annotation: Any) -> Iterable[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.model_fields
    return ()


def _inner(annotation: Any, part: str | int, about_the_key: bool) -> tuple[Any, tuple[Any, ...]]:
    """The type of what stands under one name or number."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return (field.annotation, tuple(field.metadata)) if field else (None, ())
    inner = [each for each in get_args(annotation) if each is not Ellipsis]
    if get_origin(annotation) is dict and len(inner) == 2:
        return inner[0 if about_the_key else 1], ()
    return (inner[0], ()) if inner and get_origin(annotation) in (list, tuple, set, frozenset) else (None, ())


def _kinds(annotation: Any) -> Iterable[Any]:
    bare, _ = _bare(annotation, ())
    for member in _members(bare) or [bare]:
        inner, _ = _bare(member, ())
        yield get_origin(inner) or inner


def _words(annotation: Any) -> Iterable[Any]:
    """The words of a Literal, also of one in a union."""
    bare, _ = _bare(annotation, ())
    for member in _members(bare) or [bare]:
        inner, _ = _bare(member, ())
        yield from get_args(inner) if get_origin(inner) is Literal else ()


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[+-]?[0-9]{1,20}([.][0-9]{1,20})?", text.strip()))


def complaint(
    key: str,
    found: object,
    expected: str,
    within: tuple[str, ...] = (),
    then: str = "",
    reference: str = "",
) -> ValidationError:
    """For a validator of a whole table: what is wrong with the value of one of its keys, or `within` inner tables."""
    context = {"expected": expected, "then": then, "reference": reference}
    kind = PydanticCustomError("value_error", "{expected}", context)
    return ValidationError.from_exception_data(
        "", [InitErrorDetails(type=kind, loc=(*within, key), input=found)]
    )


def from_validation(
    error: ValidationError,
    model: type[BaseModel],
    origin: Origin | Callable[[tuple[str | int, ...]], Origin],
    host: str = "",
) -> PlanError:
    """
    The first complaint of a pydantic model as a PlanError, in words of our own.

    + origin: where the table was written, or a function that says it of a key's path
    + host: the host, where it is about one
    """
    errors = error.errors(include_url=False)
    # a misspelt key is the reason of the one that is missing
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    place = place_of(model, first["loc"])
    path = ".".join(str(part) for part in place.path)
    at = origin if isinstance(origin, Origin) else origin(place.path)
    if first["type"] == "extra_forbidden":
        last = str(place.path[-1])
        then = suggestion(last, {*place.keys, *(at.also if len(place.path) == 1 else ())})
        refused = PlanError(path, f"unknown key {last}", "a known key", then, reference="unknown-key")
    elif first["type"] == "missing":
        table = at.table or at.where or host
        refused = PlanError(path, "nothing", "a value", f"add {path} to {table}", reference="missing-key")
    else:
        # of a ValueError of a validator, or of a complaint; pydantic's own say which type the value has not
        context = first.get("ctx", {}) if first["type"] == "value_error" else {}
        wanted = str(context["error"]) if "error" in context else context.get("expected", place.words)
        then = context.get("then", "") or place.advice(first["input"])
        reference = context.get("reference", "") or "wrong-value"
        refused = PlanError(path, typed(first["input"]), wanted, then, reference=reference)
    return refused.placed(at, host)
