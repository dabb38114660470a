"""Messages about a run, sent by a whole run to a real endpoint: which events, what is in them, and what they cost where nobody answers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator  # type: ignore[import-untyped]

from tests.command_line import PROJECT
from tests.deploy.test_deploy import BARE, TOOLS, TRUSTED, A, Answers, B, Run, converged_host
from tests.operations.webhook import Webhook, listening, silent

SCHEMA = json.loads((PROJECT / "files/schema/notification.json").read_text("utf-8"))
FAILING: Answers = [(TOOLS, False, ["CANARY: no such package"]), *TRUSTED, *BARE]
REFUSED = converged_host("another", "failed 2026-11-21T08:00:00Z CANARY answer")


def notified(tmp_path: Path, url: str, hosts: dict[str, Answers], *arguments: str, **table: Any) -> Run:
    """A run whose hosts all have the endpoint."""
    own = {name: {"notifications": {"webhook": url, **table}} for name in hosts}
    return Run(tmp_path, hosts, *(arguments or ("-y",)), own=own)


def bodies(found: Webhook) -> list[dict[str, Any]]:
    sent = [body for _, _, body in found.got]
    for body in sent:
        assert list(Draft7Validator(SCHEMA).iter_errors(body)) == []
        assert "CANARY" not in json.dumps(body)
    return sent


@pytest.mark.slow
def test_failing_run_sends_its_start_and_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_TOKEN", "CANARY-token")
    with listening() as found:
        run = notified(
            tmp_path, found.url, {A: FAILING, B: converged_host()}, "-y", token_variable="NOTIFY_TOKEN"
        )
    assert run.code == 1, run.output
    assert "notifications:" not in run.output and "CANARY-token" not in run.output
    assert [headers["authorization"] for _, headers, _ in found.got] == ["Bearer CANARY-token"] * 2
    # each is sent by a process of its own
    start, end = sorted(bodies(found), key=lambda body: str(body["event"]) != "start")
    assert (start["event"], end["event"]) == ("start", "failed")
    assert start["run"] == end["run"]
    assert end["inventory"] == "tests/deploy/fake_inventory.py"
    assert end["duration_s"] >= start["duration_s"]
    assert [(host["host"], host["state"]) for host in start["hosts"]] == [
        (A, "to be changed"),
        (B, "converged"),
    ]
    assert [(host["host"], host["state"], host["failed"]) for host in end["hosts"]] == [
        (A, "failed", True),
        (B, "converged", False),
    ]
    bare, converged = end["hosts"]
    assert bare["differences"] == end["differences"] > 10
    assert (bare["release"], len(bare["wanted"]), bare["model"]) == ("", 16, "smollm2-135m")
    assert (converged["differences"], len(converged["release"])) == (0, 16)


@pytest.mark.slow
def test_run_that_refuses_a_host_never_began(tmp_path: Path) -> None:
    with listening() as found:
        run = notified(tmp_path, found.url, {A: REFUSED})
    assert run.code == 1
    [body] = bodies(found)
    assert (body["event"], body["hosts"][0]["state"]) == ("failed", "refused")


@pytest.mark.slow
@pytest.mark.parametrize(("table", "events"), [({}, []), ({"notify_converged": True}, ["converged"])])
def test_converged_run_says_nothing_unless_asked_to(
    tmp_path: Path, table: dict[str, Any], events: list[str]
) -> None:
    with listening() as found:
        run = notified(tmp_path, found.url, {A: converged_host()}, "-y", **table)
    assert run.code == 0, run.output
    assert [body["event"] for body in bodies(found)] == events


@pytest.mark.slow
def test_dry_run_says_nothing(tmp_path: Path) -> None:
    with listening() as found:
        run = notified(tmp_path, found.url, {A: BARE, B: REFUSED}, "--dry", "-y", notify_converged=True)
    assert "differs, nothing was changed" in run.output
    assert found.got == []


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", [{"status": 500}, {"status": 307}, {"seconds": 8}])
def test_endpoint_that_fails_is_one_warning(tmp_path: Path, behaviour: dict[str, Any]) -> None:
    with listening(**behaviour) as found:
        run = notified(tmp_path, f"{found.url}/hook", {A: converged_host()}, notify_converged=True)
        warnings = [line for line in run.output.splitlines() if "notifications:" in line]
    assert run.code == 0, run.output
    [line] = warnings
    assert f"webhook {found.url}: " in line and line.endswith("; the run itself is not affected")
    assert "CANARY" not in run.output and "/hook" not in run.output and "Traceback" not in run.output


@pytest.mark.slow
def test_run_waits_five_seconds_for_all_messages(tmp_path: Path) -> None:
    began = time.monotonic()
    Run(tmp_path, {A: FAILING}, "-y")
    without = time.monotonic() - began
    with silent() as first, silent() as second:
        own = {A: {"notifications": {"webhook": [first, second, "https://127.0.0.1:9/"]}}}
        began = time.monotonic()
        run = Run(tmp_path, {A: FAILING}, "-y", own=own)
        seconds = time.monotonic() - began
    assert run.code == 1
    assert len([line for line in run.output.splitlines() if "notifications:" in line]) == 3
    assert without + 5.5 > seconds


@pytest.mark.slow
def test_hosts_with_different_settings_get_their_own(tmp_path: Path) -> None:
    with listening() as first, listening() as second:
        own: dict[str, dict[str, Any]] = {
            name: {"notifications": {"webhook": each.url}} for name, each in ((A, first), (B, second))
        }
        Run(tmp_path, {A: REFUSED, B: REFUSED}, "-y", own=own)
    assert [[host["host"] for host in body["hosts"]] for body in bodies(first)] == [[A]]
    assert [[host["host"] for host in body["hosts"]] for body in bodies(second)] == [[B]]


@pytest.mark.slow
def test_url_in_a_variable_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(status=403) as found:
        monkeypatch.setenv("SECRET_URL", f"{found.url}/services/CANARY")
        own = {A: {"notifications": {"webhook_variable": "SECRET_URL"}}}
        run = Run(tmp_path, {A: REFUSED}, "-y", own=own)
    assert [path for path, _, _ in found.got] == ["/services/CANARY"]
    assert "webhook of SECRET_URL: found HTTP 403, expected 2xx" in run.output
    assert "/services" not in run.output


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, "http://hooks.example/CANARY"])
def test_variable_without_a_usable_url_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value:
        monkeypatch.setenv("SECRET_URL", value)
    own = {A: {"notifications": {"webhook_variable": "SECRET_URL"}}}
    run = Run(tmp_path, {A: REFUSED}, "-y", own=own)
    assert run.code == 1
    assert "notifications: SECRET_URL: found " in run.output
    assert "hooks.example" not in run.output


def test_secret_in_a_url_is_refused_before_a_connection(tmp_path: Path) -> None:
    run = notified(tmp_path, "https://hooks.example/?token=CANARY", {A: converged_host()})
    assert (run.code, run.commands) == (2, [])
    assert "notifications.webhook: found what looks like a secret in the URL (not shown)" in run.output
    assert "CANARY" not in run.output
