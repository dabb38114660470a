"""Artifacts are named after what they were made from: one key per artifact, a hash of every input."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY_LENGTH = 16  # hexadecimal digits: 64 bits, far from a collision among one host's artifacts

Inputs = Mapping[str, Any]


def canonical(inputs: Inputs) -> str:
    """The inputs as JSON with sorted keys and no spaces, so that equal inputs give equal text."""
    return json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def key_of(inputs: Inputs) -> str:
    """The artifact's name: the first 16 hexadecimal digits of the SHA-256 of its canonical inputs."""
    return hashlib.sha256(canonical(inputs).encode()).hexdigest()[:KEY_LENGTH]


def digest(text: str) -> str:
    """The SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def differing(wanted: Inputs, found: Inputs) -> list[str]:
    """The inputs that differ, one line each: why an artifact is made again."""
    lines = []
    for name in sorted({*wanted, *found}):
        new, old = wanted.get(name), found.get(name)
        if new == old:
            continue
        if isinstance(new, list | tuple) and isinstance(old, list | tuple):
            # of an argument vector, only the words that changed
            old, new = _without_common_ends(list(old), list(new))
        lines.append(f"{name}: {_short(old)} -> {_short(new)}")
    return lines


def _without_common_ends(old: list[object], new: list[object]) -> tuple[str, str]:
    while old and new and old[0] == new[0]:
        old, new = old[1:], new[1:]
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    return " ".join(map(str, old)) or "nothing", " ".join(map(str, new)) or "nothing"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return f"{text[:57]}..." if len(text) > 60 else text
