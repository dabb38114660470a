import base64

import pytest

from operations.plan.openpgp import fingerprints
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


def test_one_changed_character_is_another_key() -> None:
    assert fingerprints(RSA.replace("mQENBGsB", "mQENBGsC")) != [RSA_FINGERPRINT]


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
def test_a_broken_key_has_no_fingerprint_of_ours_and_breaks_nothing(data: bytes) -> None:
    assert RSA_FINGERPRINT not in fingerprints(armored(data))


def test_a_text_that_is_not_base64_has_none() -> None:
    assert fingerprints(RSA.replace("mQENBGsB", "****....")) == []
