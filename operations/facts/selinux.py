"""SELinux, as the host has it."""

from __future__ import annotations

import shlex

from pyinfra.api.facts import FactBase

from operations.plan.selinux import BOOLEANS


class Booleans(FactBase[dict[str, str]]):
    """
    `boolean:<name>` -> 0 or 1, of those we know that the host's policy has.

    Source: selinuxfs; a boolean's file says what it is, and what it will be when a transaction is committed: `1 1`.
    """

    default = dict

    def command(self) -> str:
        return (
            f"for name in {' '.join(BOOLEANS)}; do file=/sys/fs/selinux/booleans/$name; "
            '! [ -e "$file" ] || printf "boolean:%s\\t%s\\n" "$name" "$(cut -c 1 "$file")"; done'
        )

    def process(self, output: list[str]) -> dict[str, str]:
        return dict(line.split("\t", 1) for line in output if "\t" in line)


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
