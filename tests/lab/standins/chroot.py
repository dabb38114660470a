"""An image's file system, unpacked, and a tritonserver in it, for tests that need no container engine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab.standins import images
from tests.lab.standins.layers import FileContent, Layer

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("LAB_CACHE", "/var/cache/tritonhost-lab"))

# Mounts and processes of the root file system end with this shell, even if it is killed.
ENTER = """
root=$1; work=$2; shift 2
mount --make-rprivate / && mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" &&
mount -t tmpfs -o mode=1777,size=256m tmpfs "$root/dev/shm" && mount --bind "$work" "$root/w" || exit 97
exec env -i $IMAGE_ENV chroot "$root" "$@"
"""


class Container:
    """An image's file system, with a folder /w for the test."""

    def __init__(
        self,
        folder: Path,
        layers: Sequence[Layer],
        files: Mapping[str, FileContent] | None = None,
        settings: dict[str, Any] = images.SETTINGS,
    ) -> None:
        self.environment = {**os.environ, "IMAGE_ENV": " ".join(settings["Env"])}
        self.root, self.work = folder / "root", folder / "work"
        for path in (self.root, self.work):
            path.mkdir()
        for layer in layers:
            with tarfile.open(layer.path) as archive:
                # Debian 12's own 3.11.2 does not have it, and extracts so by default
                if trusted := getattr(tarfile, "fully_trusted_filter", None):
                    archive.extraction_filter = trusted
                archive.extractall(self.root)
        for name, content in (files or {}).items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[0] if isinstance(content, tuple) else content)
            path.chmod(content[1] if isinstance(content, tuple) else 0o644)
        for name in ("w", "etc/lab", "proc", "dev/shm"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "bin" / "nvidia-smi", self.root / "usr/bin/nvidia-smi")
        self.see("NVIDIA A10:1")

    def command(self, *words: str) -> list[str]:
        enter = [
            "unshare",
            "--mount",
            "--pid",
            "--ipc",
            "--fork",
            "--kill-child=SIGKILL",
            "sh",
            "-c",
            ENTER,
            "sh",
        ]
        return [*enter, str(self.root), str(self.work), *words]

    def attempt(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, env=self.environment, check=False
        )

    def run(self, *words: str) -> str:
        done = self.attempt(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def see(self, gpus: str) -> None:
        """Set the GPUs that nvidia-smi reports, as NAME:COUNT."""
        (self.root / "etc/lab/gpus").write_text(gpus + "\n")


def free_ports(count: int) -> list[int]:
    """`count` ports of the loopback that nobody listens on; all differ, since they are held until the last is found."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def free_port() -> int:
    return free_ports(1)[0]


class Server:
    """A running tritonserver on loopback."""

    def __init__(self, container: Container, log: Path) -> None:
        self.http, self.grpc, self.metrics = free_ports(3)
        ports = [f"--http-port={self.http}", f"--grpc-port={self.grpc}", f"--metrics-port={self.metrics}"]
        local = [f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics")]
        without_gpu = ["--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0"]
        words = [
            "--model-repository=/w/repository",
            "--disable-auto-complete-config",
            *ports,
            *local,
            *without_gpu,
        ]
        self.log = log
        with log.open("wb") as out:
            command = container.command("tritonserver", *words)
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=container.environment)

    def post(self, model: str, verb: str, body: dict[str, Any]) -> tuple[int, str]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}/v2/models/{model}/{verb}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def wait_ready(self, model: str = "ensemble") -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(
                    f"http://127.0.0.1:{self.http}/v2/models/{model}/ready", timeout=2
                ).close()
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(self.log.read_text()[-3000:])

    def stop(self) -> int:
        """Stop the server itself: it is the only child of the shell under unshare."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)
        return self.process.wait(60)
