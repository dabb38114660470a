"""clip-search beyond its golden requests: an operator's documents, refused requests, int8, and a database that fails."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from operations.server.search import searched
from tests.lab.e2e.one_host import DATA_ROOT, INVENTORY, PYINFRA, OneHost, difference_rows
from tests.verify.connection import connected

pytestmark = pytest.mark.lab

PUT = [*PYINFRA, "-y", INVENTORY, "operations.documents.put"]
INT8 = {"encoders": {"vision": {"precision": "int8"}, "text": {"precision": "int8"}}}


@pytest.fixture(scope="module")
def search(host: OneHost) -> Iterator[OneHost]:
    """The host, serving clip-search."""
    host.environment["LAB_MODEL"] = "clip-search"
    host.converge()
    yield host
    del host.environment["LAB_MODEL"]


def ask(host: OneHost, **request: Any) -> dict[str, Any]:
    with connected(host.target) as connection, connection.tunnel("127.0.0.1", 8001) as endpoint:
        return next(searched(endpoint, [request]))


def picture(color: str) -> str:
    """A PNG of one colour, base64."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), color).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def written(path: Path, *documents: dict[str, Any]) -> str:
    path.write_text("\n".join(map(json.dumps, documents)), "utf-8")
    return f"file={path}"


def test_text_picture_and_both_find_their_document(search: OneHost) -> None:
    by_text = ask(search, text="a blue circle on a white background")
    assert by_text["document"]["id"] == "blue-circle"
    assert by_text["document"]["body"]["title"] == "Blue circle"
    assert by_text["score"] == pytest.approx(1, abs=1e-3)
    assert len(by_text["text_embedding"]) == 384
    assert len(by_text["image_embedding"]) == 768


def test_own_documents_are_found_and_replaced(search: OneHost, tmp_path: Path) -> None:
    text = "a teal surface 42"
    first = {"id": "teal", "body": {"price": 1}, "text": text, "image": picture("teal")}
    odd = {"id": "it's; -- \\odd $d$", "body": {"q": "'; DROP TABLE documents; --"}, "text": "odd words here"}
    done = search.run(*PUT, written(tmp_path / "documents.jsonl", first, odd))
    assert done.code == 0, done.output
    assert "2 documents stored" in done.output
    assert ask(search, image=picture("teal"))["document"] == {"id": "teal", "body": {"price": 1}}
    assert ask(search, image=picture("teal"), text=text)["document"]["id"] == "teal"
    assert ask(search, text="odd words here")["document"]["id"] == odd["id"]
    done = search.run(*PUT, written(tmp_path / "documents.jsonl", {**first, "body": {"price": 2}}))
    assert done.code == 0, done.output
    assert ask(search, text=text)["document"]["body"] == {"price": 2}


def test_invalid_document_refuses_the_whole_file(search: OneHost, tmp_path: Path) -> None:
    done = search.run(*PUT, written(tmp_path / "documents.jsonl", {"id": "a", "text": "b"}, {"text": "c"}))
    assert done.code != 0
    assert "line 2: found no id" in done.output
    assert "Traceback" not in done.output


def test_invalid_picture_fails_only_its_own_request(search: OneHost) -> None:
    with pytest.raises(Exception, match="cannot identify image file"):
        ask(search, image=base64.b64encode(b"no picture").decode())
    assert ask(search, text="a blue circle on a white background")["document"]["id"] == "blue-circle"


def test_server_can_only_read_the_database(search: OneHost) -> None:
    image = search.container()["Config"]["Image"]
    code, said = search.try_root(
        f"docker run --rm --network none --volume {DATA_ROOT}/database/socket:/database:ro {image} "
        'python3 -c "import psycopg; '
        "psycopg.connect('host=/database user=search dbname=tritonhost').execute('DELETE FROM documents')\""
    )
    assert code != 0
    assert "permission denied for table documents" in said


def test_server_cannot_administer_the_database(search: OneHost) -> None:
    image = search.container()["Config"]["Image"]
    for user, name in (("postgres", "tritonhost"), ("postgres", "postgres"), ("search", "postgres")):
        code, said = search.try_root(
            f"docker run --rm --network none --user 60600:60600 --volume {DATA_ROOT}/database/socket:/database:ro {image} "
            f"python3 -c \"import psycopg; psycopg.connect('host=/database user={user} dbname={name}')\""
        )
        assert code != 0, (user, name)
        assert "Peer authentication failed" in said or "no pg_hba.conf entry" in said, said


