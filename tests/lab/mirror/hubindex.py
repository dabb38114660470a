"""The Hub's index of a model or a data set: its files with sizes and digests, its revision, and who may read it.

<hub>/<owner>/<name>              a link to the folder that holds the files
<hub>/<owner>/<name>.json         the index, as `Model` reads it
<hub>/<owner>/<name>.gated.json   {"token_sha256": ...} where only that token may read the files

A data set is named datasets/<owner>/<name>.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

LFS_FROM = 10 * 1024 * 1024  # bytes; the public Hub's limit for files that stay in git
LFS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".parquet")
DATASETS = "datasets"


@dataclass(frozen=True)
class File:
    """One file of a model. `blob` is git's id of it, and its ETag where it is not an LFS file."""

    size: int
    sha256: str
    blob: str
    mtime_ns: int
    lfs: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob


@dataclass(frozen=True)
class Model:
    """A model or data set as the Hub serves it: one revision, which is also its `main`."""

    name: str
    folder: Path
    revision: str
    files: dict[str, File]
    token_sha256: str | None

    @property
    def id(self) -> str:
        """<owner>/<name>."""
        return self.name.removeprefix(f"{DATASETS}/")


def _write(path: Path, content: object) -> None:
    text = json.dumps(content, indent=1) + "\n"
    if path.is_file() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.rename(path)


def _describe(path: Path) -> File:
    status = path.stat()
    sha256 = hashlib.sha256()
    blob = hashlib.sha1(f"blob {status.st_size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            blob.update(chunk)
    lfs = status.st_size > LFS_FROM or path.suffix in LFS_SUFFIXES
    return File(status.st_size, sha256.hexdigest(), blob.hexdigest(), status.st_mtime_ns, lfs)


def publish(hub: Path, name: str, folder: Path, token: str | None = None, revision: str | None = None) -> str:
    """The Hub serves `folder` as the model or data set `name`, to holders of `token` only where one is given.

    Files whose size and modification time are those of the index are not read again.

    :param revision: 40 hex, if it must be that of another content; without it, sha1 over names and sha256 sums,
        so that equal content has an equal revision anywhere
    :return: the revision
    """
    index = hub / f"{name}.json"
    known: dict[str, File] = {}
    if index.is_file():
        known = {path: File(**entry) for path, entry in json.loads(index.read_text())["files"].items()}
    files: dict[str, File] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        relative = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in relative.split("/")):
            continue
        status, old = path.stat(), known.get(relative)
        unchanged = old and (old.size, old.mtime_ns) == (status.st_size, status.st_mtime_ns)
        files[relative] = old if old and unchanged else _describe(path)
    listing = "".join(f"{path}\0{file.sha256}\n" for path, file in sorted(files.items()))
    revision = revision or hashlib.sha1(listing.encode()).hexdigest()

    link = hub / name
    target = os.path.relpath(folder, link.parent)
    if not link.is_symlink() or os.readlink(link) != target:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    gate = hub / f"{name}.gated.json"
    if token is None:
        gate.unlink(missing_ok=True)
    else:
        _write(gate, {"token_sha256": hashlib.sha256(token.encode()).hexdigest()})
    _write(index, {"revision": revision, "files": {path: asdict(file) for path, file in files.items()}})
    return revision


def load(hub: Path, name: str) -> Model | None:
    """The model of that name, or None where the Hub has none."""
    index, gate = hub / f"{name}.json", hub / f"{name}.gated.json"
    if ".." in name.split("/") or not index.is_file():
        return None
    content = json.loads(index.read_text())
    token = json.loads(gate.read_text())["token_sha256"] if gate.is_file() else None
    files = {path: File(**entry) for path, entry in content["files"].items()}
    return Model(name, hub / name, content["revision"], files, token)
