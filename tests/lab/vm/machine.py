"""A machine that runs like a host: systemd, sshd, LVM below its root, SELinux enforcing. QEMU without KVM, so that it runs on every CPU.

A boot takes half a minute on an idle machine and two on a busy one. What the machine writes goes to a layer over the kept image.
"""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.lab.disks.machine import CPU, QEMU, drive, printed
from tests.lab.shell import LabError, run
from tests.lab.vm.image import image

MEMORY = "1536M"
SECONDS = 600  # for a boot, on a busy machine
_KERNEL = (
    *("console=ttyS0", "quiet", "loglevel=4", "security=selinux", "selinux=1", "enforcing=1", "audit=1"),
    # QEMU translates a program again for each new address
    *("norandmaps", "nokaslr", "init_on_alloc=0", "mitigations=off", "random.trust_cpu=on", "no_timer_check"),
    *("cryptomgr.notests", "net.ifnames=0", "panic=-1", "systemd.show_status=0"),
)
_BOOT = "cat /proc/sys/kernel/random/boot_id"


class Machine:
    """
    One machine.

    + folder: what it writes
    + root_gib: the size of its disk; the image's own partition has 5 GiB of it
    + data: MiB of each NVMe device
    """

    def __init__(self, folder: Path, cache: Path, root_gib: int, data: tuple[int, ...] = ()) -> None:
        self.folder, self.image, self.data = folder, image(cache), data
        self.port = _free_port()
        self._layer = folder / "root.qcow2"
        run(
            *("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", self.image.disk, self._layer),
            f"{root_gib}G",
        )
        for number, size in enumerate(data):
            with (folder / f"data{number}.img").open("wb") as file:
                file.truncate(size << 20)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Machine:
        self.boot()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> dict[str, Any]:
        """How pyinfra reaches it: data of a host."""
        return {
            "ssh_hostname": "127.0.0.1",
            "ssh_port": self.port,
            "ssh_user": "root",
            "ssh_key": str(self.image.key),
            "ssh_known_hosts_file": str(self.folder / "known_hosts"),
        }

    def boot(self) -> None:
        """Switch it on, and wait until ssh runs a command. Raises LabError with the end of the console."""
        known = self.image.host_key.read_text("utf-8").split()[:2]
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {' '.join(known)}\n", "utf-8")
        self._process = subprocess.Popen(self._command(), stderr=(self.folder / "qemu.log").open("wb"))
        self._until_ssh()

    def reboot(self) -> None:
        """Reboot it from inside, as an operator does."""
        before = self.output(_BOOT)
        self.ssh("systemctl reboot", check=False)
        self._until_ssh(before)

    def _until_ssh(self, before: str = "") -> None:
        """Wait until ssh runs a command in another boot than `before`."""
        assert self._process
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise LabError(f"the machine ended before ssh answered: {self._printed()}")
            found = self.ssh(_BOOT, check=False)
            if found.returncode == 0 and found.stdout != before:
                return
            time.sleep(1)
        raise LabError(f"ssh did not answer for {SECONDS} s: {self._printed()}")

    def stop(self) -> None:
        """Cut its power."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ssh(self, script: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The result of a script under sh. Raises LabError if it fails, unless `check` is False."""
        done = subprocess.run(
            [
                *("ssh", "-q", "-F", "none", "-i", str(self.image.key), "-p", str(self.port), "-o", "IdentitiesOnly=yes"),
                *("-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}", "-o", "ConnectTimeout=30"),
                *("-o", "ServerAliveInterval=15", "root@127.0.0.1", script),
            ],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
        if check and done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()[-5:]
            raise LabError(f"`{script[:200]}` ended with status {done.returncode}: {' | '.join(said)}")
        return done

    def output(self, script: str) -> str:
        """What a script that must succeed prints."""
        return self.ssh(script).stdout

    def _command(self) -> list[str]:
        command = [
            # it ends when the process that started it does
            *("setpriv", "--pdeathsig", "KILL", QEMU, "-accel", "tcg,thread=multi", "-cpu", CPU, "-M", "q35"),
            *("-m", MEMORY, "-smp", "2", "-nodefaults", "-no-user-config", "-display", "none"),
            *("-kernel", str(self.image.kernel), "-initrd", str(self.image.initramfs), "-append", " ".join(_KERNEL)),
            *("-serial", f"file:{self.folder / 'console.log'}"),
            *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"),
            *("-device", "virtio-net-pci,netdev=net,romfile="),
        ]  # fmt: skip
        command += drive("root", self._layer, "virtio-blk-pci", driver="qcow2")
        for number in range(len(self.data)):
            path = self.folder / f"data{number}.img"
            command += drive(f"data{number}", path, f"nvme,serial=data{number}")
        return command

    def _printed(self) -> str:
        return printed(self.folder / "qemu.log", self.folder / "console.log")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
