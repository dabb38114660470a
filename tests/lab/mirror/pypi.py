"""The mirror's Python package index: the wheels of the profiles' hashed requirements, listed by PEP 503.

<cache>/pypi/files/<wheel>            what was fetched, once
<cache>/pypi/requirements-<key>.json  project -> wheel -> sha256, of one requirements file

The index lists what all of them name: labs of several checkouts share the cache, and pip takes what its hashes allow.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import tempfile
from pathlib import Path
from urllib.parse import quote

IMAGES = Path(__file__).resolve().parents[3] / "files" / "image"
REQUIREMENTS = tuple(IMAGES / kind / "requirements.txt" for kind in ("door", "llmapi", "plan"))
FILES = "pypi/files"
Projects = dict[str, dict[str, str]]


def project_of(name: str) -> str:
    """A project's name in the index's paths; wheels write it with underscores."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _read(path: Path) -> Projects:
    try:
        content: Projects = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content


def build(cache: Path, *files: Path) -> None:
    """Put the wheels of the requirements files into the index; a second call without changes only checks it."""
    for requirements in files or REQUIREMENTS:
        _build(cache, requirements)


def _build(cache: Path, requirements: Path) -> None:
    if not requirements.is_file():
        return
    from tests.lab.standins import wheels

    key = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    listing, folder = cache / "pypi" / f"requirements-{key}.json", cache / FILES
    known = _read(listing)
    if known and all((folder / file).is_file() for files in known.values() for file in files):
        return
    folder.mkdir(parents=True, exist_ok=True)
    projects: Projects = {}
    with tempfile.TemporaryDirectory(dir=cache / "pypi", prefix=".fetch-") as scratch:
        wheels.download(Path(scratch), requirements, [folder, cache / "wheels"])
        for path in sorted(Path(scratch).glob("*.whl")):
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            projects.setdefault(project_of(path.name.split("-")[0]), {})[path.name] = digest
            path.replace(folder / path.name)
    fresh = listing.with_suffix(".new")
    fresh.write_text(json.dumps(projects, indent=1) + "\n")
    fresh.replace(listing)


def page(cache: Path, project: str | None) -> bytes | None:
    """The index's page of all projects, or of one; None where there is no such project."""
    projects: Projects = {}
    for listing in sorted((cache / "pypi").glob("requirements-*.json")):
        for name, files in _read(listing).items():
            projects.setdefault(name, {}).update(files)
    if project is None:
        links = {f"{name}/": name for name in projects}
    elif project in projects:
        links = {
            f"../../files/{quote(file)}#sha256={digest}": file
            for file, digest in sorted(projects[project].items())
        }
    else:
        return None
    lines = [f'<a href="{html.escape(target)}">{html.escape(text)}</a><br>' for target, text in links.items()]
    return "\n".join(["<!DOCTYPE html>", "<html><body>", *lines, "</body></html>", ""]).encode()
