"""The database of documents, as it is."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from pyinfra.api.facts import FactBase

from operations.facts.parse import tabbed
from operations.plan.artifacts import commands
from operations.plan.observed.observed import DatabaseContents

# tab-separated lines: version and its number, vectors:<encoder> and their count
STATE_SQL = (
    "SELECT 'version', max(version) FROM schema_migrations UNION ALL "
    "SELECT 'vectors:' || encoder, count(*) FROM embeddings GROUP BY encoder"
)
_VECTORS = "vectors:"


def state_command(container: str) -> str:
    """The shell command that prints them."""
    options = ("--tuples-only", "--no-align", "--field-separator", "\t", "--command", STATE_SQL)
    return shlex.join(commands.psql(container, *options))


def contents(lines: Iterable[str]) -> DatabaseContents:
    """What it printed; empty for a database without a schema. A value that is not a number is skipped."""
    told = {name: int(value) for name, value in tabbed(lines).items() if value.isdecimal()}
    vectors = {
        name.removeprefix(_VECTORS): count for name, count in told.items() if name.startswith(_VECTORS)
    }
    return DatabaseContents(told.get("version"), vectors)


class RunningKey(FactBase[str]):
    """
    The label of a running database's container that says what it was made from; empty where none runs.

    + container: its name
    """

    def command(self, container: str) -> str:
        format = '{{if .State.Running}}{{index .Config.Labels "tritonhost.database"}}{{end}}'
        return f"docker inspect --format {shlex.quote(format)} {shlex.quote(container)} 2>/dev/null || :"

    def process(self, output: list[str]) -> str:
        return "".join(output).strip()


class Majors(FactBase[tuple[str, str]]):
    """
    PostgreSQL's major version that the data directory is of, and the image's; empty where there is none.

    + directory: the data directory
    + image: a tag
    """

    @staticmethod
    def default() -> tuple[str, str]:
        return "", ""

    def command(self, directory: str, image: str) -> str:
        environment = "{{range .Config.Env}}{{println .}}{{end}}"
        return (
            f"echo data=$(cat {shlex.quote(directory)}/PG_VERSION 2>/dev/null); "
            f"docker image inspect --format {shlex.quote(environment)} {shlex.quote(image)} 2>/dev/null || :"
        )

    def process(self, output: list[str]) -> tuple[str, str]:
        found = dict(line.split("=", 1) for line in output if "=" in line)
        return found.get("data", ""), found.get("PG_MAJOR", "")


class DatabaseState(FactBase[DatabaseContents]):
    """
    The version of the schema and the vectors of each encoder; empty for a database without a schema.

    + container: the database's
    """

    default = DatabaseContents

    def command(self, container: str) -> str:
        return f"{state_command(container)} 2>/dev/null || :"

    def process(self, output: list[str]) -> DatabaseContents:
        return contents(output)
