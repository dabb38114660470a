"""A host's turn: what a host is told that is not changed because of another."""

from __future__ import annotations

from typing import Any

import pytest

from operations import rollout
from operations.plan.serving.rollout import Place
from tests.operations.harness import Host
from tests.unit.builders import release


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
