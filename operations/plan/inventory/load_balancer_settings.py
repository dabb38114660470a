"""What an inventory says of a host that takes the clients of all the others, and serves no model."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from operations.plan.inventory.field_types import FileName, Network, whole
from operations.plan.inventory.monitoring_settings import (
    any_port,
    host_address,
    not_everybody,
    unprivileged_port,
)
from operations.plan.wording import complaint

KEY = "load_balancer"
GROUP = "front"
# keys that name a file of the machine that deploys
FILES = ("certificate", "private_key", "gateway_ca")


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9*]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", value):
        raise ValueError("a DNS name without a port, such as llm.example")
    return value


class LoadBalancer(BaseModel):
    """
    A host of the group `front`.

    + certificate, private_key: files of the machine that deploys, PEM: what clients are shown
    + gateway_ca: a file with the root of the certificates of the hosts' gateways
    + gateway_name: a DNS name that these certificates must have; None: any that the root has signed
    + bind, port: where clients connect
    + sources: the networks that may
    + model: of several in the inventory, the one whose hosts it is for
    + metrics_port: where it shows its metrics; 0: nowhere
    + metrics_sources: the networks that may read them on `bind`; none: the host's own loopback alone
    + max_connections: of all clients together
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: FileName
    private_key: FileName
    gateway_ca: FileName
    gateway_name: Annotated[str, AfterValidator(_name)] | None = None
    bind: Annotated[str, BeforeValidator(host_address)]
    port: Annotated[int, BeforeValidator(any_port)] = 443
    sources: list[Network]
    model: Annotated[str, Field(min_length=1)] | None = None
    metrics_port: Annotated[
        int, BeforeValidator(lambda value: value if value == 0 else unprivileged_port(value))
    ] = 8405
    metrics_sources: list[Network] = []
    max_connections: Annotated[int, whole(100, 1_000_000, "connections")] = 20000

    @property
    def metrics_bind(self) -> str:
        """Where the metrics are."""
        return self.bind if self.metrics_sources else "127.0.0.1"

    def check(self, expose: bool) -> None:
        """Clients reach it from declared networks. Raises a ValidationError."""
        address = IPv4Address(self.bind)
        if address.is_unspecified or address.is_loopback or (address.is_global and not expose):
            raise complaint(
                "bind",
                self.bind,
                "the host's own private address, such as 10.0.1.5",
                within=(KEY,),
                then=""
                if not address.is_global
                else f"refusing the public bind {self.bind} without expose=True",
            )
        if self.metrics_port == self.port:
            raise complaint(
                "metrics_port", self.metrics_port, "another port than the clients'", within=(KEY,)
            )
        if not self.sources:
            raise complaint(
                "sources", [], f'networks such as ["10.0.0.0/16"], who may reach {self.bind}', within=(KEY,)
            )
        for key in ("sources", "metrics_sources"):
            not_everybody(key, getattr(self, key), expose, within=(KEY,))
