"""The command `new`: what it writes, what it prints, and that it leaves nothing half."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from operations import new_profile
from operations.plan import PlanError
from operations.plan.__main__ import main, parser
from operations.plan.explain import planned
from operations.plan.inventory.hosts import read_group_data
from operations.plan.profile.profiles import load_profile
from operations.plan.proposal.repository import Repository
from tests.unit.hub_models import BY_NAME

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that profiles are written into, and a hub that has the models of hub_models.py."""
    models = tmp_path / "inventories" / "models"
    monkeypatch.setattr(new_profile, "MODELS_DIRECTORY", models)
    monkeypatch.setattr("operations.plan.profile.profiles.MODELS_DIRECTORY", models)
    monkeypatch.setattr(new_profile, "HOSTS", tmp_path / "inventories" / "oci.toml")
    asked: list[tuple[str, str]] = []

    def read(name: str, endpoint: str, revision: str | None = None) -> Repository:
        asked.append((name, endpoint))
        return BY_NAME[name].repository

    monkeypatch.setattr(new_profile, "read_hub", read)
    return models


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["new", *words], prog="tritonhost") == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    return printed.err


def test_profile_is_written_and_shown(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", LLAMA, "--shape", "VM.GPU.A10.2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        f"{LLAMA} at c0ffeec0ffee: kind engine, release 26.07, 1 x NVIDIA A10, VM.GPU.A10.2, "
    )
    assert "KV cache a token" in out and "What would be chosen on each shape:" in out
    assert out.endswith(
        'next: model = "llama-3.1-8b-instruct" for the hosts that serve it, and pyinfra INVENTORY deploy.py --dry -y\n'
    )
    [file] = models.iterdir()
    assert file.name == "llama-3.1-8b-instruct.toml" and file.stat().st_mode & 0o777 == 0o644
    profile = load_profile("llama-3.1-8b-instruct")
    planned("llama-3.1-8b-instruct", profile, read_group_data(new_profile.GROUP_DATA))


def test_profile_is_checked_by_check(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", LLAMA, "--name", "x"]) == 0
    assert main(["check", str(models / "x.toml")]) == 0
    assert "valid, kind engine" in capsys.readouterr().out


def test_json_has_what_was_chosen(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", LLAMA, "--json", "--kind", "llmapi", "--gpus", "NVIDIA H200:8"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["gpu"], said["gpus"]) == ("llmapi", "NVIDIA H200", 1)
    assert Path(said["file"]).is_file()
    assert said["forecast"]["parameters"] == BY_NAME[LLAMA].count
    assert len(said["shapes"]) == 18


def test_profile_of_that_name_stays(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models.mkdir(parents=True)
    file = models / "llama-3.1-8b-instruct.toml"
    file.write_text("mine")
    line = refused(capsys, LLAMA)
    assert (
        "inventories/models/llama-3.1-8b-instruct.toml: found a profile of that name, expected none; --name gives"
        in line
    )
    assert file.read_text() == "mine"
    assert main(["new", LLAMA, "--force"]) == 0
    assert file.read_text().startswith("#:schema")


def test_refused_model_leaves_nothing(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no release's PyTorch backend has it" in refused(capsys, "google/gemma-2b")
    assert "expected 8.0 or later for the PyTorch backend" in refused(
        capsys, LLAMA, "--shape", "VM.GPU3.1", "--kind", "llmapi"
    )
    assert not models.exists()


def test_file_that_no_plan_accepts_is_not_left(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = new_profile.propose
    monkeypatch.setattr(new_profile, "propose", lambda *given: replace(real(*given), text="kind = 1\n"))
    assert "kind: found 1" in refused(capsys, LLAMA)
    assert list(models.iterdir()) == []


def test_host_of_the_inventory_gives_its_shape(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_profile.HOSTS.parent.mkdir(parents=True)
    new_profile.HOSTS.write_text(
        '[hosts.gpu-1]\naddress = "10.0.0.11"\nshape = "BM.GPU4.8"\n[hosts.gpu-2]\naddress = "10.0.0.12"\n'
    )
    assert main(["new", LLAMA, "--host", "gpu-1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == "BM.GPU4.8"
    assert "--host gpu-2: found a host without shape" in refused(
        capsys, LLAMA, "--name", "b", "--host", "gpu-2"
    )
    assert "--host gpu-3: found no such host" in refused(capsys, LLAMA, "--name", "b", "--host", "gpu-3")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--shape", "BM.GPU4.8", "--gpus", "NVIDIA A10:1"],
            "--gpus and --shape: found all of them, expected one",
        ),
        (["--context", "0"], "--context: found 0, expected a whole number of at least 64"),
        (["--name", "A/B"], "--name: found A/B, expected a name of lower-case letters"),
        (["--gpus", "RTX 4090:1"], "--gpus: found RTX 4090:1, expected NAME:COUNT"),
    ],
)
def test_wrong_words_are_refused(
    models: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert line in refused(capsys, LLAMA, *words)
    assert not models.exists()


def test_directory_that_is_not_there_is_refused(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "REPOSITORY: found ./no, expected OWNER/NAME, or a directory that exists" in refused(
        capsys, "./no"
    )


def test_directory_that_cannot_be_written_is_refused(
    models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setattr(new_profile, "MODELS_DIRECTORY", file / "models")
    with pytest.raises(PlanError, match="Not a directory"):
        new_profile.run(new_parser([LLAMA]))


def new_parser(words: list[str]) -> argparse.Namespace:

    return parser().parse_args(["new", *words])
