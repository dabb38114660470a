"""Whose turn it is."""

from __future__ import annotations

from typing import Any

import pytest

from operations.plan.serving.rollout import MANY, Place, held_by, may_begin, report, stopped_by


def places(*stages: Any, serves: bool = True) -> list[Place]:
    return [Place(f"h{number}", serves, stage) for number, stage in enumerate(stages, start=1)]


def beginners(found: list[Place], max_unavailable: int = 1) -> list[str]:
    waiting = [place.name for place in found if place.stage == "waiting"]
    return [name for name in waiting if may_begin(found, name, max_unavailable)]


@pytest.mark.parametrize(
    ("stages", "max_unavailable", "expected"),
    [
        (("waiting", "waiting", "waiting"), 3, ["h1"]),  # the canary goes alone, whatever is allowed
        (("at work", "waiting", "waiting"), 3, []),
        (("done", "waiting", "waiting", "waiting"), 1, ["h2"]),
        (("done", "at work", "waiting", "waiting"), 1, []),
        (("done", "at work", "waiting", "waiting"), 2, ["h3"]),
        (("done", "at work", "at work", "waiting"), 2, []),
        (("done", "done", "done", "waiting"), 1, ["h4"]),
        (("done", "failed", "waiting", "waiting"), 3, []),
        (("failed", "waiting"), 1, []),
    ],
)
def test_serving_hosts_go_in_order_and_the_first_one_alone(
    stages: tuple[str, ...], max_unavailable: int, expected: list[str]
) -> None:
    assert beginners(places(*stages), max_unavailable) == expected


def test_idle_hosts_wait_only_for_a_failure() -> None:
    bare = places("waiting", "at work", "waiting", serves=False)
    assert beginners(bare) == ["h1", "h3"]
    assert beginners([*bare, Place("h4", True, "failed")]) == []


def test_bare_host_is_not_a_canary() -> None:
    assert beginners([Place("new", False, "done"), *places("waiting", "waiting")], 2) == ["h1"]


def test_unreached_host_holds_the_hosts_after_it() -> None:
    found = places("waiting", "unreached", "waiting")
    assert beginners(found, 3) == ["h1"]
    assert beginners(places("done", "unreached", "waiting"), 3) == []
    assert (held_by(found, "h1"), held_by(found, "h3")) == ("", "h2")
    # nor does a host that serves nobody yet begin there
    assert beginners([*places("done", "unreached"), Place("new", False)]) == []
    assert beginners(places("unreached", "waiting")) == []
    # the canary is the first that serves and can be reached
    assert beginners(places("waiting", "waiting", "unreached")) == ["h1"]


def test_the_failed_host_is_named() -> None:
    assert stopped_by(places("done", "failed", "waiting")) == "h2"
    assert stopped_by(places("done", "at work")) == ""


def test_many_hosts_are_counted_by_what_became_of_them() -> None:
    rows = [(f"h{number:02}", f"r{number % 2}", "converged: serves since 2026") for number in range(MANY)]
    assert len(report(rows)) == len(report([*rows, *rows])) - MANY == 1 + MANY
    odd = [
        ("a", "r1", "refused: look: found nothing"),
        ("b", "r1", "untouched: a failed before it"),
        ("c", "r1", "untouched: a failed before it"),
        ("d", "r2", "serves, in place, 6.4 s without service"),
        ("e", "", "left out by --limit or --exclude"),
        ("f", "", "left out by --limit or --exclude"),
    ]
    assert [line.split(maxsplit=5) for line in report([*odd, *rows], counted=True)] == [
        ["host", "release", "status"],
        ["a", "r1", "refused:", "look:", "found", "nothing"],
        ["b", "and", "1", "more", "r1", "untouched: a failed before it"],
        ["d", "r2", "serves,", "in", "place,", "6.4 s without service"],
        ["2", "hosts", "left", "out", "by", "--limit or --exclude"],
        ["20", "hosts", "2", "releases", "converged"],
    ]


def test_the_report_is_a_table() -> None:
    assert report([("h1", "0123", "serves"), ("gpu-10", "", "unreachable")]) == [
        "host    release  status",
        "h1      0123     serves",
        "gpu-10           unreachable",
    ]
