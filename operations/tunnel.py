"""A port of a host, reached through the SSH connection pyinfra holds: Triton's own ports stay closed to the network."""

from __future__ import annotations

import select
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyinfra.api.host import Host

CHUNK = 65536


@contextmanager
def forwarded(host: Host, address: str, port: int) -> Iterator[str]:
    """
    `127.0.0.1:<port>` on this machine, which leads to address:port on the host while the block runs.

    + host: a connected host; without an SSH transport (pyinfra's @local) the address is reached directly
    + address, port: as the host itself would reach it
    """
    client: Any = getattr(host.connector, "client", None)
    transport: Any = client.get_transport() if client is not None else None
    if transport is None:
        yield f"{address}:{port}"
        return

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            channel = transport.open_channel("direct-tcpip", (address, port), self.request.getpeername())
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
