"""clip-search beyond its golden requests: a person's own documents, what is refused, int8, and a database that goes away."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from operations.search import searched
from tests.lab.e2e.one_host import DATA_ROOT, INVENTORY, PYINFRA, OneHost
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


def test_a_picture_a_text_and_both_find_their_document(search: OneHost) -> None:
    by_text = ask(search, text="a blue circle on a white background")
    assert by_text["document"]["id"] == "blue-circle"
    assert by_text["document"]["body"]["title"] == "Blue circle"
    assert by_text["score"] == pytest.approx(1, abs=1e-3)
    assert len(by_text["text_embedding"]) == 384
    assert len(by_text["image_embedding"]) == 768


def test_a_person_s_own_documents_are_found_and_replaced(search: OneHost, tmp_path: Path) -> None:
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


def test_what_is_no_document_is_refused_whole(search: OneHost, tmp_path: Path) -> None:
    done = search.run(*PUT, written(tmp_path / "documents.jsonl", {"id": "a", "text": "b"}, {"text": "c"}))
    assert done.code != 0
    assert "line 2: found no id" in done.output
    assert "Traceback" not in done.output


def test_what_is_no_picture_is_an_error_of_that_request_alone(search: OneHost) -> None:
    with pytest.raises(Exception, match="cannot identify image file"):
        ask(search, image=base64.b64encode(b"no picture").decode())
    assert ask(search, text="a blue circle on a white background")["document"]["id"] == "blue-circle"


def test_the_server_only_reads_the_database(search: OneHost) -> None:
    image = search.container()["Config"]["Image"]
    code, said = search.try_root(
        f"docker run --rm --network none --volume {DATA_ROOT}/database/socket:/database:ro {image} "
        'python3 -c "import psycopg; '
        "psycopg.connect('host=/database user=search dbname=tritonhost').execute('DELETE FROM documents')\""
    )
    assert code != 0
    assert "permission denied for table documents" in said


def test_a_database_that_was_restarted_is_connected_to_again(search: OneHost) -> None:
    search.root("systemctl restart triton-database")
    assert ask(search, text="a blue circle on a white background")["document"]["id"] == "blue-circle"


def test_a_stopped_database_and_lost_vectors_are_seen_and_mended(search: OneHost) -> None:
    search.root(
        "docker exec triton-database psql -h /var/run/postgresql -U postgres tritonhost -c 'TRUNCATE embeddings'"
    )
    search.root("systemctl stop triton-database")
    assert search.verify("database").code != 0
    done = search.converge()
    assert "triton-database.service" in done.output
    search.verified()


def test_int8_is_calibrated_built_and_finds_the_same(search: OneHost) -> None:
    done = search.converge(INT8)
    assert "export: int8, calibrated with 8 documents" in done.output, done.output
    assert done.output.count("gives the golden answer") == 3
