"""The proxy: haproxy in front of the servers, so that one can take over from another without losing a request."""

from __future__ import annotations

import base64
from collections.abc import Generator

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations import etc_files
from operations.facts.units import FrontState
from operations.plan.exposure import door
from operations.plan.release import Release
from operations.plan.serving.servers import Server
from operations.remote import host_files
from operations.remote.detached import done, printed, shell
from operations.remote.refusal import Failed
from operations.scripts import host_script
from operations.systemd_units import reloaded

_SILENT = "front: the host did not answer"


@deploy("Front")
def install(release: Release) -> None:
    """Install the units of the proxy and of the second server. The proxy starts later, when a server is behind it."""
    if not release.fronted:
        return
    settings = release.settings
    rendered = host_files.rendered(release)
    paths = host_files.paths(settings)
    for path in (paths.front_unit, paths.next_unit):
        unit = path.rpartition("/")[2]
        etc_files.written(name=f"Install {unit}", path=path, text=rendered[path].text)
        reloaded(name=f"Let systemd read {unit}", unit=unit)


@deploy("Front")
def lead(release: Release) -> None:
    """Last step: clients reach the main server through the proxy, and no second server runs."""
    leading(name="Point the proxy to the release", release=release)


@operation()
def leading(release: Release) -> Generator[FunctionCommand, None, None]:
    """
    The proxy runs and prefers the main server, and the second server does not run. Without a proxy, neither runs.

    + release: the running release
    """
    name = release.settings.service_name
    wanted = host_files.front_config(release, release.servers[0]) if release.fronted else ""
    found = host.get_fact(FrontState, service=name, path=host_files.paths(release.settings).front_config)
    if found.active == release.fronted and not found.beside and (found.configuration == wanted or not wanted):
        host.noop("the proxy points to the main server" if release.fronted else "there is no proxy")
        return
    yield FunctionCommand(_settle, (release,), {})


def _settle(state: State, host: Host, release: Release) -> bool:
    try:
        if not release.fronted:
            stop(host, release)
            return True
        point_to(host, release, release.servers[0])
    except Failed as problem:
        logger.error(f"{host.print_prefix}{problem}")
        return False
    drained(host, release, release.servers[1])
    stop_server(host, release.servers[1].service)
    return True


def point_to(host: Host, release: Release, server: Server) -> None:
    """Point the proxy to `server`, for all connections after the return. Raises Failed."""
    text = host_files.front_config(release, server)
    variables = {
        "FRONT": f"{release.settings.service_name}-front",
        "CONFIGURATION": host_files.paths(release.settings).front_config,
        "PORT": str(release.ports[0]),
        "LEADS": door.leads_file(release.settings.state_root),
        "LED": server.link,
        "BASE64": base64.b64encode(text.encode()).decode(),
    }
    done(host, host_script("point_front.sh", variables), lines=2, silent=_SILENT)


def drained(host: Host, release: Release, server: Server) -> int:
    """Wait, at most drain_s, until a server has no connections. Returns how many are left."""
    seconds = release.settings.drain_s
    variables = {"PORTS": " ".join(map(str, server.ports)), "SECONDS_AT_MOST": str(seconds)}
    _, output = shell(host, host_script("drain.sh", variables), timeout=seconds + 30)
    return int(printed(output, "left") or 0)


def stop_server(host: Host, service: str) -> None:
    """Stop the second server; it finishes the requests that it has begun."""
    shell(host, f"systemctl stop {service}.service 2>/dev/null || :", timeout=700)


def stop(host: Host, release: Release) -> None:
    """Stop the proxy, now and at boot. Raises Failed."""
    unit = f"{release.settings.service_name}-front.service"
    done(host, f"systemctl disable --quiet --now {unit}", lines=2, silent=_SILENT)
