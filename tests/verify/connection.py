"""The inventory's hosts, and one SSH connection to each that commands and tunnels share."""

from __future__ import annotations

import json
import os
import shlex
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from operations.plan.errors import one_line
from operations.plan.paths import PROJECT


class InventoryError(Exception):
    """The inventory cannot be read, or names no host."""


@dataclass(frozen=True)
class Target:
    """One host of the inventory, with everything the inventory holds for it."""

    name: str
    data: dict[str, Any]

    @property
    def address(self) -> str:
        return str(self.data.get("ssh_hostname", self.name))

    def ssh_options(self) -> list[str]:
        """ssh's options, as the inventory has them for the deploy; unknown host keys are always refused."""
        options = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=15"]
        for key, option in (
            ("ssh_user", "User"),
            ("ssh_port", "Port"),
            ("ssh_known_hosts_file", "UserKnownHostsFile"),
        ):
            if self.data.get(key):
                options += ["-o", f"{option}={self.data[key]}"]
        if self.data.get("ssh_key"):
            options += ["-i", str(PROJECT / self.data["ssh_key"]), "-o", "IdentitiesOnly=yes"]
        if self.data.get("ssh_config_file"):
            options += ["-F", str(PROJECT / self.data["ssh_config_file"])]
        return options


def targets(inventory: str, group_data: str | None = None) -> list[Target]:
    """
    The hosts as pyinfra reads them, group data merged, also that of a further directory.

    In a process of its own: pyinfra's command line patches Python with gevent, which pytest had better not have.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pyinfra", inventory, "debug-inventory", "--json"),
            *(("--group-data", group_data) if group_data else ()),
        ],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=False,
    )
    listed = next((line for line in done.stdout.splitlines() if line.startswith("[")), "")
    if done.returncode != 0 or not listed:
        words = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        plain = [line for line in words if line.startswith("tritonhost: ")] or words[-1:]
        raise InventoryError(f"--inventory {inventory}: {' '.join(plain) or 'pyinfra lists no hosts'}")
    found = [Target(entry["name"], entry["data"]) for entry in json.loads(listed)]
    if not found:
        raise InventoryError(f"--inventory {inventory}: no hosts, expected at least one")
    return found


class Unreachable(Exception):
    """A host to which no SSH connection can be opened."""


class Connection:
    """An SSH connection that is open already: every use of `options` goes through it."""

    def __init__(self, target: Target, control: str) -> None:
        self.target = target
        self.options = [*target.ssh_options(), "-o", f"ControlPath={control}"]

    def ssh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ssh", *self.options, *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    @contextmanager
    def tunnel(self, address: str, port: int) -> Iterator[str]:
        """`127.0.0.1:<port>` on this machine, which leads to address:port as the host itself reaches it."""
        if self._forwards_nothing():
            with self._through_bash(address, port) as endpoint:
                yield endpoint
            return
        local = _free_port()
        forward = ["-L", f"127.0.0.1:{local}:{address}:{port}", self.target.address]
        opened = self.ssh("-O", "forward", *forward)
        if opened.returncode != 0:
            raise RuntimeError(f"{self.target.name}: no tunnel to {address}:{port}: {opened.stderr.strip()}")
        try:
            yield f"127.0.0.1:{local}"
        finally:
            self.ssh("-O", "cancel", *forward)

    def _forwards_nothing(self) -> bool:
        """Whether the host's sshd refuses tunnels; ssh itself says so only to who uses one."""
        asked = 'sudo -n sshd -T -C "user=$(id -un),host=$(hostname),addr=127.0.0.1"'
        said = self.ssh(self.target.address, asked).stdout.lower()
        return "allowtcpforwarding no" in said or "allowtcpforwarding remote" in said

    @contextmanager
    def _through_bash(self, address: str, port: int) -> Iterator[str]:
        """The same without sshd's help: each connection is a command on the host that bash connects."""
        script = (
            f"exec 3<>/dev/tcp/{address}/{port} 4<&0; {{ cat <&4; kill $$; }} >&3 2>/dev/null & exec cat <&3"
        )
        command = ["ssh", *self.options, self.target.address, f"exec bash -c {shlex.quote(script)}"]

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                subprocess.run(command, stdin=self.request, stdout=self.request, check=False)

        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            server.block_on_close = False
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield f"127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()


@contextmanager
def connected(target: Target) -> Iterator[Connection]:
    """One connection to the host, while the block runs. Raises Unreachable."""
    # Not below pytest's own temporary folder: the path of a socket is at most 104 characters long.
    with tempfile.TemporaryDirectory(prefix="tritonhost-") as folder:
        connection = Connection(target, os.path.join(folder, "ssh"))
        opened = connection.ssh("-o", "ControlMaster=yes", "-o", "ControlPersist=yes", target.address, "true")
        if opened.returncode != 0:
            said = opened.stderr.strip().splitlines() or ["ssh said nothing"]
            raise Unreachable(f"{target.name}: unreachable: {one_line(said[-1])}")
        try:
            yield connection
        finally:
            connection.ssh("-O", "exit", target.address)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
