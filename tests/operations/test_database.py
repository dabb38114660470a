"""The documents' database: what is refused before anything is stopped, and when it rests."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from operations.database import kept, psql, readable, running
from operations.facts.database import Majors, RunningKey, state_command
from operations.plan.artifacts import commands
from operations.plan.difference import difference
from operations.plan.observed.observed import DatabaseContents
from operations.plan.planning import plan_release
from operations.remote import host_files, rendering
from tests.operations.harness import Host, commands_of, refusal_of, text_of
from tests.unit.builders import DIGEST, converged, gpu, settings

SEARCH = plan_release(
    settings(
        model="clip-search",
        image_digests={
            name: DIGEST for name in ("nvidia/tritonserver:24.09-py3", "pgvector/pgvector:0.8.6-pg16")
        },
    ),
    [gpu()],
)
DATABASE = SEARCH.database
assert DATABASE is not None


@pytest.mark.parametrize("found", [("", "17"), ("17", "17"), ("17", "")])
def test_database_readable_by_its_image_is_not_changed(found: tuple[str, str]) -> None:
    assert commands_of(readable, Host({Majors: found}), database=DATABASE) == []


def test_other_major_version_is_refused_before_any_stop() -> None:
    message = refusal_of(commands_of(readable, Host({Majors: ("16", "17")}), database=DATABASE))
    assert message.startswith(
        "documents.image: found PostgreSQL 17, expected 16, which wrote /var/lib/tritonhost/"
    )
    assert message.endswith("nothing was stopped")


def test_majors_are_read_from_directory_and_image() -> None:
    lines = ["data=16", "PATH=/usr/bin", "PG_MAJOR=17", "PG_VERSION=17.2-1", ""]
    assert Majors().process(lines) == ("16", "17")
    assert Majors().process(["data="]) == ("", "")


@pytest.mark.parametrize(("found", "count"), [("", 1), ("another", 1), (DATABASE.key, 0)])
def test_container_with_other_options_is_restarted(found: str, count: int) -> None:
    assert len(commands_of(running, Host({RunningKey: found}), database=DATABASE)) == count


def test_old_unit_is_kept_until_the_new_database_starts() -> None:
    assert DATABASE is not None
    path = "/etc/systemd/system/triton-database.service"
    [keep] = commands_of(kept, Host({RunningKey: "another"}), database=DATABASE, path=path)
    [restart] = commands_of(running, Host({RunningKey: "another"}), database=DATABASE)
    assert f"PATHS={path}\n" in text_of(keep)
    for command in (keep, restart):
        assert "KEPT=/run/triton-database.service.kept\n" in text_of(command)
    assert "UNIT=triton-database.service\n" in text_of(restart)
    # it comes before the unit is written
    for found in ("", DATABASE.key):
        assert commands_of(kept, Host({RunningKey: found}), database=DATABASE, path=path) == []


def test_only_an_older_schema_is_a_difference() -> None:
    assert SEARCH.database is not None
    newest = max(SEARCH.database.migrations)
    for version, differs in (
        (newest - 1, True),
        (newest, False),
        (newest + 1, False),
        (None, True),
    ):
        found = difference(SEARCH, replace(converged(SEARCH), database=DatabaseContents(version)), [])
        assert ("schema version" in [row.what for row in found]) == differs


def test_database_runs_with_minimal_rights() -> None:
    options = " ".join(commands.DATABASE_OPTIONS)
    for word in ("--cap-drop ALL", "no-new-privileges", "--pids-limit 512", "core=0"):
        assert word in options
    template = (rendering.TEMPLATES / "database.service.j2").read_text("utf-8")
    assert "{{ hardening }}" in template


def test_connection_rules_come_from_the_unit(tmp_path: Path) -> None:
    assert DATABASE is not None
    unit = host_files.rendered(SEARCH)[host_files.paths(SEARCH.settings).database_unit].text
    directory = DATABASE.directory
    [written] = [line for line in unit.splitlines() if "pg_hba.conf'" in line]
    script = written.removeprefix("ExecStartPre=/bin/sh -c '").removesuffix("'")
    assert not set(script) & set("'\\%$")
    subprocess.run(["sh", "-c", script.replace(directory, str(tmp_path))], check=True)
    rules = tmp_path / "pg_hba.conf"
    assert rules.read_text("utf-8") == "local tritonhost search trust\nlocal all postgres peer\n"
    assert rules.stat().st_mode & 0o777 == 0o644
    assert f" --volume {directory}/pg_hba.conf:{commands.HBA_FILE}:ro \\\n" in unit
    assert f" -c hba_file={commands.HBA_FILE}\n" in unit
    assert unit.index(written) < unit.index("ExecStart=/usr/bin/docker")


def test_psql_runs_as_the_container_s_postgres_user() -> None:
    assert DATABASE is not None
    for command in (psql(DATABASE), state_command(DATABASE.service)):
        assert command.startswith("docker exec --interactive --user postgres triton-database psql ")
