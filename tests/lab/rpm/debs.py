"""Programs of the hosts' packages, and of an image, come from Debian: downloaded once, unpacked once."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.lab.shell import attempt, digest, run

NAMES = (
    "docker.io",
    "containerd",
    "runc",
    "tini",
    "git",
    "git-lfs",
    "haproxy",
    # shared libraries that Debian's haproxy is linked to and the hosts' userland lacks
    "libopentracing-c-wrapper0",
    "libopentracing1",
)


def unpacked(cache: Path, work: Path, names: Sequence[str] = NAMES) -> Path:
    """A folder holding the files of all of these packages, with a file `versions` naming what was unpacked."""
    target = cache / "debs" / digest(tuple(names))
    if target.is_dir():
        return target
    downloads, tree = work / "debs", work / "unpacked"
    downloads.mkdir(parents=True)
    tree.mkdir()
    # A package list that is out of date names versions that the archive no longer has.
    if attempt("apt-get", "-qq", "download", *names, cwd=downloads).returncode != 0:
        run("apt-get", "-qq", "update")
        run("apt-get", "-qq", "download", *names, cwd=downloads)
    archives = sorted(downloads.glob("*.deb"))
    for archive in archives:
        run("dpkg-deb", "--extract", archive, tree)
    (tree / "versions").write_text("".join(f"{archive.name}\n" for archive in archives))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(downloads)
    os.replace(tree, target)
    return target
