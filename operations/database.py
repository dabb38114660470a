"""PostgreSQL with pgvector, for models that look documents up: its container, its schema."""

from __future__ import annotations

import io
import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api.command import StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation
from pyinfra.operations import files, systemd

from operations import detached, host_files
from operations.facts.database import DatabaseState, RunningImage
from operations.plan import commands
from operations.plan.migrations import script
from operations.plan.release import Database, Release
from operations.systemd_units import reloaded


@deploy("Database")
def run(release: Release) -> None:
    """Before the server, whose look-up model connects when it is loaded; none for a language model."""
    database = release.database
    if database is None:
        return
    unit = f"{database.service}.service"
    detached.image(name="Pull the database's image", wanted=database.image)
    # root alone may enter: whoever reaches the socket in it may do everything
    files.directory(name="Directory of the database", path=database.directory, mode="700")
    files.directory(name="Directory of its socket", path=database.socket)
    path = host_files.database_unit_path(release.settings)
    files.put(
        name="Install the database's unit",
        src=io.StringIO(host_files.rendered(release)[path]),
        dest=path,
        mode="644",
    )
    reloaded(name="Let systemd read the database's unit", unit=unit)
    systemd.service(name="Enable and start the database", service=unit, running=True, enabled=True)
    running(name="Run the database from its image", database=database)
    migrated(name="Migrate the database", database=database)


@operation()
def running(database: Database) -> Generator[str, None, None]:
    """
    The running container is of the wanted image.

    + database: what to run
    """
    if host.get_fact(RunningImage, container=database.service) == database.image.tag:
        host.noop(f"{database.service} runs {database.image.tag}")
        return
    yield f"systemctl restart {database.service}.service"


@operation()
def migrated(database: Database) -> Generator[StringCommand, None, None]:
    """
    Every migration has been applied, each once and in order, in one transaction.

    + database: its migrations

    Forward only: a migration must leave the release before it working, which a failing upgrade puts back.
    """
    state = host.get_fact(DatabaseState, container=database.service)
    if state.get("version") == str(max(database.migrations)):
        host.noop(f"the database is at version {state['version']}")
        return
    yield StringCommand(psql(database), _stdin=script(database.migrations))


def psql(database: Database) -> str:
    """A command that runs the SQL of its standard input, all of it or none."""
    options = ("--quiet", "--set", "ON_ERROR_STOP=1", "--single-transaction", "--file", "-")
    return shlex.join(commands.psql(database.service, *options))
