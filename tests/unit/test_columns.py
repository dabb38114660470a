"""Tables for a terminal: every row is one line, of no more cells than there are, whatever its text is."""

from __future__ import annotations

import pytest

from operations.plan.columns import Column, cells, cut, padded, table

COLUMNS = (
    Column("host", 8, 20, keep=3),
    Column("state", 5, keep=2),
    Column("model", 6, keep=1),
    Column("note", 6, keep=0, optional=True),
)
ROWS = [
    ["gpu-1", "serving", "llama-3.1-8b-instruct", ""],
    ["図書館サーバー一号機", "down", "模型", "二つ目の理由"],
    ["e\u0301te\u0301", "down", "\x1b[31mred\r\nsecond line", "👩‍🔬 at work"],
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("gpu-1", 5), ("図書館", 6), ("e\u0301", 1), ("ﾊﾝ", 2), ("\uff21", 2), ("", 0), ("a\u200bb", 2)],
)
def test_cells_of_wide_and_combining_characters(text: str, expected: int) -> None:
    assert cells(text) == expected


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("gpu-1", 5, "gpu-1"),
        ("gpu-12", 5, "gpu-…"),
        ("図書館", 6, "図書館"),
        ("図書館", 5, "図書…"),
        ("図書館", 4, "図…"),  # half a character is none
        ("two\nlines", 20, "two lines"),
        ("\x1b[2Jgone", 20, "[2Jgone"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
    ],
)
def test_cut_never_exceeds_its_width(text: str, width: int, expected: str) -> None:
    assert cut(text, width) == expected
    assert cells(cut(text, width)) <= width
    assert cells(padded(text, width)) == width


@pytest.mark.parametrize("total", range(1, 120))
def test_table_is_one_line_a_row_at_every_width(total: int) -> None:
    lines = table(COLUMNS, ROWS, total)
    assert len(lines) == 1 + len(ROWS)
    assert all(cells(line) <= total for line in lines)
    assert not any(character in line for line in lines for character in "\r\n\x1b")


def test_columns_are_aligned_behind_wide_characters() -> None:
    lines = table(COLUMNS, ROWS)
    at = [cells(line[: line.index(word)]) for line, word in zip(lines[1:3], ("serving", "down"), strict=True)]
    assert at == [22, 22]


def test_least_important_column_goes_first() -> None:
    wide, narrow = table(COLUMNS, ROWS, 60), table(COLUMNS, ROWS, 20)
    assert "note" in wide[0] and "model" in wide[0]
    assert narrow[0].split() == ["host", "state"]


def test_empty_optional_column_is_left_out() -> None:
    assert table(COLUMNS, ROWS[:1])[0].split() == ["host", "state", "model"]
    assert table(COLUMNS, ROWS)[0].split() == ["host", "state", "model", "note"]
