"""The door: OpenAI's interface in front of the server, in a container of its own."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations import etc_files, rollout, serving_image
from operations.facts.units import KeptUnit, KeptUnitState
from operations.plan.exposure import door as plan
from operations.plan.exposure.door import Door
from operations.plan.release import Release
from operations.remote import host_files
from operations.remote.detached import shell
from operations.remote.refusal import Failed
from operations.scripts import host_script
from operations.server import door as asked
from operations.systemd_units import keep, kept_file, reloaded, restart_kept

START_SECONDS = 150  # the unit's start timeout, and its stop timeout without the drain


@deploy("Door")
def install(release: Release) -> None:
    """Before anything stops: build the door's image."""
    if release.door is not None:
        serving_image.made(release.data_root, release.door.image, "Build the door's image")


@deploy("Door")
def lead(release: Release) -> None:
    """The door runs with its files, in front of the proven server. Without one, it is stopped."""
    door = release.door
    if door is None:
        gone(name="Stop the door", release=release)
        return
    rendered, paths = host_files.rendered(release), host_files.paths(release.settings)
    unit = f"{door.service}.service"
    kept(name="Keep what the door runs with", release=release)
    for path, what in ((paths.door_script, "script"), (paths.door_unit, "unit")):
        etc_files.written(name=f"Install the door's {what}", path=path, text=rendered[path].text)
    reloaded(name="Let systemd read the door's unit", unit=unit)
    running(name="Run the door", release=release)


@operation()
def kept(release: Release) -> Generator[StringCommand, None, None]:
    """
    Before another image or other options replace a running door, save its files until the new one runs.

    + release: whose door
    """
    door, found = _wanted(release), _found(release)
    if not found.active or found.key == door.key:
        host.noop("no other one runs")
        return
    paths = host_files.paths(release.settings)
    yield keep(f"{door.service}.service", [paths.door_script, paths.door_unit])


@operation()
def running(release: Release) -> Generator[str | StringCommand | FunctionCommand, None, None]:
    """
    The door runs from its image with its options, starts at boot, and gives the golden answers.

    + release: whose door, and whose golden requests

    A door that does not start, or answers wrongly, is replaced by the one that ran before; the run fails.
    """
    door, found = _wanted(release), _found(release)
    unit = f"{door.service}.service"
    if found.active and found.enabled and found.key == door.key:
        host.noop("the door runs with its options")
        return
    if not found.enabled:
        yield f"systemctl enable --quiet {unit}"
    if not found.active or found.key != door.key:
        yield keep_longer(unit)
        yield restart_kept(unit, START_SECONDS + door.drain_s)
    yield FunctionCommand(_asked, (release,), {})


@operation()
def gone(release: Release) -> Generator[str, None, None]:
    """
    No door runs, now or at boot. Its counters stay.

    + release: a release without a door
    """
    unit = f"{plan.service(release.settings.service_name)}.service"
    found: KeptUnit = _found(release)
    if not found.active and not found.enabled:
        host.noop("there is no door")
        return
    yield f"systemctl disable --quiet --now {unit}"


def keep_longer(unit: str) -> StringCommand:
    """The command that saves the kept files once more: `restart_kept` lets go of them as soon as the unit has started."""
    kept_at = kept_file(unit)
    return StringCommand(f"rm -f {kept_at}.asked; [ ! -s {kept_at} ] || cp -p {kept_at} {kept_at}.asked")


def put_back(unit: str, record: str) -> str:
    """The command that runs what ran before a door that answers wrongly."""
    return host_script("door_back.sh", {"UNIT": unit, "KEPT": f"{kept_file(unit)}.asked", "RECORD": record})


def _wanted(release: Release) -> Door:
    assert release.door is not None
    return release.door


def _found(release: Release) -> KeptUnit:
    service = plan.service(release.settings.service_name)
    found: KeptUnit = host.get_fact(KeptUnitState, service=service, record=plan.record(service))
    return found


def _asked(state: State, host: Host, release: Release) -> bool:
    """Whether the door gives the golden answers of the release that clients reach."""
    try:
        asked.proven(host, release, release.servers[0])
    except Failed as problem:
        said = f"door: {problem}; see: journalctl --unit {_wanted(release).service}"
        logger.error(f"{host.print_prefix}{said}")
        rollout.failed(host, said)
        _, told = shell(host, put_back(f"{_wanted(release).service}.service", _wanted(release).record))
        for line in told:
            logger.error(f"{host.print_prefix}{line}")
        return False
    return True
