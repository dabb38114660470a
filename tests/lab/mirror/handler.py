"""The base of both ports of the mirror: the bundle's handler, with the fault rules applied."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from operations.bundle import handler
from tests.lab.mirror.faults import Rules, shaped


class MirrorServer(handler.Server):
    """A server that knows its cache and the fault rules."""

    label = "mirror"

    def __init__(self, address: tuple[str, int], handler: type[Handler], cache: Path, rules: Rules) -> None:
        self.cache = cache
        self.rules = rules
        super().__init__(address, handler)


class Handler(handler.Handler):
    """One request. A subclass decides in `route` what is served."""

    server: MirrorServer
    server_version = "lab-mirror"
    absent = "no such file"

    def parts(self, path: str) -> list[str]:
        """The unquoted parts of a path; a quoted slash stays inside its part."""
        return [unquote(part) for part in path.strip("/").split("/")]

    def serve(self) -> None:
        self.request_body = self.body()
        rule = self.server.rules.take(self.command, self.url_path, body=False)
        self.file_headers = {}
        if rule is not None:
            time.sleep(rule.delay_s)
            if rule.status is not None:
                self.answer(rule.status, b"fault rule\n", headers=rule.headers)
                return
            self.file_headers = rule.headers
        self.route()

    do_GET = do_HEAD = do_POST = do_PUT = serve

    def route(self) -> None:
        raise NotImplementedError

    def _gone(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def shaped(self, chunks: Iterator[bytes], offset: int = 0) -> Iterator[bytes]:
        """The body as the fault rules shape it."""
        rule = self.server.rules.take(self.command, self.url_path, body=True)
        if rule is None:
            return chunks
        time.sleep(rule.delay_s)
        return shaped(rule, chunks, offset, self._gone)

    def send_tree(self, root: Path, parts: list[str]) -> None:
        """The file at `parts` below `root`, never one outside."""
        if any(part in ("", ".", "..") or "/" in part for part in parts):
            self.missing()
        else:
            self.send_file(root.joinpath(*parts))
