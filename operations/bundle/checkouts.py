"""Git repositories at pinned commits, with their submodules and the content that git-lfs points to.

Each is a bare repository with only the wanted commits, without history, under the path of its public address:
git/github.com/NVIDIA/TensorRT-LLM.git. git-lfs objects are in a folder beside them, named by their SHA-256.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from operations.bundle.fetch import BundleError, download, read_json

LFS_TYPE = "application/vnd.git-lfs+json"
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize ([0-9]+)\n"
)
_LARGEST_POINTER = 1024  # bytes, by git-lfs' own specification
_OBJECTS_AT_A_TIME = 100


@dataclass(frozen=True)
class Checkout:
    """One commit of a repository in the bundle. `url`: its public address."""

    url: str
    commit: str
    tag: str = ""


def repository_path(bundle: Path, url: str) -> Path:
    """The bundle's path of the repository with this public address. Raises BundleError if it is not http or https."""
    place = urlsplit(url)
    path = place.path.strip("/").removesuffix(".git")
    if place.scheme not in ("http", "https") or not re.fullmatch(r"[A-Za-z0-9._/-]+", path) or ".." in path:
        raise BundleError(f"git repository {url}: expected an address that begins with https://")
    return bundle / "git" / str(place.hostname) / f"{path}.git"


def lfs_path(bundle: Path, oid: str) -> Path:
    """The bundle's path of the git-lfs object with this SHA-256."""
    return bundle / "git-lfs" / oid[:2] / oid


class Collector:
    """Fetches checkouts into a bundle. + mirrors: prefix of an address -> what replaces it"""

    def __init__(self, bundle: Path, mirrors: Mapping[str, str]) -> None:
        self.bundle = bundle
        self.mirrors = mirrors
        self.found: list[Checkout] = []

    def fetch(self, wanted: Checkout, submodules: bool, lfs: bool) -> None:
        """The commit is in the bundle; with `submodules` and `lfs`, also its submodules and git-lfs objects."""
        repository = repository_path(self.bundle, wanted.url)
        if not (repository / "HEAD").exists():
            _git("init", "--quiet", "--bare", "--template=", "--initial-branch=main", str(repository))
            # hosts ask for pinned commits by their ids
            _git("--git-dir", str(repository), "config", "uploadpack.allowAnySHA1InWant", "true")
        self._commit(repository, wanted)
        self.found.append(wanted)
        if lfs:
            self._lfs(repository, wanted)
        if submodules:
            for url, commit in self._submodules(repository, wanted):
                self.fetch(Checkout(url, commit), submodules, lfs)

    def _commit(self, repository: Path, wanted: Checkout) -> None:
        here = ("--git-dir", str(repository))
        name = f"refs/tags/{wanted.tag}" if wanted.tag else f"refs/heads/{wanted.commit[:16]}"
        asked = name if wanted.tag else wanted.commit
        if _try_git(*here, "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}") != wanted.commit:
            _git(
                *here,
                "fetch",
                "--quiet",
                "--depth=1",
                "--no-tags",
                self._mirrored(wanted.url),
                f"+{asked}:{name}",
            )
        found = _git(*here, "rev-parse", f"{name}^{{commit}}").strip()
        if found != wanted.commit:
            raise BundleError(
                f"git repository {wanted.url}: found {name} at commit {found}, expected {wanted.commit}; see backend_commits"
            )
        # a clone asks for what HEAD names
        _git(*here, "update-ref", "refs/heads/main", wanted.commit)

    def _mirrored(self, url: str) -> str:
        """The address to fetch from, by git's own rule: the longest matching prefix wins."""
        fitting = [prefix for prefix in self.mirrors if url.startswith(prefix)]
        if not fitting:
            return url
        prefix = max(fitting, key=len)
        return self.mirrors[prefix] + url.removeprefix(prefix)

    def _submodules(self, repository: Path, wanted: Checkout) -> list[tuple[str, str]]:
        here = ("--git-dir", str(repository))
        listed = _git(*here, "ls-tree", "-r", "-z", wanted.commit).split("\0")
        commits = {
            path: words.split()[2]
            for words, _, path in (e.partition("\t") for e in listed)
            if " commit " in words
        }
        if not commits:
            return []
        config = _git(*here, "config", "--blob", f"{wanted.commit}:.gitmodules", "--list", "--null")
        values = dict(entry.partition("\n")[::2] for entry in config.split("\0") if entry)
        found = []
        for key, path in values.items():
            if key.endswith(".path") and path in commits:
                url = values.get(f"{key.removesuffix('.path')}.url", "")
                if url.startswith(("./", "../")):
                    url = urljoin(f"{wanted.url}/", url)
                found.append((url, commits[path]))
        return found

    def _lfs(self, repository: Path, wanted: Checkout) -> None:
        missing = [
            (oid, size)
            for oid, size in _pointers(repository, wanted.commit)
            if not lfs_path(self.bundle, oid).is_file()
        ]
        address = f"{self._mirrored(wanted.url).removesuffix('.git')}.git/info/lfs/objects/batch"
        for start in range(0, len(missing), _OBJECTS_AT_A_TIME):
            objects = [
                {"oid": oid, "size": size} for oid, size in missing[start : start + _OBJECTS_AT_A_TIME]
            ]
            request = {"operation": "download", "transfers": ["basic"], "objects": objects}
            headers = {"Accept": LFS_TYPE, "Content-Type": LFS_TYPE}
            answer = read_json(address, headers, json.dumps(request).encode())
            for entry in _objects_of(answer, address):
                action = entry.get("actions", {}).get("download")
                if not action:
                    raise BundleError(
                        f"git-lfs of {wanted.url}: found no object {entry['oid']}, expected its content"
                    )
                download(
                    action["href"],
                    lfs_path(self.bundle, entry["oid"]),
                    entry["oid"],
                    headers=action.get("header"),
                )


