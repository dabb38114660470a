"""The same prompts to two servers: which answers agree, and how long each took. JSON for a program, one page for a reader."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from operations.plan.errors import PlanError, one_line, typed
from operations.plan.serving.recorded import agreement_of

_HALF = re.compile(r"[\ud800-\udfff]")  # of a character: no encoding has it
MOST_PROMPTS, LONGEST_PROMPT, MOST_TOKENS = 20_000, 2**20, 131_072
_STEPS = 10  # bars of a histogram
_SHOWN = 50  # pairs that the page shows, the least alike first


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
    counts = [0] * _STEPS
    for value in values:
        counts[min(_STEPS - 1, int(value * _STEPS))] += 1
    return counts


def lines(found: Mapping[str, Any]) -> list[str]:
    """The report as an aligned table."""
    rows: list[tuple[str, ...]] = [("", found["from"]["server"], found["to"]["server"])]
    rows.append(("answers", *(f"{found[side]['answers']} of {found['prompts']}" for side in ("from", "to"))))
    for label, key, unit in (
        ("words", "words", ""),
        ("first part", "first_s", " s"),
        ("whole answer", "seconds", " s"),
        ("tokens a second", "tokens_per_s", ""),
    ):
        cells = [found[side][key] for side in ("from", "to")]
        rows.append(
            (
                label,
                *(
                    f"{cell['median']:.3g}{unit}, p95 {cell['p95']:.3g}{unit}" if cell else "-"
                    for cell in cells
                ),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    table = [f"{label:<{widths[0]}}  {one:<{widths[1]}}  {two}".rstrip() for label, one, two in rows]
    agreement = found["agreement"]
    if agreement:
        table.append(
            f"the same answer: {found['same']} of {found['prompts']}; words in common: median {agreement['median']:.0%}, "
            f"least {agreement['least']:.0%}"
        )
    return table


_STYLE = """
body { font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; margin: 2rem auto; max-width: 62rem;
  padding: 0 1rem; color: #1f2328; background: #ffffff; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { text-align: left; padding: .3rem .9rem .3rem 0; vertical-align: top; }
th { font-weight: 600; border-bottom: 1px solid #c3cad2; } td { border-bottom: 1px solid #e6eaee; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: 13px; }
.bar { fill: #3b6fb0; } .second { fill: #c96a1b; } .axis { fill: #57606a; font-size: 12px; }
.bad { color: #b3261e; }
@media (prefers-color-scheme: dark) {
  body { color: #f0f6fc; background: #0d1117; } th { border-color: #3d444d; } td { border-color: #262c34; }
  .bar { fill: #6ca4e8; } .second { fill: #e8954a; } .axis { fill: #b1bac4; } .bad { color: #ff8a80; }
}
"""


def page(found: Mapping[str, Any], pairs: Sequence[Pair]) -> str:
    """One HTML page without anything to fetch: the numbers, two pictures, and the pairs that agree least."""
    one, two = (escape(str(found[side]["server"])) for side in ("from", "to"))
    shown_pairs = sorted(pairs, key=lambda pair: -1.0 if pair.agreement is None else pair.agreement)[:_SHOWN]
    table = "\n".join(escape(line) for line in lines(found))
    rows = "".join(
        f"<tr><td>{pair.prompt.number}</td><td>{_agreement(pair)}</td><td><pre>{escape(pair.prompt.prompt[:300])}</pre></td>"
        f"<td>{_answer(pair.one)}</td><td>{_answer(pair.two)}</td></tr>"
        for pair in shown_pairs
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{one} and {two}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f"<h1>{one} and {two}</h1><pre>{table}</pre>"
        f"<h2>Words in common</h2>{_bars(found['histogram'])}"
        f"<h2>Seconds of the whole answer</h2>{_seconds(pairs, one, two)}"
        f"<h2>The least alike</h2><table><tr><th>line</th><th>in common</th><th>prompt</th><th>{one}</th><th>{two}</th></tr>{rows}"
        "</table></body></html>\n"
    )


def _agreement(pair: Pair) -> str:
    return "-" if pair.agreement is None else f"{pair.agreement:.0%}"


def _answer(reply: Reply) -> str:
    if reply.error:
        return f'<span class="bad">{escape(reply.error[:300])}</span>'
    return f"<pre>{escape(reply.text[:600])}</pre>"


def _bars(counts: Sequence[int]) -> str:
    """How many pairs have so many words in common, in tenths."""
    most, width, height = max([*counts, 1]), 60, 140
    parts = []
    for number, count in enumerate(counts):
        size = round(height * count / most)
        x, label = number * width, f"{number * 10}-{number * 10 + 10}%"
        parts.append(
            f'<rect class="bar" x="{x + 4}" y="{height - size + 20}" width="{width - 8}" height="{size}"/>'
        )
        parts.append(
            f'<text class="axis" x="{x + width / 2}" y="{height - size + 15}" text-anchor="middle">{count or ""}</text>'
        )
        parts.append(
            f'<text class="axis" x="{x + width / 2}" y="{height + 36}" text-anchor="middle">{label}</text>'
        )
    box = f"{len(counts) * width} {height + 44}"
    return f'<svg viewBox="0 0 {box}" role="img" aria-label="pairs by words in common">{"".join(parts)}</svg>'


def _seconds(pairs: Sequence[Pair], one: str, two: str) -> str:
    """The sorted times of both servers as two lines of points: how many answers took at most so long."""
    width, height = 600, 160
    sides = [
        sorted(reply.seconds for reply in replies if not reply.error)
        for replies in ([p.one for p in pairs], [p.two for p in pairs])
    ]
    most = max([*(side[-1] for side in sides if side), 1e-9])
    parts = []
    for values, kind in zip(sides, ("bar", "second"), strict=True):
        for number, value in enumerate(values):
            x = round(width * value / most, 1)
            y = round(height * (1 - (number + 1) / len(values)) + 10, 1)
            parts.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="3"/>')
    labels = (
        f'<text class="axis" x="0" y="{height + 34}">0 s</text>'
        f'<text class="axis" x="{width}" y="{height + 34}" text-anchor="end">{most:.3g} s</text>'
        f'<text class="axis" x="{width / 2}" y="{height + 34}" text-anchor="middle">'
        f'<tspan class="bar">● {one}</tspan>  <tspan class="second">● {two}</tspan></text>'
    )
    return f'<svg viewBox="-6 0 {width + 12} {height + 44}" role="img" aria-label="answers by seconds">{"".join(parts)}{labels}</svg>'
