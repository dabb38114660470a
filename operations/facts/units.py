"""systemd units, beyond what pyinfra's own facts tell."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from pyinfra.api.facts import FactBase


@dataclass(frozen=True)
class Front:
    """Whether the front runs, its configuration, and whether a server runs beside the one that stays."""

    active: bool = False
    beside: bool = False
    configuration: str = ""


class FrontState(FactBase[Front]):
    """
    + service: the serving unit's name
    + path: of the front's configuration
    """

    default = Front

    def command(self, service: str, path: str) -> str:
        return (
            f"echo front=$(systemctl is-active {shlex.quote(service)}-front.service); "
            f"echo beside=$(systemctl is-active {shlex.quote(service)}-next.service); "
            f"cat {shlex.quote(path)} 2>/dev/null || :"
        )

    def process(self, output: list[str]) -> Front:
        text = "\n".join(output[2:])
        return Front(output[0] == "front=active", output[1] == "beside=active", f"{text}\n" if text else "")


@dataclass(frozen=True)
class KeptUnit:
    """A unit that writes down the key of the container that it runs. `key`: empty where none runs."""

    active: bool = False
    enabled: bool = False
    key: str = ""


class KeptUnitState(FactBase[KeptUnit]):
    """
    + service: the unit, without .service
    + record: where it writes the key
    """

    default = KeptUnit

    def command(self, service: str, record: str) -> str:
        unit = shlex.quote(f"{service}.service")
        return (
            f"echo $(systemctl is-active {unit}); echo $(systemctl is-enabled {unit} 2>/dev/null); "
            f"echo $(cat {shlex.quote(record)} 2>/dev/null)"
        )

    def process(self, output: list[str]) -> KeptUnit:
        active, enabled, key = output
        # the record of a container that does not run any more is out of date
        return KeptUnit(active == "active", enabled == "enabled", key if active == "active" else "")


class ReloadNeeded(FactBase[bool]):
    """Whether the unit's file on disk is not what systemd has read: newer, or not there when it looked."""

    default = bool

    def command(self, unit: str) -> str:
        return f"systemctl show --property=NeedDaemonReload,LoadState {shlex.quote(unit)}"

    def process(self, output: list[str]) -> bool:
        # A unit that systemd has never heard of is found at its first start, but enabling it wants it known; of one whose
        # file was gone at a reload while it ran, it says LoadState=error and NeedDaemonReload=no ever after.
        return "NeedDaemonReload=yes" in output or "LoadState=loaded" not in output
