"""The gate of a release's speed through the door: what it is compared with, and when it is too slow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from operations.plan import PlanError
from operations.plan.inventory.settings import from_host_data
from operations.plan.observed.observed import Measurements
from operations.plan.planning import check_before_gpus, plan_release
from operations.plan.profile.profiles import load_profile
from operations.plan.serving.gates import Speed, below_share
from operations.plan.swap import baseline, bench_of
from tests.unit.builders import DATA, gpu
from tests.unit.test_swap import fronted, other_serves

BEFORE = Speed(first_ms=100.0, rate=1000.0)
RELEASE = fronted()
RECORDED = Measurements(bench_first_ms=100.0, bench_rate=1000.0, bench_of=bench_of(RELEASE))


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (Speed(100.0, 1000.0), ""),
        (Speed(10.0, 5000.0), ""),
        (Speed(144.0, 801.0), ""),
        (
            Speed(100.0, 799.0),
            "found 799 tokens a second, expected at least 0.8 of the 1000 of the release before",
        ),
        (
            Speed(146.0, 1000.0),
            "found 146 ms to the first token, expected at most 100 ms of the release before divided by 0.8, and 20 ms",
        ),
    ],
)
def test_release_must_reach_its_share(now: Speed, words: str) -> None:
    problem = below_share(BEFORE, now, 0.8)
    assert problem == (f"bench: {words}; bench_share says how much is allowed" if words else "")


def test_both_that_is_slower_is_said() -> None:
    assert below_share(BEFORE, Speed(900.0, 1.0), 0.8).count("found") == 2


def test_release_without_a_baseline_passes() -> None:
    assert below_share(None, Speed(9000.0, 1.0), 0.8) == ""


def test_baseline_is_what_the_release_before_reached() -> None:
    assert baseline(RELEASE, other_serves(RELEASE, {"before": RECORDED})) == BEFORE


def test_baseline_is_of_the_current_release_where_none_serves() -> None:
    observed = replace(other_serves(RELEASE, {"before": RECORDED}), container=None)
    assert observed.serving == "" and baseline(RELEASE, observed) == BEFORE


@pytest.mark.parametrize(
    "recorded",
    [
        Measurements(),
        replace(RECORDED, bench_rate=None),
        replace(RECORDED, bench_first_ms=0.0),
        replace(RECORDED, bench_of=bench_of(plan_release(RELEASE.settings, [gpu(name="NVIDIA H100")]))),
    ],
)
def test_figures_of_something_else_are_no_baseline(recorded: Measurements) -> None:
    assert baseline(RELEASE, other_serves(RELEASE, {"before": recorded})) is None


def test_another_model_or_the_release_itself_is_no_baseline() -> None:
    observed = other_serves(RELEASE, {"before": RECORDED, RELEASE.id: RECORDED})
    stored = replace(observed.artifacts["release", "before"], inputs={"model": "other"})
    assert baseline(RELEASE, replace(observed, artifacts={("release", "before"): stored})) is None
    assert observed.container
    itself = replace(observed.container, labels={"tritonhost.release": RELEASE.id})
    assert baseline(RELEASE, replace(observed, container=itself)) is None


def test_gate_needs_a_door() -> None:
    with pytest.raises(
        PlanError, match=r"bench_gate: found \"smoke\", expected door = \{\} too, .* beside, or"
    ):
        from_host_data({**DATA, "bench_gate": "smoke"}, "h1")
    assert from_host_data({**DATA, "bench_gate": "smoke", "door": {}}, "h1").bench_gate == "smoke"


def test_gate_of_a_model_of_vectors_is_refused() -> None:
    settings = from_host_data({**DATA, "bench_gate": "smoke", "door": {}, "model": "clip-search"}, "h1")
    with pytest.raises(PlanError, match=r"bench_gate: found smoke, expected none for a profile of kind plan"):
        check_before_gpus(settings, load_profile("clip-search"))
