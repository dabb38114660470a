"""files/image/download_weights.py without a hub: what it repeats, what it gives up, and what it says then."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "files" / "image" / "download_weights.py"


@pytest.fixture
def download() -> ModuleType:
    spec = importlib.util.spec_from_file_location("download_weights", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Failing:
    """A call that fails each time, and counts."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        raise self.error


def answer(status: int, **headers: str) -> Exception:
    """An error as huggingface_hub raises it for what the hub answered."""
    error = RuntimeError("https://hub.invalid/file?X-Signature=CANARY")
    error.response = SimpleNamespace(  # type: ignore[attr-defined]
        status_code=status, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )
    return error


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, without making them."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


def test_transient_errors_are_retried_with_growing_pauses(download: ModuleType, pauses: list[float]) -> None:
    for error in (answer(503), ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")):
        pauses.clear()
        call = Failing(error)
        with pytest.raises(type(error)):
            download.patiently(call)
        assert call.calls == 6
        assert pauses == [2, 4, 8, 16, 32]


@pytest.mark.parametrize(
    "error",
    [
        answer(401),
        answer(403),
        answer(404),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
    ],
)
def test_permanent_errors_are_not_retried(
    download: ModuleType, pauses: list[float], error: Exception
) -> None:
    call = Failing(error)
    with pytest.raises(type(error)):
        download.patiently(call)
    assert call.calls == 1
    assert pauses == []


def test_full_disk_is_recognized_in_a_wrapped_error(download: ModuleType) -> None:
    wrapped = RuntimeError("while downloading")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert download.number_of(wrapped) == errno.ENOSPC
    assert download.number_of(RuntimeError()) is None


def test_retry_after_is_read_as_seconds_or_a_date(download: ModuleType) -> None:
    assert download.asked_for("7") == 7
    assert download.asked_for("86400") == 300
    assert 18 <= download.asked_for(formatdate(time.time() + 20, usegmt=True)) <= 21
    assert download.asked_for(formatdate(0, usegmt=True)) == 0
    assert download.asked_for("") is None
    assert download.asked_for("soon") is None


def test_pause_follows_retry_after(download: ModuleType, pauses: list[float]) -> None:
    with pytest.raises(RuntimeError):
        download.patiently(Failing(answer(429, Retry_After="3")))
    assert pauses == [3] * 5


def test_error_text_omits_url_queries(download: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    error = RuntimeError("outer")
    error.__cause__ = OSError("no answer from https://cdn.invalid/file?X-Signature=CANARY\nand more")
    assert download.refused("owner/name", "0" * 40, error, False, "https://hub.invalid") == 1
    said = capsys.readouterr().err
    assert said == (
        "weights: owner/name: https://hub.invalid: OSError: no answer from https://cdn.invalid/file and more; "
        "expected the hub to answer; run again to resume\n"
    )


@pytest.mark.requirement("R30")
def test_lfs_pointer_is_distinguished_from_weights(download: ModuleType, tmp_path: Path) -> None:
    pointer, weights = tmp_path / "pointer", tmp_path / "weights"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "utf-8")
    weights.write_bytes(b"\x00\x01")
    assert download.is_pointer(str(pointer))
    assert not download.is_pointer(str(weights))


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="a serving image is Linux")
def test_a_file_system_is_named_as_df_names_it(download: ModuleType, tmp_path: Path) -> None:
    listed = subprocess.run(["df", "--output=source", tmp_path], capture_output=True, text=True, check=True)
    assert download.device_of(str(tmp_path)) == listed.stdout.split()[-1]


@pytest.mark.slow
def test_unreachable_hub_is_named_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
    request = {
        "type": "weights",
        "repository": "owner/name",
        "revision": "0" * 40,
        "include": ["*"],
        "exclude": [],
        "allow_pickle": False,
        "endpoint": endpoint,
    }
    (tmp_path / "request.json").write_text(json.dumps(request), "utf-8")
    (tmp_path / "output").mkdir()
    # the same program, without its pauses
    program = f"import runpy, sys, time; time.sleep = lambda _: None; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    argv = [sys.executable, "-c", program, str(tmp_path / "request.json"), str(tmp_path / "output")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    [said] = done.stderr.splitlines()
    assert said.startswith(f"weights: owner/name: {endpoint}: ")
    assert "Connection refused" in said
    assert said.endswith("; expected the hub to answer; run again to resume")


# --- hubs that answer, and are none


