"""One file over HTTP, whole and with the hash it must have, or one line that says why not."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO

ATTEMPTS = 4
TIMEOUT = 120  # seconds without a byte
_CHUNK = 1 << 20


class BundleError(ValueError):
    """Why a bundle cannot be made, verified or served: one line."""


def digest_of(path: Path, kind: str = "sha256") -> str:
    """A file's hash, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def download(
    url: str, path: Path, digest: str = "", kind: str = "sha256", headers: Mapping[str, str] | None = None
) -> None:
    """
    `path` holds what `url` has.

    + digest: the hash it must have; a file that is there with it is not fetched again. Empty: whatever is served now
    + kind: sha256, or another name that hashlib knows
    """
    if digest and path.is_file() and digest_of(path, kind) == digest:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with opened(url, headers) as answer, part.open("wb") as file:
        hasher = hashlib.new(kind)
        try:
            while chunk := answer.read(_CHUNK):
                hasher.update(chunk)
                file.write(chunk)
        except (OSError, http.client.HTTPException) as error:
            raise BundleError(
                f"{url}: {type(error).__name__}: {error}; expected the whole file; run again"
            ) from None
    if digest and hasher.hexdigest() != digest:
        part.unlink()
        raise BundleError(
            f"{url}: found {kind} {hasher.hexdigest()}, expected {digest}; the source is damaged or changed"
        )
    part.replace(path)


def read(url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> bytes:
    """A small answer."""
    with opened(url, headers, body) as answer:
        try:
            return answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise BundleError(
                f"{url}: {type(error).__name__}: {error}; expected the whole answer; run again"
            ) from None


def opened(url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> IO[bytes]:
    """The answer to a request; what passes by itself is tried again. Raises urllib's HTTPError for 401 alone."""
    request = urllib.request.Request(url, data=body, headers=dict(headers or {}))
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT)  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            if error.code == 401:
                raise
            problem, passing = f"HTTP {error.code}", error.code == 429 or error.code >= 500
        except (OSError, http.client.HTTPException) as error:
            problem, passing = f"{getattr(error, 'reason', error)}", True
        if not passing or attempt == ATTEMPTS:
            raise BundleError(
                f"{url.partition('?')[0]}: found {problem}, expected an answer; check the source, and run again"
            )
        time.sleep(2**attempt)
    raise AssertionError("unreachable")
