"""Clients of a server: one request every 50 ms, and the result of each."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

EVERY_SECONDS = 0.05
PATIENCE_SECONDS = 60
REQUEST = {"text_input": "What is", "max_tokens": 1, "bad_words": "", "stop_words": ""}


@dataclass
class Load:
    """The requests, in seconds since the load began; `lost`: when, and why."""

    asked: int = 0
    answered: int = 0
    lost: list[tuple[float, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def window(self) -> float:
        """The seconds between the first and the last lost request."""
        return self.lost[-1][0] - self.lost[0][0] if self.lost else 0.0

    def count(self, began: float, problem: str) -> None:
        with self._lock:
            self.asked += 1
            if problem:
                self.lost.append((began, problem))
                self.lost.sort()
            else:
                self.answered += 1


def ask(endpoint: str, connection: http.client.HTTPConnection | None = None) -> str:
    """Send one request. Returns the problem, or an empty string. Without a connection, it opens one of its own."""
    used = connection or http.client.HTTPConnection(endpoint, timeout=PATIENCE_SECONDS)
    try:
        used.request(
            "POST",
            "/v2/models/ensemble/generate",
            json.dumps(REQUEST),
            {"Content-Type": "application/json"},
        )
        answer = used.getresponse()
        body = answer.read()
        if answer.status != 200 or b"text_output" not in body:
            return f"{answer.status} {body[:120].decode(errors='replace')}"
        return ""
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        if connection is None:
            used.close()


@contextmanager
def load(endpoints: Sequence[str]) -> Iterator[Load]:
    """
    The load, while the block runs; it is complete when the block has ended.

    + endpoints: host:port; a client tries the next one if one does not answer, as clients of several hosts do
    """
    found, stop, began = Load(), threading.Event(), time.monotonic()

    def one() -> None:
        at = time.monotonic() - began
        problem = ""
        for endpoint in endpoints:
            problem = ask(endpoint)
            if not problem:
                break
        found.count(at, problem)

    def clock() -> None:
        threads: list[threading.Thread] = []
        while not stop.wait(EVERY_SECONDS):
            threads = [thread for thread in threads if thread.is_alive()]
            threads.append(threading.Thread(target=one))
            threads[-1].start()
        for thread in threads:
            thread.join()

    running = threading.Thread(target=clock)
    running.start()
    try:
        yield found
    finally:
        stop.set()
        running.join()


def keeping_its_connection(endpoint: str, found: Load, stop: Callable[[], bool]) -> None:
    """A client that keeps one connection for all its requests, as HTTP libraries do, and opens another if it was closed."""
    connection = http.client.HTTPConnection(endpoint, timeout=PATIENCE_SECONDS)
    began = time.monotonic()
    while not stop():
        found.count(time.monotonic() - began, ask(endpoint, connection))
        time.sleep(EVERY_SECONDS)
    connection.close()


@contextmanager
def patient_load(endpoint: str, request: Callable[[str], str] = ask, clients: int = 2) -> Iterator[Load]:
    """
    Clients that send their next request when the last is answered, while the block runs: no more than the server can do.

    + request: sends one; the problem, or an empty string
    """
    found, stop, began = Load(), threading.Event(), time.monotonic()

    def client() -> None:
        while not stop.wait(EVERY_SECONDS):
            at = time.monotonic() - began
            found.count(at, request(endpoint))

    running = [threading.Thread(target=client) for _ in range(clients)]
    for one in running:
        one.start()
    try:
        yield found
    finally:
        stop.set()
        for one in running:
            one.join()
