"""Whether a host may leave its load balancers, and which host of an upgrade is the canary."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from operations import load_balancers, rollout
from operations.plan.serving.rollout import Place

HOST: Any = SimpleNamespace(name="gpu-1/llama")
FRONT: Any = SimpleNamespace(name="front-1")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"gpu-1:llama": (True, 200), "gpu-2": (True, 200)}, True),
        ({"gpu-1:llama": (True, 200), "gpu-2": (False, 200)}, False),
        # a canary takes its share alone
        ({"gpu-1:llama": (True, 200), "gpu-2": (True, 0)}, False),
        # there is no other
        ({"gpu-1:llama": (True, 200)}, True),
        # it takes no requests: leaving costs nobody anything
        ({"gpu-1:llama": (False, 200), "gpu-2": (False, 200)}, True),
        # haproxy does not run yet
        ({}, True),
    ],
)
def test_host_leaves_only_if_another_one_serves(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, tuple[bool, int]], expected: bool
) -> None:
    monkeypatch.setattr(load_balancers, "members", lambda front: dict(found))
    assert load_balancers.others_serve(FRONT, HOST) is expected


def test_members_are_read_of_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["gpu-1:llama UP 200", "gpu-2 DOWN 0", "gpu-3 UP 1/2 200"]
    monkeypatch.setattr(load_balancers, "done", lambda *_: lines)
    assert load_balancers.members(FRONT) == {"gpu-1:llama": (True, 200), "gpu-2": (False, 0)}


@pytest.mark.parametrize(
    ("before", "statuses", "first"),
    [
        ({"gpu-1": "old", "gpu-2": "old"}, {}, "gpu-1"),
        # the other one serves something else already, or nothing
        ({"gpu-1": "new", "gpu-2": "old"}, {}, "gpu-2"),
        ({"gpu-1": "", "gpu-2": "old"}, {}, "gpu-2"),
        # a host that was decided about
        ({"gpu-1": "old", "gpu-2": "old"}, {"gpu-3": "converged: serves since 2026"}, ""),
    ],
)
def test_canary_is_the_first_that_changes(
    monkeypatch: pytest.MonkeyPatch, before: dict[str, str], statuses: dict[str, str], first: str
) -> None:
    own = rollout._Run()
    own.before, own.statuses = before, statuses
    own.releases = {**before, **dict.fromkeys(statuses, "new")}
    own.wanted = dict.fromkeys(before, "new")
    own.places = {name: Place(name, bool(before[name])) for name in before}
    monkeypatch.setattr(rollout, "_run", own)
    release: Any = SimpleNamespace(id="new")
    assert [name for name in before if rollout.is_first(name, release)] == ([first] if first else [])
