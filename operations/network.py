"""Who may reach the server, and what it may reach: our own table of nftables, and rules of firewalld for clients."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.facts.files import Sha256File
from pyinfra.facts.systemd import SystemdEnabled, SystemdStatus

from operations import etc_files, gateway
from operations.facts.docker import Network, NetworkOwner
from operations.facts.firewall import FirewallState, LoadedGuard
from operations.plan.exposure import firewall, network
from operations.plan.observed.firewall import Firewall, Rule
from operations.plan.release import Release
from operations.remote import host_files
from operations.remote.refusal import refuse
from operations.scripts import host_script
from operations.systemd_units import reloaded


@deploy("Network")
def guard(release: Release) -> None:
    """
    The guard is loaded, now and at boot, and firewalld admits the declared sources. Neither interrupts the server.

    Until the first gateway runs, the running release is reached as before.
    """
    settings = release.settings
    own(name="Check that the server's network is ours", service=settings.service_name)
    unit = host_files.rendered(release)[host_files.paths(settings).guard_unit]
    etc_files.written(name="Install the guard's unit", path=unit.path, text=unit.text)
    reloaded(name="Let systemd read the guard's unit", unit=release.guard.unit)
    loaded(name="Load the guard", release=release, leads=False)
    opened(name="Open firewalld for clients", release=release)


@deploy("Network")
def close(release: Release) -> None:
    """Last step: no client can bypass the gateway, or reach the ports of a proxy that has moved or is gone."""
    if release.gateway:
        loaded(name="Close the ways around the gateway", release=release)
    closed(name="Close the ports that are no longer used", release=release)


@operation()
def own(service: str) -> Generator[FunctionCommand, None, None]:
    """
    The server's docker network was made by this tool, or there is none of that name yet.

    + service: the server's service name

    The server would refuse to start on another network of that name, after the previous server was stopped.
    """
    name = network.network(service)
    found: Network | None = host.get_fact(NetworkOwner, network=name)
    if found in (None, Network(network.bridge(service), name)):
        host.noop(f"{name} is ours" if found else f"{name} is made when the server starts")
        return
    yield refuse(
        f"docker network {name}: found one that is not ours, expected none of that name; remove it (docker network rm "
        f"{name}), or choose another service_name; nothing was stopped"
    )


@operation()
def loaded(release: Release, leads: bool = True) -> Generator[StringCommand, None, None]:
    """
    The kernel has the guard's rules, and its unit loads them at boot, before docker and the server.

    + release: whose server is guarded
    + leads: the release's gateway serves; False: whether it does is read from the host

    The rules are checked before they are installed, and replaced atomically: a packet meets the old rules or the new
    ones. Rules about the new network do not affect a server of an earlier release, on docker's own bridge.
    """
    # once a run has come to lead a gateway, nothing from before it serves, and no later run is to open the way again
    closed = leads or not release.guard.closed or gateway.is_there(release)
    yield from _load(release.guard if closed else replace(release.guard, closed=()))


@operation()
def guarded(guard: network.Guard) -> Generator[StringCommand, None, None]:
    """
    The same of a host without a server.

    + guard: who reaches its ports
    """
    yield from _load(guard)


def _load(guard: network.Guard) -> Iterator[StringCommand]:
    """The kernel has these rules, and their unit loads them at boot."""
    path, unit = guard.rules_path, guard.unit
    text = host_files.guard_rules(guard)
    wanted = host_files.digest(text)
    found = host.get_fact(LoadedGuard, service=guard.service)
    enabled = host.get_fact(SystemdEnabled, services=[unit]).get(unit)
    active = host.get_fact(SystemdStatus, services=[unit]).get(unit)
    written = host.get_fact(Sha256File, path=path)
    if found.digest == written == wanted and enabled and active:
        host.noop("the guard's rules are loaded")
        return
    yield StringCommand(
        host_script("load_guard.sh", {"FILE": path, "UNIT": unit, "SHA256": wanted}), _stdin=text
    )


@operation()
def opened(release: Release) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    firewalld admits the declared sources to the public ports, now and after a reload or a boot.

    + release: whose ports

    firewalld is neither reloaded nor started. If it does not run, there are no rules. No rule is removed here: the
    running release may be the one that continues to serve.
    """
    found = _firewall(release)
    if not found.running and firewall.needed(release.settings):
        yield FunctionCommand(_warn, (_server(release),), {})
        return
    missing = _wanted(release, found) - firewall.ours(release.settings, found)
    if not missing:
        host.noop("firewalld has the rules" if found.running else "firewalld does not run")
        return
    yield from _changes("add", missing)


@operation()
def closed(release: Release) -> Generator[StringCommand, None, None]:
    """
    Of our rules, firewalld has only those of the running release. All other rules stay.

    + release: the proven release
    """
    found = _firewall(release)
    superfluous = firewall.ours(release.settings, found) - _wanted(release, found)
    if not superfluous:
        host.noop("firewalld has no other rules of ours")
        return
    yield from _changes("remove", superfluous)


@operation()
def admitted(
    service: str, wanted: Callable[[Firewall], frozenset[Rule]], ask: bool
) -> Generator[StringCommand, None, None]:
    """
    firewalld has these rules of a host without a server, and no others of ours.

    + service: whose mark they have
    + wanted: the rules, of what firewalld is
    + ask: False where none is wanted
    """
    found: Firewall = host.get_fact(FirewallState, mark=firewall.mark(service), ask=ask)
    right, ours = wanted(found), firewall.with_mark(service, found)
    if right == ours:
        host.noop("firewalld has the rules" if found.running else "firewalld does not run")
        return
    yield from _changes("add", right - ours)
    yield from _changes("remove", ours - right)


def _firewall(release: Release) -> Firewall:
    settings = release.settings
    found: Firewall = host.get_fact(
        FirewallState, mark=firewall.mark(settings.service_name), ask=firewall.needed(settings)
    )
    return found


def _wanted(release: Release, found: Firewall) -> frozenset[Rule]:
    return firewall.wanted(release.settings, release.ports, found)


def _changes(change: str, rules: frozenset[Rule]) -> Iterator[StringCommand]:
    for scope, zone, rule in sorted(rules):
        permanent = ["--permanent"] if scope == "permanent" else []
        words = ["firewall-cmd", "--quiet", *permanent, f"--zone={zone}", f"--{change}-rich-rule={rule}"]
        yield StringCommand(shlex.join(words))


def _server(release: Release) -> str:
    if release.settings.gateway:
        return "a gateway"
    return "a proxy" if release.fronted else "an exporter"


def _warn(state: State, host: Host, server: str) -> bool:
    # how to start it without locking clients out depends on the running release: the preflight says it
    logger.warning(
        f"{host.print_prefix}firewalld: found it not running, expected it active where {server} serves clients; "
        "only the guard limits who may reach it, and any other port of the host is as open as the network around it; "
        "start it as python -m operations.preflight says"
    )
    return True
