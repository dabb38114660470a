import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from operations.plan.machine import openpgp
from operations.plan.machine.openpgp import fingerprints
from tests.unit.keys_for_tests import ED25519, ED25519_FINGERPRINT, RSA, RSA_FINGERPRINT


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (RSA, [RSA_FINGERPRINT]),
        (ED25519, [ED25519_FINGERPRINT]),
        (RSA + ED25519, [RSA_FINGERPRINT, ED25519_FINGERPRINT]),
        (f"<html>\n{RSA}</html>", [RSA_FINGERPRINT]),
        (RSA.replace("\n", "\r\n"), [RSA_FINGERPRINT]),
        (RSA.replace("BLOCK-----\n\n", "BLOCK-----\nVersion: 1\nComment: x\n\n", 1), [RSA_FINGERPRINT]),
        ("", []),
        ("<html>404</html>", []),
        (RSA.replace("PUBLIC", "PRIVATE"), []),
    ],
)
def test_fingerprints_of_primary_keys(text: str, found: list[str]) -> None:
    assert fingerprints(text) == found


def test_changed_character_gives_another_fingerprint() -> None:
    assert fingerprints(RSA.replace("mQENBGsB", "mQENBGsC")) != [RSA_FINGERPRINT]


def spoiled(change: str) -> str:
    """The other key's block, with one line of it changed."""
    line = ED25519.splitlines()[3]
    return ED25519.replace(
        line, change.replace("LINE", line).replace("HEAD", line[:10]).replace("TAIL", line[10:])
    )


@pytest.mark.parametrize(
    "change",
    ["HEAD TAIL", "HEAD\tTAIL", "HEAD\x0bTAIL", " LINE", "LINE \n\n", "HEAD\nTAIL", "HEAD\u00a0TAIL"],
)
def test_fingerprints_names_a_key_with_white_space(change: str) -> None:
    assert fingerprints(RSA + spoiled(change)) == [RSA_FINGERPRINT, ED25519_FINGERPRINT]
    assert fingerprints(spoiled(change) + RSA) == [ED25519_FINGERPRINT, RSA_FINGERPRINT]


@pytest.mark.parametrize(
    "change",
    ["HEAD!TAIL", "HEAD=TAIL", "=abcd\nLINE", "LINE\n=abcd", "HEAD-TAIL", "", "HEAD\0TAIL", "x: LINE"],
)
def test_fingerprints_is_empty_beside_an_unreadable_block(change: str) -> None:
    for text in (RSA + spoiled(change), spoiled(change) + RSA):
        assert fingerprints(text) == []
        assert openpgp.armored(text) == ""


def test_fingerprints_is_empty_beside_half_a_block() -> None:
    for half in (ED25519.rsplit("-----END", 1)[0], ED25519.split("BLOCK-----", 1)[1]):
        assert fingerprints(RSA + half) == []
        assert fingerprints(half + RSA) == []


def packets_of(text: str) -> bytes:
    return base64.b64decode("".join(text.split("\n\n")[1].split("\n=")[0].split()))


@pytest.mark.parametrize(
    "more",
    [
        b"\x00",
        b"\x9b" + bytes(9),
        b"\xc6\xe0" + bytes(2),
        b"\x98\x06\x05abcde",
        b"\xc6\x06\x03abcde",
        b"\xc6\x00",
    ],
    ids=["rest", "no length", "parts", "version 5", "version 3", "empty key"],
)
def test_fingerprints_is_empty_for_a_block_with_more_packets(more: bytes) -> None:
    assert fingerprints(armored(packets_of(RSA))) == [RSA_FINGERPRINT]
    assert fingerprints(armored(packets_of(RSA) + more)) == []


def test_armored_returns_only_the_keys_it_read() -> None:
    assert openpgp.armored(RSA) == RSA
    changed = RSA.replace("BLOCK-----\n", "BLOCK-----\nVersion: 1\n", 1)
    assert openpgp.armored(f"<html>{changed}</html>".replace("\n", "\r\n")) == RSA
    assert openpgp.armored(RSA + ED25519) == RSA + ED25519
    assert openpgp.armored("no key") == ""


@pytest.mark.skipif(shutil.which("rpmkeys") is None, reason="rpm is not installed")
def test_rpm_imports_the_keys_that_are_named(tmp_path: Path) -> None:
    for number, text in enumerate((RSA, RSA + spoiled("HEAD TAIL"), spoiled("HEAD\tTAIL"))):
        (file := tmp_path / f"{number}.asc").write_text(openpgp.armored(text), "utf-8")
        rpm = ["rpm", "--dbpath", str(tmp_path / f"db{number}")]
        subprocess.run([*rpm, "--import", str(file)], check=True)
        query = [*rpm, "-q", "--qf", "%{VERSION}\n", "gpg-pubkey"]
        found = subprocess.run(query, check=True, capture_output=True, text=True).stdout.split()
        assert sorted(found) == sorted(name[-8:].lower() for name in fingerprints(text))


def armored(data: bytes) -> str:
    text = base64.b64encode(data).decode()
    return f"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{text}\n-----END PGP PUBLIC KEY BLOCK-----\n"


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", b"\xc6", b"\xc6\xff", b"\xc6\xc0", b"\x99", b"not a key at all"],
    ids=[
        "empty",
        "no packet",
        "new head alone",
        "cut length",
        "cut two-octet length",
        "cut old length",
        "text",
    ],
)
def test_broken_key_does_not_have_our_fingerprint(data: bytes) -> None:
    assert RSA_FINGERPRINT not in fingerprints(armored(data))


def test_text_that_is_not_base64_has_no_fingerprint() -> None:
    assert fingerprints(RSA.replace("mQENBGsB", "****....")) == []
