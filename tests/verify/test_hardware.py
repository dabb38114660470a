"""What only real hardware and a real Oracle Linux can show; skipped, with the reason, everywhere else."""

from __future__ import annotations

import re
from typing import Any

import pytest

from operations.plan import Release
from operations.plan.machine import selinux
from operations.plan.machine.packages import tool_packages


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
def test_selinux_is_enforcing(host: Any) -> None:
    assert host.check_output("getenforce") == "Enforcing"


@pytest.mark.oracle_linux
@pytest.mark.usefixtures("machine")
def test_docker_selinux_matches_the_inventory(host: Any, release: Release) -> None:
    options = host.check_output("docker info --format '{{json .SecurityOptions}}'")
    assert ('"name=selinux"' in options) is bool(release.docker_settings.get("selinux-enabled"))


@pytest.mark.oracle_linux
@pytest.mark.usefixtures("machine")
def test_server_is_confined_without_denials(host: Any, container: dict[str, Any], release: Release) -> None:
    if not release.docker_settings.get("selinux-enabled"):
        pytest.skip("docker does not use SELinux on this host")
    process = host.check_output(f"cat /proc/{container['State']['Pid']}/attr/current").strip("\0")
    assert selinux.type_of(process) == "container_t"
    if release.database:
        assert process.endswith(release.database.level)
    # since the host booted; ausearch ends with 1 where it finds nothing
    denied = host.run("ausearch --input-logs --message AVC --start boot --raw").stdout.splitlines()
    ours = [
        line for line in denied if "container_t" in line or "haproxy_t" in line or release.data_root in line
    ]
    assert ours == []


@pytest.mark.oracle_linux
@pytest.mark.usefixtures("machine")
def test_data_root_is_labelled_for_containers_and_by_a_rule(host: Any, release: Release) -> None:
    if not release.selinux:
        pytest.skip("the inventory or the kernel has no SELinux")
    assert selinux.type_of(host.check_output(f"stat -c %C {release.data_root}")) == selinux.TYPE
    # what a relabelling of the whole file system would change: nothing
    assert host.check_output(f"restorecon -R -n -v {release.path} {' '.join(release.mounts)}") == ""
    found = {line.split()[0]: line.endswith("on") for line in host.check_output("getsebool -a").splitlines()}
    assert selinux.missing_booleans(release.settings, found) == []


@pytest.mark.oracle_linux
@pytest.mark.usefixtures("machine")
def test_only_root_reaches_the_boot_volume(host: Any) -> None:
    """Oracle's images restrict 169.254.0.2 and 169.254.2.0/24 to root, in whatever way the release does it."""
    rules = host.run("iptables-save; firewall-cmd --direct --get-all-rules; nft list ruleset").stdout
    assert re.search(r"169\.254\.0\.2\b.*owner|skuid.*169\.254\.0\.2|169\.254\.0\.2.*skuid", rules)


@pytest.mark.oracle_linux
@pytest.mark.usefixtures("machine")
def test_only_the_host_reaches_the_metadata_service(host: Any, container: dict[str, Any]) -> None:
    ask = "curl --silent --output /dev/null --max-time 3 http://169.254.169.254/opc/v2/instance/"
    assert host.run(ask).rc == 0, "the host itself cannot: this would prove nothing"
    assert host.run(f"nsenter --net --target {container['State']['Pid']} {ask}").rc != 0


@pytest.mark.oracle_linux
@pytest.mark.usefixtures("machine")
def test_firewall_opens_no_port_of_a_private_server(host: Any, release: Release) -> None:
    if release.settings.expose:
        pytest.skip("the inventory exposes the server")
    if host.run("systemctl is-active --quiet firewalld").rc != 0:
        pytest.skip("firewalld does not run on this host")
    opened = {rule.split("/")[0] for rule in host.check_output("firewall-cmd --list-ports").split()}
    assert not opened & {str(port) for port in release.ports}


@pytest.mark.oracle_linux
@pytest.mark.usefixtures("machine")
def test_repositories_hold_the_unpinned_packages(host: Any, release: Release) -> None:
    named = [
        name for name, version in tool_packages(release.settings, release.os_major).items() if not version
    ]
    found = host.check_output(f"dnf --quiet repoquery --queryformat '%{{name}}\\n' {' '.join(named)}").split()
    assert set(found) >= set(named), "see docs/how-to/packages.md, How packages are installed"


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
