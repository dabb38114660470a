"""files/image/download_weights.py without a hub: what it repeats, what it gives up, and what it says then."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from types import ModuleType, SimpleNamespace

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


def test_what_passes_is_repeated_with_pauses_that_grow_and_end(
    download: ModuleType, pauses: list[float]
) -> None:
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
def test_what_does_not_pass_is_asked_once(
    download: ModuleType, pauses: list[float], error: Exception
) -> None:
    call = Failing(error)
    with pytest.raises(type(error)):
        download.patiently(call)
    assert call.calls == 1
    assert pauses == []


def test_a_full_disk_is_known_when_it_is_wrapped(download: ModuleType) -> None:
    wrapped = RuntimeError("while downloading")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert download.number_of(wrapped) == errno.ENOSPC
    assert download.number_of(RuntimeError()) is None


def test_the_hub_says_how_long_to_wait_in_seconds_or_by_a_date(download: ModuleType) -> None:
    assert download.asked_for("7") == 7
    assert download.asked_for("86400") == 300
    assert 18 <= download.asked_for(formatdate(time.time() + 20, usegmt=True)) <= 21
    assert download.asked_for(formatdate(0, usegmt=True)) == 0
    assert download.asked_for("") is None
    assert download.asked_for("soon") is None


def test_a_pause_is_the_one_that_was_asked_for(download: ModuleType, pauses: list[float]) -> None:
    with pytest.raises(RuntimeError):
        download.patiently(Failing(answer(429, Retry_After="3")))
    assert pauses == [3] * 5


def test_a_reason_has_no_query_of_a_url(download: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    error = RuntimeError("outer")
    error.__cause__ = OSError("no answer from https://cdn.invalid/file?X-Signature=CANARY\nand more")
    assert download.refused("owner/name", "0" * 40, error, False, "https://hub.invalid") == 1
    said = capsys.readouterr().err
    assert said == (
        "weights: owner/name: https://hub.invalid: OSError: no answer from https://cdn.invalid/file and more; "
        "expected the hub to answer; run again to resume\n"
    )


def test_a_pointer_of_git_lfs_is_told_from_weights(download: ModuleType, tmp_path: Path) -> None:
    pointer, weights = tmp_path / "pointer", tmp_path / "weights"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "utf-8")
    weights.write_bytes(b"\x00\x01")
    assert download.is_pointer(str(pointer))
    assert not download.is_pointer(str(weights))


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="a serving image is Linux")
def test_a_file_system_is_named_as_df_names_it(download: ModuleType, tmp_path: Path) -> None:
    listed = subprocess.run(["df", "--output=source", tmp_path], capture_output=True, text=True, check=True)
    assert download.device_of(str(tmp_path)) == listed.stdout.split()[-1]


def test_a_hub_that_is_away_is_named_in_the_one_line(tmp_path: Path) -> None:
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


REQUEST = {"include": ["*"], "exclude": ["unwanted*"], "allow_pickle": False, "revision": "a" * 40}


@pytest.mark.parametrize(
    "path", ["model.bin", "MODEL.BIN", "sub/x.pkl", "x.joblib", "modeling.py", "x.PY", "lib.so", "../x.json"]
)
def test_a_pickle_or_a_program_is_never_selected(download: ModuleType, path: str) -> None:
    assert not download.selected(path, REQUEST)


def test_python_files_are_selected_at_the_reviewed_commit_alone(download: ModuleType) -> None:
    reviewed = {**REQUEST, "include": ["*.safetensors"], "code_revision": "a" * 40}
    assert download.selected("modeling.py", reviewed)
    for other in ({**reviewed, "code_revision": "b" * 40}, {**reviewed, "exclude": ["*.py"]}):
        assert not download.selected("modeling.py", other)
    for program in ("lib.so", "run.sh", "x.pyc", "model.bin"):
        assert not download.selected(program, reviewed), program


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
    assert download.main() == 1
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("weights: owner/name: found weights as pickles only at aaaa")
    assert "(model.PTH, pytorch_model.bin), expected *.safetensors" in said
