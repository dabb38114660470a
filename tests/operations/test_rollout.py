"""A host's turn: what a host is told that is not changed because of another."""

from __future__ import annotations

from typing import Any

import pytest

from operations import notifications, rollout
from operations.plan.serving.notification import HostNotified, event_of
from operations.plan.serving.rollout import Place
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
    assert not rollout._take_turn(state, host, release(), [])
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
