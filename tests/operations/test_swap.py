"""What a failed swap leaves behind, with the host simulated: a server with clients is never stopped for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.state import State

from operations import front, golden_answers, rollout
from operations import swap as swap_operations
from operations.facts.releases import ReleaseLinks
from operations.plan.release import Release
from operations.plan.serving.recorded import Answer
from operations.plan.swap import Swap
from operations.remote.refusal import Failed
from operations.swap import _serve, _Swap
from tests.operations.harness import Host
from tests.unit.builders import release as made
from tests.unit.certificates import gateway_files, pair
from tests.unit.test_gateway import release_of


@dataclass
class Played:
    """What each step of a swap answers (nothing: it succeeds), and what was done, in order."""

    links: dict[str, str]
    start: list[str] = field(default_factory=list)  # of each start of a server, in order
    gates: str = ""
    put_back: str = ""
    open_to: str = ""
    done: list[str] = field(default_factory=list)
    reported: list[str] = field(default_factory=list)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Any:
    def play(
        release: Release, played: Played, way: Swap | None, running: str = "old", switched: bool = True
    ) -> Played:
        def fail(problem: str) -> None:
            if problem:
                raise Failed(problem)

        def switch(*_: object) -> None:
            played.links = {**played.links, "current": release.id}

        def start(_: object, __: object, service: str = "", ___: str = "", **____: object) -> None:
            played.done.append(f"start {service or 'triton'}")
            fail(played.start.pop(0) if played.start else "")

        def put_back(_: object, __: object, previous: str) -> None:
            played.done.append(f"put back {previous}")
            fail(played.put_back)

        def point_to(_: object, __: object, server: Any) -> None:
            played.done.append(f"front leads to {server.service}")

        monkeypatch.setattr(swap_operations, "switched", switch)
        monkeypatch.setattr(swap_operations, "start", start)
        monkeypatch.setattr(swap_operations, "put_back", put_back)
        monkeypatch.setattr(swap_operations, "_gates", lambda *_: fail(played.gates))
        monkeypatch.setattr(swap_operations, "_drain", lambda *_: None)
        monkeypatch.setattr(swap_operations, "answered", lambda *_: None)
        monkeypatch.setattr(swap_operations, "measured", lambda *_: None)
        monkeypatch.setattr(swap_operations, "shell", lambda *_, **__: (True, []))
        monkeypatch.setattr(swap_operations, "done", lambda *_, **__: [])
        monkeypatch.setattr(
            swap_operations, "open_past_the_gateway", raising=False, value=lambda *_: played.open_to
        )
        monkeypatch.setattr(swap_operations, "judged", lambda *a: played.done.append(f"judged {a[3]}"))
        monkeypatch.setattr(front, "point_to", point_to)
        monkeypatch.setattr(front, "stop_server", lambda _, name: played.done.append(f"stop {name}"))
        monkeypatch.setattr(rollout, "failed", lambda _, status, *__: played.reported.append(status))
        monkeypatch.setattr(rollout, "note", lambda _, status, *__: played.reported.append(status))
        host: Any = Host({ReleaseLinks: None})
        host.get_fact = lambda *_, **__: played.links
        swap = _Swap(release, way, ["other"], False, running, False, False)
        assert _serve(State(), host, swap) is (played.reported[0].startswith("serves,"))
        return played

    return play


FRONTED = made({"front": "haproxy"})
BESIDE = Swap("side by side", "both fit", 0.0)
REFUSED = "triton.service did not get ready"


def test_failed_put_back_keeps_the_server_beside(play: Any) -> None:
    played = play(
        FRONTED,
        Played({"current": "old", "previous": "old"}, start=["", REFUSED], put_back="no GPU memory"),
        BESIDE,
    )
    assert "put back old" in played.done
    assert not [step for step in played.done if step.startswith("stop")]
    assert [step for step in played.done if step.startswith("front")][-1] == "front leads to triton-next"
    assert played.reported[-1].startswith("serves from the second server, not started at boot: ")
    assert not [step for step in played.done if step.startswith("judged")]


def test_swap_without_a_previous_keeps_the_server_beside(play: Any) -> None:
    played = play(FRONTED, Played({"current": "old"}, start=["", REFUSED]), BESIDE)
    assert not [step for step in played.done if step.startswith(("stop", "put back"))]
    assert [step for step in played.done if step.startswith("front")][-1] == "front leads to triton-next"
    assert "no previous release" in played.reported[-1]


def test_swap_stops_the_server_beside_once_the_old_one_serves(play: Any) -> None:
    played = play(FRONTED, Played({"current": "old", "previous": "old"}, start=["", REFUSED]), BESIDE)
    assert played.done[-3:] == ["judged failed", "front leads to triton", "stop triton-next"]
    assert played.reported == [f"put back old: {REFUSED}"]


def test_swap_stops_a_server_that_failed_its_gates(play: Any) -> None:
    played = play(FRONTED, Played({"current": "old", "previous": "older"}, gates="wrong answer"), BESIDE)
    assert played.done[-1] == "stop triton-next"
    assert played.reported == ["kept old: wrong answer"]


# --- a gateway


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return release_of(gateway_files(tmp_path_factory.mktemp("gateway"), pair()))


@pytest.mark.parametrize("way", [None, Swap("in place", "the same release is started again")])
def test_swap_does_not_put_back_past_the_gateway(play: Any, behind: Release, way: Swap | None) -> None:
    played = play(
        behind,
        Played({"current": behind.id, "previous": "plain"}, gates="too slow", open_to="10.0.0.11"),
        way,
        running=behind.id,
    )
    assert not [step for step in played.done if step.startswith("put back")]
    assert "plain is from before the gateway, on 10.0.0.11 without TLS and keys" in played.reported[-1]
    assert played.reported[-1].startswith("DOWN: " if way else "NOT PROVEN: ")


def test_first_start_does_not_put_back_past_the_gateway(play: Any, behind: Release) -> None:
    played = play(
        behind,
        Played({"current": "plain", "previous": "plain"}, start=[REFUSED], open_to="10.0.0.11"),
        Swap("first start", ""),
        running="",
    )
    assert not [step for step in played.done if step.startswith("put back")]


def test_swap_that_brings_the_gateway_puts_back(play: Any, behind: Release) -> None:
    played = play(
        behind,
        Played({"current": "plain", "previous": "plain"}, start=[REFUSED], open_to="10.0.0.11"),
        Swap("in place", "no front"),
        running="plain",
    )
    assert "put back plain" in played.done


def test_swap_puts_back_a_release_behind_the_gateway(play: Any, behind: Release) -> None:
    played = play(
        behind, Played({"current": behind.id, "previous": "other"}, gates="slow"), None, running=behind.id
    )
    assert "put back other" in played.done


# --- recorded answers


def gates_of(monkeypatch: pytest.MonkeyPatch, release: Release, *texts: str, new: bool = True) -> _Swap:
    """The gates of a release whose server answers this."""
    said = [Answer("ensemble", "What?", 8, text) for text in texts]
    monkeypatch.setattr(swap_operations, "answered", lambda *_: [said.pop(0) if len(said) > 1 else said[0]])
    monkeypatch.setattr(swap_operations, "answer_seconds", lambda *_: 0.1)
    monkeypatch.setattr(swap_operations, "soaked", lambda *_: None)
    way = Swap("in place", "it does not fit beside") if new else None
    swap = _Swap(release, way, [], False, "old", False, False)
    host: Any = Host({})
    swap_operations._gates(host, swap, release.servers[0])
    return swap


def test_swap_holds_back_a_release_that_answers_differently(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = made({"golden_directory": str(tmp_path)})
    golden_answers.keep(release, gates_of(monkeypatch, release, "That.").answers, "host")
    gates_of(monkeypatch, release, "That.")
    with pytest.raises(
        Failed, match=r"found 'Those\.', expected 'That\.' .* accept it: python -m operations.golden_answers"
    ):
        gates_of(monkeypatch, release, "Those.")


def test_swap_asks_again_before_it_holds_a_release_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = made({"golden_directory": str(tmp_path)})
    first = gates_of(monkeypatch, release, "That is all.")
    host: Any = Host({})
    golden_answers.keep(release, first.answers, host.name)
    assert gates_of(monkeypatch, release, "That was all.", "That is all.").answers == first.answers
    with pytest.raises(Failed, match="recorded with the same numbers"):
        gates_of(monkeypatch, release, "That was all.")
    # verified again while clients have requests
    gates_of(monkeypatch, release, "That was all.", new=False)


def test_swap_with_a_damaged_record_fails_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = made({"golden_directory": str(tmp_path)})
    golden_answers.path_of(release.settings.model, str(tmp_path)).write_text("{")
    with pytest.raises(Failed, match="expected recorded golden answers"):
        gates_of(monkeypatch, release, "That.")


def test_swap_records_the_answers_of_a_proven_release(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = made({"golden_directory": str(tmp_path)})

    def gates(_: object, swap: _Swap, __: object) -> None:
        swap.answers = [Answer("ensemble", "What?", 8, "That.")]

    monkeypatch.setattr(swap_operations, "_gates", gates)
    host: Any = Host({})
    judged: list[str] = []
    monkeypatch.setattr(swap_operations, "switched", lambda *_: None)
    monkeypatch.setattr(swap_operations, "judged", lambda *given: judged.append(given[3]))
    monkeypatch.setattr(swap_operations, "measured", lambda *_: None)
    monkeypatch.setattr(rollout, "note", lambda *_: None)
    assert _serve(State(), host, _Swap(release, None, [], False, "old", False, False))
    assert judged == ["proven"]
    [record] = golden_answers.read(golden_answers.path_of(release.settings.model, str(tmp_path))).records
    assert (record.release, record.answers[0].text) == (release.id, "That.")
