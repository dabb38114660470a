"""The host: its disk, its packages, and a docker engine that knows NVIDIA's runtime."""

from __future__ import annotations

import json
from typing import Any

import pytest

from operations.plan import Release, Settings
from operations.plan.catalog.package_names import CONFLICTING_PACKAGES
from operations.plan.machine import daemon_json
from operations.plan.machine.disks import root_file_system, root_growth
from operations.plan.machine.local_disks import (
    check_data_root,
    data_root,
    local_disks,
    local_plan,
    mount_unit,
)
from operations.plan.machine.openpgp import fingerprints
from operations.plan.machine.packages import DOCKER_KEY, TOOLKIT_KEY, same_version, wanted_packages
from operations.plan.machine.version_locks import all_locks, is_of
from operations.remote.rendering import HostFile
from operations.scripts import host_functions


def test_root_file_system_covers_its_disk(host: Any, settings: Settings) -> None:
    root = root_file_system(_disks(host, "root_disk"))
    assert root.disk_size, f"lsblk finds no disk under {root.source}"
    if settings.grow_root_file_system:
        assert root_growth(root) == ()


def test_data_root_is_usable(host: Any, settings: Settings) -> None:
    check_data_root(settings.data_root, data_root(_disks(host, "data_root", settings)))


@pytest.mark.oracle_linux
def test_local_disks_hold_the_data_root(host: Any, settings: Settings) -> None:
    if settings.local_disks == "none":
        pytest.skip("the inventory wants no local disks")
    place = data_root(_disks(host, "data_root", settings))
    plan = local_plan(settings, place, local_disks(_disks(host, "local_disks", settings)))
    assert plan is not None and plan.steps == ()
    assert (place.mount, place.type, place.marked) == (settings.data_root, "xfs", True)
    unit = mount_unit(settings.data_root)
    requirements = host.check_output(f"systemctl show --property=Requires {settings.service_name}.service")
    assert unit in requirements, "the service would be started from an empty mount point"
    assert host.check_output("systemctl is-enabled %s", unit) == "enabled"


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


def test_package_repositories_are_as_rendered(host: Any, etc_files: dict[str, HostFile]) -> None:
    for file in etc_files.values():
        if file.stage == "packages":
            assert host.file(file.path).content_string == file.text, file.path


@pytest.mark.requirement("R13")
def test_package_keys_are_the_pinned_ones_and_trusted(host: Any, settings: Settings) -> None:
    trusted = host.check_output("rpm -q --qf '%{VERSION}\\n' gpg-pubkey").split()
    for path, fingerprint in (
        (DOCKER_KEY, settings.docker_gpg_fingerprint),
        (TOOLKIT_KEY, settings.nvidia_container_toolkit_gpg_fingerprint),
    ):
        assert fingerprints(host.file(path).content_string) == [fingerprint], path
        assert fingerprint[-8:].lower() in trusted, f"rpm does not trust {path}"


def test_pinned_versions_are_locked(host: Any, release: Release) -> None:
    locks = all_locks(release.settings, release.os_major)
    if locks:
        # as dnf reads them, the plugin being there and enabled
        listed = host.check_output("dnf --quiet versionlock list").splitlines()
        ours = [line for line in listed if any(is_of(name, line) for name in locks)]
        assert sorted(ours) == sorted(locks.values())


def test_docker_runs_and_is_enabled(host: Any) -> None:
    docker = host.service("docker")
    assert docker.is_running
    assert docker.is_enabled


def test_daemon_json_has_the_wanted_settings(host: Any, release: Release) -> None:
    content = json.loads(host.file(daemon_json.PATH).content_string)
    assert content["runtimes"]["nvidia"]["path"].endswith(daemon_json.NVIDIA_RUNTIME)
    assert {key: content.get(key) for key in release.docker_settings} == release.docker_settings


def test_docker_knows_the_nvidia_runtime(host: Any) -> None:
    runtimes = json.loads(host.check_output("docker info --format '{{json .Runtimes}}'"))
    assert runtimes["nvidia"]["path"].endswith(daemon_json.NVIDIA_RUNTIME)


def _installed(host: Any, name: str) -> list[str]:
    asked = host.run(f"rpm -q --qf '%{{EPOCHNUM}}:%{{VERSION}}-%{{RELEASE}}\\n' {name}")
    return list(asked.stdout.split()) if asked.rc == 0 else []


def _disks(host: Any, function: str, settings: Settings | None = None) -> list[str]:
    """What the host says of its disks, as the deploy asks it."""
    inputs = (
        f"DATA_ROOT={settings.data_root}\nMOUNT_UNIT='{mount_unit(settings.data_root)}'\n" if settings else ""
    )
    script = f"PATH=$PATH:/usr/sbin:/sbin\n{inputs}{host_functions('disks.sh')}\n{function}"
    lines: list[str] = host.check_output("sh -c %s", script).splitlines()
    return lines
