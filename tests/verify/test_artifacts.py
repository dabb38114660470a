"""What a release is made of: each artifact complete, made from the planned inputs, and every byte as recorded."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from operations.plan import Release
from operations.plan.artifacts.artifact import Artifact
from tests.verify import manifests


@pytest.fixture(params=["source", "weights", "weights-2", "engine", "plan", "plan-2"])
def artifact(request: pytest.FixtureRequest, release: Release) -> Artifact:
    """A checkpoint and a graph are not among them: they only exist to build an engine or a plan from."""
    kind, _, number = str(request.param).partition("-")
    of_kind = [a for a in release.artifacts if a.kind == kind]
    if len(of_kind) < int(number or 1):
        pytest.skip(f"a profile of kind {release.profile.kind} has no {request.param}")
    return of_kind[int(number or 1) - 1]


def test_manifest_records_the_planned_inputs(host: Any, artifact: Artifact) -> None:
    manifest = manifests.read(host, artifact.path)
    assert (manifest["kind"], manifest["key"]) == (artifact.kind, artifact.key)
    assert manifest["inputs"] == json.loads(json.dumps(artifact.inputs))


def test_every_file_has_its_checksum(host: Any, artifact: Artifact) -> None:
    """Weights and engines of real models: some gigabytes a second are read, so this can take minutes."""
    recorded = manifests.recorded(manifests.read(host, artifact.path))
    if artifact.checksums:
        assert recorded, "a manifest without files"
        assert manifests.found(host, artifact.path) == recorded


def test_source_is_at_its_commit_and_unchanged(host: Any, release: Release) -> None:
    if release.source is None or release.image_first:
        pytest.skip("the templates come from the image or from this project: there is no checkout")
    tree = shlex.quote(f"{release.source.path}/tree")
    assert host.check_output(f"git -C {tree} rev-parse HEAD") == release.source.inputs["commit"]
    assert host.check_output(f"git -C {tree} status --porcelain") == ""


def test_each_image_is_present_under_its_tag(host: Any, release: Release) -> None:
    for image in release.images:
        found = host.check_output(f"docker image inspect --format '{{{{.Id}}}}' {image.tag}")
        assert found == host.file(image.record(release.data_root)).content_string.strip(), image.tag
