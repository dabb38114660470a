"""systemd units, beyond what pyinfra's own facts tell."""

from __future__ import annotations

import shlex

from pyinfra.api.facts import FactBase


class ReloadNeeded(FactBase[bool]):
    """Whether the unit's file on disk is newer than what systemd has read."""

    default = bool

    def command(self, unit: str) -> str:
        return f"systemctl show --property=NeedDaemonReload,LoadState {shlex.quote(unit)}"

    def process(self, output: list[str]) -> bool:
        # A unit that systemd has never heard of is found at its first start, but enabling it wants it known.
        return "NeedDaemonReload=yes" in output or "LoadState=not-found" in output
