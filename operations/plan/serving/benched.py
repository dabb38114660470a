"""The speed of a door: which requests are sent, when, and what their times say. Fixed seeds: the same requests each time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from operations.plan.errors import PlanError, typed

ProfileName = Literal["smoke", "interactive", "capacity"]
# raised when a profile sends something else: its figures are not compared with earlier ones
PROFILE_VERSION = 1
SMOKE_ALONE, SMOKE_TOGETHER, SMOKE_AT_ONCE = 8, 12, 4
MAX_TOKENS = {"smoke": 32, "interactive": 64, "capacity": 64}
# the share of the requests that must be within the limits, for a rate to be
WITHIN = 0.9
MOST_RATE = 1024.0
_WORDS = [
    "river",
    "stone",
    "lamp",
    "market",
    "window",
    "garden",
    "bridge",
    "paper",
    "yellow",
    "winter",
    "engine",
    "harbour",
    "silver",
    "letter",
    "morning",
    "carpet",
    "forest",
    "signal",
    "copper",
    "island",
    "mountain",
    "kitchen",
    "pepper",
    "travel",
    "number",
    "shadow",
    "ticket",
    "orange",
    "castle",
    "meadow",
    "button",
    "thunder",
    "cotton",
    "planet",
    "violin",
    "ladder",
    "pocket",
    "basket",
    "candle",
    "feather",
]
_PROMPT_WORDS = 48


@dataclass(frozen=True)
class Request:
    """One request. + at_s: when it is sent, in seconds from the begin of its phase; None: as soon as one before it has ended"""

    number: int
    prompt: str
    max_tokens: int
    seed: int
    at_s: float | None = None


@dataclass(frozen=True)
class Phase:
    """Requests that are measured together. + at_once: how many are on their way; 0: each is sent at its time"""

    name: str
    at_once: int
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Timing:
    """
    What became of one request.

    + began_s: when it was sent, from the begin of its phase
    + first_s: from there to the first token; seconds: to the last one
    + error: why it has no answer; empty: it has one
    """

    phase: str
    number: int
    began_s: float = 0.0
    first_s: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    error: str = ""

    @property
    def between_s(self) -> float | None:
        """The mean time from one token to the next; None of a single one."""
        return (self.seconds - self.first_s) / (self.tokens - 1) if self.tokens > 1 else None


class Slo(BaseModel):
    """What a client is promised, in milliseconds; a request within both limits is a good one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ttft_ms: float = 1000.0
    itl_ms: float = 100.0

    def good(self, timing: Timing) -> bool:
        """Whether a request is answered within the limits."""
        between = timing.between_s
        fast = 1000 * timing.first_s <= self.ttft_ms and (between is None or 1000 * between <= self.itl_ms)
        return fast and not timing.error


class Spread(BaseModel):
    """The middle of some values, the 90th and the 99th of a hundred."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    p50: float
    p90: float
    p99: float


class Figures(BaseModel):
    """
    What the requests of one phase say.

    + seconds: from the first request to the end of the last
    + ttft_ms: to the first token; itl_ms: from one token to the next, the mean of each request; request_ms: to the last token
    + goodput_per_s: good requests a second; None: nothing was promised
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: int
    errors: int
    tokens: int
    seconds: float
    tokens_per_s: float
    requests_per_s: float
    goodput_per_s: float | None = None
    ttft_ms: Spread | None = None
    itl_ms: Spread | None = None
    request_ms: Spread | None = None


def prompts(seed: int, count: int) -> list[str]:
    """Texts of the same length that have no long beginning in common: a cache of prompts does not shorten them."""
    chance = random.Random(seed)
    return [
        f"{' '.join(chance.choices(_WORDS, k=_PROMPT_WORDS))}. Tell a story with these words."
        for _ in range(count)
    ]


def smoke(seed: int) -> tuple[Phase, ...]:
    """About twenty requests: one at a time, for the time to the first token; then four at once, for tokens a second."""
    made = _requests(seed, [None] * (SMOKE_ALONE + SMOKE_TOGETHER), MAX_TOKENS["smoke"])
    return (
        Phase("alone", 1, made[:SMOKE_ALONE]),
        Phase("together", SMOKE_AT_ONCE, made[SMOKE_ALONE:]),
    )


