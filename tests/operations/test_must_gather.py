"""The archive of a report: whose files it has, who may read it, and what it does where the host is not there."""

from __future__ import annotations

import stat
import tarfile
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pyinfra.api.exceptions import ConnectError

from operations import must_gather, pyinfra_patches
from operations.facts.parse import sections
from tests.unit.builders import DATA, settings
from tests.unit.stubs import Stubs


class Host:
    name, print_prefix, connected = "gpu-1/llama", "", False
    data: ClassVar[dict[str, Any]] = {"_sudo": False}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(pyinfra_patches, "data_of", lambda _: {**DATA, "model": "gpt2-medium"})
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return Host()


@pytest.mark.slow
def test_script_prints_each_section_on_a_bare_host(tmp_path: Path) -> None:
    done = Stubs(tmp_path / "bin").run(must_gather.script(settings()))
    assert done.returncode == 0
    found = sections(done.stdout.split("\n"))
    assert list(found)[-1] == "end"
    assert {
        "system",
        "gpus",
        "journal-triton.service",
        "journal-triton-guard.service",
        "release",
        "ports",
    } <= found.keys()


@pytest.mark.slow
def test_sections_are_bounded_at_their_beginning(tmp_path: Path) -> None:
    stubs = Stubs(tmp_path / "bin")
    stubs.add("nvidia-smi", "yes first | head -n 90000; echo last")
    script = must_gather.script(settings()).replace("BYTES=400000", "BYTES=1000")
    lines = sections(stubs.run(script).stdout.split("\n"))["gpus"]
    assert sum(len(line) + 1 for line in lines) <= 1002
    assert "last" in lines


def test_archive_is_this_user_s_alone_and_without_secrets(
    host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-secret-of-no-form")
    path, rows = must_gather.written(
        host, {"host/a.txt": "it was a-secret-of-no-form\n", "b.txt": "plain\n"}, tmp_path
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.name.startswith("must-gather-gpu-1+llama-")
    with tarfile.open(path) as tar:
        texts = [file.read().decode() for member in tar.getmembers() if (file := tar.extractfile(member))]
    assert texts == ["plain\n", "it was (removed)\n"]
    assert [(name, removed) for name, _, removed in rows] == [("b.txt", 0), ("host/a.txt", 1)]


def test_host_that_is_not_reached_is_said_in_one_line(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> Any:
        raise ConnectError("no route\nto host")

    monkeypatch.setattr(pyinfra_patches, "connected", refuse)
    files, reached = must_gather.gathered(host)
    assert not reached
    assert files["problem.txt"] == "no route to host\n"
    assert {"inventory.json", "profile.json", "versions.txt"} <= files.keys()
