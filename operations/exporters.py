"""The host's exporters: node_exporter and dcgm-exporter, each in a container of its own."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api.command import StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation

from operations import etc_files, rollout, serving_image
from operations.facts.units import KeptUnit, KeptUnitState
from operations.plan.exposure import exporters as plan
from operations.plan.exposure.exporters import Exporter
from operations.plan.release import Release
from operations.remote import host_files
from operations.systemd_units import keep, reloaded, restart_kept

START_SECONDS = 180  # the unit's start and stop timeouts, with some time for systemd


@deploy("Exporters")
def install(release: Release) -> None:
    """Before anything stops: pull the exporters' images."""
    for exporter in release.exporters:
        serving_image.made(release, exporter.image, f"Pull the image of {exporter.title}")


@deploy("Exporters")
def lead(release: Release) -> None:
    """The wanted exporters run with their files. Nothing is left of others."""
    rendered, there = host_files.rendered(release), {one.kind: one for one in release.exporters}
    settings = release.settings
    for kind in (plan.NODE, plan.DCGM):
        exporter = there.get(kind)
        if exporter is None:
            # decided by what the one look at the host has found: a host without exporters costs no round trip
            if rollout.differences("monitoring"):
                gone(name=f"Remove {kind} exporter", release=release, kind=kind)
            continue
        paths = plan.own_paths(settings.service_name, settings.state_root, kind)
        kept(name=f"Keep what {exporter.title} runs with", exporter=exporter, paths=paths)
        for path in paths:
            etc_files.written(name=f"Install {path.rpartition('/')[2]}", path=path, text=rendered[path].text)
        reloaded(name=f"Let systemd read the unit of {exporter.title}", unit=f"{exporter.service}.service")
        running(name=f"Run {exporter.title}", release=release, exporter=exporter)


@operation()
def kept(exporter: Exporter, paths: tuple[str, ...]) -> Generator[StringCommand, None, None]:
    """
    Before another image or other options replace a running exporter, save its files until the new one runs.

    + exporter: the wanted one
    + paths: its files
    """
    found = _found(exporter.service)
    if not found.active or found.key == exporter.key:
        host.noop("no other one runs")
        return
    yield keep(f"{exporter.service}.service", list(paths))


@operation()
def running(release: Release, exporter: Exporter) -> Generator[str | StringCommand, None, None]:
    """
    The exporter runs from its image with its options, starts at boot, and its page has what it is there for.

    + release: of the host
    + exporter: the wanted one

    One that does not start is replaced by the one that ran before. Those of the host's other services are stopped first: a host
    has one of each kind, on one port.
    """
    found, unit = _found(exporter.service), f"{exporter.service}.service"
    if found.active and found.enabled and found.key == exporter.key:
        host.noop(f"{exporter.title} runs with its options")
        return
    for other in release.settings.beside:
        yield _stopped(plan.service(other, exporter.kind))
    if not found.enabled:
        yield f"systemctl enable --quiet {unit}"
    if not found.active or found.key != exporter.key:
        yield restart_kept(unit, START_SECONDS)
    yield f"sh {shlex.quote(plan.script_path(exporter.service))} shows"


@operation()
def gone(release: Release, kind: str) -> Generator[str, None, None]:
    """
    No such exporter runs, and its files are removed.

    + release: one without it
    + kind: node or dcgm
    """
    settings = release.settings
    name = plan.service(settings.service_name, kind)
    paths = plan.own_paths(settings.service_name, settings.state_root, kind)
    yield _stopped(name)
    yield f"rm -f {shlex.join([*paths, plan.record(name)])}"
    # systemd remembers a unit that failed, also without its file
    yield f"systemctl reset-failed {shlex.quote(name)}.service 2>/dev/null || :"


def _stopped(name: str) -> str:
    unit = shlex.quote(f"{name}.service")
    return f"[ ! -e /etc/systemd/system/{unit} ] || systemctl disable --quiet --now {unit}"


def _found(service: str) -> KeptUnit:
    found: KeptUnit = host.get_fact(KeptUnitState, service=service, record=plan.record(service))
    return found