LOGIN = b"<!DOCTYPE html><html><title>Sign in</title></html>"
REVISION = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """One repository, with what a mirror may leave out of its answers."""

    files: dict[str, bytes]
    leaves_out: str
    asked: list[str]

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        if self.leaves_out == "everything":
            if self.path != "/login":
                return self.answer(302, b"", Location="/login")
            return self.answer(200, LOGIN, Content_Type="text/html")
        if self.path.startswith("/api/"):
            siblings: list[dict[str, object]] = []
            for name, content in self.files.items():
                blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                stated = {} if self.leaves_out == "checksums" else {"size": len(content), "blobId": blob}
                siblings.append({"rfilename": name, **stated})
            answer = {"id": "owner/name", "sha": REVISION, "siblings": siblings}
            return self.answer(200, json.dumps(answer).encode(), Content_Type="application/json")
        if self.leaves_out == "files":
            return self.answer(404, b"", X_Error_Code="EntryNotFound")
        content = self.files[self.path.partition(f"/resolve/{REVISION}/")[2]]
        commit = {} if self.leaves_out == "commit" else {"X_Repo_Commit": REVISION}
        return self.answer(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', **commit)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def hub(files: dict[str, bytes], leaves_out: str = "") -> Iterator[tuple[str, list[str]]]:
    """A hub's address, and what it was asked."""
    asked: list[str] = []
    named = {name.replace("__", "-").replace("_", "."): content for name, content in files.items()}
    handler = type("OneHub", (Hub,), {"files": named, "leaves_out": leaves_out, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def downloaded(tmp_path: Path, endpoint: str, **changed: object) -> subprocess.CompletedProcess[str]:
    """The program's run, without its pauses."""
    request: dict[str, object] = {"type": "weights", "repository": "owner/name", "revision": REVISION}
    request |= {"include": ["*"], "exclude": [], "allow_pickle": False, "endpoint": endpoint, **changed}
    (tmp_path / "request.json").write_text(json.dumps(request), "utf-8")
    (tmp_path / "output").mkdir()
    program = f"import runpy, sys, time; time.sleep = lambda _: None; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    argv = [sys.executable, "-c", program, str(tmp_path / "request.json"), str(tmp_path / "output")]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


WHOLE = {"config_json": b"{}", "model_safetensors": b"weights"}


@pytest.mark.slow
def test_complete_hub_answers_are_downloaded(tmp_path: Path) -> None:
    with hub(WHOLE) as (endpoint, _):
        done = downloaded(tmp_path, endpoint)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "output" / "model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("leaves_out", "said"),
    [
        ("checksums", "this mirror states no checksum of config.json, model.safetensors, expected one"),
        ("commit", "not a hub's answer (no header X-Repo-Commit), expected one of a Hugging Face hub"),
        ("everything", "not a hub's answer (HTML), expected one of a Hugging Face hub"),
        ("files", "HTTP 404"),
    ],
)
@pytest.mark.slow
def test_incomplete_mirror_is_queried_once_and_named(tmp_path: Path, leaves_out: str, said: str) -> None:
    with hub(WHOLE, leaves_out) as (endpoint, asked):
        done = downloaded(tmp_path, endpoint)
    [line] = done.stderr.splitlines()
    assert line.startswith(f"weights: owner/name: {endpoint}: {said}")
    assert done.returncode == 65, "which says that another run ends alike"
    assert "run again" not in line
    assert "attempt" not in done.stdout
    assert len(asked) == len(set(asked))


def test_untrusted_certificate_is_not_retried(
    download: ModuleType, pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    wrapped = RuntimeError("while asking")
    wrapped.__cause__ = OSError(
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate"
    )
    call = Failing(wrapped)
    with pytest.raises(RuntimeError):
        download.patiently(call)
    assert (call.calls, pauses) == (1, [])
    assert download.refused("owner/name", REVISION, wrapped, False) == 65
    assert "run again" not in capsys.readouterr().err


def test_wrapped_answer_is_classified_by_its_status(download: ModuleType, pauses: list[float]) -> None:
    for status, calls in ((404, 1), (410, 1), (503, 6)):
        wrapped = RuntimeError("cannot find the file on the hub")
        wrapped.__cause__ = answer(status)
        call = Failing(wrapped)
        with pytest.raises(RuntimeError):
            download.patiently(call)
        assert call.calls == calls


SHARDS = {"model__00001__of__00002_safetensors": b"1", "model__00002__of__00002_safetensors": b"2"}


def index(*shards: str) -> bytes:
    return json.dumps({"weight_map": {f"layer.{n}": shard for n, shard in enumerate(shards)}}).encode()


@pytest.mark.parametrize(
    ("files", "exclude", "gone"),
    [
        (
            {**WHOLE, "model_safetensors_index_json": index("model.safetensors", "more.safetensors")},
            [],
            "more",
        ),
        (SHARDS, ["*00002-of*"], "model-00002-of-00002"),
        ({"model_safetensors_index_json": index("a.safetensors"), "b_safetensors": b"b"}, [], ""),
        ({**SHARDS, "model_safetensors_index_json": b"[]"}, [], "found no list of its files"),
    ],
)
@pytest.mark.slow
def test_weights_are_checked_against_index_and_file_names(
    tmp_path: Path, files: dict[str, bytes], exclude: list[str], gone: str
) -> None:
    with hub(files) as (endpoint, asked):
        done = downloaded(tmp_path, endpoint, exclude=exclude)
    assert done.returncode == (65 if gone else 0), done.stderr
    assert gone in done.stderr
    # and before the gigabytes of the others were fetched
    assert not (
        gone and any(f"GET /owner/name/resolve/{REVISION}/model" in a and "index" not in a for a in asked)
    )


REQUEST = {"include": ["*"], "exclude": ["unwanted*"], "allow_pickle": False, "revision": "a" * 40}


@pytest.mark.parametrize(
    "path", ["model.bin", "MODEL.BIN", "sub/x.pkl", "x.joblib", "modeling.py", "x.PY", "lib.so", "../x.json"]
)
def test_a_pickle_or_a_program_is_never_selected(download: ModuleType, path: str) -> None:
    assert not download.selected(path, REQUEST)


def test_python_files_are_selected_only_at_the_reviewed_commit(download: ModuleType) -> None:
    reviewed = {**REQUEST, "include": ["*.safetensors"], "code_revision": "a" * 40}
    assert download.selected("modeling.py", reviewed)
    for other in ({**reviewed, "code_revision": "b" * 40}, {**reviewed, "exclude": ["*.py"]}):
        assert not download.selected("modeling.py", other)
    for program in ("lib.so", "run.sh", "x.pyc", "model.bin"):
        assert not download.selected(program, reviewed), program


@pytest.mark.requirement("R55")
def test_a_repository_of_pickles_is_refused_in_one_line(
    download: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("config.json", "pytorch_model.bin", "model.PTH")
    listed = SimpleNamespace(sha="a" * 40, siblings=[SimpleNamespace(rfilename=name) for name in names])
    hub = SimpleNamespace(repo_info=lambda *_, **__: listed)
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=lambda **_: hub))
    request = {**REQUEST, "type": "weights", "repository": "owner/name", "endpoint": "https://hub.invalid"}
    (tmp_path / "request.json").write_text(json.dumps(request), "utf-8")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys, "argv", ["download_weights.py", str(tmp_path / "request.json"), str(tmp_path)])
    assert download.main() == 65
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("weights: owner/name: found weights as pickles only at aaaa")
    assert "(model.PTH, pytorch_model.bin), expected *.safetensors" in said


def test_description_holds_small_files_and_sizes_of_the_rest(
    download: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = b'{"model_type": "llama"}'
    blob = hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()
    sizes = {"config.json": len(text), "a.safetensors": 10, "sub/b.safetensors": 20, "readme.md": 5}
    listed = SimpleNamespace(
        sha="a" * 40,
        siblings=[
            SimpleNamespace(rfilename=name, size=size, lfs=None, blob_id=blob) for name, size in sizes.items()
        ],
    )
    fetched = []

    def fetch(_: str, path: str, **options: Any) -> None:
        fetched.append(path)
        (Path(options["local_dir"]) / path).write_bytes(text)

    hub = SimpleNamespace(repo_info=lambda *_, **__: listed, hf_hub_download=fetch)
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=lambda **_: hub))
    output = tmp_path / "output"
    output.mkdir()
    request = {
        **REQUEST,
        "type": "description",
        "include": ["*.safetensors", "*.json"],
        "repository": "owner/name",
        "endpoint": "https://hub.invalid",
    }
    (tmp_path / "request.json").write_text(json.dumps(request), "utf-8")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys, "argv", ["download_weights.py", str(tmp_path / "request.json"), str(output)])
    assert download.main() == 0, capsys.readouterr().err
    assert fetched == ["config.json"]
    assert sorted(path.name for path in output.iterdir()) == ["config.json", "hub-sizes.json"]
    assert json.loads((output / "hub-sizes.json").read_text()) == {
        "a.safetensors": 10,
        "sub/b.safetensors": 20,
    }
