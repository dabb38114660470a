"""Each profile's complete plan, as a file that a reviewer can read: `make golden` writes these files again."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from operations.plan.__main__ import main
from operations.plan.profile.migrate import migrated
from operations.plan.profile.profiles import EngineProfile, LlmApiProfile, load_profile, profile_names

GOLDEN = Path(__file__).parent / "golden"
ENGINES = [name for name in profile_names() if isinstance(load_profile(name), EngineProfile)]


@pytest.mark.parametrize("name", profile_names())
def test_plan_of_a_profile_matches_its_golden_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    gpus = [] if load_profile(name).hardware else ["--gpus", "NVIDIA A10:1"]
    assert main(["explain", name, *gpus]) == 0
    assert capsys.readouterr().out == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_every_golden_file_has_its_profile() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == profile_names()


@pytest.mark.parametrize("name", ENGINES)
def test_a_migrated_profile_is_a_profile(name: str) -> None:
    before = load_profile(name)
    assert isinstance(before, EngineProfile)
    after = LlmApiProfile.model_validate(tomllib.loads(migrated(name)))
    assert after.weights == before.weights
    assert after.gpus_needed == before.gpus_needed
    assert after.server.http_port == before.server.http_port


def test_a_profile_without_an_engine_is_not_migrated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "llama-3.1-8b-llmapi"]) == 2
    assert "expected a profile of kind engine" in capsys.readouterr().err
