"""What both ports of the mirror share: requests read whole, files sent with ranges and validators, faults applied."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from tests.lab.mirror.faults import Rules, shaped

_CHUNK = 1 << 16


class MirrorServer(ThreadingHTTPServer):
    """A threaded server that knows its cache and the fault rules, and takes a dropped client for an everyday thing."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[Handler], cache: Path, rules: Rules) -> None:
        self.cache = cache
        self.rules = rules
        super().__init__(address, handler)

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            print(f"mirror: {client_address}: {type(error).__name__}: {error}", flush=True)


class Handler(BaseHTTPRequestHandler):
    """One request. A subclass says in `route` what is served."""

    server: MirrorServer
    server_version = "lab-mirror"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 300

    def log_message(self, format: str, *args: object) -> None:
        print(f"mirror: {self.client_address[0]} {format % args}", flush=True)

    @property
    def url_path(self) -> str:
        """The path as sent (still quoted), without its query."""
        return self.path.split("?", 1)[0]

    def parts(self, path: str) -> list[str]:
        """The unquoted parts of a path; a quoted slash stays inside its part."""
        return [unquote(part) for part in path.strip("/").split("/")]

    def body(self) -> bytes:
        """The request's whole body, of a stated length or chunked."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def serve(self) -> None:
        self.request_body = self.body()
        rule = self.server.rules.take(self.command, self.url_path, body=False)
        self.fault_headers: Mapping[str, str] = {}
        if rule is not None:
            time.sleep(rule.delay_s)
            if rule.status is not None:
                self.answer(rule.status, b"fault rule\n", headers=rule.headers)
                return
            self.fault_headers = rule.headers
        self.route()

    do_GET = do_HEAD = do_POST = do_PUT = serve

    def route(self) -> None:
        raise NotImplementedError

    def answer(
        self,
        status: int,
        content: bytes = b"",
        kind: str = "text/plain",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """A whole, small answer."""
        self.send_response(status)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_json(
        self, content: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.answer(status, json.dumps(content).encode(), "application/json", headers)

    def _gone(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def shaped(self, chunks: Iterator[bytes], offset: int = 0) -> Iterator[bytes]:
        """The body as the fault rules want it sent."""
        rule = self.server.rules.take(self.command, self.url_path, body=True)
        if rule is None:
            return chunks
        time.sleep(rule.delay_s)
        return shaped(rule, chunks, offset, self._gone)

    def _range(self, size: int, etag: str, modified: str) -> tuple[int, int] | None:
        """First and last byte asked for; None = the whole file; an empty range = cannot be satisfied."""
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "").strip())
        if (
            found is None
            or found.groups() == ("", "")
            or self.headers.get("If-Range", etag) not in (etag, modified)
        ):
            return None
        first, last = found.groups()
        if not first:
            return max(0, size - int(last)), size - 1
        return int(first), min(int(last), size - 1) if last else size - 1

    def _unchanged(self, etag: str, mtime: float) -> bool:
        if wanted := self.headers.get("If-None-Match"):
            return wanted.strip() == "*" or etag in (
                tag.strip().removeprefix("W/") for tag in wanted.split(",")
            )
        try:
            since = parsedate_to_datetime(self.headers.get("If-Modified-Since", ""))
        except ValueError:
            return False
        return int(mtime) <= since.timestamp()

    def send_file(
        self,
        path: Path,
        etag: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        """The file, or the range of it that was asked for, or 304."""
        try:
            file = path.open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            self.answer(404, b"no such file\n")
            return
        with file:
            status = path.stat()
            size, modified = status.st_size, formatdate(status.st_mtime, usegmt=True)
            etag = f'"{etag or f"{status.st_mtime_ns:x}-{size:x}"}"'
            common = {
                "ETag": etag,
                "Last-Modified": modified,
                "Accept-Ranges": "bytes",
                **(headers or {}),
                **self.fault_headers,
            }
            if self._unchanged(etag, status.st_mtime):
                self.send_response(304)
                for header in common.items():
                    self.send_header(*header)
                self.end_headers()
                return
            span = self._range(size, etag, modified)
            first, last = span or (0, size - 1)
            if span and first > last:
                self.answer(416, headers={**common, "Content-Range": f"bytes */{size}"})
                return
            if span:
                common["Content-Range"] = f"bytes {first}-{last}/{size}"
            if name:
                common["Content-Disposition"] = f'inline; filename="{name}"'
            self.send_response(206 if span else 200)
            for header in common.items():
                self.send_header(*header)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            if self.command == "HEAD":
                return

            def chunks() -> Iterator[bytes]:
                file.seek(first)
                left = last - first + 1
                while left and (chunk := file.read(min(_CHUNK, left))):
                    left -= len(chunk)
                    yield chunk

            for chunk in self.shaped(chunks(), first):
                self.wfile.write(chunk)

    def send_tree(self, root: Path, parts: list[str]) -> None:
        """The file at `parts` below `root`, never one outside."""
        if any(part in ("", ".", "..") or "/" in part for part in parts):
            self.answer(404, b"no such file\n")
        else:
            self.send_file(root.joinpath(*parts))
