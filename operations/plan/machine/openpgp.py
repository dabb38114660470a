"""OpenPGP public keys in their armored text: RFC 4880 sections 4.2, 6 and 12.2.

What was read is armored again before it is passed on: another reader of the same text, such as rpm, could find another
key in it. If one key of a text cannot be read, the text counts as one without keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

_BEGIN, _END = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
_BLOCK = re.compile(f"{_BEGIN}(.*?){_END}", re.DOTALL)
_HEADER = re.compile(r"[A-Za-z][A-Za-z-]*: .*")
_PUBLIC_KEY = 6  # the packet tag of a primary public key
_VERSION = b"\x04"


def fingerprints(text: str) -> list[str]:
    """The version 4 fingerprints of the primary keys in a text, as 40 upper-case hexadecimal digits each."""
    return [_fingerprint(packet) for _, packets in _blocks(text) for packet in packets]


def armored(text: str) -> str:
    """Only the blocks of the keys that `fingerprints` names; empty if it names none."""
    return "".join(_armor(data) for data, packets in _blocks(text) if packets)


def _blocks(text: str) -> list[tuple[bytes, list[bytes]]]:
    """Each block's bytes and primary keys; none if one of the blocks cannot be read completely."""
    blocks = []
    try:
        text = text.replace("\r", "")
        for block in _BLOCK.findall(text):
            data = _data(block)
            keys = [packet for tag, packet in _packets(data) if tag == _PUBLIC_KEY]
            if any(packet[:1] != _VERSION for packet in keys):
                raise ValueError("a key of another version")
            blocks.append((data, keys))
        if len(blocks) != text.count("PGP PUBLIC KEY BLOCK-----") / 2:
            raise ValueError("half a block")
    except ValueError:
        return []
    return blocks


def _data(block: str) -> bytes:
    """The bytes of a block. White space in its lines is ignored, as rpm does."""
    lines = [line.strip() for line in block.strip("\n").split("\n")]
    while lines and _HEADER.fullmatch(lines[0]):
        lines.pop(0)
    lines = [re.sub(r"\s", "", line) for line in lines if line]
    check = lines.pop()[1:] if lines and re.fullmatch(r"=[A-Za-z0-9+/]{4}", lines[-1]) else ""
    try:
        data = base64.b64decode("".join(lines), validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
    if check and base64.b64decode(check) != _crc24(data):
        raise ValueError("another checksum")
    return data


def _armor(data: bytes) -> str:
    text = base64.b64encode(data).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([_BEGIN, "", *lines, f"={base64.b64encode(_crc24(data)).decode()}", _END, ""])


def _crc24(data: bytes) -> bytes:
    """RFC 4880 section 6.1."""
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc.to_bytes(3, "big")


def _fingerprint(packet: bytes) -> str:
    return hashlib.sha1(b"\x99" + len(packet).to_bytes(2, "big") + packet).hexdigest().upper()


def _packets(data: bytes) -> list[tuple[int, bytes]]:
    """All packets. Raises ValueError if anything is left over or cut, or if a packet does not state its length."""
    packets: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        tag, start, size = _header(data, at)
        if start + size > len(data):
            raise ValueError("a cut packet")
        packets.append((tag, data[start : start + size]))
        at = start + size
    return packets


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """A packet's tag, where its body starts, and its size."""
    head = data[at]
    if not head & 0x80:
        raise ValueError("no packet")
    if not head & 0x40:  # the old format
        if head & 0x03 == 3:
            raise ValueError("a packet without a length")
        tag, width = (head >> 2) & 0x0F, 1 << (head & 0x03)
        return tag, at + 1 + width, _number(data, at + 1, width)
    tag, first = head & 0x3F, _number(data, at + 1, 1)
    if first < 192:
        return tag, at + 2, first
    if first < 224:
        return tag, at + 3, ((first - 192) << 8) + _number(data, at + 2, 1) + 192
    if first < 255:
        raise ValueError("a packet in parts")
    return tag, at + 6, _number(data, at + 2, 4)


def _number(data: bytes, at: int, width: int) -> int:
    octets = data[at : at + width]
    if len(octets) < width:
        raise ValueError("a cut length")
    return int.from_bytes(octets, "big")
