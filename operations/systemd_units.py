"""The units that this tool writes, as systemd has loaded them."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api.command import StringCommand
from pyinfra.api.operation import operation

from operations.facts.units import ReloadNeeded
from operations.scripts import host_script


@operation()
def reloaded(unit: str) -> Generator[str, None, None]:
    """
    systemd has read the unit's file as it is on disk.

    It reloads only if the file differs: each daemon-reload can take the GPUs away from running containers
    (https://github.com/NVIDIA/nvidia-container-toolkit/issues/48), and pyinfra's `daemon_reload=True` always does.
    """
    if not host.get_fact(ReloadNeeded, unit=unit):
        host.noop(f"systemd knows {unit} as it is on disk")
        return
    yield "systemctl daemon-reload"


def keep(unit: str, paths: Sequence[str]) -> StringCommand:
    """
    The command that saves the files of a unit, for `restart_kept`.

    + paths: its files; missing ones are skipped
    """
    return StringCommand(host_script("keep.sh", {"KEPT": kept_file(unit), "PATHS": "\n".join(paths)}))


def restart_kept(unit: str, seconds: int) -> StringCommand:
    """
    The command that restarts a unit. If it does not start, the saved files come back, and it starts with them.

    + seconds: how long one start may take
    """
    script = host_script("restart_kept.sh", {"UNIT": unit, "KEPT": kept_file(unit)})
    return StringCommand(script, _timeout=2 * seconds + 60)


def kept_file(unit: str) -> str:
    """Where `keep` saves the files of a unit."""
    return f"/run/{unit}.kept"
