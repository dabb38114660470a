"""The message about a run: its event, its hosts, its size; and what an inventory may say of where it goes."""

from __future__ import annotations

import ast
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft7Validator  # type: ignore[import-untyped]

from operations.plan.errors import PlanError
from operations.plan.inventory.settings import from_host_data
from operations.plan.serving import notification
from operations.plan.serving.notification import HostNotified, HostState, event_of, state_of
from tests.unit.builders import DATA

PROJECT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((PROJECT / "files/schema/notification.json").read_text("utf-8"))
BEGAN = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)
TOPIC = "ocid1.onstopic.oc1.iad.aaaatopic"


# --- states and events

# How each status that the code writes begins, and its state where the host failed
STATUSES: dict[str, HostState] = {
    "failed: not in service again: ": "failed",
    "converged: serves since ": "failed",
    "converged: load balancer of ": "failed",
    "converged: Prometheus, Alertmanager and Grafana run": "failed",
    "refused: ": "refused",
    "refused: --serial or --no-wait": "refused",
    "untouched: ": "untouched",
    "unreachable: ": "unreachable",
    "failed: ": "failed",
    "given up before the step ": "failed",
    "repaired: what differed is as it should be": "failed",
    "connection lost during the swap": "failed",
    "left as it was: ": "kept",
    "kept ": "kept",
    "DOWN: ": "down",
    "serves from the second server, not started at boot: ": "failed",
    "NOT PROVEN: ": "failed",
    "put back ": "put back",
    # {state}: DOWN or NOT PROVEN; the lines of services beside it and of the gateway
    "": "failed",
}


def beginnings() -> set[str]:
    """The literal text with which the statuses begin that operations/ gives to `rollout.failed` and `rollout.note`."""
    found = set()
    for path in (PROJECT / "operations").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or len(node.args) < 2:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if name in ("failed", "note") and isinstance(first, ast.Name) and first.id in ("host", "each"):
                status: Any = node.args[1]
                text = status.values[0] if isinstance(status, ast.JoinedStr) else status
                found.add(str(text.value) if isinstance(text, ast.Constant) else "")
    return found


def test_every_status_of_the_code_has_a_state() -> None:
    found = beginnings()
    assert len(found) > 10
    assert found == STATUSES.keys()


@pytest.mark.parametrize(("beginning", "state"), STATUSES.items())
def test_status_of_a_failed_host_is_never_a_success(beginning: str, state: HostState) -> None:
    assert state_of(f"{beginning}x", failed=True) == state


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("converged: serves since 2026", "converged"),
        ("repaired: what differed is as it should be", "repaired"),
        ("serves, in place, 3.0 s without service", "serves"),
        ("serves, verified again", "serves"),
        ("differs, nothing was changed", "differs"),
        ("not looked at", "failed"),
    ],
)
def test_status_of_a_host_that_did_not_fail(status: str, state: HostState) -> None:
    assert state_of(status, failed=False) == state


def host(state: HostState, name: str = "gpu-1", **changed: Any) -> HostNotified:
    bad = state in ("put back", "kept", "down", "failed", "refused", "untouched", "unreachable")
    return HostNotified(host=name, state=state, failed=bad, **changed)


@pytest.mark.parametrize(
    ("states", "event"),
    [
        (["serves"], "success"),
        (["repaired", "converged"], "success"),
        (["converged", "converged"], "converged"),
        (["serves", "unreachable"], "failed"),
        (["converged", "refused"], "failed"),
        (["kept", "untouched"], "failed"),
        (["put back", "untouched", "serves"], "put back"),
        (["down", "put back"], "down"),
        (["differs"], None),  # pyinfra's prompt was declined
        (["differs", "converged"], None),
        ([], None),
    ],
)
def test_event_is_the_worst_of_the_hosts(states: list[HostState], event: str | None) -> None:
    assert event_of([host(state) for state in states]) == event


# --- the message


def made(hosts: list[HostNotified], event: Any = "success") -> notification.Message:
    ended = BEGAN + timedelta(seconds=61.04)
    return notification.message(event, "run", "inventories/oci.py", hosts, BEGAN, ended)


def test_message_fits_its_schema() -> None:
    hosts = [host("serves", differences=3, release="a", wanted="a"), host("untouched", "gpu-2")]
    found = json.loads(made(hosts, "failed").model_dump_json())
    assert list(Draft7Validator(SCHEMA).iter_errors(found)) == []
    assert (found["version"], found["event"], found["duration_s"]) == (1, "failed", 61.0)
    assert (found["differences"], found["hosts_left_out"]) == (3, 0)
    assert found["at"] == "2026-11-21T04:01:01Z"
    assert list(Draft7Validator(SCHEMA).iter_errors({**found, "event": "lost"}))


def test_title_names_event_inventory_and_failures() -> None:
    assert made([host("serves")]).title == "tritonhost success: inventories/oci.py, gpu-1"
    two = [host("put back"), host("untouched", "gpu-2")]
    assert made(two, "put back").title == "tritonhost put back: inventories/oci.py, 2 hosts, 2 failed"


