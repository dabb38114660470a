"""The private keys that a run connects with: which are encrypted, and which of them ssh-agent holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paramiko.agent import Agent
from paramiko.ssh_exception import SSHException
from pyinfra.api.host import Host

from operations import pyinfra_patches
from operations.plan.errors import PlanError
from operations.plan.inventory import ssh_key


def is_encrypted(path: Path, key: str, host: str = "") -> bool:
    """
    Whether a private key has a passphrase.

    + key, host: the setting that names it, for the error

    Raises PlanError for a file that is no private key, or that others may read.
    """
    problem: tuple[str, str, str] | None = None
    if not path.exists():
        problem = "no such file", "a private key", "correct the path, or leave it out for ssh-agent"
    elif not path.is_file():
        problem = "a directory" if path.is_dir() else "no file", "a private key", ""
    else:
        try:
            mode, content = path.stat().st_mode, path.read_bytes()
        except OSError as error:
            problem = error.strerror or type(error).__name__, "a private key that can be read", ""
        else:
            if ssh_key.is_public(content):
                problem = "a public key", "the private key", "leave .pub off"
            elif mode & 0o077:
                expected = "a private key that only you can read, mode 0600"
                problem = f"mode {mode & 0o777:04o}", expected, f"chmod 600 {path}"
            elif ssh_key.is_encrypted(content):
                return True
            elif not _readable(path):
                problem = "no private key that can be read", "an Ed25519, ECDSA or RSA key", ""
    if problem:
        raise PlanError(key, *problem, host=host, reference="ssh-key-not-usable")
    return False


def _readable(path: Path) -> bool:
    """Whether pyinfra will read the key."""
    try:
        pyinfra_patches.load_private_key(path)
    except Exception:  # whatever the readers of four formats think of it
        return False
    return True


def keys_of_agent() -> list[bytes]:
    """The public parts of the keys that ssh-agent holds; none where no agent runs."""
    try:
        return [bytes(key.asbytes()) for key in Agent().get_keys()]
    except (SSHException, OSError):
        return []


def use_agent(host: Host, path: Path, held: Sequence[bytes]) -> None:
    """An encrypted key is used through ssh-agent, which pyinfra asks only where no key's file is named."""
    public = ssh_key.public_part(path.read_bytes(), _read_if_there(Path(f"{path}.pub")))
    if not held or (public and public not in held):
        raise PlanError(
            f"ssh_key {path}",
            "an encrypted key that ssh-agent does not hold",
            "its passphrase in no file",
            f"ssh-add {path}",
            host=host.name,
            reference="ssh-key-not-in-agent",
        )
    host.data.ssh_key = ""  # pyinfra wants text
    host.data.ssh_allow_agent = True
    host.data.ssh_look_for_keys = False


def _read_if_there(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
