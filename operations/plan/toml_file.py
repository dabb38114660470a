"""Read an untrusted TOML file: limited in size and time, and only values that JSON can represent."""

from __future__ import annotations

import math
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from operations.plan.errors import TOKEN, PlanError

LARGEST_FILE = 64 * 1024  # bytes; the project's own profiles have two thousand
DEEPEST, MOST_VALUES = 12, 20_000
SMALLEST_NUMBER, LARGEST_NUMBER = -(2**63), 2**63 - 1  # the range that TOML guarantees

# tomllib's memory and time grow with the square of the number of names that dots join: 256 KiB of a.a.a… exhaust the
# machine's memory.
_NAME = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]++|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_\\-]){_NAME}(?:[ \t]*+\.[ \t]*+{_NAME}){{{DEEPEST},}}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def read_toml(path: Path, where: str, kind: str = "a profile") -> dict[str, Any]:
    """
    The content of one file, checked by `check_plain`.

    + where: its name, for the error
    + kind: what it is, for the error

    Raises PlanError if it is not a regular file, cannot be read, is too large, or is not TOML in UTF-8.
    """
    try:
        # without waiting: opening a FIFO would wait for a writer, and reading it might never end
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                then = f"write {kind} into a file"
                raise _refused(where, "something else", "a regular file", then, "not-a-regular-file")
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        then = "correct the path" if isinstance(error, FileNotFoundError) else ""
        expected = "a regular file that can be read"
        raise _refused(where, error.strerror, expected, then, "file-not-readable") from None
    if len(content) > LARGEST_FILE:
        then = f"{kind} is a page of text; weights and images are named in it"
        raise _refused(where, "a larger file", f"at most {LARGEST_FILE} bytes", then, "file-too-large")
    try:
        text = content.decode("utf-8-sig")
        if long := _LONG_KEY.search(text):
            expected = f"at most {DEEPEST} names joined by dots"
            raise _refused(where, long[0], expected, "", "too-many-levels")
        data = tomllib.loads(text)
    except PlanError:
        raise
    except RecursionError:
        expected = f"a TOML file of at most {DEEPEST} levels"
        raise _refused(where, "tables inside tables", expected, "", "too-many-levels") from None
    except tomllib.TOMLDecodeError as error:
        then = _advice(text, str(error))
        raise _refused(where, str(error), "a TOML file in UTF-8", then, "toml-syntax") from None
    except ValueError as error:
        # UnicodeDecodeError, or an integer of thousands of digits
        raise _refused(where, str(error), "a TOML file in UTF-8", "", "toml-syntax") from None
    check_plain(data, where, kind)
    return data


def _refused(where: str, found: object, expected: str, then: str, reference: str) -> PlanError:
    """An error about the whole file."""
    return PlanError("", found, expected, then, where=where, reference=reference)


def _advice(text: str, problem: str) -> str:
    """What to write instead, for values that are right in another language; empty where it is something else."""
    # tomllib has the line's number in its text alone, up to Python 3.13
    number = re.search(r"at line (\d+)", problem)
    line = (text.splitlines() or [""])[int(number[1]) - 1 if number else -1]
    key, equals, value = line.partition("=")
    word = value.strip().split()[0] if value.strip() else ""
    if not equals:
        return "write KEY = VALUE" if ":" in key else ""
    if word in ("True", "False"):
        return f"write {word.lower()}, in lower case"
    if word == "None":
        return "leave the key out: TOML has no None"
    if re.match(r"[\u2018-\u201f]", word):
        return "write straight quotes"
    return "put text in quotes" if re.match(r"[A-Za-z0-9/~]", word) and not _is_toml(word) else ""


def _is_toml(word: str) -> bool:
    """Whether a word is one of TOML's own values and not a text without its quotes."""
    return bool(re.fullmatch(r"[0-9_]+|true|false|inf|nan", word))


def check_plain(data: object, where: str, kind: str = "a profile", within: tuple[str, ...] = ()) -> None:
    """
    Refuse what a plan's tables must not have: dates, nan, inf, numbers beyond 64 bits, control characters, secrets.

    + data: tables as tomllib or Python makes them, however deep
    + where: their file, for the error
    + within: the names that lead to `data`, for the error

    Raises PlanError with the key.
    """
    waiting: list[tuple[object, tuple[str, ...]]] = [(data, ())]
    count = 0
    while waiting:
        value, path = waiting.pop()
        count += 1
        key = ".".join((*within, *path))
        problem: tuple[object, str, str, str] | None = None
        if count > MOST_VALUES:
            key, problem = "", ("more values", f"at most {MOST_VALUES} values", "", "file-too-large")
        elif len(path) > DEEPEST:
            problem = "tables inside tables", f"at most {DEEPEST} levels", "", "too-many-levels"
        elif isinstance(value, Mapping):
            problem = next(filter(None, (_text_problem(name, kind) for name in value)), None)
            waiting.extend((value[name], (*path, name)) for name in reversed(value))
        elif isinstance(value, list | tuple):
            waiting.extend((item, (*path, str(n))) for n, item in reversed(list(enumerate(value))))
        elif isinstance(value, str):
            problem = _text_problem(value, kind)
        elif isinstance(value, float):
            if not math.isfinite(value):
                problem = value, "a finite number", "", "wrong-value"
        elif isinstance(value, int):
            if not SMALLEST_NUMBER <= value <= LARGEST_NUMBER:
                problem = value, "a number of at most 64 bits", "", "wrong-value"
        elif value is not None:
            expected = "text, a number, true or false, a list or a table"
            problem = str(value), expected, "put it in quotes", "wrong-value"
        if problem:
            found, expected, then, reference = problem
            raise PlanError(key, found, expected, then, where=where, reference=reference)


def _text_problem(value: object, kind: str) -> tuple[object, str, str, str] | None:
    if not isinstance(value, str):
        return value, "a table whose keys are text", "", "wrong-value"
    if TOKEN.search(value):
        return value, f"no secret in {kind}", "export HF_TOKEN instead", "secret-in-inventory"
    if found := _CONTROL.search(value):
        return f"the character U+{ord(found[0]):04X}", "text without control characters", "", "wrong-value"
    return None
