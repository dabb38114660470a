"""Certificates and private keys: what nginx, Grafana and their clients would refuse is refused here.

A module of its own: only a run with a gateway or a published Grafana loads the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from operations.plan.errors import PlanError

NOTICE = timedelta(days=30)  # a certificate that ends within it is mentioned at each run


def tls(
    chain: bytes, private_key: bytes, where: Mapping[str, str], now: datetime, owner: str
) -> tuple[str, bytes, datetime, tuple[str, ...]]:
    """
    Certificates and key as one PEM text, the host's own certificate in DER, its last moment, and what is to be known.

    + where: `certificate` and `private_key` -> host, key and file, for errors
    + now: with a time zone
    + owner: of the certificate, for what is to be known

    Raises PlanError where the server or every client would refuse them: another key, a date, a chain in disorder.
    """
    certificates = _certificates(chain, where["certificate"])
    key = _private_key(private_key, where["private_key"])
    own = certificates[0]
    if _public(own.public_key()) != _public(key.public_key()):
        then = "the host's own certificate comes first in the file"
        raise PlanError(where["private_key"], "the key of another certificate", "the certificate's", then)
    for number, (one, above) in enumerate(pairwise(certificates), start=2):
        if one.issuer != above.subject:
            raise PlanError(
                where["certificate"],
                f"certificate {number} is not the one that signed certificate {number - 1}",
                "a chain in order: the host's own, then each one's signer",
            )
    for number, each in enumerate(certificates, start=1):
        if each.not_valid_after_utc <= now:
            found = f"certificate {number} ended on {each.not_valid_after_utc.date()}"
            raise PlanError(where["certificate"], found, "one that is valid today", "renew it")
        if each.not_valid_before_utc > now:
            found = f"certificate {number} begins on {each.not_valid_before_utc.date()}"
            raise PlanError(
                where["certificate"], found, "one that is valid today", "see this machine's clock"
            )
    ends = min(each.not_valid_after_utc for each in certificates)
    warnings = []
    if ends - now < NOTICE:
        warnings.append(f"{owner}'s certificate ends on {ends.date()}, in {(ends - now).days} days; renew it")
    if not _has_names(own):
        warnings.append(f"{owner}'s certificate has no subjectAltName: today's clients refuse it")
    pem = serialization.Encoding.PEM
    text = b"".join(each.public_bytes(pem) for each in certificates)
    text += key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return text.decode(), own.public_bytes(serialization.Encoding.DER), ends, tuple(warnings)


def roots(content: bytes, where: str) -> str:
    """
    The certificates of a file, PEM alone.

    + where: host, key and file, for the error

    Raises PlanError for a file without one, or with a private key.
    """
    found = _certificates(content, where)
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in found).decode()


def _certificates(content: bytes, where: str) -> list[x509.Certificate]:
    if b"PRIVATE KEY-----" in content:
        raise PlanError(
            where, "a private key (not shown)", "certificates alone", "keep it in a file of its own"
        )
    try:
        found = x509.load_pem_x509_certificates(content)
    except ValueError:
        found = []
    if not found:
        raise PlanError(where, "no certificate", "certificates in PEM, the host's own first")
    return found


_Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


def _private_key(content: bytes, where: str) -> _Key:
    expected = "a private key in PEM, RSA of 2048 bits or more, or of an elliptic curve"
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError:
        then = "openssl pkey -in FILE -out OTHER, and chmod 600 OTHER"
        raise PlanError(
            where, "a key with a passphrase", "one without, for a boot without people", then
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise PlanError(where, "no private key that can be read", expected) from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < 2048:
        raise PlanError(where, f"an RSA key of {key.key_size} bits", expected)
    if not isinstance(key, _Key):
        raise PlanError(where, f"a {type(key).__name__}", expected)
    return key


def _public(key: Any) -> bytes:
    encoding, format = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_bytes(encoding, format))


def _has_names(certificate: x509.Certificate) -> bool:
    try:
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return False
    return True
