"""firewalld's rules for the ports that clients reach on sockets of the host: how ours differ from all others.

docker's published ports need none: firewalld admits what an address translation forwards, and filters only what is for
the host itself (https://docs.docker.com/engine/network/packet-filtering-firewalls/). The guard limits who may reach
those ports.
"""

from __future__ import annotations

import zlib

from operations.plan.exposure import network
from operations.plan.inventory.settings import Settings
from operations.plan.observed.firewall import Firewall, Rule

SCOPES = ("runtime", "permanent")


def mark(service: str) -> str:
    """
    What marks our rules: their priority, which no other program has a reason to choose.

    A service definition or a policy would have a name, but it exists at runtime only after a reload, and this tool never
    reloads a site's firewall.
    """
    return f'priority="-{10000 + zlib.crc32(service.encode()) % 10000}"'


def needed(settings: Settings) -> bool:
    """Whether clients reach a socket of the host over the network: that of a proxy or of a gateway."""
    return network.on_the_host(settings) and network.published(settings)


def rules(settings: Settings, ports: tuple[int, int, int]) -> list[str]:
    """The wanted rules, written as firewalld lists them."""
    if not needed(settings):
        return []
    return [
        f'rule {mark(settings.service_name)} family="ipv4" source address="{source}" '
        f'port port="{port}" protocol="tcp" accept'
        for source in network.without_overlaps(settings.allowed_sources)
        for port in network.open_ports(settings, ports)
    ]


def ours(settings: Settings, firewall: Firewall) -> frozenset[Rule]:
    """The rules that have our mark."""
    return frozenset(rule for rule in firewall.rules if f" {mark(settings.service_name)} " in rule[2])


def wanted(settings: Settings, ports: tuple[int, int, int], firewall: Firewall) -> frozenset[Rule]:
    """The wanted rules, with their zones: for now, and for after a reload or a boot."""
    if not firewall.running:
        return frozenset()
    address = settings.bind_address
    everywhere = {zone for zone in firewall.zones.values() if zone != "docker"} | {firewall.default}
    zones = everywhere if address == "0.0.0.0" else {firewall.zones.get(address, firewall.default)}
    return frozenset(
        (scope, zone, rule) for scope in SCOPES for zone in zones for rule in rules(settings, ports)
    )
