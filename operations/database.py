"""PostgreSQL with pgvector, for models that look documents up: its container, its schema."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation
from pyinfra.operations import files, systemd

from operations import etc_files, host_files, serving_image
from operations.facts.database import DatabaseState, Majors, RunningKey
from operations.plan import commands
from operations.plan.migrations import script
from operations.plan.release import Database, Release
from operations.refusal import refuse
from operations.systemd_units import reloaded


@deploy("Database")
def run(release: Release) -> None:
    """Before the server, whose look-up model connects when it is loaded; none for a language model."""
    database = release.database
    if database is None:
        return
    unit = f"{database.service}.service"
    serving_image.made(release, database.image, "Pull the database's image")
    readable(name="Check that the image reads the database", database=database)
    # root alone may enter: whoever reaches the socket in it may do everything
    files.directory(name="Directory of the database", path=database.directory, mode="700")
    files.directory(name="Directory of its socket", path=database.socket)
    path = host_files.database_unit_path(release.settings)
    text = host_files.rendered(release)[path]
    etc_files.written(name="Install the database's unit", path=path, text=text)
    reloaded(name="Let systemd read the database's unit", unit=unit)
    systemd.service(name="Enable and start the database", service=unit, running=True, enabled=True)
    running(name="Run the database from its image", database=database)
    migrated(name="Migrate the database", database=database)


@operation()
def readable(database: Database) -> Generator[FunctionCommand, None, None]:
    """
    The image's PostgreSQL is of the major version that wrote the database, or there is none yet.

    + database: what to run

    Another one would not start, and what serves would have no database: it is refused while the old one runs.
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
def running(database: Database) -> Generator[str, None, None]:
    """
    The running container is of the wanted image and options.

    + database: what to run
    """
    if host.get_fact(RunningKey, container=database.service) == database.key:
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
    if int(state.get("version") or 0) >= max(database.migrations):
        host.noop(f"the database is at version {state['version']}")
        return
    yield StringCommand(psql(database), _stdin=script(database.migrations))


def psql(database: Database) -> str:
    """A command that runs the SQL of its standard input, all of it or none."""
    options = ("--quiet", "--set", "ON_ERROR_STOP=1", "--single-transaction", "--file", "-")
    return shlex.join(commands.psql(database.service, *options))
