"""Disks: the root file system fills its disk."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api.command import StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation

from operations.facts.disks import RootDisk
from operations.plan.difference import GROWN_SHARE
from operations.plan.release import Release
from operations.scripts import host_script


@deploy("Storage")
def grow_root_file_system(release: Release) -> None:
    """Oracle's images leave most of a large boot volume unused; container images and weights need it."""
    if release.settings.grow_root_file_system:
        root_grown(name="Grow the root file system to its disk")


@operation()
def root_grown() -> Generator[StringCommand, None, None]:
    """
    The file system at / covers its disk.

    Grown by oci-growfs where there is one, then by growpart and the file system's own tool for what it left undone.
    The resulting size decides: oci-growfs returns 0 after most failures and takes a partition that was grown
    without its file system for done (oracle/oci-utils, lib/oci_utils/impl/oci_growfs_main.py).
    """
    root = host.get_fact(RootDisk)
    if not root.disk_size or root.size >= root.disk_size * GROWN_SHARE:
        host.noop("the root file system covers its disk")
        return
    yield StringCommand(
        host_script("grow_root.sh", {"WANTED_BYTES": str(int(root.disk_size * GROWN_SHARE))}), _timeout=600
    )
