"""Releases: `current` points to the one that serves, `previous` to the one before it."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api.command import StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation

from operations.facts.releases import ReleaseLinks
from operations.plan.release import Release
from operations.scripts import host_script


@deploy("Release")
def switch(release: Release) -> None:
    """One rename: a reader of `current` sees the old release or the new one, never none."""
    current(name="Point current to the release", data_root=release.data_root, release_id=release.id)


@operation()
def current(data_root: str, release_id: str) -> Generator[StringCommand, None, None]:
    """
    `<data_root>/current` points to the release, and `previous` to the one it pointed to before.

    + data_root: where `releases` is
    + release_id: a release that is complete
    """
    links = host.get_fact(ReleaseLinks, data_root=data_root)
    if links.get("current") == release_id:
        host.noop(f"current is {release_id}")
        return
    yield StringCommand(switch_script(data_root, release_id))


def switch_script(data_root: str, release_id: str) -> str:
    """The shell text that switches, for this operation and for a rollback."""
    return host_script("switch_release.sh", {"DATA_ROOT": data_root, "RELEASE": release_id})
