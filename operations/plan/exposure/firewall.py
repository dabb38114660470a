"""firewalld's rules for the ports that clients reach on sockets of the host: how ours differ from all others.

docker's published ports need none: firewalld admits what an address translation forwards, and filters only what is for
the host itself (https://docs.docker.com/engine/network/packet-filtering-firewalls/). The guard limits who may reach
those ports.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network

from operations.plan.exposure import exporters, network
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
    """Whether somebody reaches a socket of the host over the network: that of a proxy, of a gateway, or of an exporter."""
    return _for_clients(settings) or bool(exporters.open_ports(settings))


def _for_clients(settings: Settings) -> bool:
    return network.on_the_host(settings) and network.published(settings)


def rules(settings: Settings, ports: tuple[int, int, int]) -> list[str]:
    """The wanted rules, written as firewalld lists them."""
    return [rule for _, found in _openings(settings, ports) for rule in found]


def _openings(settings: Settings, ports: tuple[int, int, int]) -> list[tuple[str, list[str]]]:
    """The wanted rules, with the address whose zone they are of: clients', then those for the exporters."""
    found = []
    if _for_clients(settings):
        opened = network.open_ports(settings, ports)
        found.append((settings.bind_address, _rules(settings, settings.allowed_sources, opened)))
    if settings.monitoring and (watched := exporters.open_ports(settings)):
        sources = settings.monitoring.sources
        found.append((exporters.address(settings), _rules(settings, sources, watched)))
    return found


def _rules(settings: Settings, sources: list[IPv4Network], ports: tuple[int, ...]) -> list[str]:
    return rules_for(settings.service_name, sources, ports)


def rules_for(service: str, sources: Sequence[IPv4Network], ports: Sequence[int]) -> list[str]:
    """Rules with the mark of a service, as firewalld lists them."""
    return [
        f'rule {mark(service)} family="ipv4" source address="{source}" '
        f'port port="{port}" protocol="tcp" accept'
        for source in network.without_overlaps(sources)
        for port in ports
    ]


def ours(settings: Settings, firewall: Firewall) -> frozenset[Rule]:
    """The rules that have our mark."""
    return with_mark(settings.service_name, firewall)


def with_mark(service: str, firewall: Firewall) -> frozenset[Rule]:
    """The rules that have a service's mark."""
    return frozenset(rule for rule in firewall.rules if f" {mark(service)} " in rule[2])


def wanted(settings: Settings, ports: tuple[int, int, int], firewall: Firewall) -> frozenset[Rule]:
    """The wanted rules, with their zones: for now, and for after a reload or a boot."""
    return placed(_openings(settings, ports), firewall)


def placed(openings: Iterable[tuple[str, Sequence[str]]], firewall: Firewall) -> frozenset[Rule]:
    """Rules in the zones of the addresses that they are for, for now and for after a reload or a boot."""
    if not firewall.running:
        return frozenset()
    everywhere = {zone for zone in firewall.zones.values() if zone != "docker"} | {firewall.default}
    return frozenset(
        (scope, zone, rule)
        for address, rules_there in openings
        for zone in (everywhere if address == "0.0.0.0" else {firewall.zones.get(address, firewall.default)})
        for scope in SCOPES
        for rule in rules_there
    )
