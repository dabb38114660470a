"""The host's own metrics: a script that prints them, and a timer that writes them where node_exporter reads."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api.command import StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation
from pyinfra.facts.files import Sha256File
from pyinfra.facts.systemd import SystemdEnabled, SystemdStatus

from operations import etc_files, rollout
from operations.plan.inventory.settings import Settings
from operations.plan.monitoring import textfile
from operations.plan.release import Release
from operations.remote import host_files
from operations.systemd_units import reloaded


@deploy("Monitoring")
def begin(release: Release) -> None:
    """A run that found differences has begun: one that does not come to its end shows in the metrics."""
    if release.settings.monitoring:
        begun(name="Note that a run begins", settings=release.settings, differences=rollout.differences())


@deploy("Monitoring")
def install(release: Release) -> None:
    """Last step of a host: its metrics are written from now on, and say when it was converged. Without them, nothing is left."""
    settings = release.settings
    if settings.monitoring is None:
        # decided by what the one look at the host has found: a host without metrics costs no round trip
        if rollout.differences("monitoring"):
            gone(name="Remove the host's own metrics", settings=settings)
        return
    files, place = host_files.rendered(release), host_files.paths(settings)
    _, script, expected = textfile.own_paths(settings)
    scripted(name="Write the metrics' script", path=script, text=files[script].text)
    for path in (expected, place.metrics_unit, place.metrics_timer):
        etc_files.written(name=f"Write {path.rpartition('/')[2]}", path=path, text=files[path].text)
    for path in (place.metrics_unit, place.metrics_timer):
        unit = path.rpartition("/")[2]
        reloaded(name=f"Let systemd read {unit}", unit=unit)
    running(name="Run the metrics' timer", settings=settings)
    converged(name="Note that the host is converged", settings=settings, differences=rollout.differences())


@operation()
def begun(settings: Settings, differences: int) -> Generator[str, None, None]:
    """
    The host remembers that a run found differences, where an earlier run has installed what remembers it.

    + settings: of the service
    + differences: how many

    Never the first to write there: the disks that hold the directory may not be mounted yet.
    """
    script = shlex.quote(textfile.script(settings.state_root))
    yield f"[ ! -f {script} ] || sh {script} begun {differences}"


@operation()
def scripted(path: str, text: str) -> Generator[StringCommand, None, None]:
    """
    The script has this text. An older one removes what it wrote first: it may have written to another directory.

    + path: where
    + text: its whole content
    """
    digest = host_files.digest(text)
    if host.get_fact(Sha256File, path=path) == digest:
        host.noop(f"{path} is up to date")
        return
    quoted = shlex.quote(path)
    yield StringCommand(f"[ ! -f {quoted} ] || sh {quoted} remove")
    yield etc_files.replacing(path, text)


@operation()
def running(settings: Settings) -> Generator[str, None, None]:
    """
    The timer runs, now and after a boot, and the directory that it writes to is there.

    + settings: of the service
    """
    assert settings.monitoring
    timer = f"{textfile.unit(settings.service_name)}.timer"
    place = shlex.quote(settings.monitoring.textfile_directory)
    yield f"[ -d {place} ] || install -d -m 755 {place}"
    enabled = host.get_fact(SystemdEnabled, services=[timer]).get(timer)
    active = host.get_fact(SystemdStatus, services=[timer]).get(timer)
    if not (enabled and active):
        yield f"systemctl enable --quiet --now {timer}"


@operation()
def converged(settings: Settings, differences: int) -> Generator[str, None, None]:
    """
    The host remembers when a run left it converged, and its metrics are written.

    + settings: of the service
    + differences: how many the run found

    A run that finds nothing to do writes nothing: it is one round trip, which only reads.
    """
    script = shlex.quote(textfile.script(settings.state_root))
    yield f"sh {script} converged {differences} && sh {script} write"


@operation()
def gone(settings: Settings) -> Generator[str, None, None]:
    """
    No timer runs, and its units, its script and what that has written are removed.

    + settings: of the service
    """
    name, place = textfile.unit(settings.service_name), host_files.paths(settings)
    timer = shlex.quote(place.metrics_timer)
    script = shlex.quote(textfile.script(settings.state_root))
    yield f"[ ! -e {timer} ] || systemctl disable --quiet --now {name}.timer"
    # it alone knows which directory it wrote to
    yield f"[ ! -f {script} ] || sh {script} remove"
    yield f"rm -f {timer} {shlex.quote(place.metrics_unit)}"
    yield f"rm -rf {shlex.quote(textfile.directory(settings.state_root))}"
