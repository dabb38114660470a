"""Who may reach the server and whom it may reach: a table of nftables that is ours, and firewalld's doors for a front."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterator

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.facts.files import Sha256File
from pyinfra.facts.systemd import SystemdEnabled, SystemdStatus

from operations import etc_files, host_files
from operations.facts.docker import NetworkOwner
from operations.facts.firewall import FirewallState, LoadedGuard
from operations.plan import firewall, network
from operations.plan.firewall import Firewall, Rule
from operations.plan.release import Release
from operations.refusal import refuse
from operations.scripts import host_script
from operations.systemd_units import reloaded


@deploy("Network")
def guard(release: Release) -> None:
    """The server's guard is loaded, at boot too, and firewalld lets in who may come; neither interrupts the server."""
    settings = release.settings
    own(name="Check that the server's network is ours", service=settings.service_name)
    path = host_files.guard_unit_path(settings)
    etc_files.written(name="Install the guard's unit", path=path, text=host_files.rendered(release)[path])
    reloaded(name="Let systemd read the guard's unit", unit=release.guard.unit)
    loaded(name="Load the guard", release=release)
    opened(name="Open firewalld for people", release=release)


@deploy("Network")
def close(release: Release) -> None:
    """Last of all: firewalld lets nobody in any more to the ports of a front that was led elsewhere, or is gone."""
    closed(name="Close what nobody uses any more", release=release)


@operation()
def own(service: str) -> Generator[FunctionCommand, None, None]:
    """
    The docker network that the server is put on is ours, or there is none of its name yet.

    + service: whose network

    The server would refuse to start on somebody else's, when the one before it was stopped already.
    """
    name = network.network(service)
    found: str | None = host.get_fact(NetworkOwner, network=name)
    if found in (None, f"{network.bridge(service)} {name}"):
        host.noop(f"{name} is ours" if found else f"{name} is made when the server starts")
        return
    yield refuse(
        f"docker network {name}: found one that is not ours, expected none of that name; remove it (docker network rm "
        f"{name}), or choose another service_name; nothing was stopped"
    )


@operation()
def loaded(release: Release) -> Generator[StringCommand, None, None]:
    """
    The kernel has the guard's rules, and its unit loads them at boot, before docker and the server.

    + release: whose server is guarded

    They are checked before they are put in place, and replaced at once: a packet finds the old rules or the new ones. A
    server of an earlier release, on docker's own bridge, is not touched by what is about the new network.
    """
    settings = release.settings
    path, unit = host_files.guard_path(settings), release.guard.unit
    text = host_files.rendered(release)[path]
    wanted = host_files.digests({path: text})[path]
    found = host.get_fact(LoadedGuard, service=settings.service_name)
    enabled = host.get_fact(SystemdEnabled, services=[unit]).get(unit)
    active = host.get_fact(SystemdStatus, services=[unit]).get(unit)
    written = host.get_fact(Sha256File, path=path)
    if found == written == wanted and enabled and active:
        host.noop("the guard's rules are loaded")
        return
    yield StringCommand(host_script("load_guard.sh", {"FILE": path, "UNIT": unit}), _stdin=text)


@operation()
def opened(release: Release) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    firewalld lets the declared sources in to the front's ports, now and after a reload or a boot.

    + release: whose ports

    firewalld is neither reloaded nor started; where it does not run, there are no rules. Nobody is shut out: the release
    that serves may be the one that goes on serving.
    """
    found = _firewall(release)
    if not found.running and firewall.needed(release.settings):
        yield FunctionCommand(_warn, ("a gateway" if release.settings.gateway else "a front",), {})
        return
    missing = _wanted(release, found) - firewall.ours(release.settings, found)
    if not missing:
        host.noop("firewalld has the front's rules" if found.running else "firewalld does not run")
        return
    yield from _changes("add", missing)


@operation()
def closed(release: Release) -> Generator[StringCommand, None, None]:
    """
    Of our rules, firewalld has those of the release that serves alone; everybody else's stay.

    + release: which has been proven
    """
    found = _firewall(release)
    superfluous = firewall.ours(release.settings, found) - _wanted(release, found)
    if not superfluous:
        host.noop("firewalld has no other rules of ours")
        return
    yield from _changes("remove", superfluous)


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


def _warn(state: State, host: Host, server: str) -> bool:
    # how it is started without shutting people out depends on who serves them now: the preflight has looked
    logger.warning(
        f"{host.print_prefix}firewalld: found it not running, expected it active where {server} serves people; the "
        "guard alone says who may reach it, and any other port of the host is as open as the network around it; "
        "start it as python -m operations.preflight says"
    )
    return True
