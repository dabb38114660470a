"""What only real hardware and a real Oracle Linux can show; skipped, with the reason, everywhere else."""

from __future__ import annotations

from typing import Any

import pytest

from operations.plan import Release
from operations.plan.packages import tool_packages


@pytest.fixture
def nvidia_driver(host: Any) -> None:
    if not host.file("/proc/driver/nvidia/version").exists:
        pytest.skip("no NVIDIA kernel driver on this host: its GPU is a stand-in")


@pytest.fixture
def machine(host: Any) -> None:
    if host.run("systemd-detect-virt --quiet --container").rc == 0:
        pytest.skip("this host is a container: it has no kernel, SELinux or firewall of its own")


@pytest.mark.gpu
@pytest.mark.usefixtures("nvidia_driver")
def test_container_sees_the_chosen_gpus(host: Any, release: Release) -> None:
    listed = host.check_output(
        f"docker exec {release.settings.service_name} nvidia-smi --query-gpu=uuid --format=csv,noheader"
    )
    assert set(listed.split()) == {gpu.uuid for gpu in release.gpus}


@pytest.mark.gpu
@pytest.mark.usefixtures("nvidia_driver")
def test_every_chosen_gpu_holds_a_part_of_the_model(host: Any, release: Release) -> None:
    listed = host.check_output("nvidia-smi --query-compute-apps=gpu_uuid --format=csv,noheader")
    assert {gpu.uuid for gpu in release.gpus} <= set(listed.split())


@pytest.mark.oracle_linux
@pytest.mark.usefixtures("machine")
def test_selinux_still_enforces(host: Any) -> None:
    assert host.check_output("getenforce") == "Enforcing"


@pytest.mark.oracle_linux
@pytest.mark.usefixtures("machine")
def test_firewall_opens_none_of_the_ports_of_a_private_server(host: Any, release: Release) -> None:
    if release.settings.expose:
        pytest.skip("the inventory exposes the server")
    if host.run("systemctl is-active --quiet firewalld").rc != 0:
        pytest.skip("firewalld does not run on this host")
    opened = {rule.split("/")[0] for rule in host.check_output("firewall-cmd --list-ports").split()}
    assert not opened & {str(port) for port in release.ports}


@pytest.mark.oracle_linux
@pytest.mark.usefixtures("machine")
def test_repositories_hold_what_is_installed_without_a_version(host: Any, release: Release) -> None:
    named = [
        name for name, version in tool_packages(release.settings, release.os_major).items() if not version
    ]
    found = host.check_output(f"dnf --quiet repoquery --queryformat '%{{name}}\\n' {' '.join(named)}").split()
    assert set(found) >= set(named), "see docs/operations.md, Packages and dnf update"


@pytest.mark.oracle_linux
@pytest.mark.usefixtures("machine")
def test_an_update_of_the_system_resolves(host: Any) -> None:
    # "Operation aborted." is what --assumeno ends in where there is something to do
    planned = host.run("dnf --assumeno --refresh update 2>&1")
    assert "Nothing to do" in planned.stdout or "Operation aborted" in planned.stdout, planned.stdout
    assert "Problem" not in planned.stdout


@pytest.mark.oracle_linux
@pytest.mark.gpu
@pytest.mark.usefixtures("machine", "nvidia_driver")
def test_the_kernel_of_the_next_boot_has_a_driver(host: Any) -> None:
    """An update that brought a kernel without NVIDIA's module would leave the host without GPUs."""
    kernel = host.check_output("grubby --default-kernel").rpartition("/vmlinuz-")[2]
    assert host.run(f"modinfo -k {kernel} nvidia").rc == 0, kernel
