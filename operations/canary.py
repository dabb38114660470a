"""The first host of an upgrade, which serves a share of the requests until they have decided about its release."""

from __future__ import annotations

import shlex
import time
from collections.abc import Generator, Iterable
from contextlib import suppress

import gevent
from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.facts.files import Sha256File

from operations import drain, rollout, swap
from operations.load_balancers import connected, members, takes_requests
from operations.plan.artifacts.keys import digest
from operations.plan.balancing import canary as plan
from operations.plan.balancing import load_balancer
from operations.plan.balancing.canary import Decision
from operations.plan.balancing.members import member_name
from operations.plan.errors import PlanError
from operations.plan.exposure import gateway
from operations.plan.exposure.gateway import CANARY
from operations.plan.inventory.rollout_settings import RolloutSettings
from operations.plan.release import Release
from operations.remote.detached import LOST, done, printed, shell
from operations.remote.refusal import Failed
from operations.remote.tunnel import forwarded
from operations.scripts import host_script
from operations.server.golden import proven
from operations.watched_hosts import load_balancers_of

EVERY_SECONDS = 2
SAID_SECONDS = 30
ASKED_AT_ONCE = 20  # golden requests, one after the other


@deploy("Canary")
def begin(release: Release) -> None:
    """Before the first upgraded host comes back to its load balancers, they know which share of the requests it gets."""
    if release.gateway and release.gateway.proxies:
        limited(name="Limit the share of requests", release=release)


@deploy("Canary")
def decide(release: Release) -> None:
    """The requests of the first upgraded host have shown that the release may have all of them."""
    if release.gateway and release.gateway.proxies:
        decided(name="Let requests decide about the release", release=release)


@operation()
def limited(release: Release) -> Generator[FunctionCommand, None, None]:
    """
    A host that is the canary gets its share of the requests; another one its part as every host.

    + release: the proven release, which load balancers do not use yet
    """
    # a run may have ended before it was decided
    found = host.get_fact(Sha256File, path=gateway.undecided(release.settings.state_root))
    left = found == digest(f"{release.id}\n") or any(row.found == CANARY for row in rollout.rows())
    settings = release.settings.rollout
    if settings and (left or rollout.is_first(host.name, release)):
        yield FunctionCommand(_limit, (release, settings.canary), {})
    else:
        yield FunctionCommand(_limit, (release, 0), {})


@operation()
def decided(release: Release) -> Generator[FunctionCommand, None, None]:
    """
    The canary was compared with the other hosts, and gets its part of the requests as every host; if it is worse, the release
    from before serves again; if too few requests have reached it, it stays a canary, and the run ends.

    + release: the proven release, which a share of the requests reaches
    """
    yield FunctionCommand(_decide, (release,), {})


def _limit(state: State, host: Host, release: Release, share: int) -> bool:
    if not share:
        _unlimited(host)
        shell(host, f"rm -f {shlex.quote(gateway.undecided(release.settings.state_root))}")
        return True
    try:
        fronts = _fronts(host)
        _others_serve(host, fronts)
        since = {front.name: _tell(front, host, share) for front in fronts}
    except (Failed, *LOST) as problem:
        _unlimited(host)
        return _failed(host, f"canary: {problem}")
    rollout.begin_canary(host.name, since)
    return True


def _unlimited(host: Host) -> None:
    """The host has its part of the requests at each load balancer that the run reaches; one that does not know it has told it nothing."""
    for front in connected(host):
        with suppress(Failed, *LOST):
            _tell(front, host, 0)


def _others_serve(host: Host, fronts: Iterable[Host]) -> None:
    """The other requests have somewhere to go. Raises Failed."""
    for front in fronts:
        found = members(front)
        found.pop(member_name(host.name), None)
        if not takes_requests(found.values()):
            raise Failed(
                f"found that {front.name} uses no other host, expected one that takes the rest of the requests"
            )


