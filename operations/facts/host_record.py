"""What a host remembers of the time before this tool."""

from __future__ import annotations

from pyinfra.api.facts import FactBase

from operations.plan.machine.host_record import DIRECTORY


class RecordedPlaces(FactBase[list[str]]):
    """The record's line of each service that was deployed: service, tab, data root."""

    default = list

    def command(self) -> str:
        return f"! test -e {DIRECTORY}/began || cat {DIRECTORY}/places 2>/dev/null || :"

    def process(self, output: list[str]) -> list[str]:
        return [line for line in output if line.count("\t") == 1]
