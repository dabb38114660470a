"""The answers of a profile's first proven release, and whether a later release answers the same.

What may differ: nothing where the numbers are computed the same way (same engine or weights, image and GPU); with another engine, precision,
image or GPU as much as `golden_agreement` allows, because a sum in another order may choose another word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from difflib import SequenceMatcher
from typing import Any

from operations.plan.artifacts.keys import key_of
from operations.plan.errors import PlanError

KEPT = 20  # records of a profile: one for each way of computing
_SHOWN = 60  # characters of an answer around the first difference
_LARGEST = 4 * 2**20  # bytes of a file


@dataclass(frozen=True)
class Answer:
    """What a model answered to a golden request."""

    model: str
    prompt: str
    max_tokens: int
    text: str

    @property
    def request(self) -> tuple[str, str, int]:
        """What was asked."""
        return self.model, self.prompt, self.max_tokens


@dataclass(frozen=True)
class Record:
    """
    The answers of one release.

    + numerics: the key of how its numbers are computed; made_with: the same in words
    + release: its id; at: the day, YYYY-MM-DD
    """

    numerics: str
    made_with: Mapping[str, str]
    release: str
    at: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Recorded:
    """
    A profile's records, the newest last.

    + accepted: releases whose other answers a person has accepted
    """

    records: tuple[Record, ...] = ()
    accepted: tuple[str, ...] = ()

    def with_record(self, record: Record, accepted: bool = False) -> Recorded:
        """The same with a record more, in the place of one with the same numerics."""
        others = [one for one in self.records if one.numerics != record.numerics]
        names = (
            (*self.accepted, record.release)
            if accepted and record.release not in self.accepted
            else self.accepted
        )
        return replace(self, records=(*others, record)[-KEPT:], accepted=names[-KEPT:])


def numerics(made_with: Mapping[str, str]) -> str:
    """The key of a way to compute: two releases with the same key must answer the same."""
    return key_of(dict(made_with))


def difference(recorded: Recorded, record: Record, agreement: float) -> str:
    """
    What is wrong with a release's answers; empty: nothing, or nothing to compare with.

    + record: the release's own answers
    + agreement: from 0 to 1: the part of the words that must be the same, in order, where the numbers are computed another way
    """
    same = next((one for one in recorded.records if one.numerics == record.numerics), None)
    other = same or (recorded.records[-1] if recorded.records else None)
    if other is None:
        return ""
    known = {answer.request: answer.text for answer in other.answers}
    for answer in record.answers:
        before = known.get(answer.request)
        if before is None or before == answer.text:
            continue
        part = agreement_of(before, answer.text)
        if same is None and part >= agreement:
            continue
        how = (
            "recorded with the same numbers"
            if same
            else f"{part:.0%} of the words agree, expected {agreement:.0%}"
        )
        return f"golden request to {answer.model}: {shown(before, answer.text)} ({how}, release {other.release} of {other.at})"
    return ""


def agreement_of(before: str, now: str) -> float:
    """The part of the words that two answers have in common, in order: 1 for the same, 0 for nothing in common."""
    return SequenceMatcher(None, before.split(), now.split(), autojunk=False).ratio()


def shown(before: str, now: str) -> str:
    """Where two answers part, in words of both."""
    at = next(
        (n for n, (one, two) in enumerate(zip(before, now, strict=False)) if one != two),
        min(len(before), len(now)),
    )
    start = max(0, at - _SHOWN // 3)
    dots = "…" if start else ""
    one, two = (f"{dots}{text[start : start + _SHOWN]}" for text in (before, now))
    return f"found {two!r}, expected {one!r} (they part at character {at + 1})"


def text_of(recorded: Recorded) -> str:
    """The file."""
    document = {
        "format": 1,
        "accepted": list(recorded.accepted),
        "records": [asdict(record) for record in recorded.records],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def read(content: bytes, where: str) -> Recorded:
    """
    The records of a file.

    + where: its path, for the error

    Raises PlanError for anything that this tool does not write.
    """
    try:
        document = json.loads(content)
        return Recorded(
            tuple(_record(one) for one in document["records"]),
            tuple(str(name) for name in document["accepted"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError):
        raise PlanError(
            "",
            "another content",
            "recorded golden answers",
            "restore the file, or remove it: the next proven release is recorded then",
            where=where,
            reference="golden-file",
        ) from None


def _record(one: Mapping[str, Any]) -> Record:
    answers = tuple(
        Answer(str(a["model"]), str(a["prompt"]), int(a["max_tokens"]), str(a["text"]))
        for a in one["answers"]
    )
    made_with = {str(name): str(value) for name, value in one["made_with"].items()}
    return Record(str(one["numerics"]), made_with, str(one["release"]), str(one["at"]), answers)
