"""What touches a model's files has neither network nor token, for every profile; the download alone has both."""

from __future__ import annotations

import itertools

import pytest

from operations.plan.artifacts.artifact import Artifact
from operations.plan.explain import explained
from operations.plan.profile.profiles import load_profile, profile_names
from operations.plan.release import Release
from tests.unit.builders import DATA


def planned(name: str) -> Release:
    profile = load_profile(name)
    return explained(name, {**DATA, "backend_commits": {}}, None if profile.hardware else "NVIDIA A10:1")


def made(release: Release) -> list[Artifact]:
    return [
        artifact for artifact in release.artifacts if artifact.kind not in ("weights", "dataset", "source")
    ]


@pytest.mark.parametrize("name", profile_names())
def test_conversion_and_build_have_no_network_and_no_token(name: str) -> None:
    release = planned(name)
    for artifact in made(release):
        assert not artifact.needs_token
        assert "token" not in artifact.files
        runs = [list(command) for command in artifact.commands if command[:2] == ("docker", "run")]
        assert len(runs) == len(artifact.commands), artifact.kind
        for words in runs:
            assert words[words.index("--network") + 1] == "none", artifact.kind
            assert not [word for word in words if "HF_TOKEN" in word or "--env-file" in word]
            # of the units' directories, where a download's token is, its own alone
            mounted = [after for word, after in itertools.pairwise(words) if word == "--volume"]
            assert mounted
            ours = f"/run/tritonhost/{artifact.unit}:"
            assert not [m for m in mounted if m.startswith("/run/tritonhost") and not m.startswith(ours)]


def test_every_kind_of_work_is_covered() -> None:
    kinds = {artifact.kind for name in profile_names() for artifact in made(planned(name))}
    assert kinds == {"checkpoint", "engine", "onnx", "plan"}


@pytest.mark.parametrize("name", profile_names())
def test_token_reaches_no_image_and_no_server(name: str) -> None:
    release = planned(name)
    assert not [image.tag for image in release.images if image.needs_token]
    for text in release.files.values():
        assert "HF_TOKEN" not in text
        assert "/run/tritonhost" not in text
