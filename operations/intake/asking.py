"""Ask a person at the terminal."""

from __future__ import annotations

import sys


def answer(question: str) -> str | None:
    """What is typed behind a question; None, with a line about it, where there is no terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        print("tritonhost: found no terminal to ask at, expected --yes", file=sys.stderr)
        return None
    print(question, end="", flush=True)
    return sys.stdin.readline().strip()
