"""Where the time of the lab's tests goes, by module and kind of work; one line per module when pytest ends.

Commands that run in parallel all count, so the kinds of a module may add up to more than its time.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# module -> kind -> seconds of each
_spent: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
_whole: dict[str, float] = defaultdict(float)
_lock = threading.Lock()


def _module(node: str) -> str:
    return Path(node.partition("::")[0]).stem


@contextmanager
def timed(kind: str) -> Iterator[None]:
    """Count the block's seconds for the running test."""
    module = _module(os.environ.get("PYTEST_CURRENT_TEST", ""))
    began = time.monotonic()
    try:
        yield
    finally:
        with _lock:
            _spent[module][kind].append(time.monotonic() - began)


def add_whole(node: str, seconds: float) -> None:
    """Add the time of a phase of a test."""
    _whole[_module(node)] += seconds


def lines() -> list[str]:
    """A line for each module that ran something, the slowest kind first."""
    found = []
    for module, kinds in _spent.items():
        told = ", ".join(
            f"{kind} {len(each)}x {sum(each):.0f} s"
            for kind, each in sorted(kinds.items(), key=lambda item: -sum(item[1]))
        )
        found.append(f"time: {module}: {_whole[module]:.0f} s: {told}")
    return found
