"""One host: a systemd, booted from its own disk, in its own namespaces and control group.

The state is read from the machine (groups, mounts, loop devices), never from a file that an interrupted command could have
left wrong. The only such files are `configured` (the disk is complete) and `boots` (how often it booted).
"""

import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.lab import cgroups, disk, network
from tests.lab.settings import REPOSITORY, Settings
from tests.lab.shell import LabError, attempt, run, say

NVIDIA_SMI = Path(__file__).parent / "standins" / "bin" / "nvidia-smi"
FILLER = ".lab-filler"
BOOT_SECONDS = 60.0

# Mounts the disk where only the host sees it, so that no other process of the machine can keep it in use by a copy of the
# mount, and it is unmounted when the last process of the host ends. Boots the host again after a reboot request
# (systemd-nspawn then ends with 133), and ends when it powers off.
SUPERVISOR = """
folder=$1; partition=$2; shift 2
mount -o nouuid "$partition" "$folder/root" || exit 1
boots=$(cat "$folder/boots" 2>/dev/null || echo 0)
while :; do
  boots=$((boots + 1)); echo "$boots" >"$folder/boots"
  "$@"
  [ $? = 133 ] || exit 0
done
"""

# The signals for "reboot" and "power off" to systemd's process 1, as distances from SIGRTMIN.
REBOOT, POWER_OFF = 5, 4


