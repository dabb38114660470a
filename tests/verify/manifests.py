"""Directories that the deploy made, compared with the manifests it wrote last."""

from __future__ import annotations

import json
import shlex
from typing import Any


def read(host: Any, directory: str) -> dict[str, Any]:
    """The directory's manifest; fails the test where there is none."""
    file = host.file(f"{directory}/manifest.json")
    assert file.is_file, f"{directory} has no manifest: it is not complete"
    manifest: dict[str, Any] = json.loads(file.content_string)
    return manifest


def recorded(manifest: dict[str, Any]) -> dict[str, str]:
    """File -> SHA-256, as the manifest has it."""
    return {name: entry["sha256"] for name, entry in manifest["files"].items()}


def found(host: Any, directory: str) -> dict[str, str]:
    """File -> SHA-256, as the disk has it: every byte is read."""
    listed = host.check_output(
        f"cd {shlex.quote(directory)} && find . -type f ! -path ./manifest.json -exec sha256sum {{}} +"
    )
    pairs = (line.split("  ", 1) for line in listed.splitlines())
    return {path.removeprefix("./"): digest for digest, path in pairs}
