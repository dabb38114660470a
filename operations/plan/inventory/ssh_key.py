"""What kind of key a private SSH key file holds, without its passphrase."""

from __future__ import annotations

import base64
import binascii
import re
import struct

_OPENSSH = re.compile(
    rb"-----BEGIN OPENSSH PRIVATE KEY-----\s+([A-Za-z0-9+/=\s]+)-----END OPENSSH PRIVATE KEY-----"
)
_MAGIC = b"openssh-key-v1\0"
_PUBLIC = re.compile(rb"\s*(ssh-[a-z0-9-]+|ecdsa-sha2-[a-z0-9-]+|sk-[a-z0-9@.-]+) ([A-Za-z0-9+/=]+)")


def is_public(content: bytes) -> bool:
    """The line of a .pub file, or a public key in PEM."""
    return bool(_PUBLIC.match(content)) or b"PUBLIC KEY-----" in content[:200]


def is_encrypted(content: bytes) -> bool:
    """A private key with a passphrase, in OpenSSH's own format or in PEM."""
    if fields := _fields(content):
        return fields[0] != b"none"
    return b"BEGIN ENCRYPTED PRIVATE KEY" in content or b"Proc-Type: 4,ENCRYPTED" in content


def public_part(content: bytes, beside: bytes) -> bytes:
    """
    The public key as SSH sends it; empty: not known.

    + beside: the content of its .pub file, needed for PEM; OpenSSH's format holds the public key unencrypted
    """
    if len(fields := _fields(content)) > 3:
        return fields[3]
    found = _PUBLIC.match(beside)
    try:
        return base64.b64decode(found[2]) if found else b""
    except binascii.Error:
        return b""


def _fields(content: bytes) -> list[bytes]:
    """Cipher, key derivation, its options and the public key: https://github.com/openssh/openssh-portable, PROTOCOL.key."""
    found = _OPENSSH.search(content)
    if not found:
        return []
    try:
        data = base64.b64decode(found[1])
        if not data.startswith(_MAGIC):
            return []
        at, fields = len(_MAGIC), []
        for number in range(4):
            at += 4 if number == 3 else 0  # the number of keys, always one
            (length,) = struct.unpack_from(">I", data, at)
            fields.append(data[at + 4 : at + 4 + length])
            at += 4 + length
    except (binascii.Error, struct.error):
        return []
    return fields
