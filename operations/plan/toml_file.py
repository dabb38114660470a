"""Read a TOML file that anybody may have written: bounded in size and time, and only values that JSON can say."""

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

LARGEST_FILE = 64 * 1024  # bytes; the profiles at hand have two thousand
DEEPEST, MOST_VALUES = 12, 20_000
SMALLEST_NUMBER, LARGEST_NUMBER = -(2**63), 2**63 - 1  # what TOML promises to keep

# tomllib takes memory and time for the square of the number of names that dots join: 256 KiB of a.a.a… end in the
# machine's memory.
_NAME = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]++|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_\\-]){_NAME}(?:[ \t]*+\.[ \t]*+{_NAME}){{{DEEPEST},}}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def read_toml(path: Path, where: str, kind: str = "a profile") -> dict[str, Any]:
    """
    The content of one file, checked by `check_plain`.

    + where: its name, for the error
    + kind: what it is, for the error

    Raises PlanError for whatever is no regular file, cannot be read, is too large, or is no TOML in UTF-8.
    """
    try:
        # without waiting: a FIFO has no end, and no beginning either while nobody writes to it
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PlanError(where, "something else", "a regular file", f"write {kind} into a file")
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise PlanError(where, error.strerror, "a regular file that can be read") from None
    if len(content) > LARGEST_FILE:
        then = f"{kind} is a page of text; weights and images are named in it"
        raise PlanError(where, "a larger file", f"at most {LARGEST_FILE} bytes", then)
    try:
        text = content.decode("utf-8-sig")
        if long := _LONG_KEY.search(text):
            raise PlanError(where, long[0], f"at most {DEEPEST} names joined by dots")
        data = tomllib.loads(text)
    except PlanError:
        raise
    except RecursionError:
        raise PlanError(where, "tables inside tables", f"a TOML file of at most {DEEPEST} levels") from None
    except ValueError as error:
        # tomllib.TOMLDecodeError, UnicodeDecodeError, or an integer of thousands of digits
        raise PlanError(where, str(error), "a TOML file in UTF-8") from None
    check_plain(data, where, kind)
    return data


def check_plain(data: object, where: str, kind: str = "a profile") -> None:
    """
    Refuse what no table of a plan holds: dates, nan, inf, numbers beyond 64 bits, control characters, secrets.

    + data: tables as tomllib or Python makes them, however deep
    + where: their file, for the error

    Raises PlanError with the key.
    """
    waiting: list[tuple[object, tuple[str, ...]]] = [(data, ())]
    count = 0
    while waiting:
        value, path = waiting.pop()
        count += 1
        key = f"{where}: {'.'.join(path)}" if path else where
        if count > MOST_VALUES:
            raise PlanError(where, "more values", f"at most {MOST_VALUES} values")
        if len(path) > DEEPEST:
            raise PlanError(key, "tables inside tables", f"at most {DEEPEST} levels")
        if isinstance(value, Mapping):
            for name in value:
                _check_text(name, key, kind)
            waiting.extend((value[name], (*path, name)) for name in reversed(value))
        elif isinstance(value, list | tuple):
            waiting.extend((item, (*path, str(n))) for n, item in reversed(list(enumerate(value))))
        elif isinstance(value, str):
            _check_text(value, key, kind)
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise PlanError(key, value, "a finite number")
        elif isinstance(value, int):
            if not SMALLEST_NUMBER <= value <= LARGEST_NUMBER:
                raise PlanError(key, value, "a number of at most 64 bits")
        elif value is not None:
            expected = "text, a number, true or false, a list or a table"
            raise PlanError(key, str(value), expected, "put it in quotes")


def _check_text(value: object, key: str, kind: str) -> None:
    if not isinstance(value, str):
        raise PlanError(key, value, "a table whose keys are text")
    if TOKEN.search(value):
        raise PlanError(key, value, f"no secret in {kind}", "export HF_TOKEN instead")
    if found := _CONTROL.search(value):
        raise PlanError(key, f"the character U+{ord(found[0]):04X}", "text without control characters")
