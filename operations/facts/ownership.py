"""Whose the files are that root runs or the server reads."""

from __future__ import annotations

import shlex

from pyinfra.api.facts import FactBase

from operations.facts.parse import permissions
from operations.plan import ownership
from operations.plan.permissions import Permissions
from operations.scripts import host_functions


class Exposed(FactBase[dict[str, Permissions]]):
    """
    What is not root's alone, or not for the server to read, by path.

    + data_root: where the artifacts are
    + files: those of ours outside of it
    + unit_files: those of them that are units
    """

    default = dict

    def command(self, data_root: str, files: list[str], unit_files: list[str]) -> str:
        given = {
            "DATA_ROOT": data_root,
            "DEEP": ownership.DEEP,
            **ownership.variables(data_root, files, unit_files),
        }
        inputs = "".join(f"{name}={shlex.quote(value)}\n" for name, value in given.items())
        return f"{inputs}IFS='\n'\nset -f\n{host_functions('ownership.sh')}\nexposed; :"

    def process(self, output: list[str]) -> dict[str, Permissions]:
        return permissions(output)
