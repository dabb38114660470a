"""The stand-in TensorRT-LLM repository at a version, and the Dockerfile that installs it into a Triton image."""

from __future__ import annotations

import re
from pathlib import Path

from .layers import FileContent

SOURCE = Path(__file__).resolve().parent / "tree"

BASE_TAGS = {
    "v0.9.0": "24.02-py3",
    "v0.10.0": "24.03-py3",
    "v0.11.0": "24.05-py3",
    "v0.12.0": "24.07-py3",
    "v0.13.0": "24.07-py3",
    "v0.16.0": "24.11-py3",
    "v0.17.0": "25.01-py3",
    "v0.19.0": "25.03-py3",
}
"""The default of BASE_TAG in tensorrtllm_backend's dockerfile/Dockerfile.trt_llm_backend, by tag."""

PYTORCH_IMAGES = {"v0.17.0": "nvidia/pytorch:25.01-py3", "v0.19.0": "nvidia/pytorch:25.03-py3"}
"""The default of PYTORCH_IMAGE there, without registry, for the tags that take one."""

IMAGE_VERSIONS = ("v1.0.0", "v1.2.1")
"""Versions that come as finished images only."""

VERSIONS = (*BASE_TAGS, *IMAGE_VERSIONS)

PACKAGES = "usr/local/lib/python3.11/dist-packages"
INSTALLED = {
    "tensorrt_llm/": f"{PACKAGES}/tensorrt_llm/",
    "examples/": "app/tensorrt_llm/examples/",
    "triton_backend/all_models/": "app/all_models/",
    "triton_backend/tensorrtllm/": "opt/tritonserver/backends/tensorrtllm/",
    "scripts/trtllm-build": "usr/local/bin/trtllm-build",
}
"""Where the Dockerfile puts what of the repository."""


def _known(version: str) -> str:
    tag = version if version.startswith("v") else f"v{version}"
    if tag not in VERSIONS:
        raise ValueError(f"TensorRT-LLM {version}: expected one of {', '.join(VERSIONS)}; add it to tree.py")
    return tag


def _place(name: str, tag: str) -> str | None:
    """Where the repository at that tag keeps a file of the newest layout; None where it has none."""
    numbers = tuple(int(part) for part in tag[1:].split("."))
    if name.startswith("triton_backend/all_models/llmapi/") and numbers < (1, 0):
        return None
    if numbers < (0, 20):
        return name.replace("examples/models/core/", "examples/")
    return name


def tensorrt_llm_tree(version: str) -> dict[str, bytes | tuple[bytes, int]]:
    """The repository's files at a version (a tag such as v0.13.0): path -> content, with the mode where not 0644."""
    tag = _known(version)
    files: dict[str, FileContent] = {}
    for path in sorted(SOURCE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            name = _place(path.relative_to(SOURCE).as_posix(), tag)
            if name is None:
                continue
            files[name] = (path.read_bytes(), 0o755) if name == "scripts/trtllm-build" else path.read_bytes()
            if name.endswith("/convert_checkpoint.py") or name.endswith("/quantize.py"):
                files[f"{Path(name).parent}/requirements.txt"] = f"tensorrt_llm=={tag[1:]}\n".encode()
    played = files["tensorrt_llm/version.py"]
    assert isinstance(played, bytes)
    files["tensorrt_llm/version.py"] = re.sub(rb'"[0-9.]+"', f'"{tag[1:]}"'.encode(), played)
    return files


def installed_files(version: str) -> dict[str, bytes | tuple[bytes, int]]:
    """The stand-in as the Dockerfile leaves it in an image: path from the root -> content."""
    result: dict[str, FileContent] = {}
    for name, content in tensorrt_llm_tree(version).items():
        for source, target in INSTALLED.items():
            if name == source or (source.endswith("/") and name.startswith(source)):
                result[target + name.removeprefix(source)] = content
    return result


def dockerfile(version: str) -> bytes:
    """dockerfile/Dockerfile.trt_llm_backend of tensorrtllm_backend at a version. The build needs no network."""
    tag = _known(version)
    if tag not in BASE_TAGS:
        raise ValueError(f"TensorRT-LLM {version} is not built here, expected one of {', '.join(BASE_TAGS)}")
    pytorch = PYTORCH_IMAGES.get(tag)
    argument = f"ARG PYTORCH_IMAGE=nvcr.io/{pytorch}\n" if pytorch else ""
    stage = "\nFROM ${PYTORCH_IMAGE} AS pytorch_image\n" if pytorch else ""
    # The real one takes PyTorch out of that image; here it is enough that there is no build without it.
    copy = "COPY --from=pytorch_image /etc/passwd /app/pytorch-image\n" if pytorch else ""
    return f"""\
# Stand-in for tensorrtllm_backend's Dockerfile.trt_llm_backend at {tag}: installs the lab's TensorRT-LLM stand-in.
ARG BASE_IMAGE=nvcr.io/nvidia/tritonserver
ARG BASE_TAG={BASE_TAGS[tag]}
{argument}{stage}
FROM ${{BASE_IMAGE}}:${{BASE_TAG}} AS trt_llm_builder
# The real build links TensorRT-LLM's closed libraries. A git-lfs pointer in their place fails there, and so here.
COPY tensorrt_llm/cpp /build/cpp
RUN found=$(grep -rl '^version https://git-lfs.github.com/spec/v1' /build/cpp || true); \\
    if [ -n "$found" ]; then \\
        for file in $found; do echo "/usr/bin/ld:$file: file format not recognized; treating as linker script" >&2; done; \\
        echo "collect2: error: ld returned 1 exit status" >&2; exit 1; \\
    fi; \\
    echo linked > /build/linked

FROM ${{BASE_IMAGE}}:${{BASE_TAG}} AS final
# Only to make this stage wait for the other one: some builders skip stages that nothing is taken from.
COPY --from=trt_llm_builder /build/linked /app/tensorrt_llm/linked
{copy}COPY tensorrt_llm/tensorrt_llm /{PACKAGES}/tensorrt_llm
COPY tensorrt_llm/examples /app/tensorrt_llm/examples
COPY tensorrt_llm/triton_backend/tensorrtllm /opt/tritonserver/backends/tensorrtllm
COPY tensorrt_llm/scripts/trtllm-build /usr/local/bin/trtllm-build
COPY all_models /app/all_models
COPY tools /app/tools
COPY scripts /app/scripts
WORKDIR /app
LABEL tritonhost.stand-in="TensorRT-LLM {tag[1:]} stand-in" \\
      tensorrt_llm.version="{tag[1:]}"
""".encode()