def test_message_of_many_hosts_keeps_those_that_failed() -> None:
    hosts = [host("serves", f"gpu-{n}", model="m" * 100) for n in range(500)]
    hosts[400] = host("down", "gpu-400")
    found = made(hosts, "down")
    assert len(found.model_dump_json().encode()) <= notification.LARGEST
    assert "gpu-400" in [each.host for each in found.hosts]
    assert 0 < found.hosts_left_out == 500 - len(found.hosts)
    assert made(hosts[:100]).hosts_left_out == 0


def test_page_shows_a_message() -> None:
    changed = {"model": "llama-3.1-8b-awq", "release": "9e41c7d0a2b85f36", "wanted": "c0a8e1d2f4b69357"}
    hosts = [host("put back", differences=3, **changed), host("untouched", "gpu-2", differences=3, **changed)]
    run, ended = "5b0e3f6a9c1d4e7f8a2b6c0d9e1f7a3c", BEGAN + timedelta(seconds=1312.4)
    shown = notification.message("put back", run, "inventories/oci.py", hosts, BEGAN, ended)
    page = (PROJECT / "docs/how-to/notifications.md").read_text("utf-8")
    assert f"```json\n{shown.model_dump_json(indent=2)}\n```" in page


def test_page_names_every_event_and_state() -> None:
    page = (PROJECT / "docs/how-to/notifications.md").read_text("utf-8")
    words = {*get_args(notification.Event), *notification.HOST_STATES}
    assert [word for word in words if f"`{word}`" not in page] == []


# --- the settings


def settings(**table: Any) -> Any:
    return from_host_data({**DATA, "notifications": table}, "gpu-1").notifications


@pytest.mark.parametrize(
    "table",
    [
        {"webhook": "https://hooks.example/deploys"},
        {"webhook": "https://hooks.example:8443/gpu-hosts/production-frankfurt/deploys"},
        {"webhook": "http://127.0.0.1:9000/"},
        {"webhook": "http://[::1]:9000/hook"},
        {"webhook": "http://localhost/hook"},
        {"webhook": ["https://a.example/b", "https://c.example/d"], "token_variable": "NOTIFY_TOKEN"},
        {"webhook_variable": "SLACK_URL"},
        {"oci_topic": TOPIC, "notify_converged": True},
        {"oci_topic": "ocid1.onstopic.oc1.eu-frankfurt-1.aaaatopic"},
    ],
)
def test_settings_that_are_accepted(table: dict[str, Any]) -> None:
    assert settings(**table) is not None


SECRETS = [
    "https://user:CANARY@hooks.example/deploys",
    "https://CANARY@hooks.example/deploys",
    "https://hooks.example/deploys?token=CANARY",
    "https://hooks.example/deploys#CANARY",
    # made up, in the forms of chat services' webhooks
    "https://hooks.example/services/T0CANARY1/B0CANARY2/CANARYcanary0123456789ab",
    "https://hooks.example/api/webhooks/123456789012345678/CANARY_canary-0123456789-abcdefg",
    "https://hooks.example/hooks/canarycanary0123456789abcd",
    "https://hooks.example/webhookb2/0c1a2b3c-0000-4000-8000-0123456789ab@x/IncomingWebhook/a",
    "https://hooks.example/integration/0123456789abcdef0123456789abcdef/enqueue",
    "https://hooks.example/hooks/CANARYcanaryCANARYcanaryCANARY",
]


@pytest.mark.parametrize("url", SECRETS)
def test_secret_in_a_url_is_refused_and_not_shown(url: str) -> None:
    for given in (url, ["https://a.example/b", url]):
        with pytest.raises(PlanError) as caught:
            settings(webhook=given)
        line = str(caught.value)
        assert line.startswith("gpu-1: notifications.webhook: found ")
        assert "canary" not in line.lower() and "0123456789ab" not in line
        assert "token_variable" in line or "expected a URL" in line


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"webhook": "http://hooks.example/CANARY"}, "expected a URL with https://, or with http:// to this machine"),
        ({"webhook": "ftp://CANARY.example/"}, "expected a URL with https://"),
        ({"webhook": "https:///CANARY"}, "expected a URL with https://"),
        ({"webhook": "https://CANARY.example:99999/"}, "expected a URL with https://"),
        ({"webhook": "https://a.example/\nCANARY"}, "expected a URL with https://"),
        ({"webhook": "http://127.0.0.1.CANARY.example/"}, "expected a URL with https://"),
        ({}, "expected webhook, webhook_variable or oci_topic"),
        ({"webhook": []}, "notifications.webhook"),
        ({"oci_topic": TOPIC, "token_variable": "TOKEN"}, "expected a webhook that it is for"),
        ({"webhook_variable": "https://a.example"}, "the name of an environment variable"),
        ({"webhook": "https://a.example/b", "token_variable": "$TOKEN"}, "the name of an environment variable"),
        ({"oci_topic": "ocid1.topic.oc1.iad.a"}, "the OCID of a topic of OCI Notifications"),
        ({"webhok": "https://a.example/b"}, "did you mean webhook?"),
        ({"webhook": "https://a.example/b", "notify_converged": "yes"}, "true or false"),
    ],
)  # fmt: skip
def test_settings_that_are_refused(table: dict[str, Any], expected: str) -> None:
    with pytest.raises(PlanError) as caught:
        settings(**table)
    assert expected in str(caught.value)
    assert "CANARY" not in str(caught.value)
