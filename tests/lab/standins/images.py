"""The lab's container images: a small userland with a real tritonserver and the TensorRT stand-in, or TensorRT-LLM's.

They take the names of the NGC images they stand in for; the images of the database, the gateway, the door, the exporters and
the monitoring come from `postgres_image`, `nginx_image`, `python_image`, `exporter_images` and `monitoring_images`. They are
made without a container engine and pushed to the lab's registry. All tags share their layers but the one that plays a version
of TensorRT-LLM.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tests.lab.mirror import templates

from . import exporter_images, monitoring_images, nginx_image, postgres_image, python_image
from .base_image import PYTHON_PACKAGES, base_layers, key, onnx_layer, record, recorded
from .layers import FileContent, Layer, write_layer
from .registry import Registry, image_documents
from .tree import BASE_TAGS, IMAGE_VERSIONS, PACKAGES, PYTORCH_IMAGES, installed_files

REPOSITORY = "nvidia/tritonserver"
BASES = ("24.09-py3", *BASE_TAGS.values())
"""Tags of the base image: the lab's own choice, and what the Dockerfiles take when nothing is said."""

TENSORRT_11 = "26.08-py3"
"""The base image that plays TensorRT 11."""

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


# Finished images play releases whose server has more options than the one inside: it is called by way of a script.
FINISHED: dict[str, Any] = {
    **SETTINGS,
    "Env": [f"PATH=/opt/stand-in/bin:{SETTINGS['Env'][0].removeprefix('PATH=')}", *SETTINGS["Env"][1:]],
}


def settings_of(tag: str) -> dict[str, Any]:
    """What an image says of itself to the container engine."""
    if tag == TENSORRT_11:
        return {**SETTINGS, "Env": [*SETTINGS["Env"], "TENSORRT_STAND_IN=11.0.0.1"]}
    return FINISHED if SERVING.get(tag) in IMAGE_VERSIONS else SETTINGS


def serving_files(version: str) -> dict[str, FileContent]:
    """What a serving image has beyond the base: path from the root -> content."""
    files: dict[str, FileContent] = dict(installed_files(version))
    if tuple(int(part) for part in version[1:].split(".")) >= TEMPLATES_SINCE:
        for name, content in templates.repository(version).items():
            files[f"app/all_models/inflight_batcher_llm/{name}"] = content
    if version == "v1.2.1":
        files |= openai_files("1.107.3")
    if version in IMAGE_VERSIONS:
        files["opt/stand-in/bin/tritonserver"] = ((HERE / "image" / "tritonserver").read_bytes(), 0o755)
    return files


def openai_files(version: str) -> dict[str, FileContent]:
    """
    What pip and TensorRT-LLM see of the openai package that NVIDIA's images of 26.x have: path from the root -> content.

    Before 1.108.2 it has no PartReasoningText, which TensorRT-LLM 1.2 imports.
    """
    event = "openai/types/responses/response_content_part_added_event.py"
    later = tuple(map(int, version.split("."))) >= (1, 108, 2)
    named = (
        ("PartReasoningText", "ResponseContentPartAddedEvent")
        if later
        else ("ResponseContentPartAddedEvent",)
    )
    files = {
        "openai/__init__.py": f'__version__ = "{version}"\n',
        "openai/types/__init__.py": "",
        "openai/types/responses/__init__.py": "",
        event: "".join(f"class {name}:\n    pass\n" for name in named),
        f"openai-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: openai\nVersion: {version}\n",
        f"openai-{version}.dist-info/INSTALLER": "pip\n",
    }
    record = f"openai-{version}.dist-info/RECORD"
    files[record] = "".join(f"{name},,\n" for name in (*files, record))
    return {f"{PACKAGES}/{name}": text.encode() for name, text in files.items()}


