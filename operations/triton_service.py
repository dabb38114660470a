"""The systemd unit that runs tritonserver in docker."""

from __future__ import annotations

from pyinfra.api.deploy import deploy
from pyinfra.operations import systemd

from operations import etc_files
from operations.plan.release import Release
from operations.remote import host_files
from operations.systemd_units import reloaded


@deploy("Triton service")
def install(release: Release) -> None:
    """The unit, before a release is switched to: it names none, so it is the same for all of them."""
    unit = host_files.rendered(release)[host_files.paths(release.settings).unit]
    etc_files.written(name="Install the systemd unit", path=unit.path, text=unit.text)
    reloaded(name="Let systemd read the unit", unit=unit_of(release))
    systemd.service(name="Start the service at boot", service=unit_of(release), running=None, enabled=True)


def unit_of(release: Release) -> str:
    """The unit's full name."""
    return f"{release.settings.service_name}.service"
