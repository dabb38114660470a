"""Sizes in bytes and versions in numbers, and how they are printed."""

MIB, GIB = 2**20, 2**30


def gib(size: int) -> str:
    """Bytes in the unit a reader expects: KiB, MiB or GiB."""
    if size < MIB:
        return f"{size / 1024:.1f} KiB"
    return f"{size / MIB:.1f} MiB" if size < GIB else f"{size / GIB:.1f} GiB"


def dotted(version: tuple[int, ...]) -> str:
    """A version as it is written."""
    return ".".join(map(str, version))
