"""Serves files over HTTP: the base of the bundle's server and of the lab's mirror."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from operations.bundle.checkouts import LFS_TYPE

_CHUNK = 1 << 20
_LARGEST_BODY = 64 << 20  # bytes; a fetch says which commits it has, a batch which objects it wants
_LONGEST_LINE = 1024  # of a chunk's size


class Server(ThreadingHTTPServer):
    """One thread per client; a client that disconnects is not an error. `label`: how its log lines begin."""

    label: ClassVar[str]
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"{self.label}: {client_address}: {type(error).__name__}: {error}", flush=True)


class Handler(BaseHTTPRequestHandler):
    """
    One request. A subclass decides what is served.

    absent        the message for everything else
    file_headers  headers of every file, beside its own or instead of one of them
    """

    server: Server
    absent: ClassVar[str]
    file_headers: Mapping[str, str] = MappingProxyType({})
    sys_version = ""
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 300

    def log_message(self, format: str, *args: object) -> None:
        # a client's text must not control the terminal
        said = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in format % args)
        print(f"{self.server.label}: {self.client_address[0]} {said}", flush=True)

    @property
    def url_path(self) -> str:
        """The path as sent (still quoted), without its query."""
        return self.path.partition("?")[0]

    def body(self) -> bytes:
        """The request's body, of a stated length or chunked."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(self._bounded(int(self.headers.get("Content-Length") or 0)))
        content = b""
        while size := int(self._line().split(b";")[0], 16):
            content += self.rfile.read(self._bounded(size, len(content)))
            self._line()
        self._line()
        return content

    def _line(self) -> bytes:
        """A line of a chunked body's framing. Raises ConnectionError if it is longer than any such line needs to be."""
        line = self.rfile.readline(_LONGEST_LINE + 1)
        if len(line) > _LONGEST_LINE:
            self.close_connection = True
            raise ConnectionError(f"a line of more than {_LONGEST_LINE} bytes in a chunked body")
        return line

    def _bounded(self, size: int, before: int = 0) -> int:
        """The size, if so much may be read. Raises ConnectionError otherwise, and ends the connection."""
        if size < 0 or before + size > _LARGEST_BODY:
            self.close_connection = True
            raise ConnectionError(f"a body of more than {_LARGEST_BODY} bytes")
        return size

    def shaped(self, chunks: Iterator[bytes], offset: int = 0) -> Iterator[bytes]:
        """The body as sent, from `offset` of its file on. A subclass may change it."""
        return chunks

    def answer(
        self,
        status: int,
        content: bytes = b"",
        kind: str = "text/plain",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a small answer at once."""
        self.send_response(status)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_json(
        self,
        content: object,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        kind: str = "application/json",
    ) -> None:
        self.answer(status, json.dumps(content).encode(), kind, headers)

    def missing(self) -> None:
        """Answer that this does not exist here."""
        self.answer(404, f"{self.absent}\n".encode())

    # Files

    def _range(self, size: int, etag: str, modified: str) -> tuple[int, int] | None:
        """The first and the last requested byte; None = the whole file; an empty range = cannot be satisfied."""
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
        kind: str = "application/octet-stream",
    ) -> None:
        """
        Send the file, or the requested range of it, or 304.

        + etag: identifies the content; None: made from the file's time and size
        + name: the file name for a browser
        """
        try:
            file = path.open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            self.missing()
            return
        with file:
            status = os.fstat(file.fileno())
            size, modified = status.st_size, formatdate(status.st_mtime, usegmt=True)
            etag = f'"{etag or f"{status.st_mtime_ns:x}-{size:x}"}"'
            own = {"ETag": etag, "Last-Modified": modified, "Accept-Ranges": "bytes"}
            common = {**own, **(headers or {}), **self.file_headers}
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
            self.send_header("Content-Type", kind)
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

    # git

    def lfs_batch(self, body: bytes, has: Callable[[str], bool]) -> None:
        """
        Answer a batch request of git-lfs: its objects are at /git-lfs/OID of this server.

        + has: whether there is an object with this SHA-256
        """
        try:
            request = json.loads(body)
            wanted = [(str(o["oid"]), int(o["size"])) for o in request["objects"]]
            operation = request.get("operation")
        except (ValueError, KeyError, TypeError, AttributeError):
            self.answer_json({"message": "not a batch request"}, 422, kind=LFS_TYPE)
            return
        if operation != "download":
            self.answer_json({"message": "this server is read-only"}, 403, kind=LFS_TYPE)
            return
        objects: list[dict[str, object]] = []
        for oid, size in wanted:
            entry: dict[str, object] = {"oid": oid, "size": size, "authenticated": True}
            if has(oid):
                entry["actions"] = {"download": {"href": f"http://{self.headers['Host']}/git-lfs/{oid}"}}
            else:
                entry["error"] = {"code": 404, "message": self.absent}
            objects.append(entry)
        self.answer_json({"transfer": "basic", "objects": objects, "hash_algo": "sha256"}, kind=LFS_TYPE)

    def _cgi(self, root: Path, path_info: str, body: bytes) -> dict[str, str]:
        """The variables of a CGI program, and git's own."""
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": "/nonexistent",
            "GIT_PROJECT_ROOT": str(root),
            "GIT_HTTP_EXPORT_ALL": "1",
            # the repositories may belong to another user than the one that serves them
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": path_info,
            "QUERY_STRING": self.path.partition("?")[2],
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": self.client_address[0],
        }

    def git_backend(self, root: Path, path_info: str, body: bytes) -> None:
        """
        Let git http-backend answer, as a CGI program: https://git-scm.com/docs/git-http-backend.

        + root: the folder of the repositories; + path_info: a repository below it, and the request to it
        """
        with subprocess.Popen(
            ["git", "http-backend"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._cgi(root, path_info, body),
        ) as backend:
            assert backend.stdin is not None and backend.stdout is not None
            output = backend.stdout
            try:
                try:
                    backend.stdin.write(body)
                    backend.stdin.close()
                except BrokenPipeError:
                    pass  # it rejected the request before it had read all of it; its answer says why
                status, headers = 200, []
                while line := output.readline().decode().strip():
                    name, _, value = line.partition(":")
                    if name.lower() == "status":
                        status = int(value.split()[0])
                    else:
                        headers.append((name, value.strip()))
                self.send_response(status)
                for header in headers:
                    self.send_header(*header)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()

                def chunks() -> Iterator[bytes]:
                    while chunk := output.read1(_CHUNK):  # type: ignore[attr-defined]
                        yield chunk

                if self.command != "HEAD":
                    for chunk in self.shaped(chunks()):
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                    self.wfile.write(b"0\r\n\r\n")
            finally:
                backend.kill()
