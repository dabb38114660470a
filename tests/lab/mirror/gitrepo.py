"""Bare git repositories with the same commit ids on every machine, written through `git fast-import`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

STAMP = "lab-build.json"
_IDENTITY = "tritonhost lab <lab@tritonhost.invalid>"
_EPOCH = 1_700_000_000
# The machine's own configuration (signing, hooks, default branch) must not affect the commits.
_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "LC_ALL": "C",
}


@dataclass(frozen=True)
class Gitlink:
    """A submodule's entry: the commit that it is pinned to."""

    commit: str


Entry = bytes | tuple[bytes, int] | Gitlink
Tree = Mapping[str, Entry]


@dataclass(frozen=True)
class Release:
    """One commit of the history: its tag (or none) and its whole tree."""

    message: str
    tree: Tree
    tag: str | None = None


def _git(*arguments: str, stdin: bytes | None = None) -> str:
    done = subprocess.run(
        ["git", *arguments], input=stdin, capture_output=True, env=_ENVIRONMENT, check=False
    )
    if done.returncode:
        raise RuntimeError(f"git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()


def _normal(entry: Entry) -> tuple[str, bytes]:
    """git's mode of an entry, and its content (a commit id for a submodule)."""
    if isinstance(entry, Gitlink):
        return "160000", entry.commit.encode()
    if isinstance(entry, tuple):
        return ("100755" if entry[1] & 0o111 else "100644"), entry[0]
    return "100644", entry


def _stream(releases: list[Release]) -> bytes:
    out: list[bytes] = []

    def data(content: bytes) -> None:
        out.extend((b"data %d\n" % len(content), content, b"\n"))

    for index, release in enumerate(releases):
        when = f"{_IDENTITY} {_EPOCH + index * 86400} +0000"
        out.append(f"commit refs/heads/main\nauthor {when}\ncommitter {when}\n".encode())
        data(release.message.encode() + b"\n")
        out.append(b"deleteall\n")
        for path, entry in sorted(release.tree.items()):
            mode, content = _normal(entry)
            if mode == "160000":
                out.append(f"M {mode} {content.decode()} {path}\n".encode())
            else:
                out.append(f"M {mode} inline {path}\n".encode())
                data(content)
        if release.tag:
            out.append(f"reset refs/tags/{release.tag}\nfrom refs/heads/main\n\n".encode())
    out.append(b"done\n")
    return b"".join(out)


def build(path: Path, releases: list[Release]) -> dict[str, str]:
    """Make the bare repository `path` with exactly `releases`, in order, on `main`.

    Does nothing if it already has them: a stamp in the repository has the digest of what it was made from.

    :return: commit id by tag; `main` is the last one
    """
    stream = _stream(releases)
    digest = hashlib.sha256(stream).hexdigest()
    stamp = path / STAMP
    if stamp.is_file():
        written = json.loads(stamp.read_text())
        if written["digest"] == digest:
            return dict(written["commits"])
    fresh = path.with_name(f"{path.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    _git("init", "--quiet", "--bare", "--template=", "--initial-branch=main", str(fresh))
    inside = ("--git-dir", str(fresh))
    # Clients ask for pinned commits by id, as the public host allows.
    for key in ("uploadpack.allowReachableSHA1InWant", "uploadpack.allowFilter"):
        _git(*inside, "config", key, "true")
    _git(*inside, "fast-import", "--quiet", "--done", stdin=stream)
    refs = _git(*inside, "for-each-ref", "--format=%(refname:short) %(objectname)").splitlines()
    commits = dict(line.split(" ", 1) for line in refs)
    (fresh / STAMP).write_text(json.dumps({"digest": digest, "commits": commits}, indent=1))
    shutil.rmtree(path, ignore_errors=True)
    fresh.rename(path)
    return commits
