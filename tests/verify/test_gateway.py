"""TLS and API keys in front, where the inventory has a gateway: what nginx runs with, and what a client gets of it."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from operations.intake import gateway_secrets
from operations.plan import Release, Settings
from operations.plan.exposure import gateway as plan
from operations.plan.exposure.gateway import Gateway, Secrets
from operations.remote import host_files
from operations.remote.rendering import HostFile
from tests.verify.connection import Connection, Target

WRONG_KEY = "tritonhost-verify-of-no-key-0123456789"
# GET, but for those that begin with /inference: what no client may do, whatever it has
CLOSED = (
    *("/", "/v2/repository/index", "/v2/logging", "/v2/trace/setting", "/v2/systemsharedmemory/status"),
    *("/v2/cudasharedmemory/status", "/v2/models/stats", "/inference.GRPCInferenceService/RepositoryIndex"),
)


@pytest.fixture(scope="module")
def gateway(release: Release) -> Gateway:
    if release.gateway is None:
        pytest.skip("the inventory has no gateway")
    return release.gateway


@pytest.fixture(scope="module")
def secrets(settings: Settings, target: Target) -> Secrets:
    assert settings.gateway
    return gateway_secrets.load(settings.gateway, target.name)


@pytest.fixture(scope="module")
def runs(host: Any, gateway: Gateway) -> dict[str, Any]:
    """docker's own description of its container."""
    found: dict[str, Any] = host.docker(gateway.service).inspect()
    return found


@dataclass(frozen=True)
class Key:
    """What a client has; never shown, as pytest shows the arguments of what fails."""

    text: str = field(repr=False)


