"""A TCP relay that adds a delay: what a network between here and a host costs, where the machine has no netem."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue

CHUNK = 65536


@contextmanager
def relay(address: str, port: int, round_trip_s: float) -> Iterator[int]:
    """
    The port of 127.0.0.1 that leads to address:port, while the block runs.

    Each direction takes half of the round trip, and a connection one round trip to open. Rates are not limited.
    """

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            time.sleep(round_trip_s)
            with socket.create_connection((address, port)) as host:
                for each in (self.request, host):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = threading.Thread(target=_carry, args=(host, self.request, round_trip_s / 2))
                back.start()
                _carry(self.request, host, round_trip_s / 2)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()


def _carry(source: socket.socket, sink: socket.socket, delay_s: float) -> None:
    """One direction of a connection, until its end."""
    under_way: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
    threading.Thread(target=_receive, args=(source, under_way, delay_s), daemon=True).start()
    with suppress(OSError):
        while True:
            due, data = under_way.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                break
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _receive(source: socket.socket, under_way: SimpleQueue[tuple[float, bytes]], delay_s: float) -> None:
    """Puts what arrives into the queue, with the time at which it is due. Nothing: the end."""
    data = b"-"
    while data:
        try:
            data = source.recv(CHUNK)
        except OSError:
            data = b""
        under_way.put((time.monotonic() + delay_s, data))
