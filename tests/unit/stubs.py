"""Programs of a host, played by small shell scripts on PATH, and what a host's scripts find on its disk."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
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


def lay_out(directory: Path, files: dict[str, str]) -> None:
    """A release's files, with the list of their SHA-256 that files/host/lay_out_release.sh writes."""
    sums = []
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text, encoding="utf-8")
        sums.append(f"{hashlib.sha256(text.encode()).hexdigest()}  ./{name}\n")
    (directory / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    (directory / "manifest.json").write_text("{}", encoding="utf-8")


def make_artifact(directory: Path, names: Sequence[str] = ("a file", "b/rank0.engine")) -> None:
    """A directory with these files, and its manifest as files/host/seal.sh writes it."""
    files = {}
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(name, encoding="utf-8")
        found = (directory / name).stat()
        digest = hashlib.sha256(name.encode()).hexdigest()
        files[name] = {"size": found.st_size, "mtime": int(found.st_mtime), "sha256": digest}
    head = {"kind": "engine", "key": "k", "inputs": {"files": {"x": {"size": 1}}, "gpu": "NVIDIA A10"}}
    manifest = json.dumps({**head, "files": files}) + "\n"
    (directory / "manifest.json").write_text(manifest, encoding="utf-8")
