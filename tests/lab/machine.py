"""What a machine must have to carry a lab, and one plain line for each thing that it lacks."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

from tests.lab import cgroups
from tests.lab.settings import Settings

# A program that the lab runs -> the Debian package that brings it.
PROGRAMS = {
    "apt-get": "apt",
    "createrepo_c": "createrepo-c",
    "docker-registry": "docker-registry",
    "dpkg-deb": "dpkg",
    "git": "git",
    "git-lfs": "git-lfs",
    "gpg": "gnupg",
    "ip": "iproute2",
    "losetup": "mount",
    "mkfs.xfs": "xfsprogs",
    "mmdebstrap": "mmdebstrap",
    "partx": "util-linux",
    "rpmbuild": "rpm",
    "rpmsign": "rpm",
    "sgdisk": "gdisk",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "tar": "tar",
}
FREE_MIB = 10 * 1024


def packages() -> list[str]:
    """Debian packages that the lab needs."""
    return sorted(set(PROGRAMS.values()))


def _namespaces_missing() -> bool:
    command = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode != 0
    except FileNotFoundError:
        return True


def _free_mib(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free >> 20


def missing(settings: Settings) -> list[str]:
    """One line for each thing this machine lacks; empty on a machine that can carry a lab."""
    if platform.system() != "Linux":
        return [f"this is {platform.system()}, expected Linux: run the lab in a Debian 12 virtual machine"]
    lines = []
    if platform.machine() != "x86_64":
        lines.append(
            f"this machine is {platform.machine()}, expected x86_64: the lab's packages and images are x86_64"
        )
    if os.geteuid() != 0:
        lines.append("not root: hosts need namespaces, mounts and loop devices; run it with sudo")
    elif _namespaces_missing():
        lines.append(
            "no namespaces: `unshare --mount --net --pid` fails here; an unprivileged container is not enough"
        )
    if not Path("/dev/loop-control").exists():
        lines.append(
            "no loop devices: /dev/loop-control is missing; `modprobe loop`, or give the container /dev/loop*"
        )
    if cgroups.unified() is None:
        lines.append("no cgroup v2 hierarchy at /sys/fs/cgroup or /sys/fs/cgroup/unified: mount one there")
    elif os.geteuid() == 0 and not os.access(cgroups.unified() or "/", os.W_OK):
        lines.append("the cgroup v2 hierarchy is read-only: a privileged machine is needed")
    if (free := _free_mib(settings.cache)) < FREE_MIB:
        lines.append(
            f"{free} MiB free under {settings.cache}, expected {FREE_MIB}: free some, or set LAB_CACHE elsewhere"
        )
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacking = sorted({package for name, package in PROGRAMS.items() if shutil.which(name, path=path) is None})
    if lacking:
        lines.append(f"missing programs: apt-get install --no-install-recommends --yes {' '.join(lacking)}")
    return lines
