"""Port 8000 of the mirror: dnf repositories, git over smart HTTP, git-lfs, and a Python package index."""

from __future__ import annotations

import re

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
            root = self.server.cache.resolve() / "git"
            if found[2] == "/info/lfs/objects/batch":
                self.lfs_batch(self.request_body, self._has_object)
            else:
                self.git_backend(root, f"/{found[1]}.git{found[2]}", self.request_body)
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
        # One name for each project: pip requests the normal form, and other forms get a link to it.
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

    def _has_object(self, oid: str) -> bool:
        return bool(_OID.fullmatch(oid)) and object_path(self.server.cache / "git-lfs", oid).is_file()
