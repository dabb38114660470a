"""What a new release must show before it stays."""

from __future__ import annotations

# A request goes through an SSH tunnel, whose delay varies.
JITTER_S = 0.25


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
