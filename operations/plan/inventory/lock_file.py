"""inventories/lock.toml: what `tritonhost lock` found of images, models and packages, and when. A deploy takes the images' digests of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from operations.plan.errors import PlanError, typed
from operations.plan.paths import PROJECT
from operations.plan.toml_file import read_toml

LOCK = PROJECT / "inventories" / "lock.toml"
_WHERE = "inventories/lock.toml"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
KINDS = ("images", "models", "packages")
_HEAD = """\
# What was found for this inventory; `tritonhost lock` writes it, `tritonhost lock --check` says what has moved since.
# A digest of image_digests in the inventory is used before the one here.
"""


@dataclass(frozen=True)
class Locked:
    """
    One entry.

    + kind: images, models or packages; name: name:tag, OWNER/NAME, or NAME.elN
    + value: a digest, a commit or a version
    + origin: the registry, hub or repository that was asked; at: the day, YYYY-MM-DD
    + inventories: those that need it, by name
    """

    kind: str
    name: str
    value: str
    origin: str
    at: str
    inventories: tuple[str, ...] = ()


_VALUE = {"images": "digest", "models": "newest", "packages": "version"}


def text_of(entries: list[Locked]) -> str:
    """The file with these entries, each kind sorted by name."""
    lines = [_HEAD]
    for entry in sorted(entries, key=lambda one: (KINDS.index(one.kind), one.name)):
        lines += [
            f"[{entry.kind}.{json.dumps(entry.name)}]",
            f"{_VALUE[entry.kind]} = {json.dumps(entry.value)}",
            f"from = {json.dumps(entry.origin)}",
            f'at = "{entry.at}"',
            f"inventories = {json.dumps(list(entry.inventories))}",
            "",
        ]
    return "\n".join(lines)


def read_lock(path: Path) -> list[Locked]:
    """The entries of the file; none without one. Raises PlanError for anything that the command does not write."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PlanError("", error.strerror, "a file that can be read", where=_WHERE) from None
    return list(_read(path, status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=4)
def _read(path: Path, changed: int, size: int) -> tuple[Locked, ...]:
    """`changed` and `size` make a changed file another one."""
    return tuple(_entries(read_toml(path, _WHERE, "a lock file")))


def _entries(data: Mapping[str, Any]) -> Iterator[Locked]:
    for kind, table in data.items():
        if kind not in KINDS or not isinstance(table, dict):
            raise _refused(kind, f"unknown key {kind}", f"the tables {', '.join(KINDS)}")
        for name, entry in table.items():
            key = f"{kind}.{name}"
            if not isinstance(entry, dict):
                raise _refused(key, typed(entry), "a table")
            value, origin, at = (entry.get(part) for part in (_VALUE[kind], "from", "at"))
            if not isinstance(value, str) or (kind == "images" and not _DIGEST.match(value)):
                expected = "sha256: and 64 hexadecimal digits" if kind == "images" else "text"
                raise _refused(f"{key}.{_VALUE[kind]}", typed(value), expected)
            used = entry.get("inventories", [])
            if not isinstance(used, list):
                raise _refused(f"{key}.inventories", typed(used), "a list of names")
            yield Locked(kind, name, value, str(origin or ""), str(at or ""), tuple(map(str, used)))


def _refused(key: str, found: object, expected: str) -> PlanError:
    return PlanError(
        key, found, expected, "write it again with tritonhost lock", where=_WHERE, reference="lock-file"
    )


_unread = False


@contextmanager
def unread() -> Iterator[None]:
    """While the block runs no deploy's data has the lock file's digests: the command that writes it needs none."""
    global _unread
    before, _unread = _unread, True
    try:
        yield
    finally:
        _unread = before


def with_locked_digests(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A host's data with the digests of the lock file below its own. Raises PlanError for a damaged lock file."""
    own = data.get("image_digests", {})
    if _unread or not isinstance(own, Mapping):
        return data
    locked = {entry.name: entry.value for entry in read_lock(LOCK) if entry.kind == "images"}
    return {**data, "image_digests": {**locked, **own}} if locked else data
