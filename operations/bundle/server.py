"""Hands a bundle out: files as they lie, and the three protocols that need a little more than files.

/rpm/… /keys/… /pypi/…     files
/git/HOST/PATH.git/…       git's own http-backend (a shallow fetch needs its protocol); …/info/lfs/objects/batch
/git-lfs/OID               what git-lfs is pointed to
/v2/NAME/manifests/DIGEST  a registry that can only be read, by digest
/v2/NAME/blobs/DIGEST
/hub/…                     of a Hugging Face hub what huggingface_hub downloads one revision by

It reads and never writes, and asks nobody who they are: it belongs on a network of the site's own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from operations.bundle import sums
from operations.bundle.checkouts import LFS_TYPE
from operations.bundle.images import media_type

_CHUNK = 1 << 20
_LARGEST_BODY = 64 << 20  # bytes; a fetch says which commits it has, a batch which objects it wants
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_HUB_LISTING = re.compile(r"/hub/api/(models|datasets)/([^/]+/[^/]+)/revision/([0-9a-f]{40})")
_HUB_FILE = re.compile(r"/hub/(datasets/)?([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)")
_IMAGE = re.compile(r"/v2/.+/(manifests|blobs)/([^/]+)")
_GIT = re.compile(
    r"/git/([A-Za-z0-9.-]+/[A-Za-z0-9._/-]+?)(?:\.git)?/(info/refs|git-upload-pack|info/lfs/objects/batch)"
)


class BundleServer(ThreadingHTTPServer):
    """The server of one bundle; a client that is gone is an everyday thing."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], bundle: Path) -> None:
        self.bundle = bundle.resolve()
        self.sums = sums.listed(bundle)
        super().__init__(address, Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"bundle: {client_address}: {type(error).__name__}: {error}", flush=True)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: BundleServer
    server_version = "tritonhost-bundle"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 300

    def log_message(self, format: str, *args: object) -> None:
        print(f"bundle: {self.client_address[0]} {format % args}", flush=True)

    @property
    def url_path(self) -> str:
        """The path, unquoted, without its query."""
        return unquote(self.path.partition("?")[0])

    def do_GET(self) -> None:
        path = self.url_path
        if path.startswith(("/rpm/", "/keys/", "/pypi/")):
            self._tree(path)
        elif path == "/v2/":
            self._answer(200, b"{}", headers={"Docker-Distribution-API-Version": "registry/2.0"})
        elif found := _IMAGE.fullmatch(path):
            self._image(found[1], found[2])
        elif found := _HUB_LISTING.fullmatch(path):
            self._hub_listing(found[1], found[2], found[3])
        elif found := _HUB_FILE.fullmatch(path):
            self._hub_file(f"hub/{found[1] or 'models/'}{found[2]}/{found[3]}/{found[4]}", found[3])
        elif path.startswith("/git-lfs/"):
            oid = path.removeprefix("/git-lfs/")
            self._file(f"git-lfs/{oid[:2]}/{oid}")
        elif (found := _GIT.fullmatch(path)) and found[2] == "info/refs":
            self._git(f"/{found[1]}.git/{found[2]}", b"")
        else:
            self._missing()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        found = _GIT.fullmatch(self.url_path)
        body = self._body()
        if found and found[2] == "git-upload-pack":
            self._git(f"/{found[1]}.git/{found[2]}", body)
        elif found and found[2] == "info/lfs/objects/batch":
            self._lfs(body)
        else:
            self._missing()

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(min(int(self.headers.get("Content-Length") or 0), _LARGEST_BODY))
        content = b""
        while (size := int(self.rfile.readline().split(b";")[0], 16)) and len(content) < _LARGEST_BODY:
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _answer(
        self,
        status: int,
        content: bytes,
        kind: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _missing(self) -> None:
        self._answer(404, b"not in this bundle\n", "text/plain")

    def _tree(self, path: str) -> None:
        name = path.strip("/")
        self._file(f"{name}/index.html" if f"{name}/index.html" in self.server.sums else name)

    def _file(self, name: str, kind: str = "", headers: Mapping[str, str] | None = None) -> None:
        """A file that SHA256SUMS lists, or the part of it that was asked for. What is not listed is not there."""
        digest = self.server.sums.get(name)
        if digest is None:
            self._missing()
            return
        page = "text/html" if name.endswith(".html") else "application/octet-stream"
        with (self.server.bundle / name).open("rb") as file:
            status = os.fstat(file.fileno())
            first, last = 0, status.st_size - 1
            asked = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", self.headers.get("Range", "").strip())
            if asked and self.headers.get("If-Range", f'"{digest}"') == f'"{digest}"':
                first, last = int(asked[1]), min(int(asked[2] or last), last)
            if first > last and status.st_size:
                self._answer(416, b"", headers={"Content-Range": f"bytes */{status.st_size}"})
                return
            partial = (first, last) != (0, status.st_size - 1)
            self.send_response(206 if partial else 200)
            self.send_header("Content-Type", kind or page)
            self.send_header("Content-Length", str(last - first + 1))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{digest}"')
            self.send_header("Last-Modified", formatdate(status.st_mtime, usegmt=True))
            if partial:
                self.send_header("Content-Range", f"bytes {first}-{last}/{status.st_size}")
            for header in (headers or {}).items():
                self.send_header(*header)
            self.end_headers()
            if self.command == "HEAD":
                return
            file.seek(first)
            left = last - first + 1
            while left and (chunk := file.read(min(_CHUNK, left))):
                left -= len(chunk)
                self.wfile.write(chunk)

    # The registry

    def _image(self, kind: str, reference: str) -> None:
        found = _DIGEST.fullmatch(reference)
        name = f"blobs/{found[1]}" if found else ""
        if name not in self.server.sums:
            code = "MANIFEST_UNKNOWN" if kind == "manifests" else "BLOB_UNKNOWN"
            error = {
                "errors": [{"code": code, "message": "not in this bundle, which has images by digest alone"}]
            }
            self._answer(404, json.dumps(error).encode())
            return
        shown = "application/octet-stream"
        if kind == "manifests":
            shown = media_type(json.loads((self.server.bundle / name).read_bytes()))
        self._file(name, shown, {"Docker-Content-Digest": reference})

    # The hub

    def _hub_listing(self, kind: str, repository: str, revision: str) -> None:
        prefix = f"hub/{kind}/{repository}/{revision}/"
        files = {name.removeprefix(prefix): name for name in self.server.sums if name.startswith(prefix)}
        if not files:
            message = {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "not in this bundle"}
            self._answer(404, b'{"error": "not in this bundle"}', headers=message)
            return
        # all as files of git-lfs, whose hash is the one that the bundle has of them
        siblings = []
        for path, name in sorted(files.items()):
            size, digest = (self.server.bundle / name).stat().st_size, self.server.sums[name]
            lfs = {"sha256": digest, "size": size, "pointerSize": 134}
            siblings.append({"rfilename": path, "size": size, "blobId": digest[:40], "lfs": lfs})
        listing = {
            "_id": revision[:24],
            "id": repository,
            "modelId": repository,
            "sha": revision,
            "siblings": siblings,
        }
        self._answer(200, json.dumps({**listing, "private": False, "gated": False, "tags": []}).encode())

    def _hub_file(self, name: str, revision: str) -> None:
        digest = self.server.sums.get(name)
        if digest is None:
            message = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "not in this bundle"}
            self._answer(404, b'{"error": "not in this bundle"}', headers=message)
            return
        linked = {
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str((self.server.bundle / name).stat().st_size),
        }
        self._file(name, headers={"X-Repo-Commit": revision, **linked})

    # git

    def _lfs(self, body: bytes) -> None:
        try:
            wanted = [(str(o["oid"]), int(o["size"])) for o in json.loads(body)["objects"]]
        except (ValueError, KeyError, TypeError):
            self._answer(422, b'{"message": "not a batch request"}', LFS_TYPE)
            return
        objects: list[dict[str, object]] = []
        for oid, size in wanted:
            if f"git-lfs/{oid[:2]}/{oid}" in self.server.sums:
                href = f"http://{self.headers['Host']}/git-lfs/{oid}"
                objects.append(
                    {"oid": oid, "size": size, "authenticated": True, "actions": {"download": {"href": href}}}
                )
            else:
                objects.append(
                    {"oid": oid, "size": size, "error": {"code": 404, "message": "not in this bundle"}}
                )
        answer = {"transfer": "basic", "objects": objects, "hash_algo": "sha256"}
        self._answer(200, json.dumps(answer).encode(), LFS_TYPE)

    def _git(self, path_info: str, body: bytes) -> None:
        """git http-backend answers, as a CGI program: https://git-scm.com/docs/git-http-backend."""
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": "/nonexistent",
            "GIT_PROJECT_ROOT": str(self.server.bundle / "git"),
            "GIT_HTTP_EXPORT_ALL": "1",
            # the bundle may belong to another user than the one who serves it
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
        if path_info.endswith("info/refs") and "service=git-upload-pack" not in environment["QUERY_STRING"]:
            self._missing()
            return
        with subprocess.Popen(
            ["git", "http-backend"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        ) as backend:
            assert backend.stdin is not None and backend.stdout is not None
            try:
                try:
                    backend.stdin.write(body)
                    backend.stdin.close()
                except BrokenPipeError:
                    pass  # it refused before reading all; its answer says why
                status, headers = 200, []
                while line := backend.stdout.readline().decode().strip():
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
                while chunk := backend.stdout.read1(_CHUNK):  # type: ignore[attr-defined]
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.write(b"0\r\n\r\n")
            finally:
                backend.kill()
