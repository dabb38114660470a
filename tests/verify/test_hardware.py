"""What only real hardware and a real Oracle Linux can show; skipped, with the reason, everywhere else."""

from __future__ import annotations

from typing import Any

import pytest

from operations.plan import Release


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
