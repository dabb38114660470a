"""Certificates, private keys and API keys that tests make for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)
API_KEY = "test-key-0123456789_ABCDEFGHIJKLMNOP"


@dataclass(frozen=True)
class Pair:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, passphrase: bytes = b"") -> bytes:
        encryption: Any = serialization.NoEncryption()
        if passphrase:
            encryption = serialization.BestAvailableEncryption(passphrase)
        return bytes(
            self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )


def pair(
    name: str = "gpu.example",
    *,
    signer: Pair | None = None,
    addresses: Sequence[str] = (),
    begins: datetime = NOW - timedelta(days=1),
    ends: datetime = NOW + timedelta(days=365),
    named: bool = True,
    rsa_bits: int = 0,
) -> Pair:
    """
    A certificate, self-signed or signed by another.

    + addresses: that it is for, beside its name
    + named: it has a subjectAltName
    + rsa_bits: of its key; 0 makes one of an elliptic curve
    """
    key: Any = (
        rsa.generate_private_key(public_exponent=65537, key_size=rsa_bits)
        if rsa_bits
        else ec.generate_private_key(ec.SECP256R1())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
    )
    if named:
        names: list[x509.GeneralName] = [x509.DNSName(name)]
        names += [x509.IPAddress(IPv4Address(address)) for address in addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Pair(builder.sign(signer.key if signer else key, hashes.SHA256()), key)


def gateway_files(folder: Path, made: Pair, keys: str = f"tests {API_KEY}\n") -> dict[str, str]:
    """The three files of a gateway in a folder, as the inventory names them."""
    files = {"certificate": made.pem, "private_key": made.key_pem(), "api_keys": keys.encode()}
    for name, content in files.items():
        path = folder / name
        path.write_bytes(content)
        path.chmod(0o600)
    return {name: str(folder / name) for name in files}
