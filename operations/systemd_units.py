"""systemd's own view of the units the tool writes."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api.operation import operation

from operations.facts.units import ReloadNeeded


@operation()
def reloaded(unit: str) -> Generator[str, None, None]:
    """
    systemd has read the unit's file as it is on disk.

    Only then is it told to reload: each daemon-reload can take the GPUs away from running containers
    (https://github.com/NVIDIA/nvidia-container-toolkit/issues/48), and pyinfra's `daemon_reload=True` always does.
    """
    if not host.get_fact(ReloadNeeded, unit=unit):
        host.noop(f"systemd knows {unit} as it is on disk")
        return
    yield "systemctl daemon-reload"
