"""Who may reach the server, and whom it may reach: the names of the guard, and what its rules are filled with."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from operations.plan import gateway
from operations.plan.settings import Settings

# IFNAMSIZ of linux/if.h, less the zero at its end
LONGEST_INTERFACE = 15


@dataclass(frozen=True)
class Guard:
    """
    What templates/guard.nft.j2 is filled with.

    + service: whose server it guards
    + ports: those that people reach over the network, and those behind them; none where the server answers on the host's
      loopback alone
    + fronted: people reach a socket of the host, and not docker's forwarding
    + gateway_user: who runs the gateway, and may begin nothing but connections to the host's loopback; 0: nobody does
    + sources: who may reach them; networks that do not overlap
    + egress: what the server may connect to
    """

    service: str
    ports: tuple[int, ...]
    fronted: bool
    sources: tuple[str, ...]
    egress: tuple[str, ...]
    gateway_user: int = 0

    @property
    def bridge(self) -> str:
        """The interface of the server's own docker network, by which the rules know its packets."""
        return bridge(self.service)

    @property
    def table(self) -> str:
        """The nftables table, of the family inet."""
        return table(self.service)

    @property
    def unit(self) -> str:
        """What loads it."""
        return unit(self.service)


def guard(settings: Settings, ports: tuple[int, int, int]) -> Guard:
    """The guard of a host. `ports`: those that people use."""
    return Guard(
        service=settings.service_name,
        # also those behind a gateway: before a swap, a front may still listen on them for the network
        ports=(*ports, *open_ports(settings, ())) if published(settings) else (),
        fronted=on_the_host(settings),
        sources=without_overlaps(settings.allowed_sources) if published(settings) else (),
        egress=without_overlaps(settings.egress),
        gateway_user=gateway.USER if settings.gateway else 0,
    )


def on_the_host(settings: Settings) -> bool:
    """Whether people reach a socket of the host, a gateway's or a front's, and not docker's forwarding."""
    return settings.gateway is not None or settings.front != "none"


def open_ports(settings: Settings, ports: tuple[int, ...]) -> tuple[int, ...]:
    """
    The ports that people use.

    + ports: the server's, or a front's, which are theirs where there is no gateway
    """
    return (settings.gateway.port,) if settings.gateway else ports


def published(settings: Settings) -> bool:
    """Whether people reach the server over the network, and not only from the host itself."""
    return not ipaddress.IPv4Address(settings.bind_address).is_loopback


def without_overlaps(networks: Iterable[ipaddress.IPv4Network]) -> tuple[str, ...]:
    """The same addresses as networks that do not overlap, which nft would refuse in one set."""
    return tuple(str(network) for network in ipaddress.collapse_addresses(networks))


def network(service: str) -> str:
    """
    The server's own docker network; a release's server beside the one that serves is on it too.

    Not called as the container is: `docker inspect NAME` takes whatever is called so for an answer.
    """
    return f"{service}-network"


def bridge(service: str) -> str:
    """The fixed name of that network's interface."""
    if len(service) < LONGEST_INTERFACE:
        return f"{service}0"
    return f"{service[:7]}{hashlib.sha256(service.encode()).hexdigest()[:7]}0"


def table(service: str) -> str:
    """The nftables table; a hyphen has a meaning of its own in nft's language."""
    return f"tritonhost_{service.replace('-', '_')}"


def unit(service: str) -> str:
    """The unit that loads it."""
    return f"{service}-guard.service"


def record(service: str) -> str:
    """Where that unit writes, at each load, the digest of what it loaded, and then the table as the kernel lists it."""
    return f"/run/{service}-guard"
