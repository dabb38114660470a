"""The types of an inventory's values, with what each takes in words."""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from operations.plan.catalog.known_values import Whole
from operations.plan.wording import Form

# The data keys of pyinfra's SSH connector: https://docs.pyinfra.com/en/3.x/connectors/ssh.html
CONNECTOR_KEYS = frozenset(
    {
        "ssh_hostname",
        "ssh_port",
        "ssh_user",
        "ssh_key",
        "ssh_key_password",
        "ssh_allow_agent",
        "ssh_look_for_keys",
        "ssh_forward_agent",
        "ssh_config_file",
        "ssh_known_hosts_file",
        "ssh_strict_host_key_checking",
        "ssh_connect_retries",
        "ssh_connect_retry_min_delay",
        "ssh_connect_retry_max_delay",
        "ssh_file_transfer_protocol",
    }
)

AbsolutePath = Annotated[
    str,
    Field(pattern=r"^/[A-Za-z0-9._/-]+$"),
    Form("an absolute path of letters, digits and . _ - /, such as /var/lib/tritonhost"),
]
# no user and no password in it, and nothing that a repository file or a shell would take for something else
Url = Annotated[
    str,
    Field(pattern=r"^(https?|file)://[A-Za-z0-9._~:/?#\[\]!$&()*+,;=%{}-]+$"),
    Form(
        "a URL with https://, http:// or file://, without user and password, such as https://mirror.example/path"
    ),
]
RpmVersion = Annotated[
    str,
    Field(pattern=r"^([0-9]+:)?[A-Za-z0-9._+~^]+-[A-Za-z0-9._+~{}]+$"),
    Form(
        "a version and release of an rpm package, with its epoch if it has one, such as 3:29.9.0-1.el{os_major}"
    ),
]
Fingerprint = Annotated[
    str,
    Field(pattern=r"^[0-9A-F]{40}$"),
    Form(
        "a fingerprint of 40 hexadecimal digits, in capitals and without spaces, as gpg --show-keys prints it"
    ),
]
PackageName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"),
    Form("the name of an rpm package: letters, digits and . _ + -, such as docker-ce"),
]
Registry = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9.-]+(:[0-9]{1,5})?$"),
    Form("the name of a registry, with its port if it has one and without https://, such as nvcr.io"),
]
Commit = Annotated[
    str,
    Field(pattern=r"^[0-9a-f]{40}$"),
    Form("a commit of 40 hexadecimal digits in lower case, as git ls-remote prints it"),
]
Digest = Annotated[
    str,
    Field(pattern=r"^sha256:[0-9a-f]{64}$"),
    Form(
        "a digest: sha256: and 64 hexadecimal digits in lower case, as docker buildx imagetools inspect prints it"
    ),
]
RepositoryName = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9-]{0,40}$"),
    Form("the name of a repository: lower-case letters, digits and -, 41 at most, such as ol9-baseos"),
]
SystemdName = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9-]{0,31}$"),
    Form("the name of a systemd unit: lower-case letters, digits and -, 32 at most, such as triton"),
]


def whole(low: int, high: int, unit: str) -> Any:
    """A whole number within bounds, with its unit in the complaint."""
    allowed = Whole(low, high, unit)

    def check(value: object) -> object:
        if expected := allowed.complaint(value):
            raise ValueError(expected)
        return value

    return BeforeValidator(check)


def _network(value: object) -> IPv4Network:
    """An IPv4 network as it is written; not a number, and not an address of one (10.0.0.1/8)."""
    if isinstance(value, str):
        try:
            return IPv4Network(value)
        except ValueError:
            pass
    raise ValueError("an IPv4 network such as 10.0.0.0/16, or one address such as 10.0.0.5/32")


Network = Annotated[IPv4Network, BeforeValidator(_network), Form("an IPv4 network such as 10.0.0.0/16")]


# of the machine that deploys
FileName = Annotated[str, Field(min_length=1, max_length=4096)]


def without_registry(name: str) -> str:
    first, slash, _ = name.partition("/")
    if "://" in name or "@" in name or (slash and (":" in first or "." in first)):
        raise ValueError(
            "an image as name:tag without registry and digest, such as nvidia/tritonserver:24.09-py3"
        )
    return name


def not_root(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[1-9][0-9]{0,8}:[0-9]{1,9}", value):
        raise ValueError("numbers as uid:gid, and not root's uid 0, such as 60600:60600")
    return value
