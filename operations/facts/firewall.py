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


def firewall_command(mark: str, ask: bool) -> str:
    """The shell text that prints what `firewall` reads; see files/host/firewall_state.sh."""
    return host_script("firewall_state.sh", {"MARK": mark, "ASK": "yes" if ask else ""})


def firewall(lines: list[str]) -> Firewall:
    """
    What firewall_state.sh printed.

    Source: firewalld.dbus(5) has the methods, whose answers busctl(1) prints as a signature and the values: strings in quotes,
    arrays and dictionaries as a count and what they hold.
    """
    parts: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith(_PART):
            current = parts.setdefault(line[1:].strip(), [])
        elif parts:
            current.append(line)
    if "running" not in parts:
        return Firewall()
    default = next(
        (words[1] for line in parts.get("default", []) if len(words := _values(line, "s")) == 2), ""
    )
    answers = [*parts.get("active", []), *(line for scope in SCOPES for line in parts.get(scope, []))]
    if "default" in parts and (not default or not _complete(answers)):
        return Firewall()  # its unit is active, and it answers nobody, or not any more
    interfaces: dict[str, str] = {}
    for line in parts.get("active", []):
        interfaces |= _interfaces(_values(line, "a{sa{sas}}")[1:])
    rules = {
        (scope, zone, rule)
        for scope in SCOPES
        for zone, found, answer in (line.partition("\t") for line in parts.get(scope, []))
        if found
        for rule in _values(answer, "as")[2:]
    }
    addresses = [
        (m.group(2), m.group(1))
        for line in parts.get("addresses", [])
        if (m := re.match(r"\d+: +(\S+) +inet ([0-9.]+)/", line)) and m.group(1) != "lo"
    ]
    zones = {address: interfaces.get(interface, default) for address, interface in addresses}
    return Firewall(True, default, zones, frozenset(rules))


def _complete(answers: Iterable[str]) -> bool:
    """Whether the zones in use were said, and the rules of each zone."""
    signatures = [answer.rpartition("\t")[2].split(" ")[0] for answer in answers]
    return signatures[:1] == ["a{sa{sas}}"] and set(signatures[1:]) <= {"as"}


def _values(answer: str, signature: str) -> list[str]:
    """The words of an answer of busctl, its signature first; none where it is no such answer."""
    try:
        words = shlex.split(answer)
    except ValueError:
        return []
    return words if words[:1] == [signature] else []


def _interfaces(words: list[str]) -> dict[str, str]:
    """Interface to zone, of zone -> ("interfaces" or "sources") -> names; each level begins with its count."""
    found: dict[str, str] = {}
    rest = iter(words)
    try:
        for _ in range(int(next(rest))):
            zone = next(rest)
            for _ in range(int(next(rest))):
                kind = next(rest)
                names = [next(rest) for _ in range(int(next(rest)))]
                if kind == "interfaces":
                    found.update(dict.fromkeys(names, zone))
    except (StopIteration, ValueError):
        pass  # cut off: what was read before is so
    return found


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
