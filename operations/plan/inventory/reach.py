"""Who may reach a host over the network: somebody that the inventory declares, and everybody only on purpose."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Network

from operations.plan.inventory.monitoring_settings import not_everybody
from operations.plan.wording import complaint


def check_reach(bind_address: str, allowed_sources: Sequence[IPv4Network], expose: bool) -> None:
    """Refuse an address that is public by accident, and one that nobody is declared for. Raises a ValidationError."""
    address = ipaddress.IPv4Address(bind_address)
    if (address.is_unspecified or address.is_global) and not expose:
        raise complaint(
            "bind_address",
            bind_address,
            "127.0.0.1 or a private address",
            then=f"refusing the public bind {bind_address} without expose=True",
            reference="public-bind",
        )
    if not address.is_loopback and not allowed_sources:
        raise complaint(
            "allowed_sources",
            [],
            f'networks such as ["10.0.0.0/16"], who may reach bind_address {bind_address}',
            reference="no-allowed-sources",
        )
    not_everybody("allowed_sources", allowed_sources, expose)
