"""A port of a host, reached through pyinfra's SSH connection: Triton's own ports stay closed to the network."""

from __future__ import annotations

import select
import shlex
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from paramiko import ChannelException
from pyinfra.api.host import Host

from operations import pyinfra_patches

CHUNK = 65536
PROHIBITED = 1  # SSH_OPEN_ADMINISTRATIVELY_PROHIBITED: https://www.rfc-editor.org/rfc/rfc4254#section-5.1


def through_bash(address: str, port: int) -> str:
    """
    A command for the host that copies its standard input to a TCP port, and the answer to its standard output.

    For hosts whose sshd forbids forwarding (AllowTcpForwarding no, as hardening guides ask). Bash opens TCP connections
    itself; Oracle Linux has bash, but neither nc nor socat. The command ends when either side does.
    """
    script = (
        f"exec 3<>/dev/tcp/{address}/{port} 4<&0 || exit 1; "
        "{ cat <&4; kill $$; } >&3 2>/dev/null & exec cat <&3"
    )
    return f"exec bash -c {shlex.quote(script)}"


@contextmanager
def forwarded(host: Host, address: str, port: int) -> Iterator[str]:
    """
    `127.0.0.1:<port>` on this machine, which leads to address:port on the host while the block runs.

    + host: a connected host; without an SSH transport (pyinfra's @local) the address is reached directly
    + address, port: as the host itself would reach it
    """
    transport = pyinfra_patches.transport_of(host)
    if transport is None:
        yield f"{address}:{port}"
        return

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                channel = transport.open_channel("direct-tcpip", (address, port), self.request.getpeername())
            except ChannelException as error:
                if error.code != PROHIBITED:
                    return  # nothing listens there: the connection ends, as it would on the host
                channel = transport.open_session()
                channel.exec_command(through_bash(address, port))
            _pump(self.request, channel)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def _pump(local: Any, remote: Any) -> None:
    """Copy bytes both ways until one side ends."""
    try:
        while True:
            readable, _, _ = select.select([local, remote], [], [])
            for source, target in ((local, remote), (remote, local)):
                if source in readable:
                    data = source.recv(CHUNK)
                    if not data:
                        return
                    target.sendall(data)
    finally:
        remote.close()
        local.close()
