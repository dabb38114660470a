"""Pushes an image to a container registry over its HTTP API (version 2), without a container engine."""

from __future__ import annotations

import hashlib
import http.client
import json
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from .layers import Layer

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class RegistryError(Exception):
    """The registry could not be reached, or its answer violates the protocol."""


def digest_of(content: bytes) -> str:
    """The content's digest in the registry's notation."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Registry:
    """One registry at HOST:PORT (or http://HOST:PORT), without authentication."""

    def __init__(self, address: str) -> None:
        self.address = address.removeprefix("http://").rstrip("/")

    def _call(
        self,
        method: str,
        target: str,
        body: bytes | IO[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=120)
        try:
            connection.request(method, target, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        except OSError as error:
            raise RegistryError(
                f"registry {self.address}: {error}; expected it to be running: start it and try again"
            ) from error
        finally:
            connection.close()

    def has_manifest(self, repository: str, reference: str, digest: str) -> bool:
        """Whether the repository's tag (or digest) is exactly this manifest."""
        status, headers, _ = self._call(
            "HEAD", f"/v2/{repository}/manifests/{reference}", headers={"Accept": MANIFEST_TYPE}
        )
        return status == 200 and headers.get("docker-content-digest") == digest

    def push_blob(self, repository: str, digest: str, content: bytes | Path) -> None:
        """Push the blob to the repository, unless it is already there."""
        if self._call("HEAD", f"/v2/{repository}/blobs/{digest}")[0] == 200:
            return
        status, headers, answer = self._call("POST", f"/v2/{repository}/blobs/uploads/")
        if status != 202 or "location" not in headers:
            raise RegistryError(f"registry {self.address}: upload refused with {status}: {answer[:200]!r}")
        place = urlsplit(headers["location"])
        target = f"{place.path}?{place.query + '&' if place.query else ''}digest={digest}"
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        sent = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        if isinstance(content, Path):
            with content.open("rb") as stream:
                status, _, answer = self._call("PUT", target, stream, sent)
        else:
            status, _, answer = self._call("PUT", target, content, sent)
        if status != 201:
            raise RegistryError(f"registry {self.address}: blob {digest} answered {status}: {answer[:200]!r}")

    def push_image(
        self, repository: str, tag: str, manifest: bytes, config: bytes, layers: list[Layer]
    ) -> str:
        """Push image and tag to the registry; returns the manifest's digest."""
        digest = digest_of(manifest)
        if self.has_manifest(repository, tag, digest):
            return digest
        for layer in layers:
            self.push_blob(repository, layer.digest, layer.path)
        self.push_blob(repository, digest_of(config), config)
        self.point(repository, tag, manifest)
        return digest

    def manifest(self, repository: str, reference: str) -> bytes:
        """The manifest of a tag or a digest."""
        status, _, answer = self._call(
            "GET", f"/v2/{repository}/manifests/{reference}", headers={"Accept": MANIFEST_TYPE}
        )
        if status != 200:
            raise RegistryError(f"registry {self.address}: {repository}:{reference} answered {status}")
        return answer

    def blob(self, repository: str, digest: str) -> bytes:
        """A blob of the repository, such as an image's config."""
        status, _, answer = self._call("GET", f"/v2/{repository}/blobs/{digest}")
        if status != 200:
            raise RegistryError(f"registry {self.address}: blob {digest} answered {status}")
        return answer

    def point(self, repository: str, tag: str, manifest: bytes) -> None:
        """Point the tag to this manifest, whose blobs are in the repository."""
        status, _, answer = self._call(
            "PUT", f"/v2/{repository}/manifests/{tag}", manifest, {"Content-Type": MANIFEST_TYPE}
        )
        if status != 201:
            raise RegistryError(
                f"registry {self.address}: manifest {repository}:{tag} answered {status}: {answer[:200]!r}"
            )


def image_documents(settings: dict[str, Any], layers: list[Layer], created: str) -> tuple[bytes, bytes]:
    """The image's (manifest, config): `settings` is the config's Env, Cmd, Labels and so on."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": created,
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": created, "created_by": layer.path.name} for layer in layers],
        },
        sort_keys=True,
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "size": len(config), "digest": digest_of(config)},
            "layers": [
                {"mediaType": LAYER_TYPE, "size": layer.size, "digest": layer.digest} for layer in layers
            ],
        },
        indent=2,
    ).encode()
    return manifest, config
