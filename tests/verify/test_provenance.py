"""provenance.json: what the release was made of, against what the host holds."""

from __future__ import annotations

import json
import shlex
from typing import Any

from operations.plan.release import Release
from tests.verify import manifests

# what is only there to make another artifact of, and may be removed afterwards
STEPS = ("dataset", "checkpoint", "onnx")


def test_provenance_lists_the_artifacts_with_their_hashes(host: Any, release: Release) -> None:
    found = json.loads(host.file(f"{release.path}/provenance.json").content_string)
    for name, artifact in release.named_artifacts.items():
        assert found["artifacts"][name]["key"] == artifact.key, name
        if artifact.kind in STEPS and not host.file(artifact.path).exists:
            continue
        files = {
            path: {"sha256": entry["sha256"], "size": entry["size"]}
            for path, entry in manifests.read(host, artifact.path)["files"].items()
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


def test_provenance_lists_every_package_with_its_hash(host: Any, release: Release) -> None:
    """As rpm says it of the installed one; the hashes of a package are in its signed header."""
    found = json.loads(host.file(f"{release.path}/provenance.json").content_string)
    listed = {package["name"]: package for package in found["packages"]}
    names = list(release.document()["packages"])
    asked = "%{NAME}\\t%{SHA256HEADER}\\t[%{PAYLOADDIGEST}]\\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\\t%{INSTALLTIME}\\n"
    lines = host.check_output(f"rpm -q --qf '{asked}' {shlex.join(names)}").splitlines()
    assert len(lines) == len(names)
    laid_out = host.file(release.path).mtime.timestamp()
    for name, header, payload, version, installed in (line.split("\t") for line in lines):
        recorded = listed[name]
        if recorded["version"] != version:
            # a tool without a pinned version, which an update of the system replaced since
            assert int(installed) > laid_out, f"{name}: another package than the release was laid out with"
            continue
        assert (recorded["header_sha256"], recorded["payload_sha256"]) == (header, payload), name
