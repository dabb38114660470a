"""Who makes an artifact and who receives it from whom, without a host."""

from __future__ import annotations

import random

import pytest

from operations.plan.artifacts.sharing import DOUBTS, SENDING, End, Exchange, Turn

ENGINE, WEIGHTS = "tritonhost-engine-0123", "tritonhost-weights-0123"


def exchange(hosts: int = 4, driver: str = "570.10") -> Exchange:
    made = Exchange()
    for number in range(hosts):
        made.join(f"h{number}", driver)
    return made


def test_first_host_makes_and_the_others_wait() -> None:
    hosts = exchange()
    assert hosts.next(ENGINE, "h2") == Turn("make")
    assert hosts.next(ENGINE, "h0") == hosts.next(ENGINE, "h1") == Turn("wait", "h2")
    # another artifact is another matter
    assert hosts.next(WEIGHTS, "h0") == Turn("make")


def test_the_maker_gives_to_as_many_as_it_may() -> None:
    hosts = exchange(5)
    hosts.next(ENGINE, "h0")
    hosts.made(ENGINE, "h0", True)
    turns = [hosts.next(ENGINE, f"h{number}") for number in (1, 2, 3)]
    assert turns == [Turn("fetch", "h0"), Turn("fetch", "h0"), Turn("wait", "h0")]
    hosts.fetched(ENGINE, "h1", "h0", "well")
    assert hosts.next(ENGINE, "h3") == Turn("fetch", "h1")  # it gives to fewer
    assert hosts.next(ENGINE, "h4") == Turn("fetch", "h0")


def test_what_a_host_has_is_not_made_again() -> None:
    hosts = exchange()
    hosts.has(WEIGHTS, "h3")
    assert hosts.next(WEIGHTS, "h0") == Turn("fetch", "h3")


def test_death_of_the_maker_elects_another() -> None:
    hosts = exchange()
    hosts.next(ENGINE, "h0")
    hosts.made(ENGINE, "h0", False, theirs=False)
    assert hosts.next(ENGINE, "h1") == Turn("make")
    assert hosts.next(ENGINE, "h2") == Turn("wait", "h1")


def test_work_that_fails_on_two_hosts_is_not_tried_again() -> None:
    hosts = exchange()
    for name in ("h0", "h1"):
        assert hosts.next(ENGINE, name) == Turn("make")
        hosts.made(ENGINE, name, False)
    assert hosts.next(ENGINE, "h2") == Turn("give up", "h1")


def test_peer_that_gave_nothing_is_left_out() -> None:
    hosts = exchange()
    hosts.has(ENGINE, "h0")
    hosts.has(ENGINE, "h1")
    assert hosts.next(ENGINE, "h2") == Turn("fetch", "h0")
    hosts.fetched(ENGINE, "h2", "h0", "giver")
    assert hosts.next(ENGINE, "h2") == Turn("fetch", "h1")
    hosts.fetched(ENGINE, "h2", "h1", "giver")
    assert hosts.next(ENGINE, "h2") == Turn("make")  # it makes it itself
    assert hosts.next(ENGINE, "h3").do == "fetch"
    hosts.fetched(ENGINE, "h3", "h0", "giver")
    hosts.made(ENGINE, "h2", True)
    # two receivers had nothing of h0: nobody asks it again
    assert hosts.next(ENGINE, "h3").other in ("h1", "h2")


@pytest.mark.parametrize(
    ("unit", "do"), [(ENGINE, "make"), (WEIGHTS, "fetch"), ("tritonhost-image-1", "fetch")]
)
def test_engine_is_for_its_drivers_branch(unit: str, do: str) -> None:
    hosts = exchange()
    hosts.join("other", "580.65")
    hosts.has(unit, "h0")
    assert hosts.next(unit, "other").do == do


