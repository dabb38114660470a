"""Clients that people use, each in its own environment, against a door."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.clients.conftest import HERE, environment
from tests.door.running import Running

REQUESTS = 40


def test_libraries_get_their_answers(door: Running) -> None:
    done = subprocess.run(
        [str(environment("libraries") / "python"), str(HERE / "libraries.py"), door.url],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name, answers in found.items():
        assert answers["chat"] == "hello world", name
        assert answers["usage"] == len("hello world"), name
        assert (answers["reason"], answers["stream"]) == ("stop", "in parts"), name
    assert found["langchain"]["completion"] == "completed"
    assert found["litellm"]["refused"] in ("ContextWindowExceededError", "BadRequestError 400")


def test_aiperf_measures_through_the_door(door: Running, root: Path, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(root / "weights/w1", tokenizer)
    settings = json.loads((tokenizer / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [
            str(environment("aiperf") / "aiperf"),
            *(
                "profile",
                "--model",
                "tiny",
                "--url",
                f"http://127.0.0.1:{door.port}",
                "--endpoint-type",
                "chat",
            ),
            *(
                "--streaming",
                "--concurrency",
                "4",
                "--request-count",
                str(REQUESTS),
                "--tokenizer",
                str(tokenizer),
            ),
            *("--isl", "20", "--osl", "20", "--ui", "none", "--artifact-dir", str(tmp_path / "artifacts")),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    [export] = (tmp_path / "artifacts").rglob("profile_export_aiperf.json")
    found = json.loads(export.read_text())
    assert found["request_count"]["avg"] == REQUESTS
    assert found["time_to_first_token"]["avg"] > 0
    assert "error_request_count" not in found or not found["error_request_count"]["avg"]
