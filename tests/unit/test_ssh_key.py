"""What a file that should hold a private SSH key holds."""

import subprocess
from pathlib import Path

import pytest
from paramiko.pkey import PublicBlob

from operations.plan.inventory.ssh_key import is_encrypted, is_public, public_part


def made(folder: Path, *options: str, phrase: str) -> tuple[bytes, bytes]:
    """A key as ssh-keygen writes it, and its .pub file."""
    path = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-N", phrase, "-f", path, *options], check=True)
    return path.read_bytes(), Path(f"{path}.pub").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [["-t", "ed25519"], ["-t", "ecdsa"], ["-t", "rsa", "-b", "2048", "-m", "PEM"]]
)
@pytest.mark.parametrize("phrase", ["", "a phrase"])
def test_key_files_are_classified(tmp_path: Path, options: list[str], phrase: str) -> None:
    private, public = made(tmp_path, *options, phrase=phrase)
    assert is_encrypted(private) == bool(phrase)
    assert is_public(public) and not is_public(private)
    expected = PublicBlob.from_string(public.decode()).key_blob
    assert public_part(private, public) == expected
    # OpenSSH's own format needs no .pub file beside it; PEM does
    assert public_part(private, b"") == (b"" if "PEM" in options else expected)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"rubbish",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    ],
)
def test_garbage_is_not_a_key(content: bytes) -> None:
    assert not is_public(content)
    assert not is_encrypted(content)
    assert public_part(content, content) == b""
