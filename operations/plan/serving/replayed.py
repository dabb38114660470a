"""The same prompts to two servers: which answers agree, and how long each took. JSON for a program, a table for a reader."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from operations.plan.errors import PlanError, one_line, typed
from operations.plan.serving.recorded import agreement_of

_HALF = re.compile(r"[\ud800-\udfff]")  # of a character: no encoding has it
MOST_PROMPTS, LONGEST_PROMPT, MOST_TOKENS = 20_000, 2**20, 131_072
STEPS = 10  # bars of a histogram


@dataclass(frozen=True)
class Prompt:
    """One request. + number: its line in the file, from 1"""

    number: int
    prompt: str
    max_tokens: int


@dataclass(frozen=True)
class Reply:
    """
    One answer.

    + first_s: seconds to its first part; seconds: to its end
    + parts: how many parts it came in: one a token where the model streams
    + error: why there is none; empty: there is one
    """

    number: int
    text: str = ""
    first_s: float = 0.0
    seconds: float = 0.0
    parts: int = 0
    error: str = ""


def prompts_of(text: str, where: str, max_tokens: int) -> list[Prompt]:
    """
    The requests of a file with one JSON value a line: a text, or a table with prompt and max_tokens.

    + where: the file, for the error
    + max_tokens: of a line that does not say it

    Raises PlanError with the number of the line.
    """
    found = []
    # not splitlines: JSON may hold other line breaks, such as U+2028
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        table = {"prompt": value} if isinstance(value, str) else value
        prompt = table.get("prompt") if isinstance(table, dict) else None
        limit = table.get("max_tokens", max_tokens) if isinstance(table, dict) else None
        if not isinstance(prompt, str) or not 0 < len(prompt) <= LONGEST_PROMPT or _HALF.search(prompt):
            expected = 'a JSON text, or a table such as {"prompt": "Hello", "max_tokens": 32}'
            raise _refused(where, number, "prompt", one_line(line)[:60], expected)
        if type(limit) is not int or not 1 <= limit <= MOST_TOKENS:
            raise _refused(
                where, number, "max_tokens", typed(limit), f"a whole number from 1 to {MOST_TOKENS}"
            )
        found.append(Prompt(number, prompt, limit))
        if len(found) > MOST_PROMPTS:
            raise _refused(where, number, "", "more prompts", f"at most {MOST_PROMPTS}")
    if not found:
        raise PlanError("", "no prompts", "one a line", where=where, reference="no-prompts")
    return found


def _refused(where: str, number: int, key: str, found: object, expected: str) -> PlanError:
    return PlanError(
        f"line {number}: {key}" if key else f"line {number}",
        found,
        expected,
        where=where,
        reference="prompt-line",
    )


@dataclass(frozen=True)
class Pair:
    """One prompt and both answers. + agreement: the part of the words in common, in order; None where an answer is missing"""

    prompt: Prompt
    one: Reply
    two: Reply
    agreement: float | None


def pairs_of(prompts: Sequence[Prompt], one: Iterable[Reply], two: Iterable[Reply]) -> list[Pair]:
    """The answers beside each other; a prompt without one has an error in its place."""
    first, second = ({reply.number: reply for reply in replies} for replies in (one, two))
    pairs = []
    for prompt in prompts:
        missing = Reply(prompt.number, error="no answer")
        a, b = first.get(prompt.number, missing), second.get(prompt.number, missing)
        pairs.append(Pair(prompt, a, b, None if a.error or b.error else agreement_of(a.text, b.text)))
    return pairs


def _side(replies: Sequence[Reply]) -> dict[str, Any]:
    """What is said of one server."""
    good = [reply for reply in replies if not reply.error]
    streams = [reply for reply in good if reply.parts > 1 and reply.seconds > reply.first_s]
    return {
        "answers": len(good),
        "errors": len(replies) - len(good),
        "words": _spread([float(len(reply.text.split())) for reply in good]),
        "first_s": _spread([reply.first_s for reply in good]),
        "seconds": _spread([reply.seconds for reply in good]),
        "tokens_per_s": _spread([(reply.parts - 1) / (reply.seconds - reply.first_s) for reply in streams]),
    }


def _spread(values: list[float]) -> dict[str, float] | None:
    """The middle, the 95th of a hundred, and the most; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 4),
        "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 4),
        "most": round(ordered[-1], 4),
    }


def report(names: tuple[str, str], pairs: Sequence[Pair]) -> dict[str, Any]:
    """Both servers and their agreement, for a program."""
    known = [pair.agreement for pair in pairs if pair.agreement is not None]
    return {
        "from": {"server": names[0], **_side([pair.one for pair in pairs])},
        "to": {"server": names[1], **_side([pair.two for pair in pairs])},
        "prompts": len(pairs),
        "same": sum(1 for value in known if value == 1),
        "agreement": {**(_spread(known) or {}), "least": round(min(known), 4)} if known else None,
        "histogram": histogram(known),
        "pairs": [
            {
                "line": pair.prompt.number,
                "agreement": pair.agreement,
                "from": asdict(pair.one),
                "to": asdict(pair.two),
            }
            for pair in pairs
        ],
    }


def histogram(values: Iterable[float]) -> list[int]:
    """How many values are in each tenth from 0 to 1; 1 is in the last."""
    counts = [0] * STEPS
    for value in values:
        counts[min(STEPS - 1, int(value * STEPS))] += 1
    return counts


def rows(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What a reader asks: a label, and the words for each server."""
    one, two = (f"{found[side]['answers']} of {found['prompts']}" for side in ("from", "to"))
    table = [("answers", one, two)]
    for label, key, unit in (
        ("words", "words", ""),
        ("first part", "first_s", " s"),
        ("whole answer", "seconds", " s"),
        ("tokens a second", "tokens_per_s", ""),
    ):
        one, two = (_median(found[side][key], unit) for side in ("from", "to"))
        table.append((label, one, two))
    return table


def _median(spread: Mapping[str, float] | None, unit: str) -> str:
    if spread is None:
        return "-"
    median, p95 = (
        # not 1.23e+03
        f"{spread[key]:.3g}" if spread[key] < 1000 else f"{spread[key]:.0f}"
        for key in ("median", "p95")
    )
    return f"{median}{unit}, p95 {p95}{unit}"


def percent(part: float) -> str:
    """A part of 1; 100% is only the whole."""
    return f"{min(round(part * 100), 100 if part == 1 else 99)}%"


def in_common(found: Mapping[str, Any]) -> str:
    """How alike the answers are, in one line; empty where no prompt has both."""
    if not (agreement := found["agreement"]):
        return ""
    return (
        f"the same answer: {found['same']} of {found['prompts']}; words in common: "
        f"median {percent(agreement['median'])}, least {percent(agreement['least'])}"
    )


def lines(found: Mapping[str, Any]) -> list[str]:
    """The report as an aligned table."""
    table = [("", found["from"]["server"], found["to"]["server"]), *rows(found)]
    widths = [max(len(row[column]) for row in table) for column in (0, 1)]
    text = [f"{label:<{widths[0]}}  {one:<{widths[1]}}  {two}".rstrip() for label, one, two in table]
    return [*text, *filter(None, [in_common(found)])]