def _objects_of(answer: Any, address: str) -> list[dict[str, Any]]:
    """The objects of git-lfs' batch answer: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md."""
    found = answer.get("objects") if isinstance(answer, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) and "oid" in each for each in found):
        raise BundleError(f"{address}: found no list of objects, expected git-lfs' answer; see git_mirrors")
    return found


def _pointers(repository: Path, commit: str) -> list[tuple[str, int]]:
    """The objects that pointer files of a commit name: SHA-256 and size."""
    here = ("--git-dir", str(repository))
    small = []
    for entry in _git(*here, "ls-tree", "-r", "-l", "-z", commit).split("\0"):
        words = entry.partition("\t")[0].split()
        if len(words) == 4 and words[1] == "blob" and int(words[3]) <= _LARGEST_POINTER:
            small.append(words[2])
    asked = "".join(f"{blob}\n" for blob in sorted(set(small))).encode()
    done = subprocess.run(
        ["git", *here, "cat-file", "--batch"],
        input=asked,
        capture_output=True,
        check=True,
        env=_environment(),
    )
    return sorted({(oid.decode(), int(size)) for oid, size in _POINTER.findall(done.stdout)})


def _environment() -> dict[str, str]:
    # without the user's own settings: an insteadOf there would silently fetch from elsewhere
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    # give up if a server stalls for two minutes
    return {**kept, **own, "GIT_HTTP_LOW_SPEED_LIMIT": "1000", "GIT_HTTP_LOW_SPEED_TIME": "120"}


def _try_git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, env=_environment(), check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], capture_output=True, text=True, env=_environment(), check=False
        )
    except FileNotFoundError:
        raise BundleError("found no program git, expected one on this machine; install git") from None
    if done.returncode:
        # without earlier warnings, which are not why it failed
        lines = [line for line in done.stderr.splitlines() if line.startswith(("fatal: ", "error: "))]
        said = " ".join(" ".join(lines or [done.stderr]).split())[:400]
        raise BundleError(f"git {' '.join(w for w in words if not w.startswith('-'))[:200]}: {said}")
    return done.stdout