@contextmanager
def encrypted(connection: Connection, gateway: Gateway) -> Iterator[ssl.SSLSocket]:
    """A TLS connection to the gateway, with any certificate: another test compares the certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connection.tunnel(gateway.local_address, gateway.port) as endpoint:
        name, _, port = endpoint.rpartition(":")
        with (
            socket.create_connection((name, int(port)), timeout=15) as plain,
            context.wrap_socket(plain, server_hostname="gateway") as wrapped,
        ):
            yield wrapped


def statuses(connection: Connection, gateway: Gateway, key: Key, paths: tuple[str, ...]) -> dict[str, int]:
    """path -> HTTP status, one after the other over one connection."""
    headers = {"Authorization": f"Bearer {key.text}"} if key.text else {}
    found = {}
    with encrypted(connection, gateway) as wrapped:
        asking = http.client.HTTPConnection("gateway")
        asking.sock = wrapped
        for path in paths:
            asking.request("GET", path, headers=headers)
            answer = asking.getresponse()
            answer.read()
            found[path] = answer.status
    return found


def test_gateway_files_match_and_its_secrets_are_private(
    host: Any, gateway: Gateway, secrets: Secrets, etc_files: dict[str, HostFile], settings: Settings
) -> None:
    path = host_files.paths(settings).gateway_unit
    assert host.file(path).content_string == etc_files[path].text
    texts = host_files.gateway_files(gateway, secrets)
    wanted = {name: host_files.digest(text) for name, text in texts.items()}
    for name, digest in wanted.items():
        file = host.file(f"{gateway.directory}/{name}")
        # a comparison of the texts would print them
        assert file.sha256sum == digest, name
        private = name in plan.FILES
        assert (file.mode, file.uid) == ((0o400, plan.USER) if private else (0o600, 0)), name
    directory = host.file(gateway.directory)
    assert (directory.mode, directory.uid, directory.gid) == (0o750, 0, plan.USER)


def test_gateway_runs_with_its_current_files(
    host: Any, gateway: Gateway, secrets: Secrets, runs: dict[str, Any]
) -> None:
    unit = host.service(f"{gateway.service}.service")
    assert unit.is_enabled
    assert unit.is_running
    assert runs["Config"]["Labels"]["tritonhost.gateway"] == gateway.key
    assert runs["Image"] == host.file(gateway.image_record).content_string.strip()
    loaded = host_files.gateway_loaded(gateway, host_files.gateway_files(gateway, secrets))
    assert host.file(gateway.record).content_string.strip() == f"{loaded.key} {loaded.digest}"


def test_gateway_container_has_no_rights(runs: dict[str, Any]) -> None:
    settings = runs["HostConfig"]
    assert runs["Config"]["User"] == f"{plan.USER}:{plan.USER}"
    assert settings["ReadonlyRootfs"]
    assert not settings["Privileged"]
    assert settings["CapDrop"] == ["ALL"]
    assert not settings["CapAdd"]
    assert settings["SecurityOpt"] and "no-new-privileges" in settings["SecurityOpt"][0]
    assert [mount["RW"] for mount in runs["Mounts"]] == [False]


def test_gateway_can_connect_only_to_the_host(host: Any, gateway: Gateway) -> None:
    tried = "timeout 3 bash -c 'exec 3<>/dev/tcp/{}' 2>/dev/null && echo reached || echo not"
    as_user = f"setpriv --reuid {plan.USER} --regid {plan.USER} --clear-groups"
    for place, expected in ((f"127.0.0.1/{gateway.behind[0]}", "reached"), ("169.254.169.254/80", "not")):
        assert host.check_output(f"{as_user} {tried.format(place)}") == expected, place


def test_gateway_shows_the_inventory_s_certificate(
    connection: Connection, gateway: Gateway, secrets: Secrets
) -> None:
    with encrypted(connection, gateway) as wrapped:
        assert wrapped.getpeercert(binary_form=True) == secrets.certificate
        assert wrapped.version() == "TLSv1.3"


def test_gateway_refuses_old_tls(host: Any, gateway: Gateway) -> None:
    old = "curl --silent --insecure --max-time 5 --output /dev/null --tlsv1 --tls-max 1.1 --ciphers DEFAULT@SECLEVEL=0"
    assert host.run(f"{old} {gateway.local_url}/v2/health/live").rc == 35, (
        "curl's code of a handshake that failed"
    )
    plain = f"http://{gateway.local_url.removeprefix('https://')}/v2/health/live"
    refused = host.check_output(
        f"curl --silent --max-time 5 --output /dev/null --write-out '%{{http_code}}' {plain} || :"
    )
    assert refused == "400"


def test_gateway_refuses_requests_without_a_key(
    connection: Connection, gateway: Gateway, secrets: Secrets
) -> None:
    asked = ("/v2", "/metrics", "/v2/models/ensemble", *CLOSED)
    key, known = secrets.keys[0][1], {key for _, key in secrets.keys}
    for wrong in {"", WRONG_KEY, key.swapcase(), key[:-1], f"{key}0"} - known:
        found = statuses(connection, gateway, Key(wrong), asked)
        assert set(found.values()) == {401}
    found = statuses(connection, gateway, Key(""), ("/v2/health/ready",))
    assert found == {"/v2/health/ready": 200}


def test_gateway_keys_reach_only_the_models(
    connection: Connection, gateway: Gateway, secrets: Secrets, release: Release
) -> None:
    models = tuple(f"/v2/models/{model}/ready" for model in release.profile.asked_models)
    for name, key in secrets.keys:
        found = statuses(connection, gateway, Key(key), ("/v2", "/metrics", *models, *CLOSED))
        # a key with limits may have used them up, and one whose tokens are counted has the door alone
        limits = secrets.limits.get(name)
        through = {200} if limits is None else {200, 403, 429} if limits.tokens_per_day else {200, 429}
        assert {path: status for path, status in found.items() if status not in through} == dict.fromkeys(
            CLOSED, 404
        )


def test_journal_contains_no_key(host: Any, gateway: Gateway, secrets: Secrets) -> None:
    text = host.run(f"journalctl --no-pager --unit {gateway.service}.service").stdout
    shown = [name for name, key in secrets.keys if key in text]
    assert shown == []
    private = "PRIVATE KEY" in text
    assert not private
