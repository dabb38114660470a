"""OpenAI's API, where the inventory has a door: what its container is, what it may reach, and what a client gets of it."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from operations.plan import Release, Settings
from operations.plan.exposure import door as plan
from operations.plan.exposure.door import Door
from operations.plan.exposure.gateway import Gateway
from operations.plan.profile.tables import Golden
from operations.plan.serving.servers import LOOPBACK
from operations.remote import host_files
from operations.remote.rendering import HostFile
from operations.server.golden import verdict
from tests.verify.connection import Connection


@pytest.fixture(scope="module")
def door(release: Release) -> Door:
    if release.door is None:
        pytest.skip("the inventory has no door")
    return release.door


@pytest.fixture(scope="module")
def runs(host: Any, door: Door) -> dict[str, Any]:
    """docker's own description of its container."""
    found: dict[str, Any] = host.docker(door.service).inspect()
    return found


def asked(connection: Connection, door: Door, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """HTTP status and document, from the host itself."""
    with connection.tunnel(LOOPBACK, door.port) as endpoint:
        asking = http.client.HTTPConnection(endpoint, timeout=120)
        asking.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        answer = asking.getresponse()
        return answer.status, json.loads(answer.read())


def test_door_runs_from_its_image_and_at_boot(
    host: Any, door: Door, runs: dict[str, Any], etc_files: dict[str, HostFile], settings: Settings
) -> None:
    paths = host_files.paths(settings)
    for path in (paths.door_unit, paths.door_script):
        assert host.file(path).content_string == etc_files[path].text, path
    unit = host.service(f"{door.service}.service")
    assert unit.is_enabled
    assert unit.is_running
    assert runs["Config"]["Labels"]["tritonhost.door"] == door.key
    assert runs["Image"] == host.file(door.image_record).content_string.strip()
    assert f"DOOR={door.told}" in runs["Config"]["Env"]


def test_door_container_has_no_rights(runs: dict[str, Any], door: Door) -> None:
    settings = runs["HostConfig"]
    assert runs["Config"]["User"] == f"{door.user}:{door.user}"
    assert settings["ReadonlyRootfs"]
    assert not settings["Privileged"]
    assert settings["CapDrop"] == ["ALL"]
    assert not settings["CapAdd"]
    assert settings["SecurityOpt"] and "no-new-privileges" in settings["SecurityOpt"][0]
    # it writes its counters, and reads all else
    assert {mount["Destination"]: mount["RW"] for mount in runs["Mounts"]} == {
        door.data_root: False,
        plan.USAGE: True,
    }


def test_door_listens_on_the_loopback_alone(host: Any, door: Door) -> None:
    listening = host.check_output(f"ss --listening --tcp --numeric --no-header 'sport = :{door.port}'")
    assert [line.split()[3] for line in listening.splitlines()] == [f"{LOOPBACK}:{door.port}"]


def test_door_can_connect_only_to_the_servers(host: Any, door: Door) -> None:
    tried = "timeout 3 bash -c 'exec 3<>/dev/tcp/{}' 2>/dev/null && echo reached || echo not"
    as_user = f"setpriv --reuid {door.user} --regid {door.user} --clear-groups"
    own = f"127.0.0.1/{json.loads(door.told)['services'][0]['current']['address'].rpartition(':')[2]}"
    for place, expected in ((own, "reached"), ("127.0.0.1/22", "not"), ("169.254.169.254/80", "not")):
        assert host.check_output(f"{as_user} {tried.format(place)}") == expected, place


def test_door_reads_no_secret_of_the_host(host: Any, door: Door, settings: Settings) -> None:
    as_user = f"setpriv --reuid {door.user} --regid {door.user} --clear-groups"
    for name in ("gateway", "database"):
        path = f"{settings.state_root}/{name}"
        assert host.run(f"test -e {path} && {as_user} ls {path}").rc != 0, path


def test_door_offers_the_running_model(connection: Connection, door: Door, settings: Settings) -> None:
    status, found = asked(connection, door, "GET", "/v1/models")
    named = settings.door.name if settings.door else None
    assert (status, found["data"][0]["id"]) == (200, named or settings.model)


def test_door_gives_the_golden_answers(connection: Connection, door: Door, release: Release) -> None:
    status, models = asked(connection, door, "GET", "/v1/models")
    model = models["data"][0]["id"]
    for golden in release.profile.golden_requests:
        if isinstance(golden, Golden):
            body = {"model": model, "prompt": golden.sent, "max_tokens": golden.max_tokens, "temperature": 0}
            status, found = asked(connection, door, "POST", "/v1/completions", body)
            assert status == 200, found
            assert verdict(golden, found["choices"][0]["text"]) == ""
            usage = found["usage"]
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
            assert 0 < usage["completion_tokens"] <= golden.max_tokens
        elif golden.text:
            status, found = asked(
                connection, door, "POST", "/v1/embeddings", {"model": model, "input": golden.text}
            )
            assert status == 200, found
            assert any(found["data"][0]["embedding"])


def test_gateway_lets_only_keys_through_to_the_door(host: Any, door: Door, release: Release) -> None:
    gateway: Gateway | None = release.gateway
    if gateway is None:
        pytest.skip("the inventory has no gateway")
    asked_with = "curl --silent --insecure --max-time 10 --output /dev/null --write-out '%{http_code}'"
    for path in ("/v1/models", "/v1/chat/completions", "/v1/nothing", "/metrics/door"):
        for header in ("", "--header 'Authorization: Bearer tritonhost-verify-of-no-key-0123456789'"):
            # a client does not become another one, or the host itself, by what it says of itself
            said = "--header 'X-Tritonhost-Client: host'"
            found = host.check_output(f"{asked_with} {header} {said} {gateway.local_url}{path}")
            assert found == "401", path


def test_journal_of_the_door_has_no_fault(host: Any, door: Door) -> None:
    text = host.run(f"journalctl --no-pager --lines=2000 --unit {door.service}.service").stdout
    assert "Traceback" not in text
