"""Command-line flags that come and go between releases, as data."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .releases import release
from .version import __version__

Release = tuple[int, int]


@dataclass(frozen=True)
class Flag:
    """A flag (with its aliases) that exists from `since` up to, not including, `until`."""

    names: tuple[str, ...]
    since: Release = (0, 0)
    until: Release = (99, 0)
    options: dict[str, Any] = field(default_factory=dict)

    def exists(self, at: Release) -> bool:
        """Whether the release knows the flag."""
        return self.since <= at < self.until


def flag(*names: str, since: Release = (0, 0), until: Release = (99, 0), **options: Any) -> Flag:
    """A flag with argparse's options for it."""
    return Flag(names, since, until, options)


def switches(*names: str, since: Release = (0, 0), until: Release = (99, 0)) -> list[Flag]:
    """Flags that take no value."""
    return [Flag((name,), since, until, {"action": "store_true"}) for name in names]


def parser(prog: str, what: str, flags: Iterable[Flag]) -> argparse.ArgumentParser:
    """An argparse parser that knows just the flags of the installed version."""
    at = release(__version__)
    made = argparse.ArgumentParser(prog=prog, description=f"{what} (stand-in, TensorRT-LLM {__version__})")
    for one in flags:
        if one.exists(at):
            made.add_argument(*one.names, **one.options)
    return made
