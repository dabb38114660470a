"""Disks: the root file system fills its disk, and the host's local disks hold the data root."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations import etc_files, packages
from operations.facts.disks import LocalStorage, RootDisk
from operations.plan.errors import PlanError
from operations.plan.inventory.settings import Settings
from operations.plan.machine.disks import PARTITION, root_file_system, root_growth, root_volume
from operations.plan.machine.local_disks import (
    ARRAY,
    ARRAY_FILE,
    LABEL,
    SENTINEL,
    UNFINISHED,
    local_plan,
    mount_unit,
)
from operations.plan.machine.packages import growth_packages, only_system_repositories
from operations.plan.observed.observed import RootFileSystem
from operations.plan.release import Release
from operations.remote import host_files, repository_files
from operations.remote.detached import shell
from operations.remote.refusal import refuse
from operations.scripts import host_functions, host_script

# Discarding the content of a disk of terabytes, or growing over it, takes minutes.
DISK_SECONDS = 600


@deploy("Storage")
def grow_root_file_system(release: Release) -> None:
    """Oracle's images leave most of a large boot volume unused; container images and weights need it."""
    settings = release.settings
    if not settings.grow_root_file_system:
        return
    # Not together with the other tools: a full root file system has room for this package, but not for them.
    if _partition_grows(host.get_fact(RootDisk)):
        if settings.system_repositories:
            path = repository_files.SYSTEM_REPOSITORIES
            text = host_files.rendered(release)[path].text
            etc_files.written(name="The distribution's repositories", path=path, text=text)
        packages.pinned(
            name="Install what grows a partition",
            versions=growth_packages(settings, release.os_major),
            locks={},
            keep_locks=True,
            lock_wait_s=settings.package_lock_wait_s,
            options=only_system_repositories(settings),
        )
    root_grown(name="Grow the root file system to its disk")


def _partition_grows(root: RootFileSystem) -> bool:
    try:
        return PARTITION in root_growth(root)
    except PlanError:
        return False  # root_grown refuses it


@deploy("Storage")
def mount_local_disks(release: Release) -> None:
    """Runs before anything is written to the data root, and after the tools, which include mdadm."""
    if release.settings.local_disks != "none":
        local_disks_mounted(name="Mount the local disks at the data root", settings=release.settings)


@operation()
def root_grown() -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    The file system at / covers its disk, and so does every layer between them.

    growpart, LVM's tools and the file system's own grow each layer from its current state. Not oci-growfs: it returns 0
    after most failures, takes a grown partition for done even if its file system has not grown, and cannot
    read the name of an NVMe device's partition (oracle/oci-utils, lib/oci_utils/impl/oci_growfs_main.py).
    """
    root = host.get_fact(RootDisk)
    try:
        steps = root_growth(root)
    except PlanError as error:
        yield refuse(str(error))
        return
    if not steps:
        host.noop("the root file system covers its disk")
        return
    volume = root_volume(root)
    variables = {
        "STEPS": "\n".join(steps),
        "DISK": root.disk,
        "NUMBER": root.number,
        "VOLUME": volume.name if volume else "",
        "SOURCE": root.source,
        "TYPE": root.type,
    }
    yield StringCommand(host_script("grow_root.sh", variables), _timeout=DISK_SECONDS)
    yield FunctionCommand(_covers, (), {})


def _covers(state: State, host: Host) -> bool:
    """Read the host again: no exit code is trusted."""
    ok, output = shell(host, RootDisk().command())
    root = root_file_system(output)
    try:
        left = root_growth(root) if ok and root.source else ("nothing that could be read",)
    except PlanError as error:
        left = (str(error),)
    if left:
        logger.error(
            f"{host.print_prefix}root file system: found {', '.join(left)} left to grow on {root.source or '/'} "
            f"({root.size} bytes, disk {root.disk_size}), expected nothing; see lsblk and the lines above"
        )
    return not left


@operation()
def local_disks_mounted(settings: Settings) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    The host's local NVMe devices, as one array or one alone, hold an xfs file system that is mounted at the data root.

    + settings: `local_disks`, which is not "none", and `data_root`

    A systemd unit mounts it by UUID, and the units that need the data root require that unit. A sentinel file inside
    shows that it is mounted. A device with a foreign signature, or with data but no signature, is never touched. What
    this tool made is assembled and mounted unchanged. What an interrupted run began, which its UUID proves, is made again.
    """
    place, local = host.get_fact(LocalStorage, path=settings.data_root)
    try:
        plan = local_plan(settings, place, local)
    except PlanError as error:
        yield refuse(str(error))
        return
    if plan is None or not plan.steps:
        host.noop(f"the local disks are mounted at {settings.data_root}")
        return
    variables = {
        "STEPS": "\n".join(plan.steps),
        "LEVEL": plan.level,
        "DISKS": "\n".join(plan.disks),
        "DEVICE": plan.device,
        "LABEL": LABEL,
        "ARRAY": ARRAY,
        "ARRAY_FILE": ARRAY_FILE,
        "UNFINISHED": UNFINISHED,
        "ERASE": "1" if settings.local_disks_erase else "0",
        "DATA_ROOT": settings.data_root,
        "SENTINEL": SENTINEL,
        "UNIT": mount_unit(settings.data_root),
        "UNIT_TEXT": host_files.mount_unit_text(settings),
    }
    script = host_script("local_disks.sh", variables, host_functions("disks.sh"))
    yield StringCommand(script, _timeout=DISK_SECONDS)
