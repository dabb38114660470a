"""A file of this machine that is there with all of its new content, or as it was."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def beside(path: Path, text: str, suffix: str) -> Iterator[Path]:
    """
    A file beside `path` with the text, readable by everybody; it is gone when the block ends, unless the block has moved it.

    + suffix: of its name

    Raises OSError where it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=suffix, dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        part.chmod(0o644)
        yield part
    finally:
        part.unlink(missing_ok=True)
