"""How a release takes the place of another, and what it must show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from operations.plan import PlanError
from operations.plan.observed.observed import Measurements, Observed, StoredArtifact
from operations.plan.planning import plan_release
from operations.plan.profile.profiles import load_profile
from operations.plan.release import Release
from operations.plan.serving.gates import slower
from operations.plan.swap import comparable, needed_mib, swap
from tests.unit.builders import DIGEST, converged, gpu, settings

FRONT = {"triton-front.service": {"ActiveState": "active", "UnitFileState": "enabled"}}


def fronted(free_mib: int = 22000, **changed: Any) -> Release:
    return plan_release(settings(front="haproxy", **changed), [gpu(memory_free_mib=free_mib)])


def other_serves(release: Release, measurements: Mapping[str, Measurements] | None = None) -> Observed:
    """The host while it serves another release behind the front."""
    host = converged(release)
    assert host.container
    container = replace(
        host.container, labels={"tritonhost.release": "before"}, sources=frozenset(release.mounts)
    )
    return replace(
        host,
        container=container,
        current="before",
        units={**host.units, **FRONT},
        measurements=measurements or {},
        artifacts={
            **host.artifacts,
            ("release", "before"): StoredArtifact("release", "before", {"model": release.settings.model}),
        },
        listening=frozenset({8000, 18000, 18001, 18002}),
    )


def test_idle_host_gets_a_first_start() -> None:
    assert swap(fronted(), Observed()).way == "first start"


def test_release_that_fits_swaps_side_by_side() -> None:
    release = fronted()
    found = swap(release, other_serves(release, {release.id: Measurements(gpu_mib=9000, load_s=12)}))
    assert (found.way, found.outage_s) == ("side by side", 0.0)
    assert str(found) == "side by side: both fit on the GPUs; no outage expected"


@pytest.mark.parametrize(
    ("free", "measured", "expected"),
    [
        (8000, 9000, "it needs 9000 MiB on each GPU, 8000 MiB are free"),
        (9400, 9000, "it needs 9000 MiB on each GPU, 9400 MiB are free"),  # within the margin
        (
            8000,
            None,
            "it needs 12205 MiB on each GPU, 8000 MiB are free",
        ),  # as forecast, nothing was measured
    ],
)
def test_release_that_does_not_fit_swaps_in_place(free: int, measured: int | None, expected: str) -> None:
    release = fronted(free)
    found = swap(release, other_serves(release, {release.id: Measurements(load_s=12.4, gpu_mib=measured)}))
    assert found.way == "in place"
    assert expected in found.why
    assert str(found).endswith("an outage of about 12 s, as measured")


def test_memory_need_is_read_from_a_release_of_the_same_engine() -> None:
    release = fronted()
    host = other_serves(release, {"before": Measurements(gpu_mib=7000, load_s=30)})
    assert needed_mib(release, host, "before") == 7000
    assert host.container
    another = replace(host, container=replace(host.container, sources=frozenset({"/data/engines/other"})))
    assert needed_mib(release, another, "before") == 12205, "as forecast: half of the GPU is its cache"


def test_unmeasured_model_swaps_in_place() -> None:
    release = plan_release(
        settings(
            model="llama-3.1-8b-llmapi",
            front="haproxy",
            image_digests={"nvidia/tritonserver:26.07-trtllm-python-py3": DIGEST},
        ),
        [gpu()],
        profile=load_profile("llama-3.1-8b-llmapi").model_copy(update={"architecture": None}),
    )
    found = swap(release, other_serves(release))
    assert found.why == "the GPU memory that it needs is not known until it has been loaded once"
    assert str(found).endswith("an outage of unknown length, nothing was measured yet")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"units": {}}, "the proxy does not run yet"),
        ({"listening": frozenset({18000, 28001})}, "port 28001 is taken by another program"),
        (
            {"listening": frozenset({9000, 19000})},
            "the running release has other ports than those behind the proxy",
        ),
    ],
)
def test_other_obstacles_to_side_by_side_are_named(change: dict[str, Any], expected: str) -> None:
    release = fronted()
    host = other_serves(release, {release.id: Measurements(gpu_mib=1)})
    assert swap(release, replace(host, **change)).why == expected


def test_server_left_beside_does_not_prevent_side_by_side() -> None:
    release = fronted()
    host = other_serves(release, {release.id: Measurements(gpu_mib=1)})
    left = {"triton-next.service": {"ActiveState": "active"}}
    again = replace(host, units={**host.units, **left}, listening=frozenset({18000, 28000, 28001, 28002}))
    assert swap(release, again).way == "side by side"


def test_swap_without_a_proxy_is_in_place() -> None:
    release = plan_release(settings(), [gpu()])
    assert "no proxy is configured" in swap(release, other_serves(release)).why


def test_same_release_restarts_in_place() -> None:
    release = fronted()
    host = replace(converged(release), units=FRONT)
    assert swap(release, host).why == "the same release is started again"


def test_ports_leave_room_for_servers_behind_a_proxy() -> None:
    with pytest.raises(PlanError, match="ports up to 45535"):
        fronted(http_port=45536)


def test_both_servers_have_their_own_scripts_ports_and_units() -> None:
    files = fronted().files
    assert sorted(files) == ["serve", "serve-next", "wait-ready", "wait-ready-next"]
    assert "--publish=127.0.0.1:18000:8000" in files["serve"]
    assert "--publish=127.0.0.1:28000:8000" in files["serve-next"]
    assert "--name \\\n    triton-next \\\n" in files["serve-next"]
    assert "127.0.0.1:28000/v2/models/ensemble/ready" in files["wait-ready-next"]
    assert sorted(plan_release(settings(), [gpu()]).files) == ["serve", "wait-ready"]


def test_speeds_of_two_releases_of_one_model_are_compared() -> None:
    release = fronted()
    host = other_serves(release)
    assert comparable(release, host)
    other_model = {("release", "before"): StoredArtifact("release", "before", {"model": "gpt2-medium"})}
    assert not comparable(release, replace(host, artifacts=other_model))
    assert not comparable(release, replace(host, listening=frozenset()))
    assert not comparable(release, converged(release))


@pytest.mark.parametrize(
    ("before", "now", "slow"),
    [(1.0, 3.2, False), (1.0, 3.3, True), (0.02, 0.3, False), (None, 60.0, False), (1.0, None, False)],
)
def test_slower_release_fails_beyond_the_factor(before: float | None, now: float | None, slow: bool) -> None:
    found = slower(before, now, 3.0)
    assert bool(found) == slow
    assert not slow or found.startswith("golden request: found 3.30 s, expected at most 3 times the 1.00 s")
