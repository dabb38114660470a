"""The answers of a profile's first proven release, and whether a later release answers the same.

What may differ: nothing where the numbers are computed the same way (same engine or weights, image, GPU and host, because an engine's
kernels are chosen by timing where it is built); elsewhere as much as `golden_agreement` allows, because a sum in another order may choose
another word.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from operations.plan.artifacts.keys import key_of
from operations.plan.errors import PlanError
from operations.plan.profile.tables import Golden

KEPT = 200  # records of a profile: one for each way of computing, on each host
_SHOWN = 60  # characters of an answer around the first difference


@dataclass(frozen=True)
class Answer:
    """What a model answered to a golden request. `log_probability`: of the whole answer, in nats; None: not known."""

    model: str
    prompt: str
    max_tokens: int
    text: str
    log_probability: float | None = None

    @property
    def request(self) -> tuple[str, str, int]:
        """What was asked."""
        return self.model, self.prompt, self.max_tokens


def answer_to(asked: Golden, said: str, log_probability: float | None = None) -> Answer:
    """A model's answer to a golden request. A server that does not exclude the input gives it back first."""
    return Answer(asked.model, asked.title, asked.max_tokens, said.removeprefix(asked.sent), log_probability)


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

    def without(self, release: str) -> Recorded:
        """The same without that release among those that were accepted."""
        return replace(self, accepted=tuple(name for name in self.accepted if name != release))

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


def difference(
    recorded: Recorded, record: Record, agreement: float, exact: bool = True, less_likely: float = math.inf
) -> str:
    """
    What is wrong with a release's answers; empty: nothing, or nothing to compare with.

    + record: the release's own answers
    + agreement: from 0 to 1: the part of the words that must be the same, in order, where the numbers are computed another way
    + less_likely: nats a word by which an answer may be less likely than the recorded one, where the numbers are computed another way
    + exact: whether equal numerics must give the same text; not of a server that has other requests, which change the order of sums
    """
    same = next((one for one in recorded.records if one.numerics == record.numerics), None)
    other = same or (recorded.records[-1] if recorded.records else None)
    if other is None:
        return ""
    known = {answer.request: answer for answer in other.answers}
    for answer in record.answers:
        if (was := known.get(answer.request)) is None:
            continue
        nats = drop(was, answer)
        if same is None and nats > less_likely:
            return (
                f"golden request to {answer.model}: found an answer that is less likely by {nats:.2f} nats a word, expected at "
                f"most {less_likely:g} (release {other.release} of {other.at})"
            )
        if (before := was.text) == answer.text:
            continue
        part = agreement_of(before, answer.text)
        same_text = same is not None and exact
        if part >= agreement and not same_text:
            continue
        how = f"{part:.0%} of the words agree, expected {agreement:.0%}"
        how = "recorded with the same numbers" if same_text else how
        return f"golden request to {answer.model}: {shown(before, answer.text)} ({how}, release {other.release} of {other.at})"
    return ""


def drop(before: Answer, now: Answer) -> float:
    """
    By how much an answer is less likely than another one to the same request, in nats a word.

    0 where it is not known, and for answers of other lengths: a longer one is less likely by that alone.
    """
    if before.log_probability is None or now.log_probability is None:
        return 0.0
    one, two = (max(1, len(_WORD.findall(answer.text)[:_MOST_WORDS])) for answer in (before, now))
    if min(one, two) < _SAME_LENGTH * max(one, two):
        return 0.0
    return before.log_probability / one - now.log_probability / two


def agreement_of(before: str, now: str) -> float:
    """
    The part of the words that two answers have in common, in order: 1 for the same, 0 for nothing in common.

    A letter of a language without spaces, and a mark of punctuation, counts as a word.
    """
    one, two = (_WORD.findall(text)[:_MOST_WORDS] for text in (before, now))
    if not one and not two:
        return 1.0 if before == now else 0.0
    return 2 * _common(one, two) / (len(one) + len(two))


_WORD = re.compile(r"[^\W\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|\S")
_MOST_WORDS = 20_000  # of an answer that are compared
_SAME_LENGTH = 0.75  # of the longer answer's words: the two are of one length


def _common(one: Sequence[str], two: Sequence[str]) -> int:
    """
    How many words two texts have in common, in order: the length of the longest common subsequence.

    A bit for each word of the first text, so that the time grows with the product of the lengths divided by the width of a machine word:
    H. Hyyrö, "Bit-parallel LCS-length computation revisited", 2004.
    """
    places: dict[str, int] = {}
    for number, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << number
    every = (1 << len(one)) - 1
    open_places = every
    for word in two:
        matching = open_places & places.get(word, 0)
        open_places = (open_places + matching | open_places - matching) & every
    return len(one) - open_places.bit_count()


def parting(before: str, now: str) -> int:
    """How many characters two answers begin with alike."""
    pairs = enumerate(zip(before, now, strict=False))
    return next((number for number, (one, two) in pairs if one != two), min(len(before), len(now)))


def shown(before: str, now: str) -> str:
    """Where two answers part, in words of both."""
    at = parting(before, now)
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
        Answer(
            str(a["model"]),
            str(a["prompt"]),
            int(a["max_tokens"]),
            str(a["text"]),
            # files of before have none
            None if a.get("log_probability") is None else float(a["log_probability"]),
        )
        for a in one["answers"]
    )
    made_with = {str(name): str(value) for name, value in one["made_with"].items()}
    return Record(str(one["numerics"]), made_with, str(one["release"]), str(one["at"]), answers)
