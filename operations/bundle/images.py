"""Container images by digest, from a registry's HTTP interface: https://distribution.github.io/distribution/spec/api/.

Every part of an image is named by its own SHA-256, so manifests and layers share one folder of blobs.
If a digest names a list of images for several processors, the one for x86_64 is taken with it.
"""

from __future__ import annotations

import hashlib
import json
import re
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from operations.bundle.fetch import BundleError, download, read, read_json

T = TypeVar("T")

MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)
LISTS = (
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
)
_HOSTS = {"docker.io": "registry-1.docker.io"}


def blob_path(bundle: Path, digest: str) -> Path:
    """The bundle's path of the content with this digest. Raises BundleError if it is not a sha256 digest."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise BundleError(f"found the digest {digest!r}, expected sha256: and 64 hexadecimal digits")
    return bundle / "blobs" / digest.removeprefix("sha256:")


def media_type(manifest: dict[str, Any]) -> str:
    """A manifest's type, which an OCI manifest may omit."""
    return str(manifest.get("mediaType") or (LISTS[1] if "manifests" in manifest else MANIFESTS[1]))


class Registry:
    """A registry, read without an account: with a token for anonymous clients if it requires one."""

    def __init__(self, address: str, plain: bool) -> None:
        self.base = f"{'http' if plain else 'https'}://{_HOSTS.get(address, address)}/v2"
        self.token = ""

    def fetch(self, bundle: Path, name: str, digest: str) -> None:
        """The image `name` at `digest` is among the bundle's blobs, with its configuration and layers."""
        kinds = ", ".join((*MANIFESTS, *LISTS))
        content = self._blob(bundle, f"{self.base}/{name}/manifests/{digest}", digest, kinds)
        manifest = json.loads(content.read_bytes())
        if media_type(manifest) in LISTS:
            for entry in manifest["manifests"]:
                platform = entry.get("platform", {})
                if (platform.get("os"), platform.get("architecture")) == ("linux", "amd64"):
                    self.fetch(bundle, name, entry["digest"])
                    return
            raise BundleError(f"image {name}@{digest}: found no image for linux/amd64 in its list")
        for entry in (manifest["config"], *manifest["layers"]):
            self._blob(bundle, f"{self.base}/{name}/blobs/{entry['digest']}", entry["digest"])

    def digest(self, name: str, tag: str) -> str:
        """The digest of what a tag names now: of the list for several processors where there is one."""
        url = f"{self.base}/{name}/manifests/{tag}"
        accept = ", ".join((*LISTS, *MANIFESTS))
        content = self._asked(url, accept, lambda headers: read(url, headers))
        try:
            manifest = json.loads(content)
        except (ValueError, RecursionError):
            manifest = None
        if not isinstance(manifest, dict) or media_type(manifest) not in (*LISTS, *MANIFESTS):
            raise BundleError(
                f"{url}: found no manifest of an image, expected one; check the address of the registry"
            )
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    def _asked(self, url: str, accept: str, ask: Callable[[dict[str, str]], T]) -> T:
        """What `ask` returns with these headers; with a token for anonymous clients where the registry requires one."""
        for _ in range(2):
            headers = {"Accept": accept, **({"Authorization": f"Bearer {self.token}"} if self.token else {})}
            try:
                return ask(headers)
            except urllib.error.HTTPError as error:
                self.token = self.new_token(error.headers.get("WWW-Authenticate", ""), url)
        raise BundleError(f"{url}: found HTTP 401, expected an image that anybody may pull")

    def _blob(self, bundle: Path, url: str, digest: str, accept: str = "*/*") -> Path:
        path = blob_path(bundle, digest)
        self._asked(
            url, accept, lambda headers: download(url, path, digest.removeprefix("sha256:"), headers=headers)
        )
        return path

    def new_token(self, challenge: str, url: str) -> str:
        """A token for anonymous clients, from the address in the registry's 401 answer; `url` is for the error."""
        asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = asked.pop("realm", "")
        # request a token over TLS, unless the registry itself uses plain HTTP
        secure = realm.startswith("https://") or self.base.startswith("http://")
        if not challenge.lower().startswith("bearer ") or not secure:
            raise BundleError(f"{url}: found HTTP 401, expected an image that anybody may pull")
        try:
            answer = read_json(f"{realm}?{urlencode(asked)}")
        except urllib.error.HTTPError:
            raise BundleError(f"{url}: found HTTP 401, expected an image that anybody may pull") from None
        given = answer if isinstance(answer, dict) else {}
        return str(given.get("token") or given.get("access_token") or "")
