"""Two measured speeds as one HTML page, or as a picture alone: which figures changed, by how much, and which are worse."""

from __future__ import annotations

from html import escape

from operations.plan.html_page import COLOURS, PARTS, document, label, ticks
from operations.plan.serving.bench_result import Comparison, Row, changed, number

_ROW, _LABEL, _WIDTH, _END = 24, 260, 640, 620
_MOST = 2.0  # a change beyond it is drawn as far
_STYLE = """
.bar { fill: var(--one); } .worse { fill: var(--bad); } .few { fill: var(--faint); }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
"""


def page(found: Comparison) -> str:
    """One HTML page, which fetches nothing and runs nothing."""
    one, two = (escape(f"{each.model}, release {each.release}") for each in (found.a, found.b))
    notes = "".join(f'<p class="bad">{escape(note)}</p>' for note in found.notes)
    verdict = "B is worse than is allowed." if found.worse else "B is not worse than is allowed."
    body = (
        f"<p>A: {one}, {escape(found.a.at)}, measured by {escape(found.a.tool)}.</p>"
        f"<p>B: {two}, {escape(found.b.at)}, measured by {escape(found.b.tool)}.</p>"
        f"<p><b>{verdict}</b></p>{notes}"
        f"<h2>Change from A to B</h2>{_drawn(found)}<h2>Figures</h2>{_table(found)}"
        '<p class="quiet">A percentile above which fewer than three requests lie is shown, and not judged: (few).</p>'
    )
    title = f"Speed: {escape(found.a.profile)}, A and B"
    return document(title, f"<h1>{title}</h1>{body}", _STYLE)


def svg(found: Comparison) -> str:
    """The picture alone, as a file."""
    style = f"<style>{COLOURS}{PARTS}{_STYLE}text {{ font-family: 'DejaVu Sans', sans-serif; }}</style>"
    drawn = _drawn(found).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return drawn.replace(">", f">{style}", 1) + "\n"


def _table(found: Comparison) -> str:
    body = "".join(
        f'<tr><th scope="row">{escape(row.label)}</th>'
        + "".join(f'<td class="number">{number(value)} {row.unit}</td>' for value in (row.a, row.b))
        + f'<td class="number{" bad" if row.worse else ""}">{changed(row)}</td></tr>'
        for row in found.rows
    )
    heads = "".join(f'<th scope="col">{text}</th>' for text in ("A", "B", "change"))
    return f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _drawn(found: Comparison) -> str:
    """A bar for each figure, from no change in the middle."""
    rows = [row for row in found.rows if row.change is not None]
    reach = max((min(abs(row.change or 0.0), _MOST) for row in rows), default=0.0)
    step, count = ticks(max(100 * reach, 5.0))
    unit = (_END - _LABEL) / (2 * step * count)
    middle, bottom = (_LABEL + _END) / 2, 16 + _ROW * len(rows)
    parts = []
    for mark in range(-count, count + 1):
        x = middle + mark * step * unit
        parts.append(f'<path class="{"grid" if mark else "axis"}" d="M{x:.4g} 8V{bottom}"/>')
        if mark in (-count, 0, count):
            parts.append(label(x, bottom + 18, f"{mark * step:+.4g}%" if mark else "0"))
    for place, row in enumerate(rows):
        parts += _bar(row, 12 + place * _ROW, middle, unit)
    box = f'viewBox="0 0 {_WIDTH} {bottom + 28}"'
    return f'<svg class="picture" {box} role="img" aria-label="change of each figure from A to B">{"".join(parts)}</svg>'


def _bar(row: Row, y: float, middle: float, unit: float) -> list[str]:
    change = max(-_MOST, min(_MOST, row.change or 0.0))
    width = abs(100 * change * unit)
    x = middle if change >= 0 else middle - width
    kind = "worse" if row.worse else "bar" if row.judged else "few"
    return [
        f'<rect class="{kind}" x="{x:.4g}" y="{y}" width="{width:.4g}" height="{_ROW - 8}"/>',
        label(_LABEL - 8, y + 12, escape(row.label), "end"),
    ]
