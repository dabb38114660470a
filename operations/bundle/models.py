"""Weights and data sets at their revision, fetched and verified by the same program that hosts use."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from operations.bundle.fetch import BundleError
from operations.intake.secrets import hub_token
from operations.plan.artifacts.artifact import Artifact
from operations.plan.paths import TREE

_PROGRAM = TREE / "files" / "image" / "download_weights.py"


def model_path(bundle: Path, kind: str, repository: str, revision: str) -> Path:
    """The folder of one revision. + kind: weights or dataset"""
    return bundle / "hub" / ("datasets" if kind == "dataset" else "models") / repository / revision


def fetch(bundle: Path, artifact: Artifact) -> dict[str, Any]:
    """The artifact's files are in the bundle, with the hub's hashes. The token is in a file only during the download."""
    request = json.loads(artifact.files["request.json"])
    place = model_path(bundle, artifact.kind, request["repository"], request["revision"])
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tritonhost-") as folder:  # 0700
        asked = Path(folder) / "request.json"
        asked.write_text(json.dumps(request), encoding="utf-8")
        if artifact.needs_token:
            token = Path(folder) / "token"
            token.touch(mode=0o600)
            token.write_text(hub_token(), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(_PROGRAM), str(asked), str(place)],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("weights: ")]
        raise BundleError(
            said[-1] if said else f"weights of {request['repository']}: found exit code {done.returncode}"
        )
    return request  # type: ignore[no-any-return]