def at_rate(seed: int, rate: float, seconds: float, max_tokens: int) -> Phase:
    """Requests that arrive at a rate, whether or not those before them have ended."""
    return Phase(f"{rate:g} a second", 0, _requests(seed, schedule(seed, rate, seconds), max_tokens))


def schedule(seed: int, rate: float, seconds: float) -> list[float]:
    """When each request is sent: as many as the rate says, with exponential gaps from the seed."""
    chance, at, found = random.Random(seed), 0.0, list[float]()
    for _ in range(max(1, round(rate * seconds))):
        found.append(at)
        at += chance.expovariate(rate)
    return found


def _requests(seed: int, times: Sequence[float | None], max_tokens: int) -> tuple[Request, ...]:
    texts = prompts(seed, len(times))
    return tuple(
        Request(number, text, max_tokens, seed * 100_000 + number, at)
        for number, (text, at) in enumerate(zip(texts, times, strict=True))
    )


def as_json(phases: Iterable[Phase]) -> list[dict[str, Any]]:
    """Phases for the process that sends them."""
    return [asdict(phase) for phase in phases]


def percentile(ordered: Sequence[float], part: float) -> float:
    """The value below which a part of the sorted values is, between two of them in proportion."""
    place = part * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spread(values_s: Iterable[float]) -> Spread | None:
    """Of times in seconds, in milliseconds; None of nothing."""
    ordered = sorted(values_s)
    if not ordered:
        return None
    p50, p90, p99 = (round(1000 * percentile(ordered, part), 3) for part in (0.5, 0.9, 0.99))
    return Spread(p50=p50, p90=p90, p99=p99)


def figures(timings: Sequence[Timing], slo: Slo | None = None) -> Figures:
    """The figures of one phase."""
    answered = [timing for timing in timings if not timing.error]
    begin = min((timing.began_s for timing in timings), default=0.0)
    seconds = max((timing.began_s + timing.seconds for timing in timings), default=0.0) - begin
    tokens = sum(timing.tokens for timing in answered)

    def rate(count: float) -> float:
        return round(count / seconds, 3) if seconds > 0 else 0.0

    return Figures(
        requests=len(timings),
        errors=len(timings) - len(answered),
        tokens=tokens,
        seconds=round(seconds, 3),
        tokens_per_s=rate(tokens),
        requests_per_s=rate(len(answered)),
        goodput_per_s=None if slo is None else rate(sum(map(slo.good, timings))),
        ttft_ms=spread(timing.first_s for timing in answered),
        itl_ms=spread(each for timing in answered if (each := timing.between_s) is not None),
        request_ms=spread(timing.seconds for timing in answered),
    )


def within(found: Figures) -> bool:
    """Whether a rate is one that the server keeps: nearly all of its requests are good."""
    if found.errors or not found.requests_per_s or found.goodput_per_s is None:
        return False
    return found.goodput_per_s / found.requests_per_s >= WITHIN


def highest(
    keeps: Callable[[float], bool], begin: float, most: float = MOST_RATE, near: float = 1.1
) -> float:
    """
    The highest rate that a server keeps: doubled until it does not, then halved between the two.

    + keeps: tries a rate
    + near: how far apart, as a factor, the last rate that is kept and the first that is not may be

    0 where it keeps none, down to a sixteenth of the first.
    """
    low, high = 0.0, begin
    while high <= most and keeps(high):
        low, high = high, 2 * high
    if low and high > most:
        return low
    if not low:
        low = next((rate for rate in (begin / 2**step for step in range(1, 5)) if keeps(rate)), 0.0)
        high = 2 * low
    while low and high / low > near:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


def slo_of(text: str, where: str = "--slo") -> Slo:
    """`ttft_ms=500,itl_ms=50`; what is not named keeps its default. Raises PlanError."""
    given: dict[str, float] = {}
    for pair in filter(None, text.split(",")):
        name, _, value = pair.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name not in Slo.model_fields or not 0 < number < 1e7:
            raise PlanError(
                where,
                typed(pair),
                "ttft_ms=MILLISECONDS, itl_ms=MILLISECONDS, or both",
                reference="wrong-usage",
            )
        given[name] = number
    return Slo(**given)
