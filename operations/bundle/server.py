"""Serves a bundle: plain files, and the three protocols that need a little more than files.

/rpm/… /keys/… /pypi/…     files
/git/HOST/PATH.git/…       git's own http-backend (a shallow fetch needs its protocol); …/info/lfs/objects/batch
/git-lfs/OID               the objects of git-lfs
/v2/NAME/manifests/DIGEST  a read-only registry, by digest
/v2/NAME/blobs/DIGEST
/hub/…                     what huggingface_hub needs of a Hugging Face hub to download one revision

It never writes, and it does not authenticate clients: run it on a network of the site's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from operations.bundle import handler, sums
from operations.bundle.images import media_type

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_HUB_LISTING = re.compile(r"/hub/api/(models|datasets)/([^/]+/[^/]+)/revision/([0-9a-f]{40})")
_HUB_FILE = re.compile(r"/hub/(datasets/)?([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)")
_IMAGE = re.compile(r"/v2/.+/(manifests|blobs)/([^/]+)")
_GIT = re.compile(
    r"/git/([A-Za-z0-9.-]+/[A-Za-z0-9._/-]+?)(?:\.git)?/(info/refs|git-upload-pack|info/lfs/objects/batch)"
)


class BundleServer(handler.Server):
    """The server of one bundle."""

    label = "bundle"

    def __init__(self, address: tuple[str, int], bundle: Path) -> None:
        self.bundle = bundle.resolve()
        self.sums = sums.listed(bundle)
        super().__init__(address, Handler)


class Handler(handler.Handler):
    """One request."""

    server: BundleServer
    server_version = "tritonhost-bundle"
    absent = "not in this bundle"

    def do_GET(self) -> None:
        path = unquote(self.url_path)
        if path.startswith(("/rpm/", "/keys/", "/pypi/")):
            self._tree(path)
        elif path == "/v2/":
            self.answer_json({}, headers={"Docker-Distribution-API-Version": "registry/2.0"})
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
            self.missing()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        found = _GIT.fullmatch(unquote(self.url_path))
        body = self.body()
        if found and found[2] == "git-upload-pack":
            self._git(f"/{found[1]}.git/{found[2]}", body)
        elif found and found[2] == "info/lfs/objects/batch":
            self.lfs_batch(body, lambda oid: f"git-lfs/{oid[:2]}/{oid}" in self.server.sums)
        else:
            self.missing()

    def _tree(self, path: str) -> None:
        name = path.strip("/")
        self._file(f"{name}/index.html" if f"{name}/index.html" in self.server.sums else name)

    def _file(self, name: str, kind: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Send a file that SHA256SUMS lists, or the requested part of it. A file that is not listed does not exist."""
        digest = self.server.sums.get(name)
        if digest is None:
            self.missing()
            return
        page = "text/html" if name.endswith(".html") else "application/octet-stream"
        self.send_file(self.server.bundle / name, digest, headers, kind=kind or page)

    # The registry

    def _image(self, kind: str, reference: str) -> None:
        found = _DIGEST.fullmatch(reference)
        name = f"blobs/{found[1]}" if found else ""
        if name not in self.server.sums:
            code = "MANIFEST_UNKNOWN" if kind == "manifests" else "BLOB_UNKNOWN"
            error = {
                "errors": [{"code": code, "message": "not in this bundle, which has images by digest alone"}]
            }
            self.answer_json(error, 404)
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
            message = {"X-Error-Code": "RevisionNotFound", "X-Error-Message": self.absent}
            self.answer_json({"error": self.absent}, 404, message)
            return
        # all as files of git-lfs, because their hash is the one in SHA256SUMS
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
        self.answer_json({**listing, "private": False, "gated": False, "tags": []})

    def _hub_file(self, name: str, revision: str) -> None:
        digest = self.server.sums.get(name)
        if digest is None:
            message = {"X-Error-Code": "EntryNotFound", "X-Error-Message": self.absent}
            self.answer_json({"error": self.absent}, 404, message)
            return
        linked = {
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str((self.server.bundle / name).stat().st_size),
        }
        self._file(name, headers={"X-Repo-Commit": revision, **linked})

    # git

    def _git(self, path_info: str, body: bytes) -> None:
        if path_info.endswith("info/refs") and "service=git-upload-pack" not in self.path.partition("?")[2]:
            self.missing()
        else:
            self.git_backend(self.server.bundle / "git", path_info, body)
