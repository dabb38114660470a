"""What may follow the words of a command line. click speaks with the shells; the candidates are found here."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from click.shell_completion import CompletionItem

import tritonhost

FILE = CompletionItem("", type="file")


def plain(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Those of the words that begin with what is typed."""
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def models() -> list[str]:
    """The profiles by name: those of the directory that the shell is in, and those that are shipped."""
    folders = (Path("inventories", "models"), tritonhost.tree() / "inventories" / "models")
    return sorted({path.stem for folder in folders for path in folder.glob("*.toml")})


def inventories(incomplete: str) -> list[CompletionItem]:
    """The inventories of the directory that the shell is in; else any file."""
    found = sorted(str(path) for path in Path("inventories").glob("*.py"))
    return plain(found, incomplete) or [FILE]


def following(parser: argparse.ArgumentParser, words: Sequence[str], incomplete: str) -> list[CompletionItem]:
    """
    The candidates that argparse would take next.

    + words: those that are complete
    + incomplete: the beginning of the next one
    """
    waiting: argparse.Action | None = None  # an option whose value comes next
    given = 0  # positional words so far
    for word in words:
        if waiting is not None:
            waiting = None
        elif word.startswith("-"):
            option = parser._option_string_actions.get(word)
            waiting = option if option is not None and option.nargs != 0 else None
        else:
            action = _positional(parser, given)
            given += 1
            if isinstance(action, argparse._SubParsersAction) and word in action.choices:
                parser, given = action.choices[word], 0
    if waiting is None and incomplete.startswith("-"):
        return plain(parser._option_string_actions, incomplete)
    return _values(waiting or _positional(parser, given), incomplete)


def _positional(parser: argparse.ArgumentParser, number: int) -> argparse.Action | None:
    actions = parser._get_positional_actions()
    return actions[number] if number < len(actions) else None


def _values(action: argparse.Action | None, incomplete: str) -> list[CompletionItem]:
    if action is None:
        return []
    if action.choices is not None:
        return plain(map(str, action.choices), incomplete)
    if action.dest == "profile":
        return plain(models(), incomplete)
    if action.dest == "inventory":
        return inventories(incomplete)
    return [FILE] if action.type is Path or action.metavar == "DIR" else []
