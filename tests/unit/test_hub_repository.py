"""Reading a repository, from the hub that the lab serves, from hubs that misbehave, and from a directory."""

from __future__ import annotations

import hashlib
import http.server
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from operations import hub_repository
from operations.hub_repository import read_directory, read_hub
from operations.intake.secrets import SecretMissing
from operations.plan import PlanError
from operations.plan.proposal.repository import Repository
from tests.lab.mirror import hubindex
from tests.lab.mirror.server import serving
from tests.unit.hub_models import BY_NAME

LLAMA = BY_NAME["meta-llama/Llama-3.1-8B-Instruct"]
TOKEN = "hf_token_of_the_tests"


def safetensors(*shapes: tuple[str, int]) -> bytes:
    """A file whose header has these types and counts, and no numbers."""
    tensors: dict[str, Any] = {}
    offset = 0
    for number, (kind, count) in enumerate(shapes):
        tensors[f"t{number}"] = {
            "dtype": kind,
            "shape": [count],
            "data_offsets": [offset, offset + 2 * count],
        }
        offset += 2 * count
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a small repository."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA.config))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "chat_template": "{{ messages }}"})
    )
    (folder / "model-00001-of-00002.safetensors").write_bytes(safetensors(("BF16", 700), ("F32", 30)))
    (folder / "model-00002-of-00002.safetensors").write_bytes(safetensors(("BF16", 50)))
    (folder / "README.md").write_text("# words\n")
    return folder


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The lab's hub: its cache, and its URL. Starting one takes a second."""
    cache = tmp_path_factory.mktemp("cache")
    with serving(cache, "127.0.0.1", 0, 0) as at:
        yield cache, at.hub


@pytest.fixture
def hub(mirror: tuple[Path, str], folder: Path) -> Callable[..., str]:
    """Publishes the files as owner/name, to holders of a token only where one is given: the hub's URL."""

    def publish(token: str | None = None) -> str:
        cache, url = mirror
        hubindex.publish(cache / "hub", "owner/name", folder, token)
        return url

    return publish


@pytest.fixture(autouse=True)
def without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_TOKEN_SECRET_OCID"):
        monkeypatch.delenv(name, raising=False)


def refused(name: str, endpoint: str, revision: str | None = None) -> PlanError:
    with pytest.raises(PlanError) as caught:
        read_hub(name, endpoint, revision)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.slow
def test_repository_is_read_with_its_commit_and_counts(hub: Callable[..., str], folder: Path) -> None:
    endpoint = hub()
    found = read_hub("owner/name", endpoint)
    assert found.name == "owner/name"
    assert len(found.revision) == 40 and not found.gated
    assert found.config == LLAMA.config
    assert found.tokenizer["bos_token"] == "<s>"
    assert set(found.files) == {path.name for path in folder.iterdir()}
    assert found.counts == {"BF16": 750, "F32": 30}


def test_branch_and_commit_lead_to_the_same(hub: Callable[..., str], folder: Path) -> None:
    endpoint = hub()
    found = read_hub("owner/name", endpoint, "main")
    assert len(found.revision) == 40
    assert read_hub("owner/name", endpoint, found.revision) == found
    error = refused("owner/name", endpoint, "v9")
    assert str(error) == "--revision: found v9, expected a commit, branch or tag of owner/name"


