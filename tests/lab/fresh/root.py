"""A pristine Debian 12 root: what a new machine has, without anything that is installed on this one.

mmdebstrap makes the root (minbase). A command runs in it as root, by pivot_root, with /proc, /sys and /dev of this machine,
in its own mount and process namespaces, without a locale and with Debian's limit of open files. It uses this machine's
network to download packages.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.lab.settings import REPOSITORY
from tests.lab.shell import LabError, attempt, run

SUITE = "bookworm"
# How this machine reaches package sources; the root gets no other setting from it.
APT_FILES = (
    "etc/apt/sources.list",
    "etc/apt/sources.list.d",
    "etc/apt/auth.conf.d",
    "etc/apt/keyrings",
    "usr/share/keyrings",
)
NETWORK_FILES = ("etc/resolv.conf", "etc/hosts")
PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "cert", "proxy", "timeout")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_INSIDE = """set -e
mount --bind {root} {root}
mount -t proc proc {root}/proc
mount --rbind /sys {root}/sys
mount --rbind /dev {root}/dev
mount -t tmpfs run {root}/run
mkdir -p {root}/run/lock
mkdir -p {root}/run/machine
ulimit -S -n 1024
cd {root}
# Not chroot alone: what is above a changed root can be reached by a namespace within, and its mounts be held there.
pivot_root . run/machine
exec chroot . /bin/sh -c 'umount --lazy /run/machine && rmdir /run/machine && exec /usr/bin/env --ignore-environment "$@"' \
    sh {environment} /bin/sh -c {command}
"""


@dataclass(frozen=True)
class Ended:
    """A command that ended in the root; `log` is the file with all its output."""

    code: int
    log: Path


def clone(target: Path) -> None:
    """A clean checkout of this repository's last commit, without uncommitted changes."""
    run("git", "clone", "--quiet", "--no-hardlinks", f"file://{REPOSITORY}", target)
    run("git", "-C", target, "checkout", "--quiet", "--detach", _head())


def _head() -> str:
    return run("git", "-C", REPOSITORY, "rev-parse", "HEAD").strip()


class PristineRoot:
    """A root in `folder`; `close` removes it and ends everything that runs in it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.environment = {
            "HOME": "/root",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND": "noninteractive",
            **{name: os.environ[name] for name in PROXIES if name in os.environ},
        }
        self.close()
        folder.mkdir(parents=True)
        run("tar", "--extract", "--numeric-owner", "--file", _archive(cache), "--directory", folder)
        # replace mmdebstrap's own list with this machine's
        (folder / APT_FILES[0]).unlink()
        for name in (*APT_FILES, *NETWORK_FILES):
            _copy(Path("/", name), folder / name)
        for path in Path("/etc/apt/apt.conf.d").glob("*"):
            if path.is_file() and "Acquire::" in path.read_text(errors="replace"):
                _copy(path, folder / str(path)[1:])
        self._reach_python_packages()

    def _reach_python_packages(self) -> None:
        """Pass on pip's settings for package sources as variables, with a certificate file."""
        told = dict.fromkeys(PIP_KEYS, "")
        for line in attempt("python3", "-m", "pip", "config", "list").stdout.splitlines():
            name, _, value = line.partition("=")
            told[name.rpartition(".")[2]] = value.strip("'")
        for key in PIP_KEYS:
            # variables take precedence over pip's files; a root within a root has no files
            value = os.environ.get(f"PIP_{key.upper().replace('-', '_')}", told[key])
            if not value or "file:" in value:
                continue
            if key == "cert":
                _copy(Path(value), self.folder / "etc/pip-cert.pem")
                value = "/etc/pip-cert.pem"
            self.environment[f"PIP_{key.upper().replace('-', '_')}"] = value

    def run(self, command: str, log: Path, **variables: str) -> Ended:
        """Run the command under sh, in /root; its output is appended to `log` as it comes."""
        environment = shlex.join(
            f"{name}={value}" for name, value in {**self.environment, **variables}.items()
        )
        script = _INSIDE.format(
            root=shlex.quote(str(self.folder)),
            environment=environment,
            command=shlex.quote(f"cd /root && {command}"),
        )
        # A process namespace: what the command leaves running ends with it, and everything ends with this process.
        # Unmounts of this machine also take effect in the root's mount namespace, which would otherwise keep the disks
        # of other labs in use; its own mounts take effect nowhere else.
        apart = ["unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child"]
        argv = ["setpriv", "--pdeathsig", "KILL", *apart, "sh", "-c", script]
        with log.open("ab") as file:
            file.write(f"$ {command}\n".encode())
            file.flush()
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False
            )
        return Ended(done.returncode, log)

    def processes(self) -> list[str]:
        """Command lines of all processes that run in the root."""
        ours = self.folder.stat()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or is a thread of the kernel
                if os.path.samestat(ours, os.stat(process / "root/.")):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
        return found

    def close(self) -> None:
        """Remove the root, with the loop devices of a lab in it. A device that is still mounted is not touched."""
        if not self.folder.exists():
            return
        for image in self.folder.glob("var/cache/tritonhost-lab/pool*.img"):
            _detach(image.stat().st_dev, image.stat().st_ino)
        below = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        if held := [point for point in below if point.startswith(f"{self.folder}/")]:
            raise LabError(f"{held[0]} is still mounted: umount it, then remove {self.folder}")
        shutil.rmtree(self.folder)


def _detach(device: int, inode: int | None = None) -> None:
    """
    Remove the loop devices of a file, and those of files on them: a lab that was killed leaves them behind.

    They are found by number, because the path of a file changes when its root is gone.

    + device, inode: of the file; without an inode: of any file on that device
    """
    fields = ("name", "maj:min", "back-ino", "back-maj:min")
    listed = run("losetup", "--list", "--json", "--output", ",".join(fields).upper()) or '{"loopdevices": []}'
    for loop in json.loads(listed)["loopdevices"]:
        name, own, back_inode, back_device = (str(loop[field]).strip() for field in fields)
        if _device(back_device) != device or inode not in (None, int(back_inode)):
            continue
        _detach(_device(own))
        attempt("partx", "--delete", name)
        attempt("losetup", "--detach", name)


def _device(number: str) -> int:
    major, _, minor = number.partition(":")
    return os.makedev(int(major), int(minor))


def _archive(cache: Path) -> Path:
    """Debian's minbase as an archive, made once; a root has the packages of the day on which the archive was made."""
    archive = cache / f"fresh-{SUITE}.tar"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        fresh = archive.with_suffix(f".{os.getpid()}.new")
        run("mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", SUITE, fresh)
        fresh.replace(archive)
    return archive


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.disabled*"))
    else:
        target.unlink(missing_ok=True)
        shutil.copyfile(source, target)
