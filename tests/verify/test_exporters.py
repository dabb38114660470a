"""The host's exporters, where the inventory wants them: what their containers may, who reaches them, and what they show."""

from __future__ import annotations

import re
from typing import Any

import pytest

from operations.plan import Release, Settings
from operations.plan.exposure import exporters as plan
from operations.plan.exposure.exporters import Exporter
from operations.remote import host_files
from operations.remote.rendering import HostFile


@pytest.fixture(scope="module")
def exporters(release: Release) -> tuple[Exporter, ...]:
    if not release.exporters:
        pytest.skip("the inventory has no exporters")
    return release.exporters


def page(host: Any, exporters: tuple[Exporter, ...], kind: str) -> dict[str, str]:
    """name{labels} -> value, of an exporter's page."""
    one = next((one for one in exporters if one.kind == kind), None)
    if one is None:
        pytest.skip(f"the inventory has no {kind} exporter")
    text = host.check_output(f"curl --silent --fail --max-time 20 {one.url}")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.rpartition(" ") for line in lines)}


def test_exporters_run_from_their_images_and_at_boot(
    host: Any, exporters: tuple[Exporter, ...], etc_files: dict[str, HostFile], settings: Settings
) -> None:
    for one in exporters:
        for path in plan.own_paths(settings.service_name, settings.state_root, one.kind):
            file = host.file(path)
            assert file.sha256sum == host_files.digest(etc_files[path].text), path
            assert (file.uid, file.mode & 0o022) == (0, 0), path
        unit = host.service(f"{one.service}.service")
        assert unit.is_enabled
        assert unit.is_running
        runs = host.docker(one.service).inspect()
        assert runs["Config"]["Labels"]["tritonhost.exporter"] == one.key
        assert runs["Image"] == host.file(one.image_record).content_string.strip()


def test_exporter_containers_have_no_rights(
    host: Any, exporters: tuple[Exporter, ...], settings: Settings
) -> None:
    said = host.check_output("docker info --format '{{.MemoryLimit}} {{.PidsLimit}}'").split()
    limited = [word == "true" for word in said]
    for one in exporters:
        runs = host.docker(one.service).inspect()
        found = runs["HostConfig"]
        profiling = one.kind == plan.DCGM and "--cap-add" in one.run
        user = 0 if profiling else plan.NODE_USER if one.kind == plan.NODE else plan.DCGM_USER
        assert runs["Config"]["User"] == f"{user}:{user}"
        assert found["ReadonlyRootfs"]
        assert not found["Privileged"]
        assert found["CapDrop"] == ["ALL"]
        assert [name.removeprefix("CAP_") for name in found["CapAdd"] or ()] == ["SYS_ADMIN"] * profiling
        assert any("no-new-privileges" in option for option in found["SecurityOpt"])
        assert found["LogConfig"]["Type"] == "none"
        # docker leaves out what the host's kernel has no cgroup for
        assert [bool(found["Memory"]), (found["PidsLimit"] or 0) > 0] == limited
        assert [mount["Destination"] for mount in runs["Mounts"] if mount["RW"]] == []


def test_exporters_listen_where_the_inventory_says(
    host: Any, exporters: tuple[Exporter, ...], settings: Settings
) -> None:
    for one in exporters:
        command = f"ss --listening --tcp --numeric --no-header 'sport = :{one.port}'"
        listening = [line.split()[3] for line in host.check_output(command).splitlines()]
        assert listening == [f"{plan.address(settings)}:{one.port}"]


def test_exporters_can_connect_to_nobody(
    host: Any, exporters: tuple[Exporter, ...], settings: Settings
) -> None:
    for user in plan.users(settings):
        as_user = f"setpriv --reuid {user} --regid {user} --clear-groups"
        for place in ("127.0.0.1/22", "169.254.169.254/80"):
            tried = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{place}' 2>/dev/null && echo reached || echo not"
            assert host.check_output(f"{as_user} {tried}") == "not", (user, place)


def test_node_exporter_shows_the_host_and_its_own_metrics(
    host: Any, exporters: tuple[Exporter, ...], settings: Settings, release: Release
) -> None:
    found = page(host, exporters, plan.NODE)
    name = host.check_output("uname --nodename")
    assert any(f'nodename="{name}"' in metric for metric in found if metric.startswith("node_uname_info{"))
    disks = [metric for metric in found if metric.startswith("node_filesystem_avail_bytes{")]
    assert any('mountpoint="/"' in metric for metric in disks)
    assert not any(f'mountpoint="{plan.HOST}' in metric for metric in disks)
    assert found["node_textfile_scrape_error"] == "0"
    info = f'tritonhost_release_info{{model="{re.sub(r"[^A-Za-z0-9._:/@+-]", "_", settings.model)}",'
    assert found[f'{info}release="{release.id}",service="{settings.service_name}"}}'] == "1"


def test_dcgm_exporter_shows_each_gpu(host: Any, exporters: tuple[Exporter, ...], release: Release) -> None:
    found = page(host, exporters, plan.DCGM)
    shown = {
        uuid[1]
        for metric in found
        if metric.startswith("DCGM_FI_DEV_GPU_TEMP{") and (uuid := re.search(r'UUID="([^"]+)"', metric))
    }
    assert shown >= {gpu.uuid for gpu in release.gpus}
    listed = host.check_output("nvidia-smi --query-gpu=uuid --format=csv,noheader")
    assert shown == set(listed.split())
