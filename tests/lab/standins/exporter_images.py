"""The exporters' images: Debian's real node_exporter, and a stand-in for dcgm-exporter, on the lab's own small userland."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.lab.rpm import debs

from .base_image import base_layers, key, record, recorded
from .layers import Layer, write_layer

NODE_REPOSITORY = "prom/node-exporter"
# Debian 12's
NODE_TAG = "v1.5.0"
NODE_SETTINGS: dict[str, Any] = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "User": "nobody",
    "Entrypoint": ["/bin/node_exporter"],
    "ExposedPorts": {"9100/tcp": {}},
    "Labels": {
        "tritonhost.stand-in": f"Debian's node_exporter {NODE_TAG} on a small userland, not the real image"
    },
}

DCGM_REPOSITORY = "nvidia/k8s/dcgm-exporter"
DCGM_TAG = "4.5.3-4.8.2-distroless"
DCGM_SETTINGS: dict[str, Any] = {
    "Env": [
        *NODE_SETTINGS["Env"],
        "NVIDIA_VISIBLE_DEVICES=all",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility,compat32",
    ],
    "User": "root:root",
    "Entrypoint": ["/usr/bin/dcgm-exporter-entrypoint.sh"],
    "Labels": {
        "tritonhost.stand-in": "a script that prints dcgm-exporter's metrics from nvidia-smi, not NVIDIA's program"
    },
}
DCGM_PROGRAM = Path(__file__).resolve().parent / "image" / "dcgm-exporter"


def node_layers(cache: Path) -> list[Layer]:
    """The image's layers: the userland that all images share, and node_exporter where the real image has it."""
    userland = base_layers(cache)[0]
    folder = cache / "images" / f"node-exporter-{key(Path(__file__).read_text(), userland.digest)}"
    own = recorded(folder)
    if own is None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".root-") as scratch:
            debian = debs.unpacked(cache, Path(scratch), ("prometheus-node-exporter",))
            root = Path(scratch, "root")
            # /bin is a link of the userland
            (root / "usr/bin").mkdir(parents=True)
            shutil.copy(debian / "usr/bin/prometheus-node-exporter", root / "usr/bin/node_exporter")
            own = [write_layer(folder / "node-exporter.tar.gz", tree=root)]
        record(folder, own)
    return [userland, *own]


def dcgm_layers(cache: Path) -> list[Layer]:
    """The image's layers: the userland, and the stand-in where the real image has its program."""
    userland = base_layers(cache)[0]
    files = {
        "usr/bin/dcgm-exporter": (DCGM_PROGRAM.read_bytes(), 0o755),
        "usr/bin/dcgm-exporter-entrypoint.sh": (b'#!/bin/sh\nexec /usr/bin/dcgm-exporter "$@"\n', 0o755),
    }
    folder = cache / "images" / f"dcgm-exporter-{key(repr(files), userland.digest)}"
    own = recorded(folder)
    if own is None:
        folder.mkdir(parents=True, exist_ok=True)
        own = [write_layer(folder / "dcgm-exporter.tar.gz", files=files)]
        record(folder, own)
    return [userland, *own]
