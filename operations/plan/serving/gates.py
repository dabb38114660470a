"""What a new release must show before it stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from operations.plan.artifacts.keys import key_of
from operations.plan.observed.observed import Measurements
from operations.plan.serving.benched import PROFILE_VERSION

# A request goes through an SSH tunnel, whose delay varies.
JITTER_S = 0.25
FIRST_JITTER_MS = 20.0


class Speed(NamedTuple):
    """
    How fast a release answers through the door.

    + first_ms: median time to the first token, one request at a time
    + rate: tokens a second of several at once
    """

    first_ms: float
    rate: float


def slower(before_s: float | None, now_s: float | None, factor: float) -> str:
    """
    What is wrong with a release's speed, compared with the previous one; empty: nothing.

    + before_s, now_s: the median time of the same golden request to both in one run, in seconds; None: not measured
    + factor: how many times longer it may take, plus a quarter of a second
    """
    if before_s is None or now_s is None or now_s <= factor * before_s + JITTER_S:
        return ""
    return (
        f"golden request: found {now_s:.2f} s, expected at most {factor:g} times the {before_s:.2f} s of the release "
        f"before, and {JITTER_S} s; latency_factor says how much is allowed"
    )


def bench_of(profile: str, model: str, gpus: Sequence[str]) -> str:
    """What figures of two releases must have in common to be compared. + gpus: their names"""
    same = {"profile": profile, "version": PROFILE_VERSION, "model": model, "gpus": list(gpus)}
    return f"{profile}-{key_of(same)}"


def baseline(measured: Measurements, of: str) -> Speed | None:
    """The recorded speed of the release that ran before; None where none was recorded of the same."""
    if measured.bench_of != of or not measured.bench_first_ms or not measured.bench_rate:
        return None
    return Speed(measured.bench_first_ms, measured.bench_rate)


def below_share(before: Speed | None, now: Speed, share: float) -> str:
    """
    What is wrong with a release's speed through the door, compared with the recorded one; empty: nothing.

    + before: None: none was recorded
    + share: the part of the tokens a second that it must reach; its first token may take as many times longer
    """
    if before is None:
        return ""
    problems = []
    if now.rate < share * before.rate:
        problems.append(
            f"found {now.rate:.0f} tokens a second, expected at least {share:g} of the {before.rate:.0f} of the release before"
        )
    if now.first_ms > before.first_ms / share + FIRST_JITTER_MS:
        problems.append(
            f"found {now.first_ms:.0f} ms to the first token, expected at most {before.first_ms:.0f} ms of the release "
            f"before divided by {share:g}, and {FIRST_JITTER_MS:.0f} ms"
        )
    return f"bench: {'; '.join(problems)}; bench_share says how much is allowed" if problems else ""
