"""What the HTML pages of this tool have in common: one file that fetches nothing and runs nothing, light and dark, wide and narrow. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from html import escape

# What a browser does not show, and what changes the direction of the text behind it
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")

# No script and no request, whatever a host or a model wrote
POLICY = "default-src 'none'; style-src 'unsafe-inline'"

NONE = "-"  # a cell without a value

COLOURS = """
:root { color-scheme: light dark; --text: #1f2328; --quiet: #57606a; --page: #ffffff; --line: #8c959f; --faint: #d8dee4;
  --one: #3b6fb0; --two: #b9570f; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --text: #f0f6fc; --quiet: #a3adb8; --page: #0d1117; --line: #6e7681; --faint: #2b323a;
  --one: #6ca4e8; --two: #e8954a; --bad: #ff8a80; } }
"""
# of the parts of a picture, on a page or in a file of its own
PARTS = """
.bar { fill: var(--one); } .axis { stroke: var(--line); } .grid { stroke: var(--faint); } text { fill: var(--quiet); font-size: 13px; }
"""
_STYLE = (
    COLOURS
    + """body { font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; margin: 2rem auto; max-width: 68rem;
  padding: 0 1rem; color: var(--text); background: var(--page); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin: 2rem 0 .3rem; } p { margin: .3rem 0; }
.quiet { color: var(--quiet); } .bad { color: var(--bad); } .mark { color: var(--bad); font-size: 11px; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0;
  border-bottom: 1px solid var(--faint); } thead tr > * { border-color: var(--line); } th { font-weight: 600; }
th[scope=row] { overflow-wrap: normal; } td p { margin: 0; }
svg { display: block; } .picture { width: 100%; max-width: 40rem; margin: .5rem 0; } .key { display: inline-block; width: 24px; height: 8px; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.5rem; }
"""
    + PARTS
    + """@media (max-width: 44rem) {
  text { font-size: 19px; } .cards, .cards tbody, .cards tr, .cards td { display: block; } .cards thead { display: none; }
  .cards tr { border-bottom: 1px solid var(--line); padding: .6rem 0; } .cards td { border: 0; padding: .1rem 0; }
  .cards td::before { content: attr(data-label); display: block; color: var(--quiet); font-size: 13px; }
}
@media print {
  :root { --text: #000000; --quiet: #444444; --page: #ffffff; --line: #777777; --faint: #cccccc; --one: #3b6fb0; --two: #b9570f;
    --bad: #b3261e; }
  body { margin: 0; max-width: none; font-size: 12px; } svg { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  tr, .picture { break-inside: avoid; }
}
"""
)


def document(title: str, body: str, style: str = "") -> str:
    """
    One HTML page.

    + title: HTML without tags
    + style: rules beside those that all pages have
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}{style}</style></head><body>{body}</body></html>\n"
    )


def visible(text: str) -> str:
    """HTML of a text; characters that a browser hides are shown by their number."""
    return _HIDDEN.sub(lambda found: f'<span class="mark">U+{ord(found[0]):04X}</span>', escape(text))


def plain_text(text: str) -> str:
    """The same without tags, for a title or an attribute."""
    return escape(_HIDDEN.sub(lambda found: f"U+{ord(found[0]):04X}", text))


def cards(heads: Sequence[str], rows: Iterable[Sequence[str]], css: str = "") -> str:
    """
    A table; on a narrow screen a block for each row, in which each cell has its own label.

    + heads: HTML without tags
    + rows: HTML of the cells
    + css: a further class
    """
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    body = "".join(
        f"<tr>{''.join(_cell(label, cell) for label, cell in zip(heads, row, strict=True))}</tr>"
        for row in rows
    )
    named = f"cards {css}".rstrip()
    return f'<table class="{named}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(label: str, cell: str) -> str:
    none = ' class="none"' if cell == NONE else ""
    return f'<td{none} data-label="{label}">{cell}</td>'


# --- pictures


def picture(what: str, width: int, height: int, parts: Iterable[str]) -> str:
    """
    A picture in its own units, as wide as the page.

    + what: HTML without tags, in place of the picture where none is seen
    """
    box = f'viewBox="0 0 {width} {height}"'
    return f'<svg class="picture" {box} role="img" aria-label="{what}">{"".join(parts)}</svg>'


def label(x: float, y: float, text: str, anchor: str = "middle") -> str:
    """A text in a picture. + text: HTML without tags"""
    return f'<text x="{x:.4g}" y="{y:.4g}" text-anchor="{anchor}">{text}</text>'


def ticks(most: float) -> tuple[float, int]:
    """The distance of marks on an axis from 0, and how many there are, so that the last is `most` or behind it."""
    rough = max(most, 1e-3) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return step, math.ceil(max(most, 1e-3) / step - 1e-9)
