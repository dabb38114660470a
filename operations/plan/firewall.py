"""firewalld's rules for the ports that people reach on sockets of the host: ours, told apart from everybody else's.

docker's published ports need none: firewalld lets through whatever was forwarded by an address translation, and judges
only what is for the host itself (https://docs.docker.com/engine/network/packet-filtering-firewalls/). Who may reach those
is the guard's part.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from operations.plan import network
from operations.plan.settings import Settings

SCOPES = ("runtime", "permanent")
Rule = tuple[str, str, str]


@dataclass(frozen=True)
class Firewall:
    """
    firewalld, where it runs.

    + zones: address of the host -> its zone
    + default: the zone of an interface that is in none by name
    + rules: rich rules of every zone, anybody's, as (runtime or permanent, zone, rule)
    """

    running: bool = False
    default: str = ""
    zones: Mapping[str, str] = field(default_factory=dict)
    rules: frozenset[Rule] = frozenset()


def mark(service: str) -> str:
    """
    What tells our rules apart: their priority, which nobody else has a reason to choose.

    A service definition or a policy would have a name, but exists at runtime only after a reload, and that is never done
    to somebody else's firewall.
    """
    return f'priority="-{10000 + zlib.crc32(service.encode()) % 10000}"'


def needed(settings: Settings) -> bool:
    """Whether people reach a socket of the host over the network, which is a front's or a gateway's."""
    return network.on_the_host(settings) and network.published(settings)


def rules(settings: Settings, ports: tuple[int, int, int]) -> list[str]:
    """The rules that are wanted, in firewalld's own words, which it lists them in again."""
    if not needed(settings):
        return []
    return [
        f'rule {mark(settings.service_name)} family="ipv4" source address="{source}" '
        f'port port="{port}" protocol="tcp" accept'
        for source in network.without_overlaps(settings.allowed_sources)
        for port in network.open_ports(settings, ports)
    ]


def ours(settings: Settings, firewall: Firewall) -> frozenset[Rule]:
    """Those of its rules that bear our mark."""
    return frozenset(rule for rule in firewall.rules if f" {mark(settings.service_name)} " in rule[2])


def wanted(settings: Settings, ports: tuple[int, int, int], firewall: Firewall) -> frozenset[Rule]:
    """The rules that are wanted, with the zones they belong into: at once, and after a reload or a boot."""
    if not firewall.running:
        return frozenset()
    address = settings.bind_address
    everywhere = {zone for zone in firewall.zones.values() if zone != "docker"} | {firewall.default}
    zones = everywhere if address == "0.0.0.0" else {firewall.zones.get(address, firewall.default)}
    return frozenset(
        (scope, zone, rule) for scope in SCOPES for zone in zones for rule in rules(settings, ports)
    )