def test_files_are_read_at_the_commit(hub: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch may move between two requests."""
    asked: list[str | None] = []

    def recorded(method: Callable[..., Any]) -> Callable[..., Any]:
        def record(*words: Any, **given: Any) -> Any:
            asked.append(given.get("revision"))
            return method(*words, **given)

        return record

    for name in ("hf_hub_download", "parse_safetensors_file_metadata"):
        monkeypatch.setattr(HfApi, name, recorded(getattr(HfApi, name)))
    found = read_hub("owner/name", hub(), "main")
    # two small files, and the headers of two files of weights
    assert asked == [found.revision] * 4


def test_gated_repository_needs_a_token(hub: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = hub(TOKEN)
    error = refused("owner/name", endpoint)
    assert error.reference == "gated"
    assert f"accept its licence at {endpoint}/owner/name, and export HF_TOKEN" in str(error)
    monkeypatch.setenv("HF_TOKEN", "hf_another_token")
    assert refused("owner/name", endpoint).reference == "gated"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert read_hub("owner/name", endpoint).gated


def test_token_that_is_none_is_refused_without_its_text(
    hub: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "'hf_quoted_token'")
    with pytest.raises(SecretMissing) as caught:
        read_hub("owner/name", hub())
    assert str(caught.value) == "HF_TOKEN: found quotation marks around it; leave them out"


def test_absent_repository_may_be_private(hub: Callable[..., str], folder: Path) -> None:
    endpoint = hub()
    error = refused("owner/other", endpoint)
    assert str(error).startswith(f"owner/other: found no such repository on {endpoint}, or a private one")
    assert "export HF_TOKEN" in str(error)


@pytest.mark.parametrize("name", ["name", "a/b/c", "../etc", "o/..", "https://huggingface.co/o/n", ""])
def test_name_that_is_none_is_refused_without_a_question(name: str) -> None:
    assert refused(name, "http://127.0.0.1:9").key == "REPOSITORY"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 1000 + b"]" * 1000, "of at most 100 levels"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "of at most 100 levels"),
        (b"<!DOCTYPE html><p>log in", "found an HTML page"),
        (b"[1, 2]", "a JSON file with a table"),
        (b'{"a": ', "a JSON file with a table"),
        (b"\xff\xfe", "a JSON file with a table"),
    ],
)
def test_damaged_config_is_refused(hub: Callable[..., str], folder: Path, content: bytes, words: str) -> None:
    (folder / "config.json").write_bytes(content)
    endpoint = hub()
    error = refused("owner/name", endpoint)
    assert str(error).startswith("config.json: ") and words in str(error)


@pytest.mark.slow
def test_config_of_200_mb_ends_at_once(hub: Callable[..., str], folder: Path) -> None:
    with (folder / "config.json").open("wb") as file:
        file.truncate(200 * 2**20)
    endpoint = hub()
    began = time.monotonic()
    error = refused("owner/name", endpoint)
    assert str(error).startswith("config.json: found 200 MiB, expected at most 16 MiB")
    assert time.monotonic() - began < 2


def test_damaged_header_is_no_count(hub: Callable[..., str], folder: Path) -> None:
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"\xff" * 100)
    endpoint = hub()
    assert read_hub("owner/name", endpoint).counts == {}


# --- hubs that misbehave


@contextmanager
def answering(status: int, body: bytes, kind: str = "application/json", delay: float = 0) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(delay)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(BrokenPipeError):  # the client has gone
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "kind", "reference"),
    [
        (200, b"<!doctype html><form>log in</form>", "text/html", "hub-answer"),
        (200, b"{}", "application/json", "hub-answer"),
        (200, b"[]", "application/json", "hub-answer"),
        (418, b"no", "text/plain", "hub-answer"),
    ],
)
def test_what_is_no_hub_is_named(status: int, body: bytes, kind: str, reference: str) -> None:
    with answering(status, body, kind) as endpoint:
        error = refused("owner/name", endpoint)
    assert error.reference == reference, str(error)
    assert "--hub" in str(error)


@pytest.mark.slow
def test_slow_hub_is_named_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_repository, "SECONDS", 0.3)
    with answering(200, b"{}", delay=1) as endpoint:
        error = refused("owner/name", endpoint)
    assert (
        str(error)
        == f"{endpoint}: found none, expected an answer within 0.3 s; try again, or name a mirror with --hub"
    )


def test_hub_that_is_not_there_is_named() -> None:
    error = refused("owner/name", "http://127.0.0.1:9")
    assert error.reference == "hub-unreached"
    assert "name a mirror with --hub, or a directory" in str(error)


# --- a directory


def test_directory_is_read_without_a_network(folder: Path) -> None:
    revision = "b" * 40
    found = read_directory(folder, "owner/name", revision)
    assert (found.name, found.revision, found.gated) == ("owner/name", revision, False)
    assert found.config == LLAMA.config
    assert found.counts == {"BF16": 750, "F32": 30}


def test_directory_of_a_download_says_what_it_is(tmp_path: Path, folder: Path) -> None:
    commit = hashlib.sha1(b"x").hexdigest()
    there = tmp_path / "models--owner--some-name" / "snapshots" / commit
    there.parent.mkdir(parents=True)
    folder.rename(there)
    found = read_directory(there)
    assert (found.name, found.revision) == ("owner/some-name", commit)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "revision", "key"),
    [
        (None, "b" * 40, "--known-as"),
        ("owner/name", None, "--revision"),
        ("owner/name", "main", "--revision"),
    ],
)
def test_directory_that_does_not_say_it_is_refused(
    folder: Path, name: str | None, revision: str | None, key: str
) -> None:
    with pytest.raises(PlanError) as caught:
        read_directory(folder, name, revision)
    assert caught.value.key == key


@pytest.mark.slow
def test_mirror_and_directory_give_the_same(hub: Callable[..., str], folder: Path) -> None:
    endpoint = hub()
    found = read_hub("owner/name", endpoint)
    same: Repository = read_directory(folder, found.name, found.revision)
    assert same == found
