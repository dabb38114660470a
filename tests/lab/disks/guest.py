"""The system that a virtual machine boots: Debian's kernel and userland as files in the lab's cache, made once.

It uses nothing of the host: mmdebstrap unpacks the packages below and their dependencies, and mke2fs makes a file system
of them. The packages are not configured; these programs do not need it. Debian's cloud kernel has the drivers of NVMe,
md, device mapper, xfs and ext4, has a third of the size of the stock kernel, and starts faster.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import lock
from tests.lab.shell import LabError, digest, run, step

PACKAGES = (
    *("linux-image-cloud-amd64", "kmod", "busybox-static", "bash", "dash", "coreutils"),
    *("findutils", "grep", "sed", "diffutils", "mawk", "procps", "util-linux", "mount"),
    *("fdisk", "gdisk", "cloud-guest-utils", "mdadm", "lvm2", "dmsetup", "xfsprogs", "e2fsprogs"),
)
# The root file system needs the first two and an overlay; the kernel loads the others on demand.
_EARLY = ("virtio_pci", "virtio_blk", "overlay")
_MODULES = (*_EARLY, "dm_mod", "md_mod", "raid0", "raid10", "xfs")
# LVM without udev, which would make its device nodes
_LVM = "activation { udev_sync=0 udev_rules=0 }\ndevices { use_devicesfile=0 }\n"
_UNUSED = ("boot", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")


@dataclass(frozen=True)
class Guest:
    """A folder with the kernel, its initial file system, and the image of the root file system."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs"

    @property
    def root(self) -> Path:
        return self.folder / "root.img"


def guest(cache: Path, init: Path) -> Guest:
    """
    The files, which are made if they are missing. LabError if the packages cannot be downloaded.

    + init: the first process
    """
    folder = cache / "disks"
    target = folder / digest([init, Path(__file__)])
    made_once(target, "kernel with LVM and md", lambda work: _make(work, init.read_bytes()))
    return Guest(target)


def made_once(target: Path, title: str, make: Callable[[Path], None]) -> None:
    """
    A folder of the cache, which is made if it is missing; what earlier versions made beside it goes.

    + make: is given an empty folder, and makes `files` in it
    """
    folder = target.parent
    with lock.held(folder / "lock"):
        if not target.exists():
            with step(title), tempfile.TemporaryDirectory(dir=folder, prefix="new-") as work:
                make(Path(work))
                (Path(work) / "files").rename(target)
            _forget(folder)


def debian(what: str, *words: str | Path) -> None:
    """mmdebstrap, without what packages only recommend. LabError, with what to do, if it does not get them."""
    try:
        run("mmdebstrap", "--quiet", '--aptopt=APT::Install-Recommends "false"', *words)
    except (LabError, FileNotFoundError) as error:
        raise LabError(
            f"found no kernel and userland for the {what}, expected Debian's packages: {error}; "
            "run `make lab-packages`, see that this machine reaches its Debian mirror, and run again"
        ) from error


def _forget(folder: Path) -> None:
    """Remove what earlier versions of these files made, except the newest two: another checkout may use one."""
    for unfinished in folder.glob("new-*"):
        shutil.rmtree(unfinished)
    made = [path for path in folder.iterdir() if path.is_dir()]
    for old in sorted(made, key=lambda path: path.stat().st_mtime)[:-2]:
        shutil.rmtree(old)


def _make(work: Path, init: bytes) -> None:
    tree, files = work / "tree", work / "files"
    files.mkdir()
    debian(
        "virtual machine",
        "--variant=extract",
        "--setup-hook=/usr/share/mmdebstrap/hooks/merged-usr/setup00.sh",
        f"--include={','.join(PACKAGES)}",
        "bookworm",
        tree,
    )
    [kernel] = (tree / "boot").glob("vmlinuz-*")
    shutil.copyfile(kernel, files / "vmlinuz")
    (files / "initramfs").write_bytes(_initramfs(tree, kernel.name.removeprefix("vmlinuz-"), init))
    for name in _UNUSED:
        shutil.rmtree(tree / name, ignore_errors=True)
    (tree / "etc/lvm/lvm.conf").write_text(_LVM, "utf-8")
    (tree / "etc/mtab").unlink(missing_ok=True)
    (tree / "etc/mtab").symlink_to("../proc/self/mounts")
    (tree / "usr/bin/awk").symlink_to("mawk")
    run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, files / "root.img", "512M")


def _initramfs(tree: Path, release: str, init: bytes) -> bytes:
    """/init, busybox, and the modules, which also stay in the tree; those of /early are ordered by name."""
    folder = tree / "lib/modules" / release
    kept = modules_of(tree, release, _MODULES)
    for path in folder.rglob("*.ko"):
        if path not in kept:
            path.unlink()
    run("chroot", tree, "depmod", release)
    folders = ("bin", "early", "proc", "sys", "dev", "base", "over", "root", "lib", "lib/modules")
    entries = [cpio_entry(name, 0o040755, b"") for name in folders]
    entries.append(cpio_entry("init", 0o100755, init))
    entries.append(cpio_entry("bin/busybox", 0o100755, (tree / "bin/busybox").read_bytes()))
    for path in (folder, *sorted(folder.rglob("*"))):
        data = b"" if path.is_dir() else path.read_bytes()
        entries.append(cpio_entry(str(path.relative_to(tree)), path.stat().st_mode, data))
    for number, path in enumerate(modules_of(tree, release, _EARLY)):
        target = f"/{path.relative_to(tree)}".encode()
        entries.append(cpio_entry(f"early/{number:02}", 0o120777, target))
    return b"".join((*entries, cpio_entry("TRAILER!!!", 0, b"")))


def modules_of(tree: Path, release: str, modules: Sequence[str]) -> list[Path]:
    """The files of the modules and of their dependencies, in the order in which they can be loaded."""
    run("chroot", tree, "depmod", release)
    shown = run("chroot", tree, "modprobe", "--set-version", release, "--show-depends", "--all", *modules)
    names = dict.fromkeys(words[1] for words in map(str.split, shown.splitlines()) if words[0] == "insmod")
    return [tree / name.lstrip("/") for name in names]


def cpio_entry(name: str, mode: int, data: bytes) -> bytes:
    """One entry of the archive format that the kernel reads ("newc"), uncompressed to save the time of unpacking."""
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name.encode()) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
