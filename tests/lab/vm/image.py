"""The image that a whole machine boots: Debian's kernel and userland with SELinux's policy, on LVM, made once and kept.

Its docker is Debian's, which is built with SELinux. Debian's policy has nothing for containers: inside/container.cil has the types of
Enterprise Linux's container-selinux, and as few rules as the containers of a deploy need.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.lab.disks.guest import cpio_entry, debian, made_once, modules_of
from tests.lab.shell import digest, run

HERE = Path(__file__).parent
PACKAGES = (
    *("linux-image-cloud-amd64", "systemd-sysv", "udev", "dbus", "kmod", "busybox-static"),
    *("openssh-server", "sudo", "python3", "curl", "ca-certificates", "procps", "iproute2", "iputils-ping"),
    *("nftables", "iptables", "firewalld", "python3-nftables", "docker.io"),
    *(
        "selinux-policy-default",
        "policycoreutils",
        "policycoreutils-python-utils",
        "semodule-utils",
        "auditd",
    ),
    *("lvm2", "dmsetup", "mdadm", "xfsprogs", "e2fsprogs", "cloud-guest-utils", "fdisk", "gdisk", "parted"),
)
_LEFT_OUT = ("doc", "man", "locale", "info")
_MODULES = ("crc32c_generic", "virtio_pci", "virtio_blk", "virtio_net", "dm_mod", "xfs")
# they do nothing here but take the time of the translator
_MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service"),
    *("fstrim.timer", "getty@tty1.service", "mdmonitor.service", "mdcheck_start.timer", "mdcheck_continue.timer"),
    *("mdmonitor-oneshot.timer", "logrotate.timer", "serial-getty@ttyS0.service", "lvm2-monitor.service"),
    "blk-availability.service",
)  # fmt: skip
# LVM in the first file system, without udev
_LVM = "activation { udev_sync=0 udev_rules=0 monitoring=0 }\ndevices { use_devicesfile=0 }\n"
# the programs of the small container image
_BUSYBOX = ("sh", "cat", "ls", "id", "touch", "sleep", "wget", "nc", "httpd", "mkdir", "echo", "ps", "head", "true")  # fmt: skip
_SETTINGS = {
    "etc/ssh/sshd_config.d/50-lab.conf": (
        "HostKey /etc/ssh/ssh_host_ed25519_key\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nUseDNS no\n"
    ),
    "etc/fstab": (
        "/dev/mapper/ocivolume-root / xfs defaults 0 0\n/dev/mapper/ocivolume-oled /var/oled xfs defaults,nofail 0 0\n"
    ),
    "etc/hostname": "gpu-1\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 gpu-1\n",
    "etc/resolv.conf": "",
    "etc/selinux/config": "SELINUX=enforcing\nSELINUXTYPE=default\n",
    "etc/docker/daemon.json": '{"selinux-enabled": true}\n',
    # as Enterprise Linux's package has it: a folder that mdadm makes by itself has a label that udev's mdadm may not read
    "etc/tmpfiles.d/mdadm.conf": "d /run/mdadm 0710 root root -\n",
    # a busy machine is slow
    "etc/systemd/system.conf.d/lab.conf": "[Manager]\nDefaultTimeoutStartSec=900s\nDefaultDeviceTimeoutSec=900s\n",
    # no unit that waits for an update
    "etc/.updated": "",
    "var/.updated": "",
}


@dataclass(frozen=True)
class Image:
    """A folder with a machine's disk, its kernel and first file system, and the keys to it."""

    folder: Path

    @property
    def disk(self) -> Path:
        """Stays unchanged: a machine writes to a layer over it."""
        return self.folder / "disk.img"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs"

    @property
    def key(self) -> Path:
        """The private key of its root."""
        return self.folder / "key"

    @property
    def host_key(self) -> Path:
        """Its own public key."""
        return self.folder / "host_key.pub"


