"""A host's turn: what a host is told that is not changed because of another."""

from __future__ import annotations

from typing import Any

import pytest
from pyinfra.context import ctx_host, ctx_state

from operations import notifications, rollout, shorter_output
from operations.plan.serving.notification import HostNotified, event_of
from operations.plan.serving.rollout import Place, held_by
from tests.operations.harness import Host
from tests.unit.builders import release
from tests.unit.test_pyinfra_patches import first, state_of


@pytest.mark.parametrize(
    ("stage", "status", "found"),
    [
        ("failed", "untouched: gpu-0 failed before it", "gpu-0 failed"),
        ("unreached", "untouched: gpu-0 was not reached", "gpu-0 not reached"),
    ],
)
def test_held_host_reports_what_failed_before_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stage: Any, status: str, found: str
) -> None:
    run = rollout._Run()
    run.began = True
    run.places = {"gpu-0": Place("gpu-0", True, stage), "gpu-1": Place("gpu-1", True)}
    monkeypatch.setattr(rollout, "_run", run)
    state: Any = None
    host: Any = Host({})
    assert not rollout._take_turn(state, host, release(), [], lambda *_: None)
    assert run.statuses == {"gpu-1": status}
    assert caplog.messages == [
        f"rollout: found {found}, expected no failure before this host's turn; the running release was left as it is; "
        "fix gpu-0, or exclude it with --exclude gpu-0, and run again"
    ]


@pytest.mark.parametrize(
    ("status", "event"),
    [
        ("put back 0123: golden answer: found 'CANARY', expected 'other'", "put back"),
        ("DOWN: no answer to 'CANARY'; 0123 could not be put back", "down"),
        ("kept 0123: slower: CANARY", "failed"),
        ("gateway: CANARY", "failed"),
    ],
)
def test_message_has_the_state_and_no_text_of_a_failure(
    monkeypatch: pytest.MonkeyPatch, status: str, event: str
) -> None:
    state = state_of("@fake/gpu-1")
    host = first(state)
    run = rollout._Run()
    run.wanted = {host.name: "4567"}
    monkeypatch.setattr(rollout, "_run", run)
    told: list[HostNotified] = []
    monkeypatch.setattr(notifications, "ended", lambda hosts, rows, began: told.extend(rows))
    rollout.failed(host, status, "0123")
    state.failed_hosts.add(host)
    rollout._print_report(state)
    assert event_of(told) == event
    [row] = told
    assert (row.failed, row.release, row.wanted) == (True, "0123", "4567")
    assert "CANARY" not in row.model_dump_json()


@pytest.mark.parametrize("watching", [False, True], ids=["serves", "watches"])
def test_monitoring_server_takes_no_part_in_the_rollout(
    monkeypatch: pytest.MonkeyPatch, watching: bool
) -> None:
    """One that is refused or not reached holds no serving host up; it is in the last table all the same."""
    state = state_of("@fake/gpu-1", "@fake/other")
    host = state.inventory.get_host("@fake/other")
    if watching:
        host.host_data["monitoring_server"] = {"admin_password": "a"}
    run = rollout._Run()
    run.places = {"@fake/gpu-1": Place("@fake/gpu-1", True)}
    monkeypatch.setattr(rollout, "_run", run)
    with ctx_state.use(state), ctx_host.use(host):
        rollout.leave_out("image_digests: found nothing")
    assert ("@fake/other" in run.places) is not watching
    assert held_by(list(run.places.values()), "@fake/gpu-1") == ("" if watching else "@fake/other")
    assert run.statuses["@fake/other"].startswith("refused: ")

    rollout._Watch.host_connect_error(state, host, ConnectionError("gone"))
    assert run.unreached == ["@fake/other"] and run.unreached_serving == ([] if watching else ["@fake/other"])


def test_host_that_fails_after_it_went_well_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state = state_of(*(f"@fake/gpu-{number:02}" for number in range(30)))
    run = rollout._Run()
    run.statuses = {host.name: "serves, in place, 6.4 s without service" for host in state.inventory}
    monkeypatch.setattr(rollout, "_run", run)
    monkeypatch.setattr(shorter_output._told, "many", True)
    caplog.set_level("INFO", logger="pyinfra")
    state.failed_hosts.add(state.inventory.get_host("@fake/gpu-07"))
    rollout._print_report(state)
    rows = [" ".join(message.split()) for message in caplog.messages][-2:]
    assert rows == [
        "@fake/gpu-07 failed afterwards: see the lines above; before that: serves, in place, 6.4 s without service",
        "29 hosts serves",
    ]