def test_documents_of_an_earlier_version_s_database_are_kept(search: OneHost) -> None:
    """The earlier unit ran it with the data directory's own rules, which trust every local user."""
    asked = {"text": "a blue circle on a white background"}
    count = f"{PSQL} -c 'SELECT count(*) FROM documents'"
    before = search.root(count)
    search.root(
        f"sed -i -e 's/ -c hba_file=[^ ]*//' -e '/pg_hba.conf/d' -e 's/tritonhost.database=[0-9a-f]*/tritonhost.database=0/' {UNIT}; "
        f"{RESTARTED}"
    )
    administrator = (
        f"docker exec --user 60600 triton-database {PSQL.partition('triton-database ')[2]} -c 'SELECT 1'"
    )
    assert search.try_root(administrator)[0] == 0, "not as an earlier version ran it"
    assert "database" in " ".join(difference_rows(search.converge().output))
    code, said = search.try_root(administrator)
    assert (code != 0, "Peer authentication failed" in said) == (True, True), said
    assert search.root(count) == before
    assert ask(search, **asked)["document"]["id"] == "blue-circle"


def test_server_reconnects_to_a_restarted_database(search: OneHost) -> None:
    search.root("systemctl restart triton-database")
    assert ask(search, text="a blue circle on a white background")["document"]["id"] == "blue-circle"


PSQL = "docker exec --interactive --user postgres triton-database psql -h /var/run/postgresql -U postgres -qAt tritonhost"
INDEX = "SELECT {} FROM pg_indexes WHERE tablename = 'embeddings' AND indexdef LIKE '%hnsw%' ORDER BY indexname LIMIT 1"
UNIT = "/etc/systemd/system/triton-database.service"
RESTARTED = "systemctl daemon-reload; systemctl restart triton-database"
# name -> what breaks the database, the test that must fail, and a repair; empty if the next deploy repairs it
BREAKAGES = {
    "stopped": ("systemctl stop triton-database", "test_database_runs_and_is_enabled", ""),
    "its vectors are lost": (
        f"{PSQL} -c 'TRUNCATE embeddings'",
        "test_database_has_the_schema_and_documents",
        "",
    ),
    # as for the next three: the fact compares the schema's number and counts vectors, and a search works without it
    "an index is lost": (
        f'{PSQL} -c "{INDEX.format("indexdef")}" >/run/index; '
        f'{PSQL} -c "DROP INDEX \\"$({PSQL} -c "{INDEX.format("indexname")}")\\""',
        "test_vectors_of_each_encoder_have_an_index",
        f"{PSQL} </run/index; rm /run/index",
    ),
    "its directory is open": (
        f"chmod 755 {DATA_ROOT}/database",
        "test_only_root_reaches_the_database_s_socket",
        "",
    ),
    "everybody is its administrator": (
        f"cp -p {UNIT} /run/unit; sed -i 's/all postgres peer/all all trust/' {UNIT}; {RESTARTED}; "
        f"cp -p /run/unit {UNIT}; rm /run/unit; systemctl daemon-reload",
        "test_server_can_only_read_from_the_database",
        RESTARTED,
    ),
    "it has a network": (
        # started by an edited unit, which is restored afterwards
        f"cp -p {UNIT} /run/unit; sed -i 's/--network none/--network bridge/' {UNIT}; {RESTARTED}; "
        f"cp -p /run/unit {UNIT}; rm /run/unit; systemctl daemon-reload",
        "test_database_runs_its_image_and_has_no_network",
        RESTARTED,
    ),
}


@pytest.mark.parametrize("what", BREAKAGES)
def test_broken_database_is_seen_and_repaired(search: OneHost, what: str) -> None:
    script, seen_by, repair = BREAKAGES[what]
    search.root(script)
    seen = search.verify("database")
    assert seen.names(seen_by), f"{what}: {seen.output}"
    if repair:
        assert difference_rows(search.deploy("--dry").output) == [], "the deploy sees it by now"
        search.root(repair)
    else:
        assert "database" in " ".join(difference_rows(search.converge().output))
    search.verified("database or models_are_ready or golden")


def test_int8_is_calibrated_built_and_finds_the_same(search: OneHost) -> None:
    asked = (
        {"text": "a blue circle on a white background"},
        {"text": "a red square"},
        {"image": picture("blue")},
        {"image": picture("red"), "text": "a red square"},
    )
    search.converge()
    before = [ask(search, **request)["document"]["id"] for request in asked]
    assert len(set(before)) > 1
    done = search.converge(INT8)
    assert "export: int8, calibrated with 8 documents" in done.output, done.output
    assert done.output.count("gives the golden answer") == 3
    assert [ask(search, **request)["document"]["id"] for request in asked] == before
