"""YAML for other programs: blocks of tables and lists, and every text quoted, so that none is read as another type."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

HEAD = "# Written by tritonhost monitoring: changes are overwritten.\n"
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def document(value: Mapping[str, object], head: str = HEAD) -> str:
    """One document. `head`: comment lines above it."""
    return head + "".join(f"{line}\n" for line in _lines(value))


def _lines(value: object, indent: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            name = key if _KEY.fullmatch(key) else json.dumps(key)
            if _block(inner):
                yield f"{indent}{name}:"
                yield from _lines(inner, f"{indent}  ")
            else:
                yield f"{indent}{name}: {_scalar(inner)}"
    elif isinstance(value, Sequence):
        for inner in value:
            if _block(inner):
                first, *rest = _lines(inner, f"{indent}  ")
                yield f"{indent}- {first.strip()}"
                yield from rest
            else:
                yield f"{indent}- {_scalar(inner)}"


def _block(value: object) -> bool:
    return isinstance(value, Mapping | list | tuple) and bool(value)


def _scalar(value: object) -> str:
    """What stands on the line itself. JSON's texts, numbers and empty tables are YAML's too."""
    return json.dumps(value, ensure_ascii=False)
