"""provenance.json: what the release was made of, against what the host holds."""

from __future__ import annotations

import json
import shlex
from typing import Any

from operations.plan.release import Release


def test_provenance_names_the_artifacts_by_their_hashes(host: Any, release: Release) -> None:
    found = json.loads(host.file(f"{release.path}/provenance.json").content_string)
    for name, artifact in release.named_artifacts.items():
        manifest = host.file(f"{artifact.path}/manifest.json")
        if not manifest.exists:
            continue
        files = {
            path: {"sha256": entry["sha256"], "size": entry["size"]}
            for path, entry in json.loads(manifest.content_string)["files"].items()
        }
        assert found["artifacts"][name] == {"key": artifact.key, "files": files}, name


def test_provenance_names_the_running_image(host: Any, release: Release) -> None:
    found = json.loads(host.file(f"{release.path}/provenance.json").content_string)
    tag = shlex.quote(release.image.tag)
    identity = host.check_output(f"docker image inspect --format '{{{{.Id}}}}' {tag}").strip()
    if found["images"][release.image.tag]["id"] != identity:
        # lost since, and built again: its record is younger then
        record, laid_out = host.file(release.image.record(release.data_root)), host.file(release.path)
        assert record.content_string.strip() == identity
        assert record.mtime > laid_out.mtime, "another image than the release was laid out with"


def test_provenance_has_every_package_with_its_hash(host: Any, release: Release) -> None:
    found = json.loads(host.file(f"{release.path}/provenance.json").content_string)
    listed = {package["name"]: package for package in found["packages"]}
    for name in release.document()["packages"]:
        assert len(listed[name]["header_sha256"]) == 64, name
