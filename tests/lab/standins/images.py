"""The lab's container images: a small userland with a real tritonserver, and the same with the TensorRT-LLM stand-in.

They take the names of the NGC images they stand in for. They are made without a container engine and pushed to the
lab's registry. All tags share their layers but the one that plays a version of TensorRT-LLM.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tests.lab.mirror import templates

from .base_image import base_layers, key, record, recorded
from .layers import FileContent, Layer, write_layer
from .registry import Registry, image_documents
from .tree import BASE_TAGS, installed_files

REPOSITORY = "nvidia/tritonserver"
BASES = ("24.09-py3", *BASE_TAGS.values())
"""Tags of the base image: the lab's own choice, and what the Dockerfiles take when nothing is said."""

SERVING = {
    "24.08-trtllm-python-py3": "v0.12.0",
    "24.09-trtllm-python-py3": "v0.13.0",
    "25.10-trtllm-python-py3": "v1.0.0",
    "26.07-trtllm-python-py3": "v1.2.1",
}
"""Tag of the serving image -> the TensorRT-LLM it plays."""

TEMPLATES_SINCE = (0, 17)
"""From this version on an image carries the templates of the model repository."""

CREATED = "2024-09-25T00:00:00Z"
HERE = Path(__file__).resolve().parent

SETTINGS: dict[str, Any] = {
    "Env": [
        "PATH=/opt/tritonserver/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        # The Python backend's stub finds libcudart nowhere else, and then the server never becomes ready.
        "LD_LIBRARY_PATH=/opt/tritonserver/lib",
        # One thread: on a shared machine the waiting threads of numpy's library spin, and twenty tokens/s become one.
        "OPENBLAS_NUM_THREADS=1",
        "NVIDIA_VISIBLE_DEVICES=all",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video",
        "TRITON_SERVER_VERSION=2.51.0",
    ],
    "Cmd": ["/bin/bash"],
    "WorkingDir": "/opt/tritonserver",
    "Labels": {"tritonhost.stand-in": "Triton server 2.51.0 on a small Debian userland, not NVIDIA's image"},
}


def serving_files(version: str) -> dict[str, FileContent]:
    """What a serving image has beyond the base: path from the root -> content."""
    files: dict[str, FileContent] = dict(installed_files(version))
    if tuple(int(part) for part in version[1:].split(".")) >= TEMPLATES_SINCE:
        for name, content in templates.repository(version).items():
            files[f"app/all_models/inflight_batcher_llm/{name}"] = content
    return files


def serving_layer(cache: Path, version: str) -> Layer:
    """The TensorRT-LLM stand-in at a version, installed as its Dockerfile installs it."""
    files = serving_files(version)
    listed = {name: hashlib.sha256(repr(content).encode()).hexdigest() for name, content in files.items()}
    folder = cache / "images" / f"tensorrt-llm-{key(listed, (HERE / 'layers.py').read_text())}"
    layers = recorded(folder)
    if layers is None:
        folder.mkdir(parents=True, exist_ok=True)
        layers = [write_layer(folder / "tensorrt-llm.tar.gz", files=files)]
        record(folder, layers)
    return layers[0]


def build(cache: Path, registry: str) -> dict[str, str]:
    """All images are in the registry at HOST:PORT under their NGC names; returns each one's manifest digest."""
    cache = cache.resolve()
    base = base_layers(cache)
    images: dict[str, list[Layer]] = dict.fromkeys(BASES, base)
    images |= {tag: [*base, serving_layer(cache, version)] for tag, version in SERVING.items()}
    server = Registry(registry)
    digests = {}
    for tag, layers in sorted(images.items()):
        manifest, config = image_documents(SETTINGS, layers, CREATED)
        digests[f"{REPOSITORY}:{tag}"] = server.push_image(REPOSITORY, tag, manifest, config, layers)
    return digests