class Host:
    """Host `number` of a lab, existing or not."""

    def __init__(self, settings: Settings, number: int) -> None:
        self.settings = settings
        self.number = number
        self.name = f"h{number}"
        self.address = settings.address(number)
        self.folder = settings.state / self.name
        self.root = self.folder / "root"
        self.image = settings.pool_mount / f"{self.name}.img"
        self.group = cgroups.Group(settings.tag, self.name, limits=True)
        self.supervisor = cgroups.Group(settings.tag, f"supervisor-{self.name}")

    # State

    @property
    def configured(self) -> bool:
        """The disk is complete: the host can be started."""
        return (self.folder / "configured").exists() and self.image.exists()

    @property
    def running(self) -> bool:
        return self.supervisor.populated() or self.group.populated()

    @property
    def boots(self) -> int:
        with suppress(OSError, ValueError):
            return int((self.folder / "boots").read_text())
        return 0

    def describe(self) -> str:
        """One word or two: stopped, running, paused, cut."""
        if not self.running:
            return "stopped"
        words = ["paused" if self.group.frozen() else "running"]
        if network.is_cut(self.settings, self.number):
            words.append("cut")
        return " ".join(words)

    def require(self, *, running: bool | None = None) -> None:
        """LabError unless the host exists, and runs or not as `running` wants."""
        if not self.configured:
            raise LabError(f"{self.name} does not exist; `up {self.number}` makes it")
        if running is True and not self.running:
            raise LabError(f"{self.name} is stopped; `start {self.number}` starts it")
        if running is False and self.running:
            raise LabError(f"{self.name} is already running")

    # Making and starting

    def create(self, base: Path) -> None:
        """Make the host's disk and its network, without starting it. An unfinished host is made again."""
        self.destroy()
        self.folder.mkdir(parents=True)
        disk.clone(base, self.image)
        with disk.mounted(self.image, self.root) as root:
            self._configure(root)
            shutil.copyfile(root / "etc/ssh/ssh_host_ed25519_key.pub", self.folder / "host_key.pub")
        (self.folder / "configured").touch()

    def _configure(self, root: Path) -> None:
        settings = self.settings
        (root / "etc/hostname").write_text(f"{self.name}\n")
        (root / "etc/hosts").write_text(
            f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n{settings.gateway} lab-mirror\n"
        )
        (root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        keys = root / "etc/ssh/ssh_host_ed25519_key"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", keys)
        home = (root / "home/opc").stat()
        ssh = root / "home/opc/.ssh"
        ssh.mkdir(mode=0o700)
        shutil.copyfile(settings.ssh_key.with_suffix(".pub"), ssh / "authorized_keys")
        (ssh / "authorized_keys").chmod(0o600)
        for path in (ssh, ssh / "authorized_keys"):
            os.chown(path, home.st_uid, home.st_gid)
        major = settings.os_major
        repository = root / f"etc/yum.repos.d/oracle-linux-ol{major}.repo"
        repository.parent.mkdir(exist_ok=True)
        repository.write_text(
            f"[ol{major}_baseos_latest]\nname=Oracle Linux {major} BaseOS Latest ($basearch)\n"
            f"baseurl={settings.mirror}/dnf/ol{major}/\n"
            "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-oracle\ngpgcheck=1\nenabled=1\n"
        )
        (root / "etc/lab").mkdir(exist_ok=True)
        (root / "etc/lab/gpus").write_text(f"{settings.gpus}\n")
        if NVIDIA_SMI.exists():
            shutil.copyfile(NVIDIA_SMI, root / "usr/bin/nvidia-smi")
            (root / "usr/bin/nvidia-smi").chmod(0o755)

    def start(self) -> None:
        """Boot the host; returns before it answers."""
        self.settle()
        settings = self.settings
        network.connect(settings, self.number)
        device = disk.attach(self.image)
        self.root.mkdir(exist_ok=True)
        self.group.create()
        self.supervisor.create()
        self.group.limit("memory", "memory.limit_in_bytes", f"{settings.memory}M")
        # The disk of the machine itself stays out of reach, even if a host changes block devices.
        own = os.stat(REPOSITORY).st_dev
        self.group.limit("devices", "devices.deny", f"b {os.major(own)}:{os.minor(own)} rwm")
        container = [
            "systemd-nspawn",
            "--quiet",
            "--boot",
            "--directory",
            str(self.root),
            "--machine",
            self.name,
            "--register=no",
            "--keep-unit",
            "--console=passive",
            "--resolv-conf=off",
            "--timezone=off",
            f"--network-namespace-path=/run/netns/{network.namespace(settings, self.number)}",
            "--capability=all",
            "--system-call-filter=@keyring bpf perf_event_open",
            f"--bind={device}",
            *(f"--bind={part}" for part in _partitions(device)),
        ]
        supervisor = [
            "unshare", "--mount", "--propagation", "slave", "sh", "-c", SUPERVISOR, f"lab-{self.name}",
            str(self.folder), f"{device}p{disk.ROOT_PARTITION}", *self.group.joining(container),
        ]  # fmt: skip
        with (self.folder / "console.log").open("ab") as console:
            subprocess.Popen(
                self.supervisor.joining(supervisor),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
                # dockerd writes under /proc/sys/net, and systemd wants the v2 hierarchy only.
                env={
                    "PATH": os.environ["PATH"],
                    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
                },
            )

    def wait_until_reachable(self, seconds: float = BOOT_SECONDS) -> None:
        """Wait until opc can log in. If that never happens, the reason is in the host's console.log."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if _greets(self.address) and attempt(*self.ssh("true", connect_timeout=2)).returncode == 0:
                return
            time.sleep(0.05)
        raise LabError(f"{self.name} did not answer on ssh in {seconds:.0f} s; see {self.folder}/console.log")

    # Ending

    def settle(self) -> None:
        """Unmount and detach everything of a host that does not run."""
        if self.running:
            raise LabError(f"{self.name} is running; `stop {self.number}` or `kill {self.number}` first")
        disk.unmount(self.root)
        for device in disk.loops_of(self.image):
            disk.detach(device)

    def kill(self) -> None:
        """Power loss: end every process at once. The disk is kept."""
        self.supervisor.kill()
        self.group.kill()
        self.settle()

    def stop(self, seconds: float = 60) -> None:
        """Clean shutdown. The disk is kept."""
        self.group.freeze(False)
        self._signal_init(POWER_OFF)
        if not self._wait(lambda: not self.running, seconds):
            say(f"{self.name} did not shut down in {seconds:.0f} s, taking its power")
        self.kill()

    def reboot(self, seconds: float = 60) -> None:
        """Clean reboot, asked of the host's systemd; returns when opc can log in again."""
        before = self.boots
        self.group.freeze(False)
        self._signal_init(REBOOT)
        if not self._wait(lambda: self.boots > before, seconds):
            raise LabError(f"{self.name} did not reboot in {seconds:.0f} s; see {self.folder}/console.log")
        self.wait_until_reachable()

    @staticmethod
    def _wait(condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _signal_init(self, offset: int) -> None:
        for pid in self.group.pids():
            with suppress(OSError, StopIteration):
                status = Path(f"/proc/{pid}/status").read_text().splitlines()
                line = next(line for line in status if line.startswith("NSpid:")).split()[1:]
                # Process 1 of the host; process 1 of a container inside it is one namespace deeper.
                if len(line) == len(_own_namespaces()) + 1 and line[-1] == "1":
                    os.kill(pid, signal.SIGRTMIN + offset)
                    return
        raise LabError(f"{self.name} has no process 1: it is just starting or ending; try again")

    def destroy(self) -> None:
        """Remove everything of the host."""
        self.kill()
        network.disconnect(self.settings, self.number)
        self.group.remove()
        self.supervisor.remove()
        self.image.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    # Faults

    def pause(self) -> None:
        """Freeze every process; the network still delivers packets, which are not answered."""
        self.group.freeze(True)
        self._wait(self.group.frozen, 10)

    def resume(self) -> None:
        self.group.freeze(False)

    def fill(self, free: int | None) -> None:
        """Leave `free` MiB on the root file system; None removes the filler."""
        root = self._seen_root()
        filler = root / FILLER
        filler.unlink(missing_ok=True)
        if free is None:
            return
        available = shutil.disk_usage(root).free
        size = available - (free << 20)
        if size <= 0:
            raise LabError(f"{self.name} has {available >> 20} MiB free, {free} asked for: nothing to fill")
        with filler.open("wb") as file:
            while size > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                    break
                except OSError:  # the file system keeps some blocks for itself
                    size -= 1 << 20

    def _seen_root(self) -> Path:
        """The host's root file system, through a process that has it mounted."""
        for pid in self.supervisor.pids():
            root = Path(f"/proc/{pid}/root{self.root}")
            with suppress(OSError):
                if root.stat().st_dev != self.folder.stat().st_dev:
                    return root
        raise LabError(f"{self.name} is just starting or ending; try again")

    # Reaching it

    def ssh(self, *command: str, connect_timeout: int = 10) -> list[str]:
        """argv that runs `command` on the host as opc, its host key checked strictly."""
        return [
            "ssh", "-i", str(self.settings.ssh_key), "-o", "IdentitiesOnly=yes",
            "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={self.settings.known_hosts}",
            "-o", "GlobalKnownHostsFile=/dev/null", "-o", f"ConnectTimeout={connect_timeout}", "-o", "LogLevel=ERROR",
            "-F", "/dev/null", f"opc@{self.address}", *command,
        ]  # fmt: skip


def _partitions(device: str) -> list[str]:
    name = Path(device).name
    return sorted(f"/dev/{found.name}" for found in Path("/sys/block", name).glob(f"{name}p*"))


def _own_namespaces() -> list[str]:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(line for line in status if line.startswith("NSpid:")).split()[1:]


def _greets(address: str) -> bool:
    """Whether sshd answers; much cheaper than starting ssh while a host boots."""
    with suppress(OSError), socket.create_connection((address, 22), timeout=1) as connection:
        connection.settimeout(1)
        return connection.recv(4) == b"SSH-"
    return False


def existing(settings: Settings) -> list[Host]:
    """Hosts that have a disk, in order of their numbers."""
    numbers = sorted(int(path.name[1:]) for path in settings.state.glob("h*") if path.name[1:].isdecimal())
    return [host for host in (Host(settings, number) for number in numbers) if host.configured]
