"""Runs on a lab host, alone: one connection stays open while haproxy is reloaded N times, and others open and close.

    sudo python3 - N <across_reloads.py

haproxy must forward 127.0.0.1:9000 to 127.0.0.1:9001. The results are printed as JSON.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FRONT, BACK = ("127.0.0.1", 9000), ("127.0.0.1", 9001)
PATIENCE = 10.0  # seconds for one reload, and for the end of an old worker


def _echo(connection: socket.socket) -> None:
    with connection:
        while received := connection.recv(64):
            connection.sendall(received)


def _serve(server: socket.socket) -> None:
    while True:
        threading.Thread(target=_echo, args=(server.accept()[0],), daemon=True).start()


def _ask(connection: socket.socket) -> None:
    """Send something and receive it again, or raise OSError."""
    connection.sendall(b"asked")
    if (received := connection.recv(64)) != b"asked":
        raise OSError(f"{received!r} came back")


class Visitors:
    """New connections, one after the other, each with a request."""

    def __init__(self) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._ended = threading.Event()

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Open them while the block runs."""
        thread = threading.Thread(target=self._come)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _come(self) -> None:
        while not self._ended.is_set():
            try:
                with socket.create_connection(FRONT, timeout=5) as connection:
                    _ask(connection)
                self.answered += 1
            except OSError as error:
                self.failures.append(f"new connection: {error}")


def _workers(master: int) -> set[int]:
    listed = subprocess.run(["pgrep", "-P", str(master)], capture_output=True, text=True, check=False)
    return {int(pid) for pid in listed.stdout.split()}


def _within_patience(met: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE
    while not met():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _reload(master: int, known: frozenset[int]) -> None:
    """Reload, and wait for a new worker; raise OSError if there is none."""
    os.kill(master, signal.SIGUSR2)
    if not _within_patience(lambda: not _workers(master) <= known):
        raise OSError("no new worker")
    time.sleep(0.2)  # a signal that comes before the master is ready again is lost


def main(reloads: int) -> None:
    """Reload so many times; print what the open connection, the others and the workers did."""
    server = socket.create_server(BACK, backlog=128)
    threading.Thread(target=_serve, args=(server,), daemon=True).start()
    master = int(Path("/run/haproxy.pid").read_text())
    first = seen = frozenset(_workers(master))
    failures: list[str] = []
    visitors = Visitors()
    with socket.create_connection(FRONT, timeout=5) as kept:
        _ask(kept)
        with visitors.coming():
            for number in range(1, reloads + 1):
                try:
                    _reload(master, seen)
                    seen |= _workers(master)
                    _ask(kept)
                except OSError as error:
                    failures.append(f"reload {number}: {error}")
        stayed = first <= _workers(master)
    left = _within_patience(lambda: not first & _workers(master))
    found = {
        "answered": visitors.answered,
        "failures": failures + visitors.failures,
        "workers": len(seen),
        "first_worker_stayed": stayed,
        "first_worker_left": left,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
