"""What an inventory says of the gateway, which holds paths of this machine and no secret."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from operations.plan.catalog.known_values import Whole
from operations.plan.errors import PlanError
from operations.plan.inventory.field_types import FileName, Network

IMAGE = "library/nginx:1.30.7"
SHORTEST_KEY, LONGEST_KEY, LEAST_CHARACTERS = 32, 256, 10
KEY_FORM = re.compile(rf"[A-Za-z0-9_-]{{{SHORTEST_KEY},{LONGEST_KEY}}}")
SHORTEST_PREFIX = 16  # of the networks of load balancers
_SECRETS = ("certificate", "private_key", "api_keys")


def _port(value: object) -> object:
    if expected := Whole(1024, 65535).complaint(value):
        raise ValueError(f"{expected}, and not one that root alone may listen on")
    return value


def _stable(value: object) -> object:
    """An image of nginx's stable branch: what its floor is known for."""
    if not isinstance(value, str) or not re.fullmatch(
        r"([a-z0-9_-]+/)*[a-z0-9._-]*nginx[a-z-]*:[A-Za-z0-9._-]+", value
    ):
        raise ValueError("an image of nginx as name:version without registry, such as library/nginx:1.30.7")
    branch = version(value).split(".")
    if len(branch) != 3 or int(branch[1]) % 2:
        raise ValueError("a version of nginx's stable branch, whose second number is even, such as 1.30.7")
    return value


def _few(value: IPv4Network) -> IPv4Network:
    # everybody in it may say that a request is somebody else's
    if value.prefixlen < SHORTEST_PREFIX:
        raise ValueError(
            f"the address of a load balancer, or a network of at most /{SHORTEST_PREFIX}, such as 10.0.1.5/32"
        )
    return value


class GatewaySettings(BaseModel):
    """
    What the inventory says of the gateway.

    + certificate: file of the controller, PEM: the host's own first, then those that lead to the root
    + private_key: its key, PEM without a passphrase: the gateway has to start after a boot, when nobody is there
    + api_keys: file of the controller, one key a line: the name of who has it, a space, the key
    + port: where people reach it, HTTP and gRPC alike
    + image: nginx, name:version; its digest is in image_digests
    + proxies: load balancers in front, as networks: their X-Forwarded-For is believed, and a host leaves them before it is changed
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: FileName
    private_key: FileName
    api_keys: FileName
    port: Annotated[int, BeforeValidator(_port)] = 8443
    image: Annotated[str, BeforeValidator(_stable)] = IMAGE
    proxies: tuple[Annotated[Network, AfterValidator(_few)], ...] = ()


def check_paths(value: object, where: str, names: Sequence[str] = _SECRETS) -> None:
    """
    Refuse a table that holds a key or a certificate itself, and not the path of its file, without showing it.

    + value: what the inventory says of the gateway, of whatever type
    + where: host and key, for the error
    + names: keys of such paths
    """
    table: Mapping[Any, Any] = value if isinstance(value, Mapping) else {}
    for name in names:
        content = table.get(name, "a")
        if (
            not isinstance(content, str)
            or "\n" in content
            or "-----" in content
            or KEY_FORM.fullmatch(content)
        ):
            raise PlanError(
                f"{where}.{name}",
                "something else (not shown)",
                "the path of a file of this machine",
                reference="secret-in-inventory",
            )


def version(image: str) -> str:
    """1.30.7 of library/nginx:1.30.7-alpine."""
    found = re.match(r"[0-9]+\.[0-9]+\.[0-9]+", image.rpartition(":")[2])
    return found[0] if found else ""
