"""The name of a test is `test_<unit>_<behaviour>`, short enough for one line of a report."""

from __future__ import annotations

import re
from pathlib import Path

LIMIT = 60
TESTS = Path(__file__).resolve().parents[1]
_DEFINITION = re.compile(r"^[ \t]*(?:async )?def (test_\w+)\(", re.MULTILINE)


def too_long(text: str) -> list[str]:
    """The tests of one file's text whose names reach the limit."""
    return [name for name in _DEFINITION.findall(text) if len(name) >= LIMIT]


def test_every_test_name_is_under_60_characters() -> None:
    texts = {path: path.read_text("utf-8") for path in sorted(TESTS.rglob("test_*.py"))}
    assert texts.keys() >= {Path(__file__).resolve(), TESTS / "verify" / "test_host.py"}
    found = {path.relative_to(TESTS).as_posix(): too_long(text) for path, text in texts.items()}
    assert {path: names for path, names in found.items() if names} == {}


def test_too_long_finds_names_of_60_characters() -> None:
    longest, longer = f"test_{'a' * 54}", f"test_{'a' * 55}"
    text = f"def {longest}() -> None: ...\n\n\nclass Of:\n    async def {longer}(self) -> None: ...\n"
    assert too_long(text) == [longer]
