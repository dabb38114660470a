"""SELinux, as the host has it."""

from __future__ import annotations

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
