"""Port 8000 of the mirror: dnf repositories, git over smart HTTP, git-lfs, and a Python package index."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator

from tests.lab.mirror import pypi
from tests.lab.mirror.handler import Handler
from tests.lab.mirror.lfs import object_path

# The public host serves a repository with and without `.git`.
_REPOSITORY = re.compile(r"/git/([^/]+/[^/]+?)(?:\.git)?(/.*)")
_OID = re.compile(r"[0-9a-f]{64}")


class GitHandler(Handler):
    """Serves <cache>/dnf as /dnf, <cache>/git as /git, the LFS objects of <cache>/git-lfs as /git-lfs, /pypi/simple."""

    def route(self) -> None:
        path = self.url_path
        if path.startswith("/dnf/"):
            self.send_tree(self.server.cache / "dnf", self.parts(path)[1:])
        elif path.startswith("/git-lfs/"):
            self._lfs_object(path.removeprefix("/git-lfs/"))
        elif found := _REPOSITORY.fullmatch(path):
            if found[2] == "/info/lfs/objects/batch":
                self._lfs_batch()
            else:
                self._backend(f"/{found[1]}.git{found[2]}")
        elif path.startswith("/pypi/"):
            self._pypi(self.parts(path)[1:])
        elif path == "/":
            self.answer(200, b"lab mirror (a stand-in): /dnf/ /git/<owner>/<name>.git /pypi/simple/\n")
        else:
            self.answer(404, b"no such path\n")

    def _pypi(self, parts: list[str]) -> None:
        if parts[:1] == ["files"]:
            self.send_tree(self.server.cache / pypi.FILES, parts[1:])
            return
        # One name for each project: pip asks for the normal form, and a person is shown the way to it.
        project = pypi.project_of(parts[1]) if len(parts) > 1 else None
        place = "/pypi/simple/" + (f"{project}/" if project else "")
        page = pypi.page(self.server.cache, project) if parts[:1] == ["simple"] and len(parts) <= 2 else None
        if page is None:
            self.answer(404, b"no such project\n")
        elif self.url_path != place:
            self.answer(301, headers={"Location": place})
        else:
            self.answer(200, page, "text/html")

    def _lfs_object(self, oid: str) -> None:
        if _OID.fullmatch(oid):
            self.send_file(object_path(self.server.cache / "git-lfs", oid), etag=oid)
        else:
            self.answer(404, b"no such object\n")

    def _lfs_batch(self) -> None:
        kind = "application/vnd.git-lfs+json"
        try:
            request = json.loads(self.request_body)
            wanted = [(str(o["oid"]), int(o["size"])) for o in request["objects"]]
        except (ValueError, KeyError, TypeError):
            self.answer(422, b'{"message": "not a batch request"}', kind)
            return
        if request.get("operation") != "download":
            self.answer(403, b'{"message": "the mirror only hands out"}', kind)
            return
        objects: list[dict[str, object]] = []
        for oid, size in wanted:
            answer: dict[str, object] = {"oid": oid, "size": size, "authenticated": True}
            path = object_path(self.server.cache / "git-lfs", oid) if _OID.fullmatch(oid) else None
            if path is not None and path.is_file():
                answer["actions"] = {"download": {"href": f"http://{self.headers['Host']}/git-lfs/{oid}"}}
            else:
                answer["error"] = {"code": 404, "message": "no such object"}
            objects.append(answer)
        self.answer(
            200, json.dumps({"transfer": "basic", "objects": objects, "hash_algo": "sha256"}).encode(), kind
        )

    def _backend(self, path_info: str) -> None:
        """`git http-backend` answers, as a CGI program."""
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": "/nonexistent",
            "GIT_PROJECT_ROOT": str(self.server.cache.resolve() / "git"),
            "GIT_HTTP_EXPORT_ALL": "1",
            # The cache may belong to another user than the one who serves it.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": path_info,
            "QUERY_STRING": self.path.partition("?")[2],
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(self.request_body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": self.client_address[0],
        }
        with subprocess.Popen(
            ["git", "http-backend"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        ) as backend:
            assert backend.stdin is not None and backend.stdout is not None
            output = backend.stdout
            try:
                try:
                    backend.stdin.write(self.request_body)
                    backend.stdin.close()
                except BrokenPipeError:  # it refused before reading all; its answer says why
                    pass
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
                    while chunk := output.read1(1 << 16):  # type: ignore[attr-defined]
                        yield chunk

                if self.command != "HEAD":
                    for chunk in self.shaped(chunks()):
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                    self.wfile.write(b"0\r\n\r\n")
            finally:
                if backend.poll() is None:
                    backend.kill()
