"""A machine with LVM, md RAID and NVMe disks: QEMU without KVM, so that it runs on every CPU, and Debian's cloud kernel.

A start takes three to five seconds of work. There is no systemd and no udev inside: the kernel finds the disks, and nothing
else happens to them. The disks and the root file system keep their content from start to start.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.lab.disks.guest import Guest, guest
from tests.lab.shell import LabError, run

QEMU = "qemu-system-x86_64"
# Debian's programs need only the first x86-64; rdrand, so that nothing waits for random numbers. LAB_VM_CPU sets another
# one of `qemu-system-x86_64 -cpu help`.
CPU = "qemu64,+rdrand"
# for one start or one call of scripts; it takes seconds, and much longer on a busy machine
SECONDS = 600
_INSIDE = Path(__file__).parent / "inside"
_JOBS_MIB = 32
# ACPI's tables are a program, which takes a second to interpret here. norandmaps: QEMU translates a program again for each
# new address, so a process costs five times as much with random addresses.
_KERNEL = (
    *("norandmaps", "nokaslr", "init_on_alloc=0"),
    *("console=ttyS0", "quiet", "panic=-1", "acpi=off", "mitigations=off", "random.trust_cpu=on", "nosmp"),
    *("no_timer_check", "audit=0", "ipv6.disable=1", "cryptomgr.notests", "rcupdate.rcu_expedited=1"),
)
# it ends when the process that started it does
_COMMAND = (
    *("setpriv", "--pdeathsig", "KILL", QEMU, "-accel", "tcg", "-M", "pc", "-m", "384", "-smp", "1"),
    *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-append", " ".join(_KERNEL)),
)


class VirtualMachine:
    """A machine with disks of the given MiB, as nvme0n1, nvme1n1, …, kept in `folder` from boot to boot.

    `root` has what was written to the root file system until the end of the last script.
    """

    def __init__(self, folder: Path, cache: Path, disks: Sequence[int]) -> None:
        self.folder, self.root = folder, folder / "root"
        self._qemu: _Qemu | None = None
        for name, source in {"usr/local/sbin/systemctl": "systemctl", "usr/local/lib/jobs": "jobs"}.items():
            (self.root / name).parent.mkdir(parents=True)
            shutil.copyfile(_INSIDE / source, self.root / name)
            (self.root / name).chmod(0o755)
        (self.root / "etc/systemd/system").mkdir(parents=True)
        self.cpu = os.environ.get("LAB_VM_CPU", CPU)
        self.guest = guest(cache, _INSIDE / "init")
        self.images = [folder / f"disk{number}.img" for number in range(len(disks))]
        for number, size in enumerate(disks):
            self.replace(number, size)

    def __enter__(self) -> VirtualMachine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def replace(self, number: int, mebibytes: int) -> None:
        """Stop the machine and replace this disk with an empty one."""
        self.stop()
        self.images[number].unlink(missing_ok=True)
        self.images[number].touch()
        self.enlarge(number, mebibytes)

    def enlarge(self, number: int, mebibytes: int) -> None:
        """Stop the machine and enlarge this disk."""
        self.stop()
        os.truncate(self.images[number], mebibytes << 20)

    def stop(self) -> None:
        """Power off at once: unsynchronized data is lost; after each script all data is synchronized."""
        if self._qemu:
            self._qemu.end()
            self._qemu = None

    def run(self, *scripts: str) -> list[subprocess.CompletedProcess[str]]:
        """Run the scripts under sh, one after the other; their results. Starts the machine if it is off."""
        jobs, archive = self.root / "jobs", self.folder / "jobs.img"
        shutil.rmtree(jobs, ignore_errors=True)
        jobs.mkdir()
        names = [f"nvme{number}n1" for number in range(len(self.images))]
        (jobs / "disks").write_text(" ".join(names), "utf-8")
        for number, script in enumerate(scripts):
            (jobs / f"{number}.sh").write_text(script, "utf-8")
        sent = "./jobs" if self._qemu else "."
        run("tar", "--create", "--file", archive, "--directory", self.root, sent)
        os.truncate(archive, _JOBS_MIB << 20)
        if self._qemu:
            self._qemu.go_on()
        else:
            self._qemu = _Qemu(self.guest, self.folder, archive, self.images, self.cpu)
        self._qemu.wait()
        shutil.rmtree(self.root)
        self.root.mkdir()
        run("tar", "--extract", "--file", archive, "--directory", self.root)
        results = []
        for number, script in enumerate(scripts):
            code = int((jobs / f"{number}.code").read_text("utf-8"))
            texts = [(jobs / f"{number}.{name}").read_text("utf-8") for name in ("out", "err")]
            results.append(subprocess.CompletedProcess(script, code, *texts))
        return results


class _Qemu:
    """One run of QEMU. The first serial port is the console, a file; the second one carries lines in both directions."""

    def __init__(self, files: Guest, folder: Path, jobs: Path, disks: Sequence[Path], cpu: str) -> None:
        self.console, self.errors = folder / "console.log", folder / "qemu.log"
        self.console.unlink(missing_ok=True)
        command = [*_COMMAND, "-cpu", cpu, "-kernel", str(files.kernel), "-initrd", str(files.initramfs)]
        # a comma in an option's value is written twice
        command += ["-chardev", "file,id=console,path=" + str(self.console).replace(",", ",,")]
        command += [
            "-chardev",
            "stdio,id=jobs,signal=off",
            "-serial",
            "chardev:console",
            "-serial",
            "chardev:jobs",
        ]
        command += drive("root", files.root, "virtio-blk-pci", read_only=True)
        command += drive("jobs", jobs, "virtio-blk-pci")
        for number, disk in enumerate(disks):
            command += drive(f"disk{number}", disk, f"nvme,serial=disk{number}")
        try:
            with self.errors.open("wb") as errors:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
                )
        except FileNotFoundError as error:
            raise _absent(str(error.filename)) from None

    def go_on(self) -> None:
        assert self.process.stdin
        try:
            self.process.stdin.write("more\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self._give_up("ended early")

    def wait(self) -> None:
        """Wait until the guest answers. LabError if it ends before that."""
        assert self.process.stdout
        late = threading.Event()

        def kill() -> None:
            late.set()
            self.process.kill()

        limit = threading.Timer(SECONDS, kill)
        limit.start()
        try:
            for line in self.process.stdout:
                if line.strip() == "done":
                    return
        finally:
            limit.cancel()
        self._give_up(f"did not answer for {SECONDS} s" if late.is_set() else "ended early")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _give_up(self, what: str) -> None:
        self.end()
        if self.process.returncode == 127:
            raise _absent(QEMU)
        raise LabError(f"the virtual machine {what}: {printed(self.errors, self.console)}")


def _absent(program: str) -> LabError:
    return LabError(
        f"found no {program}, expected it to run a kernel with LVM and md; "
        "run `make lab-packages`, or apt-get install --no-install-recommends qemu-system-x86 seabios"
    )


def printed(*files: Path) -> str:
    """The end of what QEMU and the machine's console have printed, in one line."""
    texts = [path.read_text("utf-8", errors="replace") for path in files if path.exists()]
    lines = [line.strip() for line in "\n".join(texts).splitlines() if line.strip()]
    return " | ".join(lines[-12:]) or "it printed nothing"


def drive(name: str, path: Path, device: str, read_only: bool = False, driver: str = "raw") -> list[str]:
    """QEMU's options for a disk, whose writes wait for nothing."""
    options: dict[str, Any] = {
        "driver": driver,
        "node-name": name,
        "read-only": read_only,
        "discard": "unmap",
        "cache": {"direct": False, "no-flush": True},
        "file": {"driver": "file", "filename": str(path)},
    }
    return ["-blockdev", json.dumps(options), "-device", f"{device},drive={name}"]
