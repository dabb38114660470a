"""Whether a release that a share of the requests has reached may have all of them: pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from operations.plan.errors import PlanError
from operations.plan.inventory.rollout_settings import RolloutSettings

# of the others' errors at least that many are taken for usual, where they have had none
USUAL = 0.001
# how unlikely a number of errors has to be, if the canary were like the others
UNLIKELY = 0.01
# fewer errors are chance
LEAST_ERRORS = 3
# what a gateway answers by itself, whatever the server would
NOT_SERVED = frozenset({401, 403, 404, 413, 429})
# a smaller difference, in milliseconds, no client notices
NOTICED_MS = 50


@dataclass(frozen=True)
class Figures:
    """
    What load balancers have written down of some hosts' requests.

    + errors: of them those that the server failed
    + first_ms: the median time to the first byte
    """

    requests: int = 0
    errors: int = 0
    first_ms: float = 0.0


@dataclass(frozen=True)
class Decision:
    """What becomes of a canary, and why."""

    what: Literal["wait", "go on", "hold", "put back"]
    why: str


def figures(lines: Iterable[str], canary: str) -> tuple[Figures, Figures]:
    """
    The canary's figures, and those of the others together.

    + lines: of files/host/canary_seen.sh, one a request: host, status, milliseconds to the first byte, how it ended
    + canary: its name at the load balancer

    Requests that their clients have ended are not counted. Raises PlanError for other lines.
    """
    found: dict[bool, list[tuple[bool, int]]] = {True: [], False: []}
    for line in lines:
        words = line.split()
        if len(words) != 4 or not words[1].lstrip("-").isdecimal() or not words[2].lstrip("-").isdecimal():
            raise PlanError("canary", line[:80], "host, status, milliseconds and how a request ended")
        host, status, first, ended = words[0], int(words[1]), int(words[2]), words[3]
        if ended[0] in "Cc" or host.startswith("<") or status in NOT_SERVED:
            continue
        # S: the server, P: the proxy itself, which found no answer it could pass on
        found[host == canary].append((status >= 500 or status < 0 or ended[0] in "SsP", first))
    return _of(found[True]), _of(found[False])


def _of(requests: list[tuple[bool, int]]) -> Figures:
    times = sorted(first for failed, first in requests if not failed and first >= 0)
    middle = float(times[len(times) // 2]) if times else 0.0
    return Figures(len(requests), sum(failed for failed, _ in requests), middle)


def decide(canary: Figures, others: Figures, settings: RolloutSettings, over: bool, wrong: str) -> Decision:
    """
    What the figures say.

    + over: the time is up
    + wrong: what of its golden answers was wrong; empty: nothing
    """
    if wrong:
        return Decision("put back", wrong)
    usual = max(others.errors / others.requests if others.requests else 0.0, USUAL)
    if canary.errors >= LEAST_ERRORS and _tail(canary.errors, canary.requests, usual) < UNLIKELY:
        return Decision(
            "put back",
            f"found {canary.errors} of {canary.requests} requests failed, expected about {usual:.1%} as of the other hosts",
        )
    if not over:
        return Decision("wait", "")
    if canary.requests < settings.least_requests:
        return Decision(
            "hold",
            f"found {canary.requests} requests in {settings.minutes:g} minutes, expected at least {settings.least_requests}",
        )
    most = max(others.first_ms * settings.slower, others.first_ms + NOTICED_MS)
    if others.requests and canary.first_ms > most:
        return Decision(
            "put back",
            f"found {canary.first_ms:.0f} ms to the first byte, expected at most {most:.0f}: the others take {others.first_ms:.0f}",
        )
    return Decision("go on", f"{canary.requests} requests, {canary.errors} failed")


def _tail(errors: int, requests: int, usual: float) -> float:
    """How likely that many errors, or more, are of requests that fail independently with the usual probability."""
    usual = min(usual, 1.0)
    if usual >= 1.0:
        return 1.0
    below = math.fsum(
        math.exp(
            math.lgamma(requests + 1)
            - math.lgamma(k + 1)
            - math.lgamma(requests - k + 1)
            + k * math.log(usual)
            + (requests - k) * math.log1p(-usual)
        )
        for k in range(errors)
    )
    return max(0.0, 1.0 - below)


def shown(canary: Figures, others: Figures) -> str:
    """The figures in a line's words."""
    return (
        f"requests {canary.requests}, failed {canary.errors} (others {others.errors} of {others.requests}), "
        f"first byte {canary.first_ms:.0f} ms (others {others.first_ms:.0f})"
    )