def test_drivers_of_one_branch_share() -> None:
    hosts = exchange()
    hosts.join("other", "570.172.08")
    hosts.has(ENGINE, "h0")
    assert hosts.next(ENGINE, "other") == Turn("fetch", "h0")


def test_host_that_does_not_share_gives_nothing() -> None:
    hosts = exchange()
    hosts.has(ENGINE, "stranger")
    assert hosts.next(ENGINE, "h0") == Turn("make")


def test_damaged_artifact_is_made_again() -> None:
    hosts = exchange()
    hosts.has(ENGINE, "h0")
    assert hosts.next(ENGINE, "h0") == Turn("make")
    assert hosts.next(ENGINE, "h1") == Turn("wait", "h0")


@pytest.mark.parametrize("seed", range(50))
def test_everybody_has_it_in_the_end(seed: int) -> None:
    """However makers and transfers fail, no host waits for one that does nothing."""
    chance = random.Random(seed)
    names = [f"h{number}" for number in range(8)]
    hosts = exchange(8)
    doing: dict[str, Turn] = {}
    done: set[str] = set()
    for _ in range(2000):
        name = chance.choice(names)
        if name in done:
            continue
        if name not in doing:
            turn = hosts.next(ENGINE, name)
            if turn.do in ("make", "fetch"):
                doing[name] = turn
            elif turn.do == "give up":
                done.add(name)
            else:
                busy = [each for each, what in doing.items() if turn.other in (each, what.other)]
                assert busy, f"{name} waits for {turn.other}, which does nothing"
            continue
        turn = doing.pop(name)
        well = chance.random() < 0.7
        if turn.do == "make":
            hosts.made(ENGINE, name, well, theirs=False)
        else:
            end: End = "well" if well else chance.choice(("way", "giver", "own"))
            hosts.fetched(ENGINE, name, turn.other, end)
        if well:
            done.add(name)
        gives = [what.other for what in doing.values() if what.do == "fetch"]
        assert all(gives.count(each) <= SENDING for each in gives)
    assert done == set(names)


def test_hosts_that_reach_nobody_build_at_the_same_time() -> None:
    """Where the network admits nothing, all make it at the same time, as without sharing."""
    hosts = exchange(8)
    hosts.next(ENGINE, "h0")
    hosts.made(ENGINE, "h0", True)
    for name in ("h1", "h2")[:DOUBTS]:
        assert hosts.next(ENGINE, name) == Turn("fetch", "h0")
        hosts.fetched(ENGINE, name, "h0", "way")
    assert [hosts.next(ENGINE, f"h{number}").do for number in range(1, 8)] == ["make"] * 7
    # and of the next artifact nothing is tried again
    hosts.has(WEIGHTS, "h0")
    assert hosts.next(WEIGHTS, "h1").do == "make"


def test_one_host_that_is_cut_off_makes_its_own_at_once() -> None:
    hosts = exchange()
    hosts.has(WEIGHTS, "h0")
    hosts.next(WEIGHTS, "h1")
    hosts.fetched(WEIGHTS, "h1", "h0", "well")
    hosts.has(ENGINE, "h0")
    hosts.next(ENGINE, "h2")
    hosts.fetched(ENGINE, "h2", "h0", "way")
    assert hosts.next(ENGINE, "h3") == Turn("fetch", "h0")
    assert hosts.next(ENGINE, "h2").do == "make"


def test_receivers_own_fault_is_not_the_givers() -> None:
    hosts = exchange()
    hosts.has(ENGINE, "h0")
    for name in ("h1", "h2"):
        hosts.next(ENGINE, name)
        hosts.fetched(ENGINE, name, "h0", "own")
        assert hosts.next(ENGINE, name).do == "make"
    assert hosts.next(ENGINE, "h3") == Turn("fetch", "h0")


def test_host_that_is_at_it_is_waited_for() -> None:
    hosts = exchange()
    hosts.makes(ENGINE, "h2")
    assert hosts.next(ENGINE, "h0") == Turn("wait", "h2")
