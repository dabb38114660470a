"""haproxy in front of the server: what makes it possible that one server takes over from another without a lost request."""

from __future__ import annotations

import base64
from collections.abc import Generator

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations import etc_files, host_files
from operations.detached import printed, shell
from operations.facts.units import FrontState
from operations.plan.release import Release, Server
from operations.scripts import host_script
from operations.systemd_units import reloaded


@deploy("Front")
def install(release: Release) -> None:
    """Its unit, and that of the server beside the one that serves; it starts once a server is behind it."""
    if not release.fronted:
        return
    settings = release.settings
    rendered = host_files.rendered(release)
    for path in (host_files.front_unit_path(settings), host_files.next_unit_path(settings)):
        unit = path.rpartition("/")[2]
        etc_files.written(name=f"Install {unit}", path=path, text=rendered[path])
        reloaded(name=f"Let systemd read {unit}", unit=unit)


@deploy("Front")
def lead(release: Release) -> None:
    """Last of all: people are at the server that stays, through the front, and no other server is left."""
    leading(name="Lead to the release", release=release)


@operation()
def leading(release: Release) -> Generator[FunctionCommand, None, None]:
    """
    The front runs with the server that stays first, and the one beside it does not run; without a front, neither runs.

    + release: what serves
    """
    name = release.settings.service_name
    wanted = host_files.front_config(release, release.servers[0]) if release.fronted else ""
    found = host.get_fact(FrontState, service=name, path=host_files.front_config_path(release.settings))
    if found.active == release.fronted and not found.beside and (found.configuration == wanted or not wanted):
        host.noop("the front leads to the server that stays" if release.fronted else "there is no front")
        return
    yield FunctionCommand(_settle, (release,), {})


def _settle(state: State, host: Host, release: Release) -> bool:
    problem = point_to(host, release, release.servers[0]) if release.fronted else stop(host, release)
    if not problem and release.fronted:
        drained(host, release, release.servers[1])
        stop_server(host, release.servers[1].service)
    if problem:
        logger.error(f"{host.print_prefix}{problem}")
    return not problem


def point_to(host: Host, release: Release, server: Server) -> str:
    """From the return of this on, whoever connects reaches `server`; what went wrong, or nothing."""
    text = host_files.front_config(release, server)
    variables = {
        "FRONT": f"{release.settings.service_name}-front",
        "CONFIGURATION": host_files.front_config_path(release.settings),
        "PORT": str(release.ports[0]),
        "BASE64": base64.b64encode(text.encode()).decode(),
    }
    ok, output = shell(host, host_script("point_front.sh", variables))
    return "" if ok else " ".join(output[-2:]) or "front: the host did not answer"


def drained(host: Host, release: Release, server: Server) -> int:
    """Wait, at most drain_s, until nobody is connected to a server; how many still are."""
    seconds = release.settings.drain_s
    variables = {"PORTS": " ".join(map(str, server.ports)), "SECONDS_AT_MOST": str(seconds)}
    _, output = shell(host, host_script("drain.sh", variables), timeout=seconds + 30)
    return int(printed(output, "left") or 0)


def stop_server(host: Host, service: str) -> None:
    """Stop a server beside the one that stays; it answers what it has begun to."""
    shell(host, f"systemctl stop {service}.service 2>/dev/null || :", timeout=700)


def stop(host: Host, release: Release) -> str:
    """The front does not run, now and after a boot; what went wrong, or nothing."""
    unit = f"{release.settings.service_name}-front.service"
    ok, output = shell(host, f"systemctl disable --quiet --now {unit}")
    return "" if ok else " ".join(output[-2:])
