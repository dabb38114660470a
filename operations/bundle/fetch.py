"""Download one file over HTTP, complete and with the expected hash, or fail with one line that says why."""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

ATTEMPTS = 4
TIMEOUT = 120  # seconds without a byte
_CHUNK = 1 << 20


class BundleError(ValueError):
    """
    Why a bundle cannot be made, verified or served: one line.

    + status: the HTTP status of the source's answer; 0 if there was none
    """

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


def digest_of(path: Path, kind: str = "sha256") -> str:
    """A file's hash, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def download(
    url: str, path: Path, digest: str = "", kind: str = "sha256", headers: Mapping[str, str] | None = None
) -> None:
    """
    `path` has the content of `url`.

    + digest: the expected hash; an existing file with it is not downloaded again. Empty: any content is accepted
    + kind: sha256, or another name that hashlib knows
    """
    if digest and path.is_file() and digest_of(path, kind) == digest:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with opened(url, headers) as answer, part.open("wb") as file:
        hasher = hashlib.new(kind)
        first = True
        try:
            while chunk := answer.read(_CHUNK):
                if first and not digest:
                    _no_page(chunk, url)
                first = False
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


def read_json(url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Any:
    """A small answer in JSON."""
    content = read(url, headers, body)
    _no_page(content, url)
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise BundleError(
            f"{url.partition('?')[0]}: found no JSON, expected it; check the address of the source"
        ) from None


def is_page(content: bytes) -> bool:
    """Whether it is HTML, which a login page or a proxy returns in place of a file."""
    return content[:100].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _no_page(content: bytes, url: str) -> None:
    if is_page(content):
        raise BundleError(
            f"{url.partition('?')[0]}: found an HTML page, expected a file; does a login page or a proxy answer? "
            "check the address of the source"
        )


def opened(url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> IO[bytes]:
    """The answer to a request; temporary failures are retried. Raises urllib's HTTPError only for 401."""
    request = urllib.request.Request(url, data=body, headers=dict(headers or {}))
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT)  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            if error.code == 401:
                raise
            problem, status = f"HTTP {error.code}", error.code
            passing = status in (408, 425, 429) or status >= 500
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            # retrying does not help against an untrusted certificate, a URL that is not HTTP, or a directory
            lasting = (
                ssl.SSLCertVerificationError,
                http.client.InvalidURL,
                IsADirectoryError,
                FileNotFoundError,
            )
            problem, status, passing = str(reason), 0, not isinstance(reason, lasting)
        if not passing or attempt == ATTEMPTS:
            then = (
                "check the source, and run again"
                if passing
                else "trying again does not help: correct the source"
            )
            raise BundleError(f"{url.partition('?')[0]}: found {problem}, expected an answer; {then}", status)
        time.sleep(2**attempt)
    raise AssertionError("unreachable")
