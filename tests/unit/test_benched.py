"""The requests of a measurement, and what their times say."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from operations.plan import PlanError
from operations.plan.serving import benched
from operations.plan.serving.benched import (
    Figures,
    Slo,
    Timing,
    at_rate,
    figures,
    highest,
    percentile,
    prompts,
    schedule,
    slo_of,
    smoke,
    spread,
    within,
)

SLO = Slo(ttft_ms=500, itl_ms=50)


def test_the_same_seed_sends_the_same_requests() -> None:
    assert smoke(1) == smoke(1)
    assert at_rate(7, 4, 20, 64) == at_rate(7, 4, 20, 64)
    assert schedule(7, 4, 20) != schedule(8, 4, 20)
    assert prompts(1, 2) != prompts(2, 2)


def test_smoke_is_one_at_a_time_and_then_four_at_once() -> None:
    alone, together = smoke(1)
    assert (alone.at_once, len(alone.requests), together.at_once, len(together.requests)) == (1, 8, 4, 12)
    texts = [request.prompt for phase in (alone, together) for request in phase.requests]
    assert len({text[:40] for text in texts}) == 20  # none begins as another does
    assert len({len(text.split()) for text in texts}) == 1


def test_requests_arrive_at_the_rate() -> None:
    times = schedule(1, 5.0, 400)
    assert len(times) == 2000 and times == sorted(times) and times[0] == 0
    gaps = [b - a for a, b in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    # exponential: as many below the mean as 1 - 1/e says
    assert 0.18 < mean < 0.22
    assert abs(sum(gap < mean for gap in gaps) / len(gaps) - (1 - 1 / math.e)) < 0.05


@pytest.mark.parametrize(("part", "value"), [(0.0, 1.0), (0.5, 2.5), (0.9, 3.7), (0.99, 3.97), (1.0, 4.0)])
def test_percentile_is_between_the_values(part: float, value: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], part) == pytest.approx(value)


def test_spread_of_nothing_is_none() -> None:
    assert spread([]) is None
    assert spread([0.5]) == benched.Spread(p50=500, p90=500, p99=500)


def timing(first_s: float, seconds: float, tokens: int = 11, began_s: float = 0.0, error: str = "") -> Timing:
    return Timing("p", 0, began_s, first_s, seconds, tokens, error)


def test_figures_of_a_phase() -> None:
    found = figures(
        [
            timing(0.1, 0.5),
            timing(0.3, 0.7, began_s=1.3),
            timing(0.9, 1.3, began_s=0.7),
            timing(0, 0, error="no"),
        ],
        SLO,
    )
    assert (found.requests, found.errors, found.tokens, found.seconds) == (4, 1, 33, 2.0)
    assert (found.tokens_per_s, found.requests_per_s) == (16.5, 1.5)
    assert found.goodput_per_s == 1.0  # one is late, one failed
    assert found.ttft_ms and found.ttft_ms.p50 == 300
    assert found.itl_ms and found.itl_ms.p50 == pytest.approx(40)


@pytest.mark.parametrize(
    ("one", "good"),
    [
        (timing(0.5, 0.9), True),
        (timing(0.501, 0.9), False),
        (timing(0.1, 0.601), False),  # 50.1 ms between tokens
        (timing(0.1, 0.1, tokens=1), True),
        (timing(0.1, 0.2, error="cut"), False),
    ],
)
def test_good_request_is_within_both_limits(one: Timing, good: bool) -> None:
    assert SLO.good(one) is good


def test_error_counts_in_no_time() -> None:
    found = figures([timing(0, 0, 0, error="no")], SLO)
    assert (found.ttft_ms, found.itl_ms, found.goodput_per_s, found.tokens_per_s) == (None, None, 0.0, 0.0)
    assert not within(found)


@pytest.mark.parametrize(("good", "errors", "kept"), [(9, 0, True), (8.9, 0, False), (10, 1, False)])
def test_rate_is_kept_where_nine_of_ten_are_good(good: float, errors: int, kept: bool) -> None:
    found = Figures(
        requests=100,
        errors=errors,
        tokens=1,
        seconds=10,
        tokens_per_s=1,
        requests_per_s=10,
        goodput_per_s=good,
    )
    assert within(found) is kept


class Server:
    """Answers within the limits up to a rate. + tried: all rates, in order"""

    def __init__(self, most: float) -> None:
        self.most, self.tried = most, list[float]()

    def keeps(self, rate: float) -> bool:
        self.tried.append(rate)
        return rate <= self.most


@pytest.mark.parametrize("most", [0.13, 0.7, 1.0, 3.3, 37.0, 500.0])
def test_highest_rate_is_found_within_a_tenth(most: float) -> None:
    server = Server(most)
    found = highest(server.keeps, 1.0)
    assert most / 1.1 <= found <= most
    assert found in server.tried and len(server.tried) < 20
    assert min(rate for rate in server.tried if rate > most) / found <= 1.1


def test_highest_rate_of_a_server_that_keeps_none_is_0() -> None:
    server = Server(0.01)
    assert highest(server.keeps, 1.0) == 0
    assert server.tried == [1, 0.5, 0.25, 0.125, 0.0625]


def test_highest_rate_has_an_end() -> None:
    server = Server(1e9)
    assert highest(server.keeps, 1.0, most=64) == 64
    assert server.tried[-1] == 64


def test_limits_are_read() -> None:
    assert slo_of("") == Slo()
    assert slo_of("itl_ms=25") == Slo(itl_ms=25)
    assert slo_of("ttft_ms=500,itl_ms=50") == SLO


@pytest.mark.parametrize("text", ["ttft=5", "ttft_ms", "ttft_ms=x", "ttft_ms=0", "itl_ms=nan", "itl_ms=-1"])
def test_wrong_limits_are_refused(text: str) -> None:
    with pytest.raises(PlanError, match=r"--slo: found .*, expected ttft_ms=MILLISECONDS"):
        slo_of(text)
