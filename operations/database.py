"""PostgreSQL with pgvector, for models that look up documents: its container and its schema."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation
from pyinfra.operations import files, systemd

from operations import etc_files, serving_image
from operations.facts.database import DatabaseState, Majors, RunningKey
from operations.plan.artifacts import commands
from operations.plan.release import Database, Release
from operations.plan.serving.migrations import script
from operations.remote import host_files
from operations.remote.refusal import refuse
from operations.systemd_units import keep, reloaded, restart_kept

START_SECONDS = 400  # the unit's TimeoutStartSec and TimeoutStopSec together


@deploy("Database")
def run(release: Release) -> None:
    """Runs before the server, whose lookup model connects while it loads. Language models have no database."""
    database = release.database
    if database is None:
        return
    unit = f"{database.service}.service"
    serving_image.made(release.data_root, database.image, "Pull the database's image")
    readable(name="Check that the image reads the database", database=database)
    # only root may enter: any process that reaches the socket in it can read every document
    files.directory(name="Directory of the database", path=database.directory, mode="700")
    files.directory(name="Directory of its socket", path=database.socket)
    path = host_files.paths(release.settings).database_unit
    kept(name="Keep what the database runs with", database=database, path=path)
    text = host_files.rendered(release)[path].text
    etc_files.written(name="Install the database's unit", path=path, text=text)
    reloaded(name="Let systemd read the database's unit", unit=unit)
    systemd.service(name="Enable and start the database", service=unit, running=True, enabled=True)
    running(name="Run the database from its image", database=database)
    migrated(name="Migrate the database", database=database)


@operation()
def readable(database: Database) -> Generator[FunctionCommand, None, None]:
    """
    The image has the PostgreSQL major version that wrote the database, or there is no database yet.

    + database: what to run

    Another major version would not start, and the running release would lose its database. So it is refused while the
    old database still runs.
    """
    written, image = host.get_fact(Majors, directory=f"{database.directory}/data", image=database.image.tag)
    if not written or not image or written == image:
        host.noop(f"PostgreSQL {image} reads {database.directory}")
        return
    yield refuse(
        f"documents.image: found PostgreSQL {image}, expected {written}, which wrote {database.directory}; dump the "
        "documents and put them into an empty directory, or keep the major version; nothing was stopped"
    )


@operation()
def kept(database: Database, path: str) -> Generator[StringCommand, None, None]:
    """
    Before a new database container replaces a running one, save its unit until the new one has started.

    + database: what to run
    + path: of its unit
    """
    if host.get_fact(RunningKey, container=database.service) in ("", database.key):
        host.noop("no other database runs")
        return
    yield keep(f"{database.service}.service", [path])


@operation()
def running(database: Database) -> Generator[StringCommand, None, None]:
    """
    The container runs with the wanted image and options. If it does not start, the previous one runs again.

    + database: what to run
    """
    if host.get_fact(RunningKey, container=database.service) == database.key:
        host.noop(f"{database.service} runs {database.image.tag}")
        return
    yield restart_kept(f"{database.service}.service", START_SECONDS)


@operation()
def migrated(database: Database) -> Generator[StringCommand, None, None]:
    """
    Every migration has been applied, each once and in order, in one transaction.

    + database: its container and its migrations

    Forward only. The previous release must work after a migration, because a failed upgrade puts it back.
    """
    state = host.get_fact(DatabaseState, container=database.service)
    if (state.version or 0) >= max(database.migrations):
        host.noop(f"the database is at version {state.version}")
        return
    yield StringCommand(psql(database), _stdin=script(database.migrations))


def psql(database: Database) -> str:
    """The command that runs the SQL on its standard input in one transaction."""
    options = ("--quiet", "--set", "ON_ERROR_STOP=1", "--single-transaction", "--file", "-")
    return shlex.join(commands.psql(database.service, *options))
