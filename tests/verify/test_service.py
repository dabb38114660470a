"""The service: its unit, its container, its ports, and a model's known answer."""

from __future__ import annotations

import ipaddress
import re
import shlex
import socket
from typing import Any

import pytest

from operations import golden_answers
from operations.plan import Release
from operations.plan.exposure.server_flags import KEY
from operations.plan.profile.tables import Golden
from operations.plan.serving.recorded import Answer, answer_to
from operations.plan.serving.serve import IMAGE
from operations.remote import host_files
from operations.remote.rendering import HostFile
from operations.server.golden import proven
from tests.verify.connection import Connection, Target

pytestmark = pytest.mark.usefixtures("journal")


def test_unit_is_as_rendered_and_known_to_systemd(
    host: Any, release: Release, etc_files: dict[str, HostFile]
) -> None:
    path = host_files.paths(release.settings).unit
    assert host.file(path).content_string == etc_files[path].text
    # a file that came back under a running service: systemd may refuse it, and says `no` to the next all the same
    assert _property(host, release, "LoadState") == "loaded"
    assert _property(host, release, "NeedDaemonReload") == "no"
    assert _property(host, release, "FragmentPath") == path


def test_service_runs_and_is_enabled(host: Any, release: Release) -> None:
    service = host.service(release.settings.service_name)
    assert service.is_enabled
    assert service.is_running
    assert _property(host, release, "SubState") == "running"


@pytest.mark.requirement("R58")
def test_container_runs_the_release(container: dict[str, Any], release: Release) -> None:
    assert container["State"]["Running"]
    assert container["Config"]["Labels"].get("tritonhost.release") == release.id


def test_container_runs_the_image_of_the_release(
    host: Any, container: dict[str, Any], release: Release
) -> None:
    recorded = host.file(release.image.record(release.data_root)).content_string.strip()
    assert container["Image"] == recorded
    assert container["Config"]["Image"] == recorded, (
        "by its id: a tag may be pointed elsewhere at the next start"
    )


def test_container_runs_the_planned_command(container: dict[str, Any], release: Release) -> None:
    """Its label names the directory it was started from, whatever `serve` said at that moment."""
    text = release.files["serve"].partition("\nexec ")[2].replace("\\\n", "")
    words = shlex.split(text, comments=True)
    # the key of the closed APIs is another one at each start
    ran = [re.sub(r"=[0-9a-f]{64}$", f"={KEY}", word) for word in container["Config"]["Cmd"]]
    assert ran == words[words.index(IMAGE) + 1 :]


def test_container_mounts_the_current_directories(
    host: Any, container: dict[str, Any], release: Release
) -> None:
    """A directory replaced under a running server goes on being served from the deleted one."""
    paths = [release.path, *release.mounts]
    inodes = [str(host.check_output(f"stat --format %i {path}")) for path in paths]
    assert container["Config"]["Labels"].get("tritonhost.mounts") == " ".join(inodes)
    mounted = {mount["Source"]: mount["RW"] for mount in container["Mounts"]}
    socket = [release.database.socket] if release.database else []
    kept = {release.cache.path(release.data_root): True} if release.cache else {}
    assert mounted == {**dict.fromkeys([*paths, *socket], False), **kept}, (
        "each of them, read-only but the cache"
    )


def test_ports_are_bound_to_the_bind_address_only(host: Any, release: Release) -> None:
    listening = host.check_output("ss --listening --tcp --numeric --no-header")
    bound: dict[int, set[str]] = {port: set() for port in release.ports}
    for line in listening.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        if int(port) in bound:
            bound[int(port)].add(address)
    assert bound == {port: {release.settings.server_bind_address} for port in release.ports}


def test_network_does_not_reach_a_loopback_bind(target: Target, release: Release) -> None:
    if not ipaddress.ip_address(release.settings.server_bind_address).is_loopback:
        pytest.skip(f"served to the network on {release.settings.server_bind_address}")
    if ipaddress.ip_address(socket.gethostbyname(target.address)).is_loopback:
        pytest.skip("the tests run on the host itself")
    for port in release.ports:
        with pytest.raises(OSError), socket.create_connection((target.address, port), timeout=3):
            pass


def test_models_are_ready(host: Any, release: Release) -> None:
    statuses = {
        model: host.check_output(
            f"curl --silent --max-time 5 --output /dev/null --write-out '%{{http_code}}' {url} || :"
        )
        for model, url in release.ready_urls.items()
    }
    assert statuses == dict.fromkeys(release.profile.asked_models, "200")


def test_metrics_answer(host: Any, release: Release) -> None:
    metrics = host.check_output(
        f"curl --silent --fail --max-time 5 http://{release.address}:{release.ports[2]}/metrics"
    )
    assert "nv_inference_request_success" in metrics


@pytest.mark.requirement("R58")
def test_golden_answers(connection: Connection, release: Release) -> None:
    seed = release.database.seed if release.database else ""
    with connection.tunnel(release.address, release.ports[1]) as endpoint:
        requests = release.profile.golden_requests
        texts = [request for request in requests if isinstance(request, Golden)]
        answers: list[Answer] = []
        for model, answer, problem, likely in proven(endpoint, requests, seed):
            assert not problem
            assert answer, model
            if len(answers) < len(texts):
                answers.append(answer_to(texts[len(answers)], answer, likely))
    # as recorded on the machine that deploys, if it is this one; clients may have requests meanwhile
    assert not golden_answers.difference_of(release, answers, connection.target.name, exact=False)


def _property(host: Any, release: Release, name: str) -> str:
    return str(host.check_output(f"systemctl show --property={name} --value {release.settings.service_name}"))
