"""git-lfs: pointer files for the commits, and the store with their content."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path


def library(name: str, seed: str, size: int) -> bytes:
    """Bytes that look like a closed library by their first ones, and are the same on every machine."""
    magic = b"!<arch>\n" if name.endswith(".a") else b"\x7fELF\x02\x01\x01\x00"
    note = b"lab stand-in, no code inside: " + name.encode() + b"\n"
    return magic + note + random.Random(f"{seed}/{name}").randbytes(size - len(magic) - len(note))


def object_path(store: Path, oid: str) -> Path:
    """Where the store keeps the object with this sha256."""
    return store / oid[:2] / oid[2:4] / oid


def keep(store: Path, content: bytes) -> bytes:
    """Put `content` into the store. Returns the pointer file to commit instead."""
    oid = hashlib.sha256(content).hexdigest()
    path = object_path(store, oid)
    if not path.is_file() or path.stat().st_size != len(content):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{oid}.new")
        fresh.write_bytes(content)
        fresh.rename(path)
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n".encode()
