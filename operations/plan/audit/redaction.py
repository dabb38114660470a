"""Secrets taken out of what a host and an inventory say, before it is written for somebody else to read."""

from __future__ import annotations

import re
from collections.abc import Iterable

REMOVED = "(removed)"

# Each with the part that stays in front of the secret as its first group
_PATTERNS = (
    # a private key, whole
    re.compile(
        r"()-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL
    ),
    # tokens of the Hugging Face hub, and of NVIDIA's registry
    re.compile(r"()(?<![A-Za-z0-9])hf_[A-Za-z0-9]{8,}"),
    re.compile(r"()(?<![A-Za-z0-9])nvapi-[A-Za-z0-9_-]{8,}"),
    # user and password of a URL
    re.compile(r"(//)[^/@\s\"']{1,256}(?=@)"),
    # headers
    re.compile(
        r"((?:authorization|x-api-key|cookie)[\"']?\s*[:=]\s*[\"']?)[^\r\n\"']{1,4096}", re.IGNORECASE
    ),
    re.compile(r"(\bbearer\s+)[^\s\"',;]{4,4096}", re.IGNORECASE),
    # the key of the closed APIs, which is new at each start
    re.compile(r"(restricted-(?:api|protocol)=[^\s\"'=]{1,400}=)[0-9a-f]{16,128}"),
    # a name that says what it is: db_password = "x", "clientSecret": "x", HF_TOKEN=x
    re.compile(
        r"([A-Za-z0-9_.-]{0,60}(?:password|passwd|secret|[_-]token|api[_-]?key|private[_-]?key|access[_-]?key)[\"']?\s*[:=]\s*[\"']?)"
        r"(?!\(removed\))[^\s\"',;}\]]{1,4096}",
        re.IGNORECASE,
    ),
)


def redacted(text: str, secrets: Iterable[str] = ()) -> tuple[str, int]:
    """
    A text without what looks like a secret, and how many were taken out.

    + secrets: values that are known to be some, of four characters at least

    More may be taken out than is secret: a report that lacks a word can be asked about, a key that was sent cannot be taken back.
    """
    count = 0
    for secret in sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True):
        count += text.count(secret)
        text = text.replace(secret, REMOVED)
    for pattern in _PATTERNS:
        text, found = pattern.subn(rf"\1{REMOVED}", text)
        count += found
    return text, count
