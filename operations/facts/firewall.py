"""firewalld, and the table of ours that guards the server."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from pyinfra.api.facts import FactBase

from operations.plan.exposure import network
from operations.plan.exposure.firewall import SCOPES
from operations.plan.observed.firewall import Firewall
from operations.plan.observed.observed import GuardRules
from operations.scripts import host_script

_PART = "\x1f"
# A zone's name alone, or what --list-all-zones puts behind it: "public (default, active)"; "FirewallD is not running" is none
_ZONE = re.compile(r"([A-Za-z0-9_./-]+)( \([a-z, -]+\))?\s*$")


def firewall_command(mark: str, ask: bool) -> str:
    """The shell text that prints what `firewall` reads; see files/host/firewall_state.sh."""
    return host_script("firewall_state.sh", {"MARK": mark, "ASK": "yes" if ask else ""})


def firewall(lines: list[str]) -> Firewall:
    """
    What firewall_state.sh printed.

    Source: firewall-cmd(1), --list-all-zones; firewalld 0.9 to 1.3 print a zone's name at the beginning of a line, its
    properties indented, and its rich rules further in.
    """
    parts: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith(_PART):
            current = parts.setdefault(line[1:].strip(), [])
        elif parts:
            current.append(line)
    if "running" not in parts:
        return Firewall()
    default = next((m[1] for line in parts.get("default", []) if (m := _ZONE.match(line)) and not m[2]), "")
    if "default" in parts and not default:
        return Firewall()  # its unit is active, and it answers nobody
    interfaces: dict[str, str] = {}
    rules = set()
    for scope in SCOPES:
        zone = ""
        for line in parts.get(scope, []):
            if line and not line[0].isspace():
                header = _ZONE.match(line)
                zone = header[1] if header else ""
            elif not zone:
                continue  # of something that is no zone
            elif line.strip().startswith("interfaces:") and scope == "runtime":
                interfaces.update(dict.fromkeys(line.split()[1:], zone))
            elif line.strip().startswith("rule "):
                rules.add((scope, zone, line.strip()))
    addresses = [
        (m.group(2), m.group(1))
        for line in parts.get("addresses", [])
        if (m := re.match(r"\d+: +(\S+) +inet ([0-9.]+)/", line)) and m.group(1) != "lo"
    ]
    zones = {address: interfaces.get(interface, default) for address, interface in addresses}
    return Firewall(True, default, zones, frozenset(rules))


class FirewallState(FactBase[Firewall]):
    """
    firewalld's own state, as `operations.plan.observed.firewall.Firewall`.

    + mark: what our rules bear
    + ask: False where none is wanted
    """

    default = Firewall

    def command(self, mark: str, ask: bool) -> str:
        return firewall_command(mark, ask)

    def process(self, output: list[str]) -> Firewall:
        return firewall(output)


def guard_command(service: str) -> str:
    """Prints the digest of the rules that were loaded; `changed` where the kernel has others now, and nothing without a record."""
    record = shlex.quote(network.record(service))
    listed = f"nft --stateless list table inet {network.table(service)} 2>/dev/null"
    return (
        f'if [ -r {record} ]; then if found=$({listed}) && [ "$found" = "$(sed 1d {record})" ]; '
        f"then sed -n '1s/ .*//p' {record}; else echo changed; fi; fi"
    )


def guard_rules(lines: Iterable[str]) -> GuardRules:
    """What guard_command printed."""
    text = "".join(lines).strip()
    return GuardRules(changed=True) if text == "changed" else GuardRules(text)


class LoadedGuard(FactBase[GuardRules]):
    """
    The guard's rules in the kernel.

    + service: whose
    """

    default = GuardRules

    def command(self, service: str) -> str:
        return guard_command(service)

    def process(self, output: list[str]) -> GuardRules:
        return guard_rules(output)
