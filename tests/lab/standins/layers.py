"""Container image layers that are the same bytes for the same files.

A layer is a gzip-compressed tar with sorted paths, one fixed time stamp and no user names, so that an image's
digest depends on what is in it and on nothing else.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

EPOCH = 1_727_222_400
"""The time stamp of every file: 2024-09-25, when the image this one stands in for came out."""

FileContent = bytes | tuple[bytes, int]
"""A file as (content, mode); bare bytes mean mode 0644."""


@dataclass(frozen=True)
class Layer:
    """A finished layer: where it lies, its digest as stored, its digest unpacked, and its size in bytes."""

    path: Path
    digest: str
    diff_id: str
    size: int


class _Hashing:
    """A write-only stream that hashes what passes through."""

    def __init__(self, target: IO[bytes] | gzip.GzipFile) -> None:
        self.target = target
        self.sha = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        self.sha.update(data)
        self.size += len(data)
        self.target.write(data)
        return len(data)

    def flush(self) -> None:
        self.target.flush()


def _header(name: str, mode: int, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = mode
    info.mtime = EPOCH
    info.type = kind
    return info


def _write(archive: tarfile.TarFile, entries: dict[str, Path | FileContent | None]) -> None:
    """Write entries in the order of their paths. None is a directory that no tree holds."""
    first_of: dict[tuple[int, int], str] = {}
    for name in sorted(entries):
        source = entries[name]
        if source is None:
            archive.addfile(_header(name, 0o755, tarfile.DIRTYPE))
        elif isinstance(source, Path):
            seen = source.lstat()
            info = _header(name, stat.S_IMODE(seen.st_mode), tarfile.REGTYPE)
            info.uid, info.gid = seen.st_uid, seen.st_gid
            if stat.S_ISDIR(seen.st_mode):
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            elif stat.S_ISLNK(seen.st_mode):
                info.type, info.linkname = tarfile.SYMTYPE, os.readlink(source)
                archive.addfile(info)
            elif stat.S_ISREG(seen.st_mode):
                identity = (seen.st_dev, seen.st_ino)
                if seen.st_nlink > 1 and identity in first_of:
                    info.type, info.linkname = tarfile.LNKTYPE, first_of[identity]
                    archive.addfile(info)
                    continue
                first_of[identity] = name
                info.size = seen.st_size
                with source.open("rb") as content:
                    archive.addfile(info, content)
            # devices and sockets stay out: the container engine makes its own /dev
        else:
            content_bytes, mode = source if isinstance(source, tuple) else (source, 0o644)
            info = _header(name, mode, tarfile.REGTYPE)
            info.size = len(content_bytes)
            archive.addfile(info, io.BytesIO(content_bytes))


def write_layer(
    target: Path, tree: Path | None = None, files: Mapping[str, FileContent] | None = None
) -> Layer:
    """Pack a directory, or files by their paths from the root, or both (files win), into the layer at target."""
    entries: dict[str, Path | FileContent | None] = {}
    if tree is not None:
        for folder, folders, names in os.walk(tree):
            for name in [*folders, *names]:
                path = Path(folder, name)
                entries[str(path.relative_to(tree))] = path
    for name, content in (files or {}).items():
        for parent in list(Path(name).parents)[:-1]:
            entries.setdefault(str(parent), None)
        entries[name] = content
    partial = target.with_name(target.name + ".partial")
    with partial.open("wb") as raw:
        stored = _Hashing(raw)
        with gzip.GzipFile(filename="", mode="wb", fileobj=stored, mtime=0, compresslevel=6) as packed:
            unpacked = _Hashing(packed)
            with tarfile.open(
                fileobj=unpacked, mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 20
            ) as archive:  # type: ignore[call-overload]
                _write(archive, entries)
    partial.replace(target)
    return Layer(
        target, f"sha256:{stored.sha.hexdigest()}", f"sha256:{unpacked.sha.hexdigest()}", stored.size
    )
