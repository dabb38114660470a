"""What a machine needs for a lab, and one line for each thing that it lacks."""

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.lab import cgroups
from tests.lab.settings import Settings
from tests.lab.shell import LabError, run, say

# A program that the checks run -> its Debian package. `make check` needs only these.
CHECK_PROGRAMS = {
    "git": "git",
    "nft": "nftables",
    "pgrep": "procps",
    "promtool": "prometheus",
    "ps": "procps",
    "rpmbuild": "rpm",
    "shellcheck": "shellcheck",
    "ssh-agent": "openssh-client",
    "ssh-keygen": "openssh-client",
}
# A program that the lab runs -> its Debian package.
PROGRAMS = {
    **CHECK_PROGRAMS,
    "apt-get": "apt",
    "createrepo_c": "createrepo-c",
    "curl": "curl",
    "docker-registry": "docker-registry",
    "dpkg-deb": "dpkg",
    "git-lfs": "git-lfs",
    "gpg": "gnupg",
    "ip": "iproute2",
    "losetup": "mount",
    "mke2fs": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mmdebstrap": "mmdebstrap",
    "partx": "util-linux",
    "qemu-system-x86_64": "qemu-system-x86",
    "rpmsign": "rpm",
    "sgdisk": "gdisk",
    "ssh": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "tar": "tar",
}
# What the tests need beyond the lab: a browser looks at the HTML pages
TEST_PROGRAMS = {**PROGRAMS, "chromium": "chromium"}
# What tests/lab/vm needs
VM_PROGRAMS = {**PROGRAMS, "qemu-img": "qemu-utils"}
NEEDED = {"check": CHECK_PROGRAMS, "lab": PROGRAMS, "test": TEST_PROGRAMS, "vm": VM_PROGRAMS}
FREE_MIB = 10 * 1024


def packages(what: str = "lab") -> list[str]:
    """
    Debian packages that the lab needs.

    + what: `check`: only those that `make check` needs; `test`, `vm`: those of that target too
    """
    return sorted(set(NEEDED[what].values()))


def not_installed(names: Sequence[str]) -> list[str]:
    """
    Those of the packages that are not installed, by Debian's own list.

    dpkg-query ends with status 1 if it does not know one of them, and still lists the others.
    """
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n", *names]
    listed = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    there = {words[0] for words in map(str.split, listed.splitlines()) if words[1:] == ["installed"]}
    return [name for name in names if name not in there]


def install(what: str = "lab") -> None:
    """
    Install the missing packages, with Debian's own programs; LabError with the command's last lines.

    + what: as in `packages`. If those of `check` cannot be installed, the tests that need one are listed as not run, and one
    line reports it
    """
    check = what == "check"
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        lacking = sorted({CHECK_PROGRAMS[name] for name in not_found(tuple(CHECK_PROGRAMS))})
        if not check:
            raise LabError("found no dpkg-query and apt-get, expected Debian 12: the lab runs nowhere else")
        if lacking:
            say(f"not Debian: tests that need {', '.join(lacking)} are skipped")
        return
    lacking = not_installed(packages(what))
    if not lacking:
        return
    if os.geteuid() != 0:
        if not check:
            raise LabError(f"not root, and not installed: {' '.join(lacking)}; run it as root")
        say(f"not root: tests that need {', '.join(lacking)} are skipped")
        return
    say(f"installing Debian packages: {' '.join(lacking)}")
    apt = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq", env=apt)
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *lacking, env=apt)


def _namespaces_missing() -> bool:
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "slave",
        "--net",
        "--pid",
        "--uts",
        "--ipc",
        "--fork",
        "true",
    ]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode != 0
    except FileNotFoundError:
        return True


# What the hosts' network and disks need of the kernel, tested in a temporary network namespace.
_NETWORK = (
    "ip link add name v0 type veth peer name v1 && ip link add name b0 type bridge && nft add table inet lab"
)
_FILE_SYSTEMS = ("xfs", "overlay", "ext4")


def _kernel_lacks() -> list[str]:
    lines = []
    tried = subprocess.run(
        ["unshare", "--net", "sh", "-c", _NETWORK], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0 and not not_found(("ip", "nft")):
        words = tried.stderr.strip() or "no output"
        lines.append(f"the kernel has no veth, bridge or nftables: `{_NETWORK}`: {words}")
    known = Path("/proc/filesystems").read_text().split()
    for name in _FILE_SYSTEMS:
        if name in known:
            continue
        loaded = (
            subprocess.run(["modprobe", name], capture_output=True, check=False)
            if _found("modprobe")
            else None
        )
        if loaded is None or loaded.returncode != 0:
            lines.append(
                f"the kernel has no {name}: /proc/filesystems does not list it, and modprobe does not load it"
            )
    return lines


def _found(program: str) -> bool:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def not_found(programs: Sequence[str]) -> list[str]:
    """Those of the programs that this machine does not have."""
    return [name for name in programs if not _found(name)]


def _free_mib(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free >> 20


def missing(settings: Settings, boots: bool = True) -> list[str]:
    """
    One line for each thing that this machine lacks; empty if it can run a lab.

    + boots: whether a lab is to be booted, which takes room on the disk
    """
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
    if boots and (free := _free_mib(settings.cache)) < FREE_MIB:
        lines.append(
            f"{free} MiB free under {settings.cache}, expected {FREE_MIB}: free some, or set LAB_CACHE elsewhere"
        )
    if os.geteuid() == 0:
        lines += _kernel_lacks()
    lacking = sorted({PROGRAMS[name] for name in not_found(tuple(PROGRAMS))})
    if lacking:
        lines.append(f"missing programs: apt-get install --no-install-recommends --yes {' '.join(lacking)}")
    return lines
