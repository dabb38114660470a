"""Two commands never change one lab at the same time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.shell import say


@contextmanager
def held(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock file for the length of the block. The kernel releases it when the holder ends, for any reason."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(file, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say(f"waiting for the lock {path}, held by {file.read().strip() or 'another command'}")
            fcntl.flock(file, mode)
        if not shared:
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()}\n")
            file.flush()
        yield
