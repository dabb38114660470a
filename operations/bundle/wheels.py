"""Python packages for images that hosts build: the wheels of a hashed requirements file, as a package index (PEP 503)."""

from __future__ import annotations

import html
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote, urlsplit

from operations.bundle.fetch import BundleError, digest_of

# the C libraries that an image's Python may have, from the oldest glibc that wheels are made for
_PLATFORMS = (
    "manylinux2014_x86_64",
    *(f"manylinux_2_{minor}_x86_64" for minor in (17, 24, 27, 28, 31, 34, 35)),
)


def fetch(bundle: Path, requirements: str, python: str, index: str | None) -> list[str]:
    """
    The index has the wheels of the requirements, each with a hash that they list. Returns their file names.

    + python: the images' Python, such as 3.10
    + index: the package index; None: pip's default
    """
    files = bundle / "pypi" / "files"
    files.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--only-binary=:all:", f"--python-version={python}", f"--dest={files}"]
    command += [f"--platform={platform}" for platform in _PLATFORMS]
    if index:
        command.append(f"--index-url={index}")
        if index.startswith(
            "http://"
        ):  # otherwise pip ignores the index, and says that there is no such package
            command.append(f"--trusted-host={urlsplit(index).hostname}")
    with tempfile.TemporaryDirectory(prefix="tritonhost-") as folder:
        asked = Path(folder) / "requirements.txt"
        asked.write_text(requirements, encoding="utf-8")
        done = subprocess.run(
            [*command, f"--requirement={asked}"], capture_output=True, text=True, check=False
        )
    if done.returncode:
        said = [
            line for line in done.stderr.splitlines() if line.startswith("ERROR: ")
        ] or done.stderr.splitlines()
        raise BundleError(
            f"wheels for Python {python}: {' '.join(said[-1:])}; expected a wheel of each requirement"
        )
    return sorted(path.name for path in files.iterdir())


def write_index(bundle: Path) -> None:
    """Write the pages that pip reads, for all wheels that are there."""
    projects: dict[str, list[Path]] = {}
    for wheel in sorted((bundle / "pypi" / "files").glob("*")):
        project = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        projects.setdefault(project, []).append(wheel)
    _page(bundle / "pypi" / "simple", {f"{name}/": name for name in projects})
    for name, wheels in projects.items():
        links = {f"../../files/{quote(w.name)}#sha256={digest_of(w)}": w.name for w in wheels}
        _page(bundle / "pypi" / "simple" / name, links)


def _page(directory: Path, links: dict[str, str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    lines = [f'<a href="{html.escape(target)}">{html.escape(text)}</a><br>' for target, text in links.items()]
    page = "\n".join(["<!DOCTYPE html>", "<html><body>", *lines, "</body></html>", ""])
    (directory / "index.html").write_text(page, encoding="utf-8")
