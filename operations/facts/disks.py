"""Disks and file systems."""

from __future__ import annotations

from pyinfra.api.facts import FactBase

from operations.facts.host_state import root_file_system
from operations.plan.observed import RootFileSystem


class RootDisk(FactBase[RootFileSystem]):
    """The root file system and the size of the disk under it."""

    @staticmethod
    def default() -> RootFileSystem:
        return RootFileSystem("", "", 0, 0)

    def command(self) -> str:
        return (
            "findmnt --bytes --noheadings --raw --output SOURCE,FSTYPE,SIZE /; "
            "lsblk --bytes --noheadings --raw --inverse --output NAME,TYPE,SIZE "
            '"$(findmnt --noheadings --output SOURCE /)" || :'
        )

    def process(self, output: list[str]) -> RootFileSystem:
        return root_file_system(output)