def _decide(state: State, host: Host, release: Release) -> bool:
    since, settings = rollout.canary_since(host.name), release.settings.rollout
    if since is None or settings is None:
        return True
    logger.info(
        f"{host.print_prefix}canary: {settings.canary / 100:g} % of the requests for {settings.minutes:g} minutes"
    )
    try:
        decision = _watched(host, release, settings, since)
        if decision.what == "hold":
            return _failed(host, f"held: canary: {decision.why}; run again to go on with it", "held")
        if decision.what == "put back":
            _put_back(host, release, decision.why)
            return False
        rollout.end_canary(host.name)
        shell(host, f"rm -f {shlex.quote(gateway.undecided(release.settings.state_root))}")
        drain.released(host, release)
        for front in _fronts(host):
            _tell(front, host, 0)
    except (Failed, PlanError, PyinfraError, *LOST) as problem:
        return _failed(host, f"canary: {problem}")
    logger.info(f"{host.print_prefix}canary: the release may have all requests: {decision.why}")
    return True


def _watched(host: Host, release: Release, settings: RolloutSettings, since: dict[str, str]) -> Decision:
    """Follows the canary until something is decided. Raises Failed."""
    began = said = time.monotonic()
    name, fronts = member_name(host.name), _fronts(host)
    while True:
        wrong = _wrong(host, release)
        _others_serve(host, fronts)
        lines = [line for front in fronts for line in _seen(front, since[front.name])]
        own, others = plan.figures(lines, name)
        over = time.monotonic() - began >= settings.minutes * 60
        decision = plan.decide(own, others, settings, over, wrong)
        if decision.what != "wait" or time.monotonic() - said >= SAID_SECONDS:
            said = time.monotonic()
            logger.info(f"{host.print_prefix}canary: {said - began:.0f} s: {plan.shown(own, others)}")
        if decision.what != "wait":
            return decision
        gevent.sleep(EVERY_SECONDS)


def _wrong(host: Host, release: Release) -> str:
    """The first golden answer that is wrong; empty: none is."""
    server = release.servers[0]
    requests = [*release.profile.golden_requests] * ASKED_AT_ONCE
    seed = release.database.seed if release.database else ""
    with forwarded(host, server.address, server.ports[1]) as endpoint:
        return next(
            (problem for _, _, problem, _ in proven(endpoint, requests, seed, likelihood=False) if problem),
            "",
        )


def _put_back(host: Host, release: Release, why: str) -> None:
    """The release from before serves again, and gets its part of the requests as every host."""
    logger.error(f"{host.print_prefix}canary: {why}")
    drain.leave(host, release)
    swap.take_back(host, release, f"canary: {why}")
    rollout.end_canary(host.name)
    _unlimited(host)


def _fronts(host: Host) -> list[Host]:
    """The load balancers that send requests to the host. Raises Failed for one that this run does not reach."""
    found = []
    for front in load_balancers_of(host):
        if not front.connected:
            raise Failed(
                f"found no connection to the load balancer {front.name}, expected it to be in the run"
            )
        found.append(front)
    if not found:
        raise Failed("found no load balancer of this host, expected one in the inventory")
    return found


def _tell(front: Host, host: Host, share: int) -> str:
    """Tells a load balancer of the share. Returns the time from which it holds. Raises Failed."""
    variables = {
        "SOCKET": load_balancer.SOCKET,
        "MAP": f"{load_balancer.DIRECTORY}/{load_balancer.CANARY_MAP}",
        "HOST": member_name(host.name),
        "SHARE": str(share),
    }
    return printed(done(front, host_script("canary.sh", variables)), "since")


def _seen(front: Host, since: str) -> Iterable[str]:
    variables = {"UNIT": f"{load_balancer.NAME}.service", "SINCE": since}
    return done(front, host_script("canary_seen.sh", variables), timeout=120)


def _failed(host: Host, problem: str, status: str = "failed") -> bool:
    logger.error(f"{host.print_prefix}{problem}")
    rollout.failed(host, problem if problem.startswith(status) else f"{status}: {problem}")
    return False
