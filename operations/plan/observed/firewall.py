"""firewalld's state on a host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Rule = tuple[str, str, str]


@dataclass(frozen=True)
class Firewall:
    """
    The state of firewalld.

    + running: whether it answers
    + zones: address of the host -> its zone
    + default: the zone of an interface that is in none by name
    + rules: rich rules as (runtime or permanent, zone, rule): all of every zone, and the permanent ones of zones that may have ours
    """

    running: bool = False
    default: str = ""
    zones: Mapping[str, str] = field(default_factory=dict)
    rules: frozenset[Rule] = frozenset()
