"""A webhook's endpoint on 127.0.0.1, which takes messages, or does what the real ones do when something is wrong."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Webhook:
    """What the endpoint got, and how it answers."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0  # before the answer
    got: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)  # path, headers, body
    url: str = ""

    @property
    def events(self) -> list[str]:
        return [body["event"] for _, _, body in self.got]


class _Handler(BaseHTTPRequestHandler):
    webhook: Webhook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        self.webhook.got.append(
            (self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        )
        time.sleep(self.webhook.seconds)
        try:
            self.send_response(self.webhook.status)
            for name, value in self.webhook.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"CANARY")
        except OSError:
            pass  # the sender has given up

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def listening(certificate: Path | None = None, **behaviour: Any) -> Iterator[Webhook]:
    """
    The endpoint, while the block runs.

    + certificate: a file with the certificate and its key, for TLS
    + behaviour: fields of Webhook
    """
    webhook = Webhook(**behaviour)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"webhook": webhook}))
    server.daemon_threads = True
    server.block_on_close = False
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    webhook.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield webhook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def silent() -> Iterator[str]:
    """The URL of a port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
