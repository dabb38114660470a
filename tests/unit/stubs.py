"""Programs of a host, played by small shell scripts on PATH."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class Stubs:
    """
    A directory in front of PATH.

    Each stub first writes its arguments, one call a line, to `calls`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "calls"
        directory.mkdir(parents=True)

    def add(self, name: str, body: str) -> None:
        """A program of that name: shell text, with its arguments in $@."""
        path = self.directory / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.log}"\n{body}\n', encoding="utf-8")
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """What was called, in order."""
        return self.log.read_text("utf-8").splitlines() if self.log.exists() else []

    def run(
        self, script: str | Path, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """A script under sh: a file, or text."""
        argv = ["sh", str(script)] if isinstance(script, Path) else ["sh", "-c", script]
        path = f"{self.directory}:{os.environ['PATH']}"
        return subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            env={"PATH": path, **environment},
        )
