"""Sizes in bytes, and how they are printed."""

from __future__ import annotations

MIB, GIB = 2**20, 2**30


def gib(size: int) -> str:
    """Bytes in the unit a reader expects: KiB, MiB or GiB."""
    if size < MIB:
        return f"{size / 1024:.1f} KiB"
    return f"{size / MIB:.1f} MiB" if size < GIB else f"{size / GIB:.1f} GiB"
