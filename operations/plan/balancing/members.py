"""The hosts behind a load balancer: those of the inventory that serve its model, through their gateways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from operations.plan.errors import PlanError
from operations.plan.inventory.load_balancer_settings import KEY, LoadBalancer
from operations.plan.inventory.settings import Settings


@dataclass(frozen=True)
class Member:
    """
    One host, or one service of a host, as haproxy has it.

    + name: of the inventory, with `:` before a service
    + address, port: of its gateway
    """

    name: str
    address: str
    port: int


def member_name(entry: str) -> str:
    """An entry of the inventory as haproxy has it, whose names hold no slash."""
    return entry.replace("/", ":")


@dataclass(frozen=True)
class Serving:
    """What the inventory says of a host that serves. `reached`: where a deploy reaches it."""

    name: str
    settings: Settings
    reached: str


def members(own: LoadBalancer, hosts: Sequence[Serving]) -> tuple[Member, ...]:
    """
    The hosts of an inventory that a load balancer sends requests to, in its order.

    Raises PlanError where it is not clear for which model, and for a host that the load balancer does not reach.
    """
    models = sorted({each.settings.model for each in hosts})
    if own.model is None and len(models) > 1:
        raise PlanError(
            f"{KEY}.model", f"nothing, and hosts of {len(models)} models", f"one of {', '.join(models)}"
        )
    chosen = [each for each in hosts if own.model in (None, each.settings.model)]
    if not chosen:
        raise PlanError(
            f"{KEY}.model", str(own.model), f"one of {', '.join(models)}" if models else "a host that serves"
        )
    return tuple(_member(own, each) for each in chosen)


def _member(own: LoadBalancer, host: Serving) -> Member:
    settings, gateway = host.settings, host.settings.gateway
    bound = IPv4Address(settings.bind_address)
    if gateway is None or bound.is_loopback:
        missing = "gateway" if gateway is None else "bind_address"
        raise PlanError(
            missing,
            f"{'nothing' if gateway is None else settings.bind_address} at {host.name}",
            "a gateway that the load balancer reaches over the network",
            f"write gateway, bind_address and allowed_sources for {host.name}",
        )
    address = IPv4Address(own.bind)
    for key, networks in (
        ("gateway.proxies", gateway.proxies),
        ("allowed_sources", tuple(settings.allowed_sources)),
    ):
        if not _among(address, networks):
            raise PlanError(
                key,
                f"no {own.bind} at {host.name}",
                f'the load balancer\'s address, "{own.bind}/32"',
                "add it",
            )
    return Member(
        name=member_name(host.name),
        address=host.reached if bound.is_unspecified else settings.bind_address,
        port=gateway.port,
    )


def _among(address: IPv4Address, networks: Sequence[IPv4Network]) -> bool:
    return any(address in network for network in networks)
