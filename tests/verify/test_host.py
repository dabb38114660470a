"""The host: its disk, its packages, and a docker engine that knows NVIDIA's runtime."""

from __future__ import annotations

import json
from typing import Any

from operations.plan import Release, Settings, daemon_json
from operations.plan.difference import GROWN_SHARE
from operations.plan.openpgp import fingerprints
from operations.plan.packages import (
    CONFLICTING_PACKAGES,
    DOCKER_KEY,
    TOOLKIT_KEY,
    same_version,
    wanted_packages,
)


def test_root_file_system_covers_its_disk(host: Any, settings: Settings) -> None:
    source, size = host.check_output("findmnt --bytes --noheadings --raw --output SOURCE,SIZE /").split()
    rows = host.check_output(f"lsblk --bytes --noheadings --raw --inverse --output TYPE,SIZE {source}")
    disks = [int(row.split()[1]) for row in rows.splitlines() if row.split()[0] in ("disk", "loop")]
    if settings.grow_root_file_system:
        assert disks, f"lsblk finds no disk under {source}"
        assert int(size) >= disks[-1] * GROWN_SHARE


def test_packages_are_at_their_versions(host: Any, release: Release) -> None:
    wanted = wanted_packages(release.settings, release.os_major)
    wrong = {}
    for name, version in wanted.items():
        installed = _installed(host, name)
        if not installed or (version and not any(same_version(version, found) for found in installed)):
            wrong[name] = (installed, version or "any version")
    assert not wrong, "package: (installed, wanted)"


def test_conflicting_packages_are_absent(host: Any) -> None:
    assert [name for name in CONFLICTING_PACKAGES if _installed(host, name)] == []


def test_package_repositories_are_as_rendered(host: Any, etc_files: dict[str, str]) -> None:
    for path, text in etc_files.items():
        if path.startswith("/etc/yum.repos.d/"):
            assert host.file(path).content_string == text, path


def test_package_keys_are_the_pinned_ones_and_trusted(host: Any, settings: Settings) -> None:
    trusted = host.check_output("rpm -q --qf '%{VERSION}\\n' gpg-pubkey").split()
    for path, fingerprint in (
        (DOCKER_KEY, settings.docker_gpg_fingerprint),
        (TOOLKIT_KEY, settings.nvidia_container_toolkit_gpg_fingerprint),
    ):
        assert fingerprints(host.file(path).content_string) == [fingerprint], path
        assert fingerprint[-8:].lower() in trusted, f"rpm does not trust {path}"


def test_docker_runs_and_is_enabled(host: Any) -> None:
    docker = host.service("docker")
    assert docker.is_running
    assert docker.is_enabled


def test_daemon_json_means_what_it_should(host: Any, release: Release) -> None:
    content = json.loads(host.file(daemon_json.PATH).content_string)
    assert content["runtimes"]["nvidia"]["path"].endswith(daemon_json.NVIDIA_RUNTIME)
    assert {key: content.get(key) for key in release.docker_settings} == release.docker_settings


def test_docker_knows_the_nvidia_runtime(host: Any) -> None:
    runtimes = json.loads(host.check_output("docker info --format '{{json .Runtimes}}'"))
    assert runtimes["nvidia"]["path"].endswith(daemon_json.NVIDIA_RUNTIME)


def _installed(host: Any, name: str) -> list[str]:
    asked = host.run(f"rpm -q --qf '%{{EPOCHNUM}}:%{{VERSION}}-%{{RELEASE}}\\n' {name}")
    return list(asked.stdout.split()) if asked.rc == 0 else []
