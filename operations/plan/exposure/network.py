"""Who may reach the server, and what it may reach: the names of the guard, and the values of its rules."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from operations.plan.exposure import door as plan_door
from operations.plan.exposure import exporters, gateway
from operations.plan.inventory.settings import Settings

# IFNAMSIZ of linux/if.h, without the zero byte at the end
LONGEST_INTERFACE = 15
# a line of the rules by which a host's file is recognised as that of a gateway that serves
LED = "# A gateway leads: nobody but the host itself reaches the server."


@dataclass(frozen=True)
class Guard:
    """
    The values of templates/guard.nft.j2.

    + service: the service name of the server that it guards
    + ports: those that clients reach over the network, and those behind them; none if the server answers only on the
    host's loopback
    + fronted: clients reach a socket of the host, not docker's forwarding
    + gateway_user: the user of the gateway, which may connect only to the host's loopback; 0: there is no gateway
    + door_user: the user of the door, which may connect only to the servers' gRPC; 0: there is no door
    + door_ports: the ports of that
    + beside: the interfaces of the host's other services
    + sources: the networks that may reach them; they do not overlap
    + egress: what the server may connect to
    + watched: the ports of exporters that listen for the network; none: nobody but the host itself reaches them
    + watchers: the networks that may
    + exporter_users: the users of exporters, which may connect to nobody
    + closed: the server's own ports, which only the host itself reaches because a gateway serves; none while a release
    from before the gateway may serve
    """

    service: str
    ports: tuple[int, ...]
    fronted: bool
    sources: tuple[str, ...]
    egress: tuple[str, ...]
    gateway_user: int = 0
    closed: tuple[int, ...] = ()
    door_user: int = 0
    door_ports: tuple[int, ...] = ()
    beside: tuple[str, ...] = ()
    watched: tuple[int, ...] = ()
    watchers: tuple[str, ...] = ()
    exporter_users: tuple[int, ...] = ()

    @property
    def bridge(self) -> str:
        """The interface of the server's own docker network, by which the rules recognise its packets."""
        return bridge(self.service)

    @property
    def bridges(self) -> tuple[str, ...]:
        """That one, and those of the host's other services, which a door may offer too."""
        return (self.bridge, *self.beside)

    @property
    def table(self) -> str:
        """The nftables table, of the family inet."""
        return table(self.service)

    @property
    def unit(self) -> str:
        """The unit that loads it."""
        return unit(self.service)

    @property
    def rules_path(self) -> str:
        """The file of its rules."""
        return rules_path(self.service)


def guard(settings: Settings, ports: tuple[int, int, int], door: plan_door.Door | None = None) -> Guard:
    """
    The guard of a host whose gateway serves, if it has one.

    + ports: those for clients, or those behind the gateway
    + door: what else connects to the server
    """
    return Guard(
        service=settings.service_name,
        # also those behind a gateway: before a swap, a proxy may still listen on them for the network
        ports=(*ports, *open_ports(settings, ())) if published(settings) else (),
        fronted=on_the_host(settings),
        sources=without_overlaps(settings.allowed_sources) if published(settings) else (),
        egress=without_overlaps(settings.egress),
        gateway_user=gateway.USER if settings.gateway else 0,
        closed=ports if settings.gateway else (),
        door_user=door.user if door else 0,
        door_ports=door.upstream if door else (),
        beside=tuple(bridge(name) for name in settings.beside) if door else (),
        watched=exporters.open_ports(settings),
        watchers=without_overlaps(settings.monitoring.sources if settings.monitoring else ()),
        exporter_users=exporters.users(settings),
    )


def on_the_host(settings: Settings) -> bool:
    """Whether clients reach a socket of the host, a gateway's or a proxy's, and not docker's forwarding."""
    return settings.gateway is not None or settings.front != "none"


def open_ports(settings: Settings, ports: tuple[int, ...]) -> tuple[int, ...]:
    """
    The ports for clients.

    + ports: the server's, or a proxy's, which clients use if there is no gateway
    """
    return (settings.gateway.port,) if settings.gateway else ports


def published(settings: Settings) -> bool:
    """Whether clients reach the server over the network, and not only from the host itself."""
    return not ipaddress.IPv4Address(settings.bind_address).is_loopback


def without_overlaps(networks: Iterable[ipaddress.IPv4Network]) -> tuple[str, ...]:
    """The same addresses as networks that do not overlap, which nft would refuse in one set."""
    return tuple(str(network) for network in ipaddress.collapse_addresses(networks))


def network(service: str) -> str:
    """
    The server's own docker network; the second server is on it too.

    It has another name than the container: `docker inspect NAME` answers with any object of that name.
    """
    return f"{service}-network"


def bridge(service: str) -> str:
    """The fixed name of that network's interface."""
    if len(service) < LONGEST_INTERFACE:
        return f"{service}0"
    return f"{service[:7]}{hashlib.sha256(service.encode()).hexdigest()[:7]}0"


def table(service: str) -> str:
    """The nftables table, without hyphens, which have another meaning in nft's language."""
    return f"tritonhost_{service.replace('-', '_')}"


def unit(service: str) -> str:
    """The unit that loads it."""
    return f"{service}-guard.service"


def rules_path(service: str) -> str:
    """Where the rules are that it loads: who may reach the server, and whom it may reach."""
    return f"/etc/{service}-guard.nft"


def record(service: str) -> str:
    """The file to which that unit writes, at each load, the digest of the rules, and the table as the kernel lists it."""
    return f"/run/{service}-guard"
