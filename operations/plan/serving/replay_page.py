"""The comparison of two servers as one HTML page, which fetches nothing and runs nothing: numbers, two pictures, the least alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from operations.plan.html_page import cards, document, label, picture, ticks, visible
from operations.plan.serving.recorded import parting
from operations.plan.serving.replayed import STEPS, Pair, Reply, in_common, percent, rows

_SHOWN = 50  # pairs, the least alike first
_LONGEST_PROMPT, _LONGEST_ANSWER, _BEFORE = 300, 600, 150  # characters that are shown; before a difference
_MOST_STEPS = 400  # of a line of times

# Measures of the pictures, in their own units
_WIDTH, _LEFT, _RIGHT, _TOP, _HEIGHT = 600, 66, 570, 24, 140
_BOTTOM, _BOX = _TOP + _HEIGHT, _TOP + _HEIGHT + 56

_STYLE = """
pre { white-space: pre-wrap; margin: 0; font: 13px/1.45 ui-monospace, 'DejaVu Sans Mono', monospace; unicode-bidi: plaintext;
  tab-size: 4; }
.pairs { table-layout: fixed; width: 100%; } .pairs th:nth-child(1) { width: 3.5rem; } .pairs th:nth-child(2) { width: 5rem; }
.pairs th:nth-child(3) { width: 22%; }
.from, .to { fill: none; stroke: var(--one); stroke-width: 2.5; } .to { stroke: var(--two); stroke-dasharray: 7 3; }
@media (max-width: 44rem) { .pairs td:nth-child(-n+2)::before { display: inline; margin-right: .5rem; } }
"""


def page(found: Mapping[str, Any], pairs: Sequence[Pair]) -> str:
    """One HTML page of a report and its pairs."""
    one, two = (escape(str(found[side]["server"])) for side in ("from", "to"))
    body = (
        f"<h1>{one} and {two}</h1>{_numbers(found, one, two)}"
        f"<h2>Words in common</h2>{_common(found)}"
        f"<h2>Time of the whole answer</h2>{_times(pairs, one, two)}"
        f"<h2>The least alike</h2>{_least_alike(pairs, one, two)}"
    )
    return document(f"{one} and {two}", body, _STYLE)


def _numbers(found: Mapping[str, Any], one: str, two: str) -> str:
    body = "".join(
        f'<tr><th scope="row">{label}</th><td>{first}</td><td>{second}</td></tr>'
        for label, first, second in rows(found)
    )
    alike = f"<p>{words.capitalize()}.</p>" if (words := in_common(found)) else ""
    heads = f'<th scope="col">{_key("from")} {one}</th><th scope="col">{_key("to")} {two}</th>'
    return (
        f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{body}</tbody></table>"
        '<p class="quiet">The first number is the median; 95 of 100 answers have at most the value behind p95.</p>'
        f"{alike}"
    )


def _key(side: str) -> str:
    """The line of a server, as the picture draws it."""
    return f'<svg class="key" viewBox="0 0 24 8" aria-hidden="true"><path class="{side}" d="M0 4H24"/></svg>'


def _picture(what: str, parts: Sequence[str]) -> str:
    return picture(what, _WIDTH, _BOX, [*parts, f'<path class="axis" d="M{_LEFT} {_BOTTOM}H{_RIGHT}"/>'])


def _common(found: Mapping[str, Any]) -> str:
    """How many pairs have so many words in common, in tenths."""
    counts = found["histogram"]
    if not any(counts):
        return "<p>No prompt has an answer of both servers.</p>"
    most, width = max(counts), (_RIGHT - _LEFT) / STEPS
    parts = []
    for number, count in enumerate(counts):
        x, height = _LEFT + number * width, _HEIGHT * count / most
        if count:
            size = f'x="{x + 3:.4g}" y="{_BOTTOM - height:.4g}" width="{width - 6:.4g}" height="{height:.4g}"'
            parts += [f'<rect class="bar" {size}/>', label(x + width / 2, _BOTTOM - height - 5, str(count))]
    for number in range(0, STEPS + 1, 2):
        parts.append(label(_LEFT + number * width, _BOTTOM + 22, f"{number * 100 // STEPS}%"))
    parts.append(label((_LEFT + _RIGHT) / 2, _BOTTOM + 48, "words in common"))
    missing = found["prompts"] - sum(counts)
    without = f" Not counted: {missing} without two answers." if missing else ""
    return (
        '<p class="quiet">Prompts, by the part of the words that both answers have in the same order.'
        f"{without}</p>{_picture('prompts by the part of the words in common', parts)}"
    )


def _times(pairs: Sequence[Pair], one: str, two: str) -> str:
    """Which part of the answers took at most so long: a line for each server."""
    sides = [
        sorted(reply.seconds for reply in replies if not reply.error)
        for replies in ([pair.one for pair in pairs], [pair.two for pair in pairs])
    ]
    if not any(sides):
        return "<p>No server has answered.</p>"
    step, count = ticks(max(side[-1] for side in sides if side))
    unit = (_RIGHT - _LEFT) / (step * count)
    parts = []
    for part in (0, 50, 100):
        y = _BOTTOM - _HEIGHT * part / 100
        parts += [
            f'<path class="grid" d="M{_LEFT} {y:.4g}H{_RIGHT}"/>',
            label(_LEFT - 8, y + 5, f"{part}%", "end"),
        ]
    for number in range(count + 1):
        parts.append(label(_LEFT + number * step * unit, _BOTTOM + 22, f"{number * step:.4g}"))
    parts.append(label((_LEFT + _RIGHT) / 2, _BOTTOM + 48, "seconds"))
    for side, values in zip(("from", "to"), sides, strict=True):
        if values:
            parts.append(f'<path class="{side}" d="{_steps(values, unit)}"/>')
    legend = f"<span>{_key('from')} {one}</span><span>{_key('to')} {two}</span>"
    return (
        '<p class="quiet">The part of the answers that took at most so many seconds: the line further left is faster.</p>'
        f'<p class="legend">{legend}</p>{_picture("part of the answers by seconds", parts)}'
    )


def _steps(values: Sequence[float], unit: float) -> str:
    """The path of a line that rises at each of the sorted values, of which many are too fine to be seen."""
    last = len(values)
    shown = sorted({math.ceil(last * number / _MOST_STEPS) for number in range(1, _MOST_STEPS + 1)})
    path = "".join(
        f"H{_LEFT + values[number - 1] * unit:.4g}V{_BOTTOM - _HEIGHT * number / last:.4g}"
        for number in shown
    )
    return f"M{_LEFT + values[0] * unit:.4g} {_BOTTOM}{path}"


def _least_alike(pairs: Sequence[Pair], one: str, two: str) -> str:
    shown = sorted(pairs, key=lambda pair: -1.0 if pair.agreement is None else pair.agreement)[:_SHOWN]
    heads = ("line", "in common", "prompt", one, two)
    return (
        f'<p class="quiet">{len(shown)} of {len(pairs)} prompts, by their line in the file. What both answers begin with is grey.</p>'
        f"{cards(heads, map(_cells, shown), 'pairs')}"
    )


def _cells(pair: Pair) -> tuple[str, ...]:
    same = 0 if pair.agreement is None else parting(pair.one.text, pair.two.text)
    return (
        str(pair.prompt.number),
        "-" if pair.agreement is None else percent(pair.agreement),
        _text(pair.prompt.prompt, _LONGEST_PROMPT),
        _answer(pair.one, same),
        _answer(pair.two, same),
    )


def _answer(reply: Reply, same: int) -> str:
    if reply.error:
        return f'<p class="bad" dir="auto">{visible(reply.error[:300])}</p>'
    if not reply.text.strip():
        return '<p class="quiet">no text</p>'
    return _text(reply.text, _LONGEST_ANSWER, same)


def _text(text: str, longest: int, same: int = 0) -> str:
    """A text, or the part of it around the end of what another begins with as well."""
    begin = max(0, min(same - _BEFORE, len(text) - longest))
    end = begin + longest
    same = min(max(same, begin), end)
    before = _left_out(begin, "before")
    behind = _left_out(len(text) - end, "more")
    equal = f'<span class="quiet">{visible(text[begin:same])}</span>' if same > begin else ""
    # HTML drops a line break that directly follows <pre>
    return f'{before}<pre dir="auto" lang="">\n{equal}{visible(text[same:end])}</pre>{behind}'


def _left_out(count: int, where: str) -> str:
    return f'<p class="quiet">… {count} characters {where}</p>' if count > 0 else ""
