"""A machine with LVM and md RAID: a Linux kernel as a process (user-mode Linux), because the machine's own has neither.

A boot takes two seconds and runs scripts as root on disks that are kept between boots. The programs are this machine's
(/usr, read-only) and those of Debian's packages, unpacked and not installed. There is no systemd and no udev inside.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.lab.shell import LabError, run

PACKAGES = (
    *("user-mode-linux", "kmod", "libkmod2", "mdadm", "lvm2", "dmsetup", "libdevmapper1.02.1"),
    *("libdevmapper-event1.02.1", "liblvm2cmd2.03", "libaio1", "libedit2", "libreadline8"),
)
SECONDS = 120
_LINKS = ("bin", "sbin", "lib", "lib64")
_FOLDERS = ("usr", "opt", "proc", "sys", "dev", "run", "tmp", "etc", "var", "root", "jobs")
# LVM without a udev that would make its device nodes
_LVM = "activation { udev_sync=0 udev_rules=0 }\ndevices { use_devicesfile=0 }\n"
_INIT = """#!/bin/sh
export PATH=/jobs/bin:/opt/sbin:/opt/usr/sbin:/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LD_LIBRARY_PATH=/opt/lib/x86_64-linux-gnu:/opt/usr/lib/x86_64-linux-gnu
export LVM_SYSTEM_DIR=/etc/lvm DM_DISABLE_UDEV=1 LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs tmp /run
mount -t tmpfs tmp /tmp
mkdir -p /run/lock /run/lvm
for module in dm-mod md-mod raid0 raid10; do insmod $(find /opt/usr/lib/uml/modules -name $module.ko); done
n=0
while [ -e /jobs/$n.sh ]; do
    sh /jobs/$n.sh >/jobs/$n.out 2>/jobs/$n.err </dev/null
    echo $? >/jobs/$n.code
    n=$((n + 1))
done
sync
echo o >/proc/sysrq-trigger
sleep 10
"""
# What the tool asks of systemd when it mounts: it reads the unit it is given, and mounts what that says.
_SYSTEMCTL = """#!/bin/sh
for unit; do :; done
file=/etc/systemd/system/$unit
value() { sed -n "s/^$1=//p" "$file" 2>/dev/null; }
case $1 in
    show)
        [ -e "$file" ] && state=loaded || state=not-found
        echo "LoadState=$state"
        [ ! -e "/etc/enabled/$unit" ] || echo UnitFileState=enabled
        ;;
    enable) mkdir -p /etc/enabled && : >"/etc/enabled/$unit" ;;
    start)
        uuid=$(value What)
        mountpoint -q "$(value Where)" || mount -t "$(value Type)" -o "$(value Options)" "UUID=${uuid##*/}" "$(value Where)"
        ;;
esac
"""


class UserModeMachine:
    """Disks of so many MiB each, as ubda, ubdb, …, and what is written to /etc, kept in `folder` from boot to boot."""

    def __init__(self, folder: Path, cache: Path, disks: Sequence[int]) -> None:
        self.folder, self.tools = folder, _tools(cache / "disk-tools")
        self.root = folder / "root"
        for name in _FOLDERS:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for name in _LINKS:
            if (target := Path("/", name)).is_symlink():
                (self.root / name).symlink_to(target.readlink())
        for name, text in {"init": _INIT, "jobs/bin/systemctl": _SYSTEMCTL}.items():
            (self.root / name).parent.mkdir(exist_ok=True)
            (self.root / name).write_text(text, "utf-8")
            (self.root / name).chmod(0o755)
        # awk and others are links into it
        shutil.copytree("/etc/alternatives", self.root / "etc/alternatives", symlinks=True)
        for name in ("etc/lvm", "etc/systemd/system"):
            (self.root / name).mkdir(parents=True)
        (self.root / "etc/lvm/lvm.conf").write_text(_LVM, "utf-8")
        (self.root / "etc/mtab").symlink_to("../proc/self/mounts")
        self.images = [folder / f"disk{number}.img" for number in range(len(disks))]
        for image, size in zip(self.images, disks, strict=True):
            with image.open("wb") as file:
                file.truncate(size << 20)

    def enlarge(self, number: int, mebibytes: int) -> None:
        with self.images[number].open("r+b") as file:
            file.truncate(mebibytes << 20)

    def boot(self, *scripts: str) -> list[subprocess.CompletedProcess[str]]:
        """Each script under sh, one after the other, in one boot; what became of each."""
        jobs = self.root / "jobs"
        for old in jobs.glob("[0-9]*"):
            old.unlink()
        for number, script in enumerate(scripts):
            (jobs / f"{number}.sh").write_text(script, "utf-8")
        arguments = [
            *(
                "mem=256M",
                "root=/dev/root",
                "rootfstype=hostfs",
                f"rootflags={self.root}",
                "rw",
                "init=/init",
            ),
            *(f"ubd{number}={image}" for number, image in enumerate(self.images)),
            *("con=null", "con0=fd:0,fd:1", "quiet"),
        ]
        kernel = shlex.join([str(self.tools / "usr/bin/linux.uml"), *arguments])
        inside = (
            f"mount --bind /usr {self.root}/usr && mount -o remount,ro,bind {self.root}/usr && "
            f"mount --bind {self.tools} {self.root}/opt && mount -o remount,ro,bind {self.root}/opt && exec {kernel}"
        )
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", inside],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env={"PATH": os.environ["PATH"], "TMPDIR": "/dev/shm", "HOME": str(self.folder)},
        )
        results = []
        for number, script in enumerate(scripts):
            if not (code := jobs / f"{number}.code").exists():
                raise LabError(
                    f"the user-mode machine ended early: {done.stdout[-1000:]}{done.stderr[-1000:]}"
                )
            texts = [(jobs / f"{number}.{name}").read_text("utf-8") for name in ("out", "err")]
            results.append(subprocess.CompletedProcess(script, int(code.read_text()), *texts))
        return results


def _tools(folder: Path) -> Path:
    """The packages' programs and the kernel, fetched once."""
    if not folder.exists():
        fresh = folder.with_suffix(".new")
        run("rm", "-rf", fresh)
        (fresh / "root").mkdir(parents=True)
        run("apt-get", "download", *PACKAGES, cwd=fresh)
        for package in fresh.glob("*.deb"):
            run("dpkg-deb", "--extract", package, fresh / "root")
        for name in ("insmod", "modprobe"):
            link = fresh / "root/sbin" / name
            link.unlink(missing_ok=True)
            link.symlink_to("../bin/kmod")
        (fresh / "root").rename(folder)
        run("rm", "-rf", fresh)
    return folder


def quoted(variables: Mapping[str, str]) -> str:
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
