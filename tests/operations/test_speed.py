"""The gate of a release's speed through the door, with the requests simulated: held back, recorded, or passed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.state import State

from operations import bench_results, rollout
from operations import swap as swap_operations
from operations.facts.host_state import measurements
from operations.facts.releases import ReleaseLinks
from operations.plan.exposure.door import NEXT
from operations.plan.release import Release
from operations.plan.serving import gates
from operations.plan.serving.gates import Speed
from operations.plan.swap import Swap, bench_of
from operations.remote.refusal import Failed
from operations.server import control, speed
from operations.swap import _serve, _Swap
from tests.operations.harness import Host
from tests.unit.test_door import with_door

IN_PLACE = Swap("in place", "it does not fit beside")
Answers = list[dict[str, Any]]


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return with_door(
        bench_gate="smoke", measurements_directory=str(tmp_path), front="haproxy", record_golden=False
    )


@dataclasses.dataclass
class Sent:
    """What the requests of each measurement were told, and what they find."""

    arguments: list[list[str]] = dataclasses.field(default_factory=list)
    first_s: list[float] = dataclasses.field(default_factory=list)  # of each measurement, in order
    token_s: float = 0.01
    release: str = ""
    problem: str = ""
    lost: int = 0  # requests without an answer


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, release: Release) -> Sent:
    """Requests that take what the test says."""
    found = Sent(release=release.id)

    def process(module: str, url: str, text: str, limit: float, arguments: list[str]) -> tuple[Answers, str]:
        assert (module, url) == ("bench", f"http://127.0.0.1:{release.door.port if release.door else 0}/v1")
        found.arguments.append(arguments)
        if found.problem:
            return [], found.problem
        first = found.first_s.pop(0) if len(found.first_s) > 1 else found.first_s[0]
        times: Answers = []
        for phase in json.loads(text):
            for place, request in enumerate(phase["requests"]):
                seconds = first + 31 * found.token_s
                began = place // phase["at_once"] * seconds
                times.append(
                    {
                        "phase": phase["name"],
                        "number": request["number"],
                        "began_s": began,
                        "first_s": first,
                        "seconds": seconds,
                        "tokens": 32,
                    }
                )
        about = {"model": "m", "release": found.release, "ignore_eos": True}
        return [about, *times[: len(times) - found.lost]], ""

    @contextmanager
    def reached(host: object, address: str, port: int) -> Iterator[str]:
        yield f"{address}:{port}"

    monkeypatch.setattr(bench_results, "in_a_process", process)
    monkeypatch.setattr(speed, "forwarded", reached)
    return found


def asked(release: Release, before: Speed | None, beside: bool = False) -> dict[str, float | str]:
    host: Any = Host({})
    return speed.proven(host, release, release.servers[1 if beside else 0], before)


def test_first_release_is_recorded_and_passes(release: Release, sent: Sent, tmp_path: Path) -> None:
    sent.first_s = [0.5]
    figures = asked(release, None)
    assert figures["bench_first_ms"] == 500 and figures["bench_of"] == bench_of(release)
    [file] = tmp_path.rglob("*.json")
    document = bench_results.read(file)
    assert (document.release, document.model, document.host) == (release.id, release.settings.model, "gpu-1")
    together = document.phase("together")
    assert together and together.tokens_per_s == figures["bench_rate"]
    # 12 answers of 32 tokens, four at once, each of 0.81 s
    assert figures["bench_rate"] == pytest.approx(12 * 32 / (3 * 0.81), rel=1e-3)


def test_faster_release_passes_at_once(release: Release, sent: Sent) -> None:
    sent.first_s = [0.05]
    assert asked(release, Speed(60, 300))["bench_first_ms"] == 50
    assert len(sent.arguments) == 1 and sent.arguments[0] == []


def test_slower_release_is_held_back(release: Release, sent: Sent) -> None:
    sent.first_s = [0.05]
    with pytest.raises(Failed, match=r"bench: found 356 tokens a second, expected at least 0.8 of the 9000"):
        asked(release, Speed(50, 9000))
    sent.first_s = [0.5]
    with pytest.raises(Failed, match="found 500 ms to the first token, expected at most 50 ms"):
        asked(release, Speed(50, 100))


def test_release_that_was_disturbed_is_measured_again(release: Release, sent: Sent) -> None:
    sent.first_s = [0.5, 0.05]
    assert asked(release, Speed(50, 100))["bench_first_ms"] == 50
    assert len(sent.arguments) == 2


def test_release_beside_is_the_one_that_is_measured(release: Release, sent: Sent) -> None:
    sent.first_s = [0.05]
    asked(release, None, beside=True)
    assert sent.arguments == [["--header", f"{NEXT[0]}={NEXT[1]}"]]


def test_answers_of_another_release_are_not_its_speed(release: Release, sent: Sent) -> None:
    sent.first_s, sent.release = [0.05], "other"
    with pytest.raises(Failed, match=f"the door answered with release other, expected {release.id}"):
        asked(release, None)


def test_request_without_an_answer_holds_back(release: Release, sent: Sent) -> None:
    sent.first_s, sent.lost = [0.05], 2
    with pytest.raises(Failed, match="bench: 2 of 20 requests failed, the first: no answer"):
        asked(release, None)
    sent.problem = "HTTP 503: not ready"
    with pytest.raises(Failed, match="bench: HTTP 503: not ready"):
        asked(release, None)


def test_result_that_cannot_be_written_is_a_warning(
    release: Release, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(bench_results, "write", full)
    sent.first_s = [0.05]
    assert asked(release, None)["bench_first_ms"] == 50


# --- in a swap


@pytest.fixture
def swapped(
    monkeypatch: pytest.MonkeyPatch, release: Release, sent: Sent
) -> Callable[..., tuple[list[str], str]]:
    """A swap in place: what was done, in order, and the figures that the host got."""

    def swapped(
        before: Speed | None, way: Swap | None = IN_PLACE, ready: bool = True
    ) -> tuple[list[str], str]:
        done: list[str] = []
        written: list[str] = []
        monkeypatch.setattr(swap_operations, "switched", lambda *_: None)
        monkeypatch.setattr(swap_operations, "start", lambda *_, **__: None)
        monkeypatch.setattr(swap_operations, "answered", lambda *_: [])
        monkeypatch.setattr(swap_operations, "answer_seconds", lambda *_: 0.1)
        monkeypatch.setattr(swap_operations, "soaked", lambda *_: done.append("soaked"))
        monkeypatch.setattr(swap_operations, "put_back", lambda *a: done.append(f"put back {a[2]}"))
        monkeypatch.setattr(swap_operations, "open_past_the_gateway", lambda *_: "")
        monkeypatch.setattr(swap_operations, "judged", lambda *a: done.append(f"judged {a[3]}"))
        monkeypatch.setattr(swap_operations.front, "point_to", lambda *_: None)
        monkeypatch.setattr(swap_operations.door, "runs", lambda *_: ready)
        monkeypatch.setattr(swap_operations.door, "proven", lambda *_: done.append("door's answers"))
        monkeypatch.setattr(control, "shell", lambda _, script: written.append(script))
        monkeypatch.setattr(rollout, "failed", lambda _, status, *__: done.append(status))
        monkeypatch.setattr(rollout, "note", lambda _, status, *__: done.append(status.split(",")[0]))
        host: Any = Host({ReleaseLinks: {"current": release.id, "previous": "old"}})
        host.get_fact = lambda *_, **__: {"current": release.id, "previous": "old"}
        swap = _Swap(release, way, ["other"], False, "old", False, False)
        swap.bench_before = before
        _serve(State(), host, swap)
        line = next((text for text in written if "MEASURED=" in text), "")
        return done, next((text for text in line.splitlines() if text.startswith("MEASURED=")), "")

    return swapped


def test_swap_puts_a_slower_release_back(swapped: Callable[..., tuple[list[str], str]], sent: Sent) -> None:
    sent.first_s = [0.05]
    done, recorded = swapped(Speed(50, 9000))
    assert done[:2] == ["door's answers", "put back old"] and "soaked" not in done
    assert done[2].startswith("put back old: bench: found ") and done[3] == "judged failed"
    assert recorded == ""


def test_swap_records_the_speed_of_a_release_that_passed(
    swapped: Callable[..., tuple[list[str], str]], sent: Sent, release: Release
) -> None:
    sent.first_s = [0.05]
    for before in (None, Speed(55, 400)):
        done, recorded = swapped(before)
        assert done == ["door's answers", "soaked", "judged proven", "serves"]
        # what the next swap reads
        found = measurements(recorded.removeprefix("MEASURED=").strip("'"))
        assert found.bench_first_ms == 50 and found.bench_of == bench_of(release)
        assert gates.baseline(found, bench_of(release)) is not None


def test_swap_measures_nothing_that_is_not_new_or_has_no_door(
    swapped: Callable[..., tuple[list[str], str]], sent: Sent
) -> None:
    sent.first_s = [0.05]
    assert "bench" not in swapped(Speed(50, 9000), way=None)[1]
    assert "bench" not in swapped(Speed(50, 9000), ready=False)[1]
    assert sent.arguments == []


def test_swap_without_the_gate_measures_nothing(
    swapped: Callable[..., tuple[list[str], str]], sent: Sent, release: Release
) -> None:
    object.__setattr__(release, "settings", release.settings.model_copy(update={"bench_gate": None}))
    assert "bench" not in swapped(Speed(50, 9000))[1]
    assert sent.arguments == []
