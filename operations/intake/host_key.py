"""Why a host's key was not accepted, with the fingerprint for the operator to compare: pyinfra's own lines have no fingerprint."""

from __future__ import annotations

import base64
import hashlib

from paramiko import PKey
from paramiko.ssh_exception import BadHostKeyException
from pyinfra.api.host import Host

from operations import pyinfra_patches

COMPARE = (
    "compare it with what the host's own console says (ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub there) "
    "before you put it into {file}"
)


def problem(host: Host, error: BaseException) -> str:
    """
    One line about a host key that is unknown or has changed; empty where a connection failed for another reason.

    + error: what pyinfra raised
    """
    changed = error.__context__ if isinstance(error.__context__, BadHostKeyException) else None
    key: PKey | None = changed.key if changed else None
    if key is None and "No host key for" in str(error):
        key = _offered(host)
    if key is None:
        return ""
    file = str(host.data.get("ssh_known_hosts_file") or "~/.ssh/known_hosts")
    then = COMPARE.format(kind=_kind(key), file=file)
    if changed is None:
        return f"host key: found {described(key)}, expected one that {file} knows; {then}"
    address = str(host.data.get("ssh_hostname") or host.name)
    port = int(host.data.get("ssh_port") or 22)
    entry = address if port == 22 else f"[{address}]:{port}"
    return (
        f"host key: found {described(key)}, expected {described(changed.expected_key)}: the host was reinstalled "
        f"or replaced, or another machine answers at its address; {then}, with ssh-keygen -R {entry} -f {file} first"
    )


def described(key: PKey) -> str:
    """`ED25519 SHA256:…`, as ssh-keygen -l prints a fingerprint."""
    digest = base64.b64encode(hashlib.sha256(bytes(key.asbytes())).digest()).decode().rstrip("=")
    return f"{_kind(key).upper()} SHA256:{digest}"


def _kind(key: PKey) -> str:
    name = key.get_name()
    return "ecdsa" if name.startswith("ecdsa") else name.removeprefix("ssh-")


def _offered(host: Host) -> PKey | None:
    """The key of the connection that was given up: pyinfra 3.10 leaves it out of its error."""
    transport = pyinfra_patches.transport_of(host)
    key: PKey | None = transport.get_remote_server_key() if transport is not None else None
    return key
