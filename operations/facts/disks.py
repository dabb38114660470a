"""Disks and file systems."""

from __future__ import annotations

import shlex

from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from operations.plan.machine.disks import root_file_system
from operations.plan.machine.local_disks import data_root, local_disks, mount_unit
from operations.plan.observed.observed import DataRoot, LocalDisks, RootFileSystem
from operations.scripts import host_functions


class RootDisk(FactBase[RootFileSystem]):
    """The root file system and what is under it."""

    @staticmethod
    def default() -> RootFileSystem:
        return RootFileSystem("", "", 0, 0)

    def command(self) -> str:
        return f"{_FUNCTIONS}\nroot_disk"

    def process(self, output: list[str]) -> RootFileSystem:
        return root_file_system(output)


class LocalStorage(FactBase[tuple[DataRoot, LocalDisks]]):
    """
    Where the data root is, and the host's local disks.

    + path: the data root
    """

    @staticmethod
    def default() -> tuple[DataRoot, LocalDisks]:
        return DataRoot(), LocalDisks()

    def command(self, path: str) -> str:
        inputs = f"DATA_ROOT={shlex.quote(path)}\nMOUNT_UNIT={shlex.quote(mount_unit(path))}\n"
        return f"{inputs}{_FUNCTIONS}\ndata_root; echo; local_disks"

    def process(self, output: list[str]) -> tuple[DataRoot, LocalDisks]:
        try:
            end = output.index("")
            return data_root(output[:end]), local_disks(output[end + 1 :])
        except (ValueError, LookupError, TypeError) as error:
            # anything else would end the run of all hosts
            raise FactProcessError(f"the local disks could not be read: {error}") from error


_FUNCTIONS = "PATH=$PATH:/usr/sbin:/sbin\n" + host_functions("disks.sh")
