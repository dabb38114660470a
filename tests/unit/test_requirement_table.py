"""The page of requirements is made from the tests' marks, and says nothing else."""

from __future__ import annotations

from tests.requirement_table import PAGE, page, requirements


def test_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.requirement_table`"


def test_every_requirement_is_shown_or_has_a_reason() -> None:
    silent = [
        one.name
        for one in requirements().values()
        if not one.tests and [part for part, _ in one.not_shown] != ["all of it"]
    ]
    assert silent == [], "no test carries the mark, and tests/requirements.toml gives no reason"
