"""The database of documents, as it is."""

from __future__ import annotations

import shlex

from pyinfra.api.facts import FactBase

from operations.plan import commands

# tab-separated lines: version and its number, vectors:<encoder> and their count
STATE_SQL = (
    "SELECT 'version', max(version) FROM schema_migrations UNION ALL "
    "SELECT 'vectors:' || encoder, count(*) FROM embeddings GROUP BY encoder"
)


def state_command(container: str) -> str:
    """The shell command that prints them."""
    options = ("--tuples-only", "--no-align", "--field-separator", "\t", "--command", STATE_SQL)
    return shlex.join(commands.psql(container, *options))


class RunningImage(FactBase[str]):
    """
    The image a running container was made from, by tag; empty where none runs.

    + container: its name
    """

    def command(self, container: str) -> str:
        format = "{{if .State.Running}}{{.Config.Image}}{{end}}"
        return f"docker inspect --format {shlex.quote(format)} {shlex.quote(container)} 2>/dev/null || :"

    def process(self, output: list[str]) -> str:
        return "".join(output).strip()


class DatabaseState(FactBase[dict[str, str]]):
    """
    version -> its number, vectors:<encoder> -> their count; empty for a database without a schema.

    + container: the database's
    """

    default = dict

    def command(self, container: str) -> str:
        return f"{state_command(container)} 2>/dev/null || :"

    def process(self, output: list[str]) -> dict[str, str]:
        return dict(line.split("\t", 1) for line in output if "\t" in line)