def image(cache: Path) -> Image:
    """The image, which is made if it is missing: two minutes. LabError if the packages cannot be downloaded."""
    made = cache / "machine" / digest([HERE / "inside", HERE / "prepare.sh", Path(__file__)])
    made_once(made, "whole machine with SELinux", _make)
    return Image(made)


def _make(work: Path) -> None:
    tree, files = work / "tree", work / "files"
    files.mkdir()
    debian(
        "machine", "--variant=minbase", "--dpkgopt=force-confold",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT),
        # the first file system is made below
        '--essential-hook=mkdir -p "$1/etc/initramfs-tools" && echo update_initramfs=no '
        '>"$1/etc/initramfs-tools/update-initramfs.conf"',
        f"--include={','.join(PACKAGES)}", "bookworm", tree,
    )  # fmt: skip
    for name in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(tree / name, ignore_errors=True)
    _configure(tree, files)
    _container_image(tree)
    [kernel] = (tree / "boot").glob("vmlinuz-*")
    shutil.copyfile(kernel, files / "vmlinuz")
    (files / "initramfs").write_bytes(_initramfs(tree, kernel.name.removeprefix("vmlinuz-")))
    run("bash", HERE / "prepare.sh", tree, files)


def _configure(tree: Path, files: Path) -> None:
    for name, text in _SETTINGS.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text, "utf-8")
    (tree / "etc/machine-id").write_text(f"{secrets.token_hex(16)}\n", "utf-8")
    (tree / "var/oled").mkdir(exist_ok=True)
    # labelled with the image, before docker makes it: what is in it has the label of its folder
    (tree / "var/lib/docker/overlay2").mkdir(parents=True, exist_ok=True)
    for unit in _MASKED:
        link = tree / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    for path in (tree / "etc/ssh").glob("ssh_host_*"):
        path.unlink()
    host_key = tree / "etc/ssh/ssh_host_ed25519_key"
    for path, comment in ((files / "key", "lab"), (host_key, "host")):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path)
    shutil.copyfile(f"{host_key}.pub", files / "host_key.pub")
    (tree / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(files / "key.pub", tree / "root/.ssh/authorized_keys")
    shutil.copyfile(HERE / "inside/container.cil", tree / "root/container.cil")


def _container_image(tree: Path) -> None:
    """What a container is made of: busybox, and nothing else."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("bin", "tmp", "etc", "data"):
            (folder / part).mkdir()
        shutil.copy2(tree / "bin/busybox", folder / "bin/busybox")
        for program in _BUSYBOX:
            os.symlink("busybox", folder / "bin" / program)
        run("tar", "--owner=0", "--group=0", "-C", folder, "-cf", tree / "root/busybox.tar", ".")


def _initramfs(tree: Path, release: str) -> bytes:
    """/init, busybox, LVM with its libraries, and the modules in the order in which they are loaded."""
    libraries = {
        word
        for line in run("chroot", tree, "ldd", "/sbin/lvm").splitlines()
        for word in line.split()
        if word.startswith("/")
    }
    folders = ("bin", "early", "proc", "sys", "dev", "run", "root", "lib", "lib64", "etc", "etc/lvm")
    entries = [cpio_entry(name, 0o040755, b"") for name in folders]
    entries.append(cpio_entry("init", 0o100755, (HERE / "inside/init").read_bytes()))
    entries.append(cpio_entry("etc/lvm/lvm.conf", 0o100644, _LVM.encode()))
    for name in ("bin/busybox", "sbin/lvm"):
        entries.append(cpio_entry(f"bin/{Path(name).name}", 0o100755, (tree / name).read_bytes()))
    for library in sorted(libraries):
        folder = "lib64" if "ld-linux" in library else "lib"
        data = (tree / library.lstrip("/")).resolve().read_bytes()
        entries.append(cpio_entry(f"{folder}/{Path(library).name}", 0o100755, data))
    for number, path in enumerate(modules_of(tree, release, _MODULES)):
        entries.append(cpio_entry(f"early/{number:02}-{path.name}", 0o100644, path.read_bytes()))
    return b"".join((*entries, cpio_entry("TRAILER!!!", 0, b"")))
