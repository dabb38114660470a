"""The commands that the README gives for a new machine, unchanged."""

from __future__ import annotations

import re

from tests.lab.settings import REPOSITORY

HEADING = "## Quick start"
CLONE = re.compile(r"git clone \S+")


def quick_start(source: str) -> list[str]:
    """
    The lines of the quick start's first code block; ValueError where the README has none.

    + source: what is cloned in place of the public repository
    """
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    _, heading, rest = text.partition(f"\n{HEADING}\n")
    block = re.search(r"(?:^    .*\n)+", rest.partition("\n## ")[0], flags=re.MULTILINE)
    if not heading or block is None:
        raise ValueError(f"README.md: expected an indented block of commands below {HEADING!r}")
    lines = [line.strip().partition("   #")[0].rstrip() for line in block.group().splitlines()]
    if not any(CLONE.match(line) for line in lines):
        raise ValueError(f"README.md: expected `git clone` below {HEADING!r}, found {lines}")
    return [CLONE.sub(f"git clone --quiet file://{source}", line) for line in lines]
