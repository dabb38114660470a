"""Run other programs; and the error class of the lab."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class LabError(Exception):
    """One line: what was found, what was expected, what to do next."""


def say(line: str) -> None:
    """One line of progress, on standard error so that a command's own output stays clean."""
    print(f"lab: {line}", file=sys.stderr, flush=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print how long a step took."""
    began = time.monotonic()
    yield
    say(f"{name}: {time.monotonic() - began:.1f} s")


def run(
    *argv: str | Path,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Standard output of a program that must succeed; LabError with its last lines if it does not."""
    result = attempt(*argv, stdin=stdin, env=env, cwd=cwd)
    if result.returncode != 0:
        words = (result.stderr.strip() or result.stdout.strip() or "no output").splitlines()
        shown = " ".join(str(part) for part in argv)[:200]
        raise LabError(f"`{shown}` ended with status {result.returncode}: {' | '.join(words[-3:])}")
    return result.stdout


def attempt(
    *argv: str | Path,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """The result of a program that may fail; LabError if this machine does not have the program."""
    try:
        return subprocess.run(
            [str(part) for part in argv],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(
            f"found no {error.filename}, expected the program: install it, `tests/lab/lab packages --install`"
        ) from None


def digest(parts: Iterable[str | bytes | Path]) -> str:
    """A short hash of everything that a thing is made from; a Path stands for its content, a folder for its files."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            files = (
                [part] if part.is_file() else sorted(found for found in part.rglob("*") if found.is_file())
            )
            for found in files:
                if "__pycache__" in found.parts:
                    continue
                total.update(hashlib.sha256(str(found.name).encode()).digest())
                total.update(hashlib.sha256(found.read_bytes()).digest())
        else:
            total.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return total.hexdigest()[:16]
