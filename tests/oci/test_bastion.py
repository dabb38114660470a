"""oci.bastion with pyinfra's own SSH client: a jump host that forwards, and a host behind it, both of this process."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paramiko
import pytest

from tests.oci.conftest import Controller
from tests.oci.service import Tenancy
from tests.oci.test_inventory_file import project, pyinfra, write

__all__ = ["project"]  # the fixture

ADDRESS = "10.0.0.11"  # of the fake's first instance; reached through the jump host only
ANSWER = "from behind the bastion"


class Server(paramiko.ServerInterface):
    """Lets one key in; forwards where `ports` says, and answers every command where it says nothing."""

    def __init__(self, key: paramiko.PKey, ports: dict[tuple[str, int], int]) -> None:
        self.key, self.ports = key, ports
        self.forwards: dict[int, int] = {}
        self.commands: list[tuple[paramiko.Channel, bytes]] = []

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = username == "opc" and key == self.key
        return paramiko.common.AUTH_SUCCESSFUL if known else paramiko.common.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return 0 if kind == "session" and not self.ports else 1

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        if destination not in self.ports:
            return 1
        self.forwards[chanid] = self.ports[destination]
        return 0

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.commands.append((channel, command))
        threading.Thread(target=self._answer, args=(channel,), daemon=True).start()
        return True

    def _answer(self, channel: paramiko.Channel) -> None:
        # paramiko says that the command was begun when the method above has returned; an answer must not come before
        time.sleep(1)
        channel.sendall(f"{ANSWER}\n".encode())
        channel.send_exit_status(0)
        channel.close()


def pump(channel: paramiko.Channel, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as other:
        while True:
            waiting: list[Any] = [channel, other]
            ready, _, _ = select.select(waiting, [], [], 20)
            for source, sink in ((channel, other), (other, channel)):
                if source in ready:
                    data = source.recv(65536)
                    if not data:
                        channel.close()
                        return
                    sink.sendall(data)
            if not ready:
                return


@contextmanager
def ssh_server(
    host_key: paramiko.PKey, key: paramiko.PKey, ports: dict[tuple[str, int], int]
) -> Iterator[tuple[int, Server]]:
    """An SSH server on 127.0.0.1, while the block runs; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(key, ports)
    transports: list[paramiko.Transport] = []

    def forward(transport: paramiko.Transport) -> None:
        while transport.is_active():
            channel = transport.accept(1)
            if channel and channel.chanid in server.forwards:
                port = server.forwards[channel.chanid]
                threading.Thread(target=pump, args=(channel, port), daemon=True).start()

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transports.append(transport)
            transport.add_server_key(host_key)
            try:
                transport.start_server(server=server)
            except (paramiko.SSHException, EOFError):
                continue
            threading.Thread(target=forward, args=(transport,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], server
    finally:
        listener.close()
        for transport in transports:
            transport.close()


@pytest.fixture(scope="module")
def keys() -> list[paramiko.RSAKey]:
    return [paramiko.RSAKey.generate(2048) for _ in range(3)]


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown jump host"])
@pytest.mark.slow
def test_host_is_reached_through_a_bastion_with_a_known_key(
    project: Path, controller: Controller, tenancy: Tenancy, keys: list[paramiko.RSAKey], known: bool
) -> None:
    operator, jump_key, target_key = keys
    tenancy.add("gpu-1")
    home = controller.home / "home"
    (home / ".ssh").mkdir(parents=True)
    operator.write_private_key_file(str(home / ".ssh/id_rsa"))
    with (
        ssh_server(target_key, operator, {}) as (target_port, target),
        ssh_server(jump_key, operator, {(ADDRESS, 22): target_port}) as (jump_port, _),
    ):
        lines = [f"{ADDRESS} ssh-rsa {target_key.get_base64()}"]
        if known:
            lines.append(f"[127.0.0.1]:{jump_port} ssh-rsa {jump_key.get_base64()}")
        (home / ".ssh/known_hosts").write_text("\n".join([*lines, ""]), encoding="utf-8")
        write(project, controller, f"bastion = 'opc@127.0.0.1:{jump_port}'")
        # an operator who says yes to whatever is asked: nothing may be asked
        done = pyinfra(
            project, "exec", "--", "hostname", answers="y\ny\ny\n", HOME=str(home), SSH_AUTH_SOCK=""
        )
    said = done.stdout + done.stderr
    if known:
        assert done.returncode == 0, said
        assert ANSWER in said
        assert target.commands
    else:
        assert done.returncode != 0
        assert "No host key for" in said
        assert "do you want to continue" not in said
        assert target.commands == []
