"""The door's plan: what it is told, what it may reach, when its container is another one; and the limits of keys."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operations.intake import gateway_secrets
from operations.plan.difference import difference
from operations.plan.errors import PlanError
from operations.plan.exposure import door, gateway
from operations.plan.exposure.gateway import Limits
from operations.plan.inventory.door_settings import IMAGE
from operations.plan.inventory.settings import from_host_data
from operations.plan.planning import plan_release, ports_of
from operations.plan.preflight.sources import sources
from operations.plan.profile.profiles import load_profile
from operations.plan.release import Release
from operations.remote import host_files
from tests.unit.builders import DATA, DIGEST, converged, gpu, profile, release
from tests.unit.certificates import API_KEY, gateway_files, pair
from tests.unit.test_gateway import release_of

DIGESTS = {**DATA["image_digests"], IMAGE: DIGEST}
OTHER = API_KEY.swapcase()


def with_door(
    wanted: dict[str, Any] | None = None, tables: dict[str, Any] | None = None, **data: Any
) -> Release:
    return release({"door": wanted or {}, "image_digests": DIGESTS, **data}, tables)


PLAIN = release({"image_digests": DIGESTS})


def told(found: Release) -> dict[str, Any]:
    assert found.door
    value: dict[str, Any] = json.loads(found.door.told)
    return value


def test_door_is_told_of_the_server_and_the_one_beside_it() -> None:
    [alone] = told(with_door())["services"]
    assert alone["current"] == {"link": "/var/lib/tritonhost/current", "address": "127.0.0.1:8001"}
    assert "next" not in alone
    [fronted] = told(with_door(front="haproxy"))["services"]
    # clients' port, which is the proxy's, and the second server's own
    assert fronted["current"]["address"] == "127.0.0.1:8001"
    assert fronted["next"] == {"link": "/var/lib/tritonhost/next", "address": "127.0.0.1:28001"}


def test_container_has_no_rights_and_one_place_to_write() -> None:
    wanted = with_door().door
    assert wanted
    words = " ".join(wanted.run)
    for option in (
        f"--user {door.user('triton')}:{door.user('triton')}",
        "--read-only",
        "--cap-drop ALL",
        "no-new-privileges",
        "--network host",
    ):
        assert option in words
    mounts = [word for word in wanted.run if word.startswith(("type=bind", "/var/lib/tritonhost:"))]
    assert mounts == [
        "/var/lib/tritonhost:/var/lib/tritonhost:ro",
        "type=bind,source=/var/lib/tritonhost/door,target=/usage",
    ]


def test_container_of_other_options_has_another_key() -> None:
    first = with_door().door
    assert first and with_door().door == first
    for other in (with_door({"port": 9001}), with_door({"name": "gpt"}), with_door(front="haproxy")):
        assert other.door and other.door.key != first.key
    assert f"tritonhost.door={first.key}" in first.run


def test_release_is_the_same_with_a_door_and_without() -> None:
    """A door comes and goes without a start of the server."""
    assert with_door().id == PLAIN.id


@pytest.mark.parametrize("port", [8000, 8001, 8002, 8443])
def test_port_of_another_is_refused(port: int, tmp_path: Path) -> None:
    data = {
        **DATA,
        "image_digests": {**DIGESTS, "library/nginx:1.30.7": DIGEST},
        "door": {"port": port},
        "gateway": gateway_files(tmp_path, pair()),
    }
    settings = from_host_data(data, "h1")
    with pytest.raises(PlanError, match=r"door\.port"):
        plan_release(settings, [gpu()], profile=profile())


@pytest.mark.parametrize(
    ("wanted", "key"),
    [
        ({"port": 80}, "door.port"),
        ({"image": "library/python:3.12.1"}, "door.image"),
        ({"image": "docker.io/library/python:3.11"}, "door.image"),
        ({"name": "a b"}, "door.name"),
        ({"unknown": 1}, "door.unknown"),
        ({"also": "llama"}, "door.also"),
    ],
)
def test_setting_that_cannot_be_is_refused(wanted: dict[str, Any], key: str) -> None:
    with pytest.raises(PlanError) as refused:
        from_host_data({**DATA, "door": wanted}, "h1")
    assert key in str(refused.value)


SERVICES: dict[str, Any] = {
    "llama": {"model": "smollm2-135m", "gpu_ids": [0], "door": {"also": ["search"]}},
    "search": {
        "model": "gpt2-medium",
        "gpu_ids": [1],
        "http_port": 8010,
        "grpc_port": 8011,
        "metrics_port": 8012,
    },
}


def of_services(name: str, **changed: Any) -> Release:
    data = {
        **DATA,
        "image_digests": DIGESTS,
        "services": SERVICES,
        "service_name": name,
        **SERVICES[name],
        **changed,
    }
    return plan_release(from_host_data(data, f"h1/{name}"), [gpu(0), gpu(1)], profile=profile())


def test_door_offers_other_services_that_are_named() -> None:
    own, other = told(of_services("llama"))["services"]
    assert own["current"]["link"] == "/var/lib/tritonhost/services/llama/current"
    assert other["current"] == {
        "link": "/var/lib/tritonhost/services/search/current",
        "address": "127.0.0.1:8011",
    }
    for wrong in ("llama", "nobody"):
        with pytest.raises(PlanError, match=r"door\.also"):
            of_services("llama", door={"also": [wrong]})


def test_guard_lets_the_door_reach_the_servers_alone() -> None:
    rules = host_files.guard_rules(with_door(front="haproxy").guard)
    assert f"meta skuid {door.user('triton')} jump from_door" in rules
    assert 'oifname { "lo", "triton0" } tcp dport { 8001, 28001 } accept' in rules
    # each door is a user of its own, which only its own service's guard knows
    of_llama, of_search = (of_services(name, door={}).guard for name in ("llama", "search"))
    assert of_llama.door_user != of_search.door_user
    assert "tcp dport { 8001, 8011 } accept" in host_files.guard_rules(of_services("llama").guard)
    assert "from_door" not in host_files.guard_rules(release().guard)


def test_rows_name_what_is_missing_of_a_door() -> None:
    wanted = with_door()
    host = converged(wanted)
    files = host_files.expected(wanted)
    stages = {row.what for row in difference(wanted, host, files) if row.stage == "door"}
    assert stages == {
        "/etc/triton-door.sh",
        "/etc/systemd/system/triton-door.service",
        "triton-door.service",
    }
    assert wanted.door
    there = {**host.file_digests, **{file.path: file.digest for file in files}}
    active = {"ActiveState": "active", "UnitFileState": "enabled", "LoadState": "loaded"}
    units = {**host.units, "triton-door.service": active}
    runs = replace(host, file_digests=there, units=units, door=wanted.door.key)
    assert [row for row in difference(wanted, runs, files) if row.stage == "door"] == []
    [row] = [row for row in difference(wanted, replace(runs, door="another"), files) if row.stage == "door"]
    assert (row.what, row.found) == ("container triton-door", "of other options")
    [row] = [row for row in difference(PLAIN, runs, host_files.expected(PLAIN)) if row.stage == "door"]
    assert row.wanted == "stopped: the inventory has no door"


def test_image_is_made_of_files_of_this_project() -> None:
    wanted = with_door().door
    assert wanted
    assert {"Dockerfile", "requirements.txt", "app.py", "__main__.py"} <= set(wanted.image.files)
    assert wanted.image.inputs["base"] == IMAGE
    settings = from_host_data({**DATA, "door": {}}, "h1")
    with pytest.raises(PlanError, match="image_digests"):
        plan_release(settings, [gpu()], profile=profile())
    assert {"source docker hub"} <= set(sources(settings, load_profile("smollm2-135m"), "9"))


def test_ports_of_a_host_include_the_door_s() -> None:
    settings = with_door().settings
    assert 9000 in ports_of(settings, load_profile("smollm2-135m"))


def test_engine_that_does_not_stream_is_a_warning() -> None:
    assert any("door: a stream has one part" in warning for warning in with_door().warnings)
    streams = {"repository": {"parameters": {"decoupled_mode": True}}}
    assert not any("door" in warning for warning in with_door(tables=streams).warnings)
    assert not any("door" in warning for warning in release().warnings)


# Limits of keys

LINES = (
    f"shop {API_KEY} requests_per_minute=90 concurrent=3 tokens_per_day=1000\n"
    f"shop {OTHER} concurrent=3 requests_per_minute=90 tokens_per_day=1000  # its next one\n"
    f"free {API_KEY[::-1]}\n"
)


def test_limits_belong_to_a_name() -> None:
    keys, limits = gateway.api_keys(LINES, "x")
    assert [name for name, _ in keys] == ["shop", "shop", "free"]
    assert limits == {"shop": Limits(90, 3, 1000)}


@pytest.mark.parametrize(
    "words",
    [
        *("requests_per_minute=0", "requests_per_minute=x", "concurrent=99999", "tokens=5", "more"),
        *("concurrent=1 concurrent=1", "concurrent=-1", "requests_per_minute="),
    ],
)
def test_word_that_is_no_limit_is_refused_and_not_shown(words: str) -> None:
    with pytest.raises(PlanError) as refused:
        gateway.api_keys(f"shop {API_KEY} {words}\n", "h1")
    assert "line 1" in str(refused.value)
    assert words.split()[0] not in str(refused.value).split("expected")[0]


def test_two_limits_of_one_name_are_refused() -> None:
    with pytest.raises(PlanError, match="line 2: found other limits of shop"):
        gateway.api_keys(f"shop {API_KEY} concurrent=1\nshop {OTHER}\n", "h1")


def configured(tmp_path: Path, lines: str, **data: Any) -> dict[str, str]:
    found = release_of(gateway_files(tmp_path, pair(), lines), **data)
    assert found.gateway and found.settings.gateway
    return host_files.gateway_files(found.gateway, gateway_secrets.load(found.settings.gateway, "h1"))


def test_nginx_counts_requests_and_connections_of_a_name(tmp_path: Path) -> None:
    files = configured(tmp_path, LINES)
    limits = files[gateway.LIMITS]
    assert "limit_req_zone $limited_0 zone=requests_0:64k rate=90r/m;" in limits
    assert '"~^shop$" 1000;' in limits
    # in each place that lets inference through, and nowhere else
    assert files[gateway.CONFIGURATION].count("limit_req zone=requests_0 burst=89 nodelay;") == 3
    assert files[gateway.CONFIGURATION].count("limit_conn concurrent_0 3;") == 3
    assert API_KEY not in limits


def test_name_is_no_word_of_nginx_s_language(tmp_path: Path) -> None:
    """`default` of a map is not a value, and a dot of a pattern is every character."""
    limits = configured(tmp_path, f"default {API_KEY} concurrent=1\na.b {OTHER} concurrent=2\n")[
        gateway.LIMITS
    ]
    assert '"~^default$" 1;' in limits and '"~^a\\.b$" 1;' in limits


def test_each_place_of_the_door_needs_a_key(tmp_path: Path) -> None:
    text = configured(tmp_path, LINES, door={}, image_digests={**DIGESTS, "library/nginx:1.30.7": DIGEST})[
        gateway.CONFIGURATION
    ]
    places = re.findall(r"^        location ([^{]+) \{\n(.*?)^        \}", text, re.MULTILINE | re.DOTALL)
    of_the_door = {name: body for name, body in places if "door_server" in body or name == "/v1/"}
    assert len(of_the_door) == 3
    for name, body in of_the_door.items():
        assert 'if ($client = "") {\n                return 401;' in body, name
    # a client does not say who it is, or that it is the deploy that tries a release
    [body] = [body for name, body in of_the_door.items() if name.startswith("~")]
    for header in ('Authorization ""', 'X-Tritonhost-Server ""', "X-Tritonhost-Client $client"):
        assert f"proxy_set_header {header};" in body


def test_places_of_the_door_are_closed_without_one(tmp_path: Path) -> None:
    assert "/v1/" not in configured(tmp_path, LINES)[gateway.CONFIGURATION]


def test_limits_leave_no_way_around_them(tmp_path: Path) -> None:
    """A gRPC stream is one request for nginx, and Triton's own API counts no tokens."""
    files = configured(tmp_path, f"few {API_KEY} concurrent=1\ncounted {OTHER} tokens_per_day=5\n")
    text, limits = files[gateway.CONFIGURATION], files[gateway.LIMITS]
    places = dict(
        re.findall(r"^        location ([^{]+) \{\n(.*?)^        \}", text, re.MULTILINE | re.DOTALL)
    )
    [stream] = [body for name, body in places.items() if "ModelStreamInfer" in name]
    assert "if ($without_streams) {" in stream and "if ($door_alone) {" in stream
    others = [body for name, body in places.items() if "grpc_pass" in body or "http_server$uri" in body]
    assert sum("if ($door_alone) {" in body for body in others) == 3
    for name, alone in (("without_streams", "few"), ("door_alone", "counted")):
        block = limits.partition(f"map $client ${name} {{")[2].partition("}")[0]
        assert f'"~^{alone}$" 1;' in block and block.count("~^") == 1


def test_name_of_the_host_s_own_requests_is_taken() -> None:
    with pytest.raises(PlanError, match="the name host"):
        gateway.api_keys(f"host {API_KEY}\n", "h1")


def test_services_of_one_model_cannot_share_a_door() -> None:
    alike = {**SERVICES, "search": {**SERVICES["search"], "model": "smollm2-135m"}}
    with pytest.raises(PlanError, match="models of different names"):
        of_services("llama", services=alike)
    alike["search"]["door"] = {"name": "second"}
    assert [each["name"] for each in told(of_services("llama", services=alike))["services"]] == ["", "second"]


def test_door_reaches_a_server_that_listens_elsewhere() -> None:
    data: dict[str, Any] = {"bind_address": "10.0.0.5", "allowed_sources": ["10.0.0.0/16"]}
    assert told(with_door(**data))["services"][0]["current"]["address"] == "10.0.0.5:8001"
