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
    packets: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            break
        if head & 0x40:  # the new format
            tag, at = head & 0x3F, at + 1
            first = data[at]
            if first < 192:
                size, at = first, at + 1
            elif first < 224:
                size, at = ((first - 192) << 8) + data[at + 1] + 192, at + 2
            else:
                size, at = int.from_bytes(data[at + 1 : at + 5], "big"), at + 5
        else:
            tag, width = (head >> 2) & 0x0F, 1 << (head & 0x03)
            size, at = int.from_bytes(data[at + 1 : at + 1 + width], "big"), at + 1 + width
        packets.append((tag, data[at : at + size]))
        at += size
    return packets
