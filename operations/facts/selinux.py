"""SELinux, as the host has it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from pyinfra.api.facts import FactBase

from operations.facts.parse import tabbed
from operations.plan.machine.selinux import BOOLEANS, NAMES_OF_RUN
from operations.plan.observed.observed import SELinux

_BOOLEAN = "boolean:"


def selinux(lines: Iterable[str]) -> SELinux | None:
    """What files/host/probe.sh printed; None where the kernel has no SELinux."""
    told = tabbed(lines)
    if "enforce" not in told:
        return None
    return SELinux(told["enforce"] == "1", _booleans(told), told.get("rule"), told.get("label"))


def _booleans(told: Mapping[str, str]) -> dict[str, bool]:
    return {
        name.removeprefix(_BOOLEAN): value == "1" for name, value in told.items() if name.startswith(_BOOLEAN)
    }


class Booleans(FactBase[dict[str, bool]]):
    """
    name -> whether it is on, of those we know that the host's policy has.

    Source: selinuxfs; a boolean's file says what it is, and what it will be when a transaction is committed: `1 1`.
    """

    default = dict

    def command(self) -> str:
        return (
            f"for name in {' '.join(BOOLEANS)}; do file=/sys/fs/selinux/booleans/$name; "
            '! [ -e "$file" ] || printf "boolean:%s\\t%s\\n" "$name" "$(cut -c 1 "$file")"; done'
        )

    def process(self, output: list[str]) -> dict[str, bool]:
        return _booleans(tabbed(output))


class NameOfRun(FactBase[str]):
    """
    The name by which the host's policy knows /run.

    Source: file_contexts.subs_dist, whose lines are `ALIAS NAME`: rules are for names, and those of Enterprise Linux 9 have `/run /var/run`.
    """

    default = staticmethod(lambda: NAMES_OF_RUN[0])

    def command(self) -> str:
        return (
            '(. /etc/selinux/config && cat "/etc/selinux/$SELINUXTYPE/contexts/files/file_contexts.subs_dist") 2>/dev/null | '
            'awk \'$1 == "/var/run" && $2 == "/run" { print $2 }\''
        )

    def process(self, output: list[str]) -> str:
        return next((line.strip() for line in output if line.strip()), NAMES_OF_RUN[0])


class LocalRule(FactBase[str]):
    """
    The type that the host's own rule gives to a pattern of semanage-fcontext(8); empty where it has no such rule.

    + target: the pattern, as semanage lists it

    pyinfra 3.10's FileContextMapping takes the pattern for one of grep's, and so never finds one with an escaped dot
    (pyinfra/facts/selinux.py).
    """

    default = str

    def requires_command(self, target: str) -> str:
        return "semanage"

    def command(self, target: str) -> str:
        # compared as a whole, and read as it is: a pattern has backslashes, and may be the end of another one
        return (
            "semanage fcontext --noheading --list --locallist | while read -r pattern rest; do "
            f'[ "$pattern" != {shlex.quote(target)} ] || printf "%s\\n" "$rest"; done'
        )

    def process(self, output: list[str]) -> str:
        # what kind of file, then user:role:type:level
        found = [line.rsplit(None, 1)[-1] for line in output if line.strip()]
        return next((context.split(":")[2] for context in found if context.count(":") >= 2), "")
