"""The commands of the README and of the tutorial, unchanged."""

from __future__ import annotations

import re

from tests.lab.settings import REPOSITORY

README, TUTORIAL = "README.md", "docs/start.md"
HEADING = "## Quick start"
LAB = "## In the lab"
CLONE = re.compile(r"git clone \S+")
# How a line of a block begins that a person types; the other blocks show what is printed.
TYPED = re.compile(
    r"(LAB_[A-Z]+=\S+ )*(apt-get|git|cd|make|cp|sed|rm|\.venv/bin/\S+|tests/lab/lab|ssh|ssh-keyscan|ssh-keygen|docker|curl) "
)


def blocks(page: str, heading: str) -> list[list[str]]:
    """
    The blocks of commands below a heading of the second level, each as its lines without their comments.

    + page: a page's path in the repository

    Raises ValueError for a page without the heading or without a block, and for a block that is half commands.
    """
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    _, found, rest = text.partition(f"\n{heading}\n")
    commands = []
    for block in re.findall(r"(?:^    .*\n)+", rest.partition("\n## ")[0], flags=re.MULTILINE):
        lines = [line.strip().partition("   #")[0].rstrip() for line in block.splitlines()]
        typed = [bool(TYPED.match(f"{line} ")) for line in lines]
        if any(typed) and not all(typed):
            raise ValueError(f"{page}: expected a block of commands alone or of output alone, found {lines}")
        if all(typed):
            commands.append(lines)
    if not found or not commands:
        raise ValueError(f"{page}: expected an indented block of commands below {heading!r}")
    return commands


def quick_start(source: str) -> list[str]:
    """
    The lines of the quick start's first code block; ValueError where the README has none.

    + source: what is cloned in place of the public repository
    """
    lines = blocks(README, HEADING)[0]
    if not any(CLONE.match(line) for line in lines):
        raise ValueError(f"{README}: expected `git clone` below {HEADING!r}, found {lines}")
    return [CLONE.sub(f"git clone --quiet file://{source}", line) for line in lines]


def on_a_host() -> list[str]:
    """The README's commands for a host with a GPU, on the lab's hosts: they differ from real ones by inventory data only."""
    _, lines = blocks(README, HEADING)
    return [line.replace("inventories/oci.py", "inventories/lab.py") for line in lines]


def tutorial() -> list[str]:
    """What the tutorial says to type in the lab after the demo, in its order."""
    demo, *rest = blocks(TUTORIAL, LAB)
    if demo[-1] != "make demo":
        raise ValueError(f"{TUTORIAL}: expected `make demo` first below {LAB!r}, found {demo}")
    return [line for block in rest for line in block]
