"""The words that docs/glossary.md forbids occur in no tracked file."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
GLOSSARY = "docs/glossary.md"

# the glossary itself, text that others wrote, and lists of hashes
SKIPPED = (
    GLOSSARY,
    "LICENSE",
    "requirements.lock",
    "files/image/plan/requirements.txt",
    "tests/lab/standins/captures/",
    "tests/unit/captures/",
)


def forbidden(page: str) -> dict[str, str]:
    """The rows of the glossary's table under "Never": word or phrase -> what to write instead."""
    table = page.partition("\n## Never\n")[2]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)
    return {word: instead for word, instead in rows if word != "never"}


NEVER = forbidden((PROJECT / GLOSSARY).read_text("utf-8"))


def _pattern(words: str) -> re.Pattern[str]:
    """The words in small letters, with or without a capital at the beginning, also across the lines of a comment."""
    first, *others = (re.escape(word) for word in words.split())
    start = f"[{words[0].upper()}{words[0]}]{first[1:]}"
    return re.compile(r"\b" + r"[\s#]+".join((start, *others)) + r"\b")


PATTERNS = {words: _pattern(words) for words in NEVER}


def found(text: str) -> Iterator[tuple[int, str]]:
    """The line number of each forbidden word of a text, and the word."""
    for words, pattern in PATTERNS.items():
        # a plain search is much faster, and finds nothing in most files
        longest = max(words.split(), key=len)
        if longest in text or longest.capitalize() in text:
            for match in pattern.finditer(text):
                yield text.count("\n", 0, match.start()) + 1, words


def tracked() -> Iterator[tuple[str, str]]:
    """Path and text of every tracked text file that is to be searched."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    for path in filter(None, listed.stdout.split("\0")):
        if path.startswith(SKIPPED) or not (PROJECT / path).is_file():
            continue
        try:
            yield path, (PROJECT / path).read_text("utf-8")
        except UnicodeDecodeError:
            continue  # not a text file


def test_tracked_files_have_no_forbidden_word() -> None:
    lines = [
        f"{path}:{line}: {words}: write: {NEVER[words]}"
        for path, text in tracked()
        for line, words in sorted(found(text))
    ]
    assert not lines, "words that docs/glossary.md forbids:\n" + "\n".join(lines)


def test_search_covers_the_sources_and_the_pages() -> None:
    paths = {path for path, _ in tracked()}
    assert {
        "deploy.py",
        "Makefile",
        "docs/supply-chain.md",
        "files/host/probe.sh",
        "operations/swap.py",
    } <= paths
    assert len(paths) > 400


@pytest.mark.parametrize("words", NEVER)
def test_each_forbidden_word_is_found(words: str) -> None:
    first, _, others = words.partition(" ")
    broken = f"{first}\n    # {others}" if others else first
    for text in (words, words.capitalize(), f"x = 1  # so {words}, then", f"# {broken}."):
        assert words in {found_words for _, found_words in found(text)}, text


@pytest.mark.parametrize(
    "text", ["a new host", "recommend", "MENDED = 1", "forever", "what_serves", "mandate"]
)
def test_other_words_are_not_found(text: str) -> None:
    assert list(found(text)) == []


def test_line_number_is_that_of_the_word() -> None:
    words = next(words for words in NEVER if " " in words)
    assert list(found("one\ntwo\nthree: " + words.replace(" ", "\n# "))) == [(3, words)]