def tensorrt_files() -> dict[str, FileContent]:
    """The TensorRT stand-in as the base image has it: path from the root -> content."""
    package = f"{PYTHON_PACKAGES}/tensorrt_stand_in"
    files: dict[str, FileContent] = {
        f"{package}/{path.name}": path.read_bytes() for path in sorted((HERE / "tensorrt").glob("*.py"))
    }
    # Like the compiled programs they stand for, they do not care what a Dockerfile puts on PYTHONPATH.
    files["usr/src/tensorrt/bin/trtexec"] = (
        b"#!/usr/bin/python3 -I\nfrom tensorrt_stand_in.trtexec import main\n\nmain()\n",
        0o755,
    )
    files["opt/tritonserver/backends/tensorrt/model.py"] = (
        f"import sys\n\nsys.path.insert(0, '/{PYTHON_PACKAGES}')\n\n"
        "from tensorrt_stand_in.backend import TritonPythonModel\n\n__all__ = ['TritonPythonModel']\n"
    ).encode()
    return files


def _files_layer(cache: Path, name: str, files: dict[str, FileContent]) -> Layer:
    """A layer of these files, kept in the cache under the hash of what they are."""
    listed = {path: hashlib.sha256(repr(content).encode()).hexdigest() for path, content in files.items()}
    folder = cache / "images" / f"{name}-{key(listed, (HERE / 'layers.py').read_text())}"
    layers = recorded(folder)
    if layers is None:
        folder.mkdir(parents=True, exist_ok=True)
        layers = [write_layer(folder / f"{name}.tar.gz", files=files)]
        record(folder, layers)
    return layers[0]


def serving_layer(cache: Path, version: str) -> Layer:
    """The TensorRT-LLM stand-in at a version, installed as its Dockerfile installs it."""
    return _files_layer(cache, "tensorrt-llm", serving_files(version))


def plan_layers(cache: Path) -> list[Layer]:
    """What the base image has beyond the server: the TensorRT stand-in and what it runs on."""
    return [onnx_layer(cache), _files_layer(cache, "tensorrt", tensorrt_files())]


def build(cache: Path, registry: str) -> dict[str, str]:
    """All images are in the registry at HOST:PORT under their NGC names; returns each one's manifest digest."""
    cache = cache.resolve()
    base = base_layers(cache)
    plain = [*base, *plan_layers(cache)]
    images = {tag: plain for tag in (*BASES, TENSORRT_11)}
    images |= {tag: [*base, serving_layer(cache, version)] for tag, version in SERVING.items()}
    server = Registry(registry)
    digests = {}

    def push(repository: str, tag: str, settings: dict[str, Any], layers: list[Layer]) -> None:
        manifest, config = image_documents(settings, layers, CREATED)
        digests[f"{repository}:{tag}"] = server.push_image(repository, tag, manifest, config, layers)

    for image in sorted(set(PYTORCH_IMAGES.values())):
        # nothing of it is used but that it is there
        repository, tag = image.split(":")
        push(repository, tag, SETTINGS, base)
    for tag, layers in sorted(images.items()):
        push(REPOSITORY, tag, settings_of(tag), layers)
    database = postgres_image.layers(cache)
    push(postgres_image.REPOSITORY, postgres_image.TAG, postgres_image.SETTINGS, database)
    gateway = nginx_image.layers(cache)
    push(nginx_image.REPOSITORY, nginx_image.TAG, nginx_image.SETTINGS, gateway)
    door = python_image.layers(cache)
    push(python_image.REPOSITORY, python_image.TAG, python_image.SETTINGS, door)
    node, dcgm = exporter_images.node_layers(cache), exporter_images.dcgm_layers(cache)
    push(exporter_images.NODE_REPOSITORY, exporter_images.NODE_TAG, exporter_images.NODE_SETTINGS, node)
    push(exporter_images.DCGM_REPOSITORY, exporter_images.DCGM_TAG, exporter_images.DCGM_SETTINGS, dcgm)
    for repository, tag, settings, of_cache in monitoring_images.IMAGES:
        push(repository, tag, settings, of_cache(cache))
    return digests
