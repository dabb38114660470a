"""The host's exporters: node_exporter and dcgm-exporter, each in a container of its own."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api.command import StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation

from operations import etc_files, rollout, serving_image
from operations.facts.units import KeptUnit, KeptUnitState
from operations.plan.exposure import exporters as plan
from operations.plan.exposure import host_program
from operations.plan.exposure.host_program import HostProgram
from operations.plan.release import Release
from operations.remote import host_files
from operations.systemd_units import keep, reloaded, restart_kept

START_SECONDS = 180  # the unit's start and stop timeouts, with some time for systemd


@deploy("Exporters")
def install(release: Release) -> None:
    """Before anything stops: pull the exporters' images."""
    for exporter in release.exporters:
        serving_image.made(release.data_root, exporter.image, f"Pull the image of {exporter.title}")


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
        kept(name=f"Keep what {exporter.title} runs with", program=exporter, paths=paths)
        for path in paths:
            etc_files.written(name=f"Install {path.rpartition('/')[2]}", path=path, text=rendered[path].text)
        reloaded(name=f"Let systemd read the unit of {exporter.title}", unit=f"{exporter.service}.service")
        # those of the host's other services are stopped first: a host has one of each kind, on one port
        others = [plan.service(other, kind) for other in settings.beside]
        running(name=f"Run {exporter.title}", program=exporter, instead=others)


@operation()
def kept(program: HostProgram, paths: tuple[str, ...]) -> Generator[StringCommand, None, None]:
    """
    Before another image or other options replace a running program, save its files until the new one runs.

    + program: the wanted one
    + paths: its files
    """
    found = _found(program.service)
    if not found.active or found.key == program.key:
        host.noop("no other one runs")
        return
    yield keep(f"{program.service}.service", list(paths))


@operation()
def running(program: HostProgram, instead: Sequence[str] = ()) -> Generator[str | StringCommand, None, None]:
    """
    The program runs from its image with its options, starts at boot, and its page has what it is there for.

    + program: the wanted one
    + instead: units that are stopped before

    One that does not start is replaced by the one that ran before.
    """
    found, unit = _found(program.service), f"{program.service}.service"
    if found.active and found.enabled and found.key == program.key:
        host.noop(f"{program.title} runs with its options")
        return
    for other in instead:
        yield _stopped(other)
    if not found.enabled:
        yield f"systemctl enable --quiet {unit}"
    if not found.active or found.key != program.key:
        yield restart_kept(unit, START_SECONDS)
    yield f"sh {shlex.quote(host_program.script_path(program.service))} shows"


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
    yield f"rm -f {shlex.join([*paths, host_program.record(name)])}"
    # systemd remembers a unit that failed, also without its file
    yield f"systemctl reset-failed {shlex.quote(name)}.service 2>/dev/null || :"


def _stopped(name: str) -> str:
    unit = shlex.quote(f"{name}.service")
    return f"[ ! -e /etc/systemd/system/{unit} ] || systemctl disable --quiet --now {unit}"


def _found(service: str) -> KeptUnit:
    found: KeptUnit = host.get_fact(KeptUnitState, service=service, record=host_program.record(service))
    return found
