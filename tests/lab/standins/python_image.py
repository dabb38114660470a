"""The door's base image, library/python: Debian's real Python with pip on the lab's own small userland."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from . import wheels
from .base_image import base_layers, key, package_place, record, recorded
from .layers import Layer, write_layer

REPOSITORY = "library/python"
# Debian 12's
TAG = "3.11.2-slim-bookworm"
PIP = "pip==26.3"
SETTINGS: dict[str, Any] = {
    "Env": ["PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
    "Cmd": ["python3"],
    "Labels": {"tritonhost.stand-in": f"Debian's Python {TAG} on a small userland, not the real image"},
}


def layers(cache: Path) -> list[Layer]:
    """The image's layers: the userland that all images share, and pip."""
    userland = base_layers(cache)[0]
    folder = cache / "images" / f"python-{key(Path(__file__).read_text(), userland.digest)}"
    own = recorded(folder)
    if own is None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".root-") as scratch:
            root = Path(scratch, "root")
            wheels.unpack(wheels.fetch(cache, (PIP,))[PIP], root, package_place)
            own = [write_layer(folder / "pip.tar.gz", tree=root)]
        record(folder, own)
    return [userland, *own]
