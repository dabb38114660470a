"""The release on disk: complete, unchanged since it was laid out, and the one that `current` points to."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from operations.plan import Release
from operations.plan.artifacts import commands
from operations.plan.profile import model_repository
from tests.verify import manifests


def test_current_is_the_desired_release(host: Any, release: Release) -> None:
    assert host.check_output(f"readlink --canonicalize {release.settings.state_root}/current") == release.path


def test_release_was_proven(host: Any, release: Release) -> None:
    """Its golden answers were asked for when it was started, and nobody took it back since."""
    assert host.file(f"{release.data_root}/verdicts/{release.id}").content_string.startswith("proven ")


def test_every_file_matches_the_manifest(host: Any, release: Release) -> None:
    recorded = manifests.recorded(manifests.read(host, release.path))
    assert manifests.found(host, release.path) == recorded


def test_every_config_is_the_filled_template(host: Any, release: Release) -> None:
    """Also where somebody edited the manifest along with the file."""
    if release.source is None:
        pytest.skip("the models are this project's own: the next tests compare them, whole")
    templates = {
        model: host.file(f"{release.template_directory}/{model}/config.pbtxt").content_string
        for model in release.models
    }
    wanted = model_repository.render(templates, release.parameters, release.profile.model_parameters)
    for model in release.models:
        assert _config(host, release, model).rstrip() == wanted[model].rstrip(), model


def test_every_config_parses_and_has_no_bare_placeholder(host: Any, release: Release) -> None:
    for model in release.models:
        text = _config(host, release, model)
        model_repository.parsed(model, text)
        for line in text.splitlines():
            outside_quotes = re.sub(r'"[^"]*"', "", line.partition("#")[0])
            assert "${" not in outside_quotes, f"{model}: {line}"


def test_scripts_and_model_files_are_as_planned(host: Any, release: Release) -> None:
    models = release.profile.model_files(commands.WEIGHTS)
    planned = {**release.files, **{f"model_repository/{path}": text for path, text in models.items()}}
    for name, text in planned.items():
        assert host.file(f"{release.path}/{name}").content_string == text, name


def test_release_json_describes_the_release(host: Any, release: Release) -> None:
    found = json.loads(host.file(f"{release.path}/release.json").content_string)
    assert found == json.loads(json.dumps(release.document()))


def _config(host: Any, release: Release, model: str) -> str:
    return str(host.file(f"{release.path}/model_repository/{model}/config.pbtxt").content_string)
