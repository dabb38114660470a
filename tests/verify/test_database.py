"""The database of documents, for models that look something up."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from operations.facts.database import STATE_SQL
from operations.plan import Release
from operations.plan.artifacts import commands
from operations.plan.release import Database

CONNECT = (
    "import sys, psycopg; "
    f"psycopg.connect('host={commands.DATABASE} user=%s dbname=%s connect_timeout=5' % tuple(sys.argv[1:]))"
)

pytestmark = pytest.mark.usefixtures("journal")


@pytest.fixture
def database(release: Release) -> Database:
    """The release's database."""
    if release.database is None:
        pytest.skip(f"{release.settings.model} looks nothing up")
    return release.database


def test_database_runs_and_is_enabled(host: Any, database: Database) -> None:
    service = host.service(database.service)
    assert service.is_enabled
    assert service.is_running


def test_database_runs_its_image_and_has_no_network(host: Any, database: Database) -> None:
    container = json.loads(host.check_output(f"docker container inspect {database.service}"))[0]
    assert container["Config"]["Image"] == database.image.tag
    assert container["HostConfig"]["NetworkMode"] == "none"


def test_only_root_reaches_the_database_s_socket(host: Any, database: Database) -> None:
    assert host.file(database.directory).mode == 0o700
    assert host.file(database.directory).user == "root"


def test_server_can_only_read_from_the_database(
    host: Any, container: dict[str, Any], database: Database
) -> None:
    # beside the server's container, of its image, as its user and with its socket: it has no other way
    argv = ["docker", "run", "--rm", "--pull", "never", "--network", "none", *commands.LOCKED]
    argv += ["--user", container["Config"]["User"], "--volume", f"{database.socket}:{commands.DATABASE}:ro"]
    argv += ["--security-opt", f"label=level:{database.level}"] if database.level else []
    argv += ["--entrypoint", "python3", container["Image"], "-c", CONNECT]
    # as it does when it looks something up: what is refused below is refused for who it is
    reader = host.run(shlex.join([*argv, "search", "tritonhost"]))
    assert reader.rc == 0, reader.stderr
    for user, name in (("postgres", "tritonhost"), ("postgres", "postgres"), ("search", "postgres")):
        other = host.run(shlex.join([*argv, user, name]))
        assert other.rc != 0, f"{user} of the server's container connected to {name}"
        assert "FATAL" in other.stderr, other.stderr


def test_database_has_the_schema_and_documents(host: Any, database: Database) -> None:
    state = dict(line.split("|", 1) for line in query(host, database, STATE_SQL))
    assert state["version"] == str(max(database.migrations))
    for name in database.encoders.values():
        assert int(state.get(f"vectors:{name}", "0")) > 0


def test_vectors_of_each_encoder_have_an_index(host: Any, database: Database) -> None:
    definitions = query(host, database, "SELECT indexdef FROM pg_indexes WHERE tablename = 'embeddings'")
    for name in database.encoders.values():
        assert any("hnsw" in line and f"'{name}'" in line for line in definitions)


def query(host: Any, database: Database, sql: str) -> list[str]:
    """The rows of a query, unaligned."""
    argv = commands.psql(database.service, "--tuples-only", "--no-align", "--command", sql)
    return str(host.check_output(shlex.join(argv))).splitlines()
