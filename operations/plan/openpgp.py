"""Fingerprints of OpenPGP public keys, from their armored text: RFC 4880 sections 4.2, 6 and 12.2."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

_BLOCK = re.compile(r"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL)
_PUBLIC_KEY = 6  # the packet tag of a primary public key


def fingerprints(text: str) -> list[str]:
    """The version 4 fingerprints of the primary keys in a text, as 40 upper-case hexadecimal digits each."""
    found = []
    for block in _BLOCK.findall(text.replace("\r", "")):
        body = block.split("\n\n", 1)[-1]
        lines = [line.strip() for line in body.splitlines() if line.strip() and not line.startswith("=")]
        try:
            data = base64.b64decode("".join(lines), validate=True)
        except binascii.Error:
            continue
        found += [
            _fingerprint(packet)
            for tag, packet in _packets(data)
            if tag == _PUBLIC_KEY and packet[:1] == b"\x04"
        ]
    return found


def _fingerprint(packet: bytes) -> str:
    return hashlib.sha1(b"\x99" + len(packet).to_bytes(2, "big") + packet).hexdigest().upper()


def _packets(data: bytes) -> list[tuple[int, bytes]]:
    """The packets up to the first that is cut or broken."""
    packets: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data) and data[at] & 0x80:
        try:
            tag, start, size = _header(data, at)
        except IndexError:
            break
        if start + size > len(data):
            break
        packets.append((tag, data[start : start + size]))
        at = start + size
    return packets


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """A packet's tag, where its body starts, and its size. Raises IndexError where the data ends inside it."""
    head = data[at]
    if not head & 0x40:  # the old format
        tag, width = (head >> 2) & 0x0F, 1 << (head & 0x03)
        length = data[at + 1 : at + 1 + width]
        if len(length) < width:
            raise IndexError("cut length")
        return tag, at + 1 + width, int.from_bytes(length, "big")
    tag, first = head & 0x3F, data[at + 1]
    if first < 192:
        return tag, at + 2, first
    if first < 224:
        return tag, at + 3, ((first - 192) << 8) + data[at + 2] + 192
    length = data[at + 2 : at + 6]
    if len(length) < 4:
        raise IndexError("cut length")
    return tag, at + 6, int.from_bytes(length, "big")
