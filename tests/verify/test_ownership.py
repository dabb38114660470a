"""Whose the files are that root runs or the server reads: looked at by finds of this test's own."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from operations.plan import Release
from operations.plan.artifacts.artifact import DIRECTORIES
from operations.plan.exposure import gateway
from operations.remote import host_files

OTHERS_WRITE = "( ! -uid 0 -o -perm /022 )"


def found(host: Any, places: list[str], what: str) -> list[str]:
    """The paths of which that is so; places that are not there are none."""
    command = (
        f"find {shlex.join(places)} {shlex.join(shlex.split(what))} -printf '%p %m %U\\n' 2>/dev/null || :"
    )
    return list(host.check_output(command).splitlines())


def above(path: str) -> list[str]:
    """The directories that lead to a path."""
    parts = path.strip("/").split("/")[:-1]
    return ["/", *("/" + "/".join(parts[: number + 1]) for number in range(len(parts)))]


@pytest.mark.parametrize("directory", [*DIRECTORIES.values(), "images", "verdicts", "measurements"])
def test_others_cannot_write_served_files(host: Any, release: Release, directory: str) -> None:
    place = [f"{release.data_root}/{directory}"]
    assert found(host, place, f"! -type l ! -path */.*.partial* {OTHERS_WRITE}") == []
    assert found(host, place, "! -type l ! -path */.*.partial* -perm /7000") == []


@pytest.mark.parametrize("directory", DIRECTORIES.values())
def test_server_user_can_read_served_files(host: Any, release: Release, directory: str) -> None:
    place = [f"{release.data_root}/{directory}"]
    assert found(host, place, "! -path */.*.partial* -type f ! -perm -444") == []
    assert found(host, place, "! -path */.*.partial* -type d ! -perm -555") == []


def test_others_cannot_write_files_that_root_reads(host: Any, release: Release) -> None:
    files = host_files.watched(release.settings)
    assert found(host, files, f"-maxdepth 0 ( -type l -o {OTHERS_WRITE} )") == []
    additions = [f"{path}.d" for path in host_files.paths(release.settings).units]
    assert found(host, additions, f"! -type l {OTHERS_WRITE}") == []


def test_others_cannot_write_parent_directories(host: Any, release: Release) -> None:
    own = gateway.directory(release.settings.state_root)
    files = [*host_files.watched(release.settings), f"{release.data_root}/x", "/etc/docker/daemon.json"]
    directories = sorted({directory for path in files for directory in above(path)} - {own})
    assert found(host, directories, f"-maxdepth 0 ! -perm -1000 {OTHERS_WRITE}") == []
