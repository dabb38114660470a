"""The documents' database: what is refused before anything is stopped, and when it rests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from operations.database import readable, running
from operations.facts.database import Majors, RunningKey
from operations.plan.difference import difference
from operations.plan.release import plan_release
from tests.operations.harness import Host, commands_of, refusal_of
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
def test_a_database_its_image_can_read_is_left(found: tuple[str, str]) -> None:
    assert commands_of(readable, Host({Majors: found}), database=DATABASE) == []


def test_another_major_version_is_refused_while_the_old_one_runs() -> None:
    message = refusal_of(commands_of(readable, Host({Majors: ("16", "17")}), database=DATABASE))
    assert message.startswith(
        "documents.image: found PostgreSQL 17, expected 16, which wrote /var/lib/tritonhost/"
    )
    assert message.endswith("nothing was stopped")


def test_majors_are_read_from_the_directory_and_the_image() -> None:
    lines = ["data=16", "PATH=/usr/bin", "PG_MAJOR=17", "PG_VERSION=17.2-1", ""]
    assert Majors().process(lines) == ("16", "17")
    assert Majors().process(["data="]) == ("", "")


@pytest.mark.parametrize(("found", "commands"), [("", 1), ("another", 1), (DATABASE.key, 0)])
def test_a_container_of_other_options_is_started_anew(found: str, commands: int) -> None:
    assert len(commands_of(running, Host({RunningKey: found}), database=DATABASE)) == commands


def test_an_older_schema_is_a_difference_and_a_newer_one_is_none() -> None:
    assert SEARCH.database is not None
    newest = max(SEARCH.database.migrations)
    for version, differs in (
        (str(newest - 1), True),
        (str(newest), False),
        (str(newest + 1), False),
        ("", True),
    ):
        found = difference(SEARCH, replace(converged(SEARCH), database={"version": version}), {})
        assert ("schema version" in [row.what for row in found]) == differs
