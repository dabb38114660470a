"""Tables for a terminal: one line a row, each cell cut to the width that is left for its column and never wrapped."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from operations.plan.errors import one_line

GAP = 2  # cells between two columns
CUT = "…"


@dataclass(frozen=True)
class Column:
    """
    One column of a table.

    + title: its head
    + least: the cells below which it is not narrowed, but left out
    + most: the cells that it never exceeds; 0: no limit
    + keep: how late it is left out where the terminal is too narrow: the lowest goes first
    + optional: left out where no row has anything in it
    """

    title: str
    least: int
    most: int = 0
    keep: int = 0
    optional: bool = False


def cells(text: str) -> int:
    """How many cells of a terminal a text takes: two for a wide character, none for one that is put on another."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """A text in one line that takes at most `width` cells; what was cut off is an ellipsis."""
    text = one_line(text)
    if cells(text) <= width:
        return text
    kept, left = [], width - 1
    for character in text:
        left -= _cells(character)
        if left < 0:
            break
        kept.append(character)
    return f"{''.join(kept)}{CUT}" if width > 0 else ""


def padded(text: str, width: int) -> str:
    """A text cut to a width and filled up to it."""
    shown = cut(text, width)
    return shown + " " * (width - cells(shown))


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], total: int = 0) -> list[str]:
    """
    The lines of a table with its head; each row is one line.

    + rows: a text for each column
    + total: the cells of a line; 0: no limit

    Columns are narrowed to their least width, the widest first; then they are left out, in the order of `keep`.
    """
    rows = [[one_line(text) for text in row] for row in rows]
    shown = [n for n, column in enumerate(columns) if not column.optional or any(row[n] for row in rows)]
    widths = {n: _natural(columns[n], [row[n] for row in rows]) for n in shown}
    while total and len(shown) > 1 and _least(columns, widths) > total:
        gone = min(shown, key=lambda n: (columns[n].keep, -n))
        shown.remove(gone)
        del widths[gone]
    while total and (over := sum(widths.values()) + GAP * (len(shown) - 1) - total) > 0:
        wide = max(shown, key=lambda n: widths[n] - columns[n].least)
        if widths[wide] <= columns[wide].least:
            break
        widths[wide] -= min(over, max(1, (widths[wide] - columns[wide].least) // 4))
    lines = []
    for row in [[column.title for column in columns], *rows]:
        line = (" " * GAP).join(padded(row[n], widths[n]) for n in shown).rstrip()
        lines.append(cut(line, total) if total and cells(line) > total else line)
    return lines


def _natural(column: Column, texts: Sequence[str]) -> int:
    widest = max((cells(text) for text in (column.title, *texts)), default=0)
    return min(widest, column.most) if column.most else widest


def _least(columns: Sequence[Column], widths: dict[int, int]) -> int:
    narrowed = sum(min(width, columns[n].least) for n, width in widths.items())
    return narrowed + GAP * (len(widths) - 1)
