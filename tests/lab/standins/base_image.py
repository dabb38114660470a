"""The base image's root file system: a small Debian userland with a real tritonserver and Python packages.

What the TensorRT stand-in runs on is a layer of its own: only images that play TensorRT carry it.

Made without a container engine; every layer is kept in the cache under the hash of what it is made from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from . import wheels
from .layers import EPOCH, Layer, write_layer

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "libpython3.11", "libstdc++6", "procps", "python3")
LEFT_OUT = (
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
    "/usr/share/doc/*",
    "/usr/lib/x86_64-linux-gnu/gconv/*",
)
WHEELS = (wheels.TRITON, *wheels.IMAGE_PACKAGES, *wheels.ONNX_PACKAGES)
PYTHON_PACKAGES = "usr/local/lib/python3.11/dist-packages"
HERE = Path(__file__).resolve().parent


class ImageError(Exception):
    """An image could not be made."""


def _run(*command: str, what: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "PYTHONHASHSEED": "0",
        "LC_ALL": "C",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ImageError(f"{what} failed: {command[0]} ended with {done.returncode}: {last}")


def _userland(root: Path) -> None:
    """Debian's essential packages, Python and little else, with the user the real image has."""
    if shutil.which("mmdebstrap") is None:
        raise ImageError("no mmdebstrap on this machine; install the Debian package mmdebstrap")
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    _run(
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=essential",
        f"--include={','.join(PACKAGES)}",
        '--aptopt=Apt::Install-Recommends "false"',
        *excluded,
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        SUITE,
        str(root),
        what="making the userland",
    )
    # Perl beyond perl-base is only there for packaging tools.
    for name in ("usr/share/perl", "usr/lib/x86_64-linux-gnu/perl", "usr/share/perl5"):
        shutil.rmtree(root / name, ignore_errors=True)
    for path in (root / "usr/lib/x86_64-linux-gnu").glob("libperl.so.*"):
        path.unlink()
    for name in ("var/cache", "var/log", "var/lib/apt", "var/backups", "tmp", "run"):
        for path in (root / name).glob("*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for name in ("etc/resolv.conf", "etc/hostname", "etc/.pwd.lock"):
        (root / name).unlink(missing_ok=True)
    for name, line in (
        ("passwd", "triton-server:x:1000:1000::/home/triton-server:/bin/bash"),
        ("group", "triton-server:x:1000:"),
    ):
        path = root / "etc" / name
        path.write_text(path.read_text() + line + "\n")
        (root / "etc" / f"{name}-").unlink(missing_ok=True)
    # pip installs into the image's Python, as in the real image, whose Ubuntu knows no such file.
    (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
    home = root / "home/triton-server"
    home.mkdir(mode=0o755)
    os.chown(home, 1000, 1000)


def _server_place(member: str) -> str | None:
    """Where a file of the pytriton wheel goes in the real image's layout."""
    if member.startswith("nvidia_pytriton.libs/") and "libpython3" not in member:
        return "opt/tritonserver/lib/" + member.split("/", 1)[1]
    if member == "pytriton/tritonserver/bin/tritonserver":
        return "opt/tritonserver/bin/tritonserver"
    if member.startswith("pytriton/tritonserver/backends/python/"):
        return "opt/tritonserver/backends/python/" + member.rsplit("/", 1)[1]
    if member == "pytriton/tritonserver/python_backend_stubs/3.11/triton_python_backend_stub":
        return "opt/tritonserver/backends/python/triton_python_backend_stub"
    if ".dist-info/" in member and "licen" in member.lower():
        return "opt/tritonserver/" + member.rsplit("/", 1)[1]
    return None


def package_place(member: str) -> str | None:
    """Where a file of a Python package goes; test suites stay out, and a C library that Python does not load."""
    parts = member.split("/")
    if "tests" in parts[:-1] or parts[0].endswith(".data"):
        return None
    if member.startswith(("onnx/backend/test/", "onnxruntime/capi/libonnxruntime.so")):
        return None
    return f"{PYTHON_PACKAGES}/{member}"


def _fill(root: Path, cache: Path) -> None:
    """Put server, Python packages and the mpirun stand-in into the userland; onnx's packages beside it, at /onnx."""
    held = wheels.fetch(cache, WHEELS)
    for pin in wheels.ONNX_PACKAGES:
        wheels.unpack(held[pin], root / "onnx", package_place)
    wheels.unpack(held[wheels.TRITON], root, _server_place)
    for name in ("bin/tritonserver", "backends/python/triton_python_backend_stub"):
        (root / "opt/tritonserver" / name).chmod(0o755)  # the wheel drops the bits
    for pin in wheels.IMAGE_PACKAGES:
        wheels.unpack(held[pin], root, package_place)
    for name, content in _own_files().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[0])
        path.chmod(content[1])


def _script(module: str) -> tuple[bytes, int]:
    lines = ("#!/usr/bin/python3", "import sys", "", f"from {module} import main", "", "sys.exit(main())", "")
    return "\n".join(lines).encode(), 0o755


def _own_files() -> dict[str, tuple[bytes, int]]:
    return {
        "usr/local/bin/mpirun": ((HERE / "image" / "mpirun").read_bytes(), 0o755),
        # Wheels are unpacked without their console scripts; these are the ones that people type.
        "usr/local/bin/hf": _script("huggingface_hub.cli.hf"),
        "usr/local/bin/pip": _script("pip._internal.cli.main"),
        "usr/local/bin/pip3": _script("pip._internal.cli.main"),
    }


def _compile(root: Path) -> None:
    """Byte-compile once, here: containers start Python often and keep nothing. Time stamps play no part in it."""
    for folder in [*root.glob("usr/**/__pycache__")]:
        shutil.rmtree(folder)
    compiler = ("python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")
    for folders in (
        ("/usr/lib/python3.11", "/usr/local/lib/python3.11"),
        ("-s", "/onnx", "-p", "/", f"/onnx/{PYTHON_PACKAGES}"),
    ):
        _run("chroot", str(root), *compiler, *folders, what="compiling Python modules")


def key(*inputs: Any) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def recorded(folder: Path) -> list[Layer] | None:
    """The finished layers in a cache folder, or None where the folder is not complete."""
    listing = folder / "layers.json"
    if not listing.is_file():
        return None
    layers = [Layer(folder / entry.pop("name"), **entry) for entry in json.loads(listing.read_text())]
    return layers if all(layer.path.is_file() for layer in layers) else None


def record(folder: Path, layers: list[Layer]) -> None:
    entries = [
        {"name": layer.path.name, "digest": layer.digest, "diff_id": layer.diff_id, "size": layer.size}
        for layer in layers
    ]
    partial = folder / "layers.json.partial"
    partial.write_text(json.dumps(entries, indent=1))
    partial.replace(folder / "layers.json")


def _layers(cache: Path) -> list[Layer]:
    """Userland, server, Python packages and onnx's packages, made on first use."""
    pins = {pin: wheels.PINS[pin] for pin in WHEELS}
    recipe = [SUITE, PACKAGES, LEFT_OUT, pins, Path(__file__).read_text()]
    own = {
        name: [hashlib.sha256(content).hexdigest(), mode] for name, (content, mode) in _own_files().items()
    }
    folder = cache / "images" / f"base-{key(recipe, own)}"
    layers = recorded(folder)
    if layers is not None:
        return layers
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".root-") as scratch:
        root = Path(scratch, "root")
        _userland(root)
        _fill(root, cache)
        _compile(root)
        layers = []
        (root / "onnx").rename(Path(scratch, "onnx"))
        for name, part in (("server", "opt/tritonserver"), ("python", "usr/local")):
            piece = Path(scratch, name)
            (piece / part).parent.mkdir(parents=True)
            (root / part).rename(piece / part)
            layers.append(write_layer(folder / f"{name}.tar.gz", tree=piece))
        layers.insert(0, write_layer(folder / "userland.tar.gz", tree=root))
        layers.append(write_layer(folder / "onnx.tar.gz", tree=Path(scratch, "onnx")))
    record(folder, layers)
    return layers


def base_layers(cache: Path) -> list[Layer]:
    """The layers of every image: userland, server, Python packages."""
    return _layers(cache)[:3]


def onnx_layer(cache: Path) -> Layer:
    """The layer of what the TensorRT stand-in runs on."""
    return _layers(cache)[3]
