"""Swap releases: start the new one beside the running one or in its place, gate it, and go back if it fails."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations import convergence, documents, front, golden_answers, rollout
from operations.facts.releases import ReleaseLinks
from operations.plan import PlanError
from operations.plan import swap as plan_swap
from operations.plan.difference import empty_encoders, running_problems
from operations.plan.profile.tables import Golden
from operations.plan.release import Release
from operations.plan.serving import gates
from operations.plan.serving.gates import Speed
from operations.plan.serving.recorded import Answer
from operations.plan.serving.servers import Server
from operations.release import link_script, open_past_the_gateway, put_back, switched
from operations.remote.detached import LOST, done, log_lost, shell
from operations.remote.refusal import Failed
from operations.remote.tunnel import forwarded
from operations.server import door, speed
from operations.server.control import answer_seconds, answered, judged, measured, soaked, start

ASKED_AGAIN = 2  # times, before answers that differ hold a release back


@deploy("Swap")
def serve(release: Release) -> None:
    """The server runs the release, its models are ready, and it gives the golden answers."""
    serving(name="Serve the release", release=release)


@operation()
def serving(release: Release) -> Generator[FunctionCommand, None, None]:
    """
    `current` points to the release, its server runs it, its models are ready and it gives the golden answer.

    + release: what must serve; its directory is complete

    The decision comes from what runs, never from what this run changed: otherwise a run that is killed between a change
    and its restart would leave the old release running. If the new release does not start, gives a wrong answer, is too
    slow or ends while it is watched, the previous one is put back and the run fails.
    """
    observed = convergence.observe(release.settings, release.profile)
    current = observed.current == release.id
    unit = f"{release.settings.service_name}.service"
    active = observed.units.get(unit, {}).get("ActiveState") == "active"
    # not auto-restart, which waits for its next try: what it failed on may exist by now
    starting = current and observed.units.get(unit, {}).get("SubState") in ("start", "start-post")
    problems = [f"{row.what}: {row.found}" for row in running_problems(release, observed)]
    if not active:
        problems = problems or ["service: not active"]
    empty = [f"{row.what}: {row.found}" for row in empty_encoders(release, observed)]
    asked = observed.verdicts.get(release.id) and not rollout.started_meanwhile(host, observed)
    if current and not problems and not empty and asked:
        host.noop(f"release {release.id} serves")
        return
    way = plan_swap.swap(release, observed) if problems else None
    comparable = plan_swap.comparable(release, observed)
    swap = _Swap(release, way, problems, bool(empty), observed.serving, starting, comparable)
    swap.bench_before = plan_swap.baseline(release, observed)
    yield FunctionCommand(_serve, (swap,), {})


@dataclass
class _Swap:
    """One swap in progress. `running`: the release that served before; `before_s`: how long its golden answer took."""

    release: Release
    way: plan_swap.Swap | None  # None: already running; only verified again
    problems: Sequence[str]
    empty: bool
    running: str
    starting: bool  # its unit is starting, and will run the release
    comparable: bool  # another release of the same model serves, in the same place
    before_s: float | None = None
    figures: dict[str, float | str | None] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    switched: bool = False  # `current` points to the release, and the previous server was stopped
    cost: str = "no interruption"
    bench_before: Speed | None = None  # as the host has it recorded of the release that served before

    @property
    def stays(self) -> Server:
        """The main server, which runs the release in the end."""
        return self.release.servers[0]


def _serve(state: State, host: Host, swap: _Swap) -> bool:
    release = swap.release
    try:
        try:
            _swap(host, swap)
        except Failed as problem:
            logger.error(f"{host.print_prefix}release {release.id}: {problem}")
            _go_back(host, swap, str(problem))
            return False
        judged(host, release.settings, release.id, "proven")
        if unwritten := golden_answers.keep(release, swap.answers, host.name):
            logger.warning(f"{host.print_prefix}{unwritten}")
        measured(host, release.settings, release.id, swap.figures)
    except LOST as error:
        log_lost(host, f"release {release.id}", release.settings.service_name, error)
        rollout.failed(host, "connection lost during the swap")
        return False
    what = f"serves, {swap.way.way}, {swap.cost}" if swap.way else "serves, verified again"
    rollout.note(host, what, release.id)
    return True


def _go_back(host: Host, swap: _Swap, reason: str) -> None:
    """After a failed swap, what served before serves again, as far as that is possible; the host's status says it."""
    if swap.way and swap.way.way == "side by side":
        _leave(host, swap, reason)
    elif swap.switched or not swap.way:
        with suppress(Failed):  # which it has reported
            _put_previous_back(host, swap, reason)
            # only if another release serves now: without one, the same command is the repair
            judged(host, swap.release.settings, swap.release.id, "failed", reason)
    else:
        rollout.failed(host, f"left as it was: {reason}")


def _swap(host: Host, swap: _Swap) -> None:
    """Swap the releases. Raises Failed."""
    release, way = swap.release, swap.way
    if way is None:
        # it already runs; even so, `current` may be missing, or point elsewhere at the next start
        switched(host, release.settings, release.id)
        _gates(host, swap, swap.stays)
        return
    logger.info(f"{host.print_prefix}release {release.id}: {way} ({'; '.join(swap.problems)})")
    if swap.comparable:
        swap.before_s = answer_seconds(host, swap.stays, release.profile.golden)
    if way.way == "side by side":
        _side_by_side(host, swap)
    else:
        _in_place(host, swap)


def _in_place(host: Host, swap: _Swap) -> None:
    began = time.monotonic()
    _start_current(host, swap)
    seconds = time.monotonic() - began
    swap.cost = f"{seconds:.1f} s without service" if swap.running else f"ready after {seconds:.1f} s"
    swap.figures["load_s"] = seconds
    # a release that nobody can reach does not serve
    if swap.release.fronted:
        front.point_to(host, swap.release, swap.stays)
    _gates(host, swap, swap.stays)


def _start_current(host: Host, swap: _Swap) -> None:
    release = swap.release
    switched(host, release.settings, release.id)
    swap.switched = True
    if swap.starting:
        # what this start failed on may exist by now
        with suppress(Failed):
            start(host, release.settings, join=True)
            return
    start(host, release.settings)


def _side_by_side(host: Host, swap: _Swap) -> None:
    """
    Gate the new server beside the old one, switch clients to it, and meanwhile start the release on the main server.

    The release is loaded twice, so that in the end the unit that starts at boot is the one that serves. Raises Failed.
    """
    release, beside = swap.release, swap.release.servers[1]
    done(host, link_script(release.settings, beside.link, release.id), lines=3)
    began = time.monotonic()
    start(host, release.settings, beside.service, beside.link)
    swap.figures["load_s"] = time.monotonic() - began
    _gates(host, swap, beside)
    front.point_to(host, release, beside)
    _drain(host, release, swap.stays)
    # From here on the new release serves clients, whatever happens to the main server.
    _start_current(host, swap)
    seed = release.database.seed if release.database else ""
    answered(host, swap.stays, release.profile.golden_requests, seed)
    front.point_to(host, release, swap.stays)
    _drain(host, release, beside)
    front.stop_server(host, beside.service)
    shell(host, f"rm -f {release.settings.state_root}/{beside.link}")


def _drain(host: Host, release: Release, server: Server) -> None:
    if left := front.drained(host, release, server):
        logger.info(
            f"{host.print_prefix}{left} connections to {server.service} are still open after {release.settings.drain_s} s; "
            "it ends them when it has answered"
        )


def _gates(host: Host, swap: _Swap, server: Server) -> None:
    """Check golden answers (after storing the first documents, if needed), speed, then soak. Raises Failed."""
    release = swap.release
    seed = release.database.seed if release.database else ""
    if swap.empty:
        with forwarded(host, server.address, server.ports[1]) as endpoint:
            documents.stored(host, release, endpoint, seed)
    swap.answers = answered(host, server, release.profile.golden_requests, seed)
    # a door that is not there yet, or is another one, is asked once it runs: the stage that starts it does
    if release.door and door.runs(host, release.door):
        door.proven(host, release, server)
        # not where it is only verified again: its clients' requests would be measured too
        if swap.way and release.settings.bench_gate:
            swap.figures |= speed.proven(host, release, server, swap.bench_before)
    _compare(host, swap, server)
    swap.figures["answer_s"] = now_s = answer_seconds(host, server, release.profile.golden)
    if problem := gates.slower(swap.before_s, now_s, release.settings.latency_factor):
        raise Failed(problem)
    soaked(host, server.service, release.settings.soak_s)


def _compare(host: Host, swap: _Swap, server: Server) -> None:
    """Compare the golden answers with the recorded ones. Raises Failed."""
    release = swap.release
    texts = [request for request in release.profile.golden_requests if isinstance(request, Golden)]
    # a server that ran before has clients, whose requests change the order of sums; a new one may have some at once
    tries = ASKED_AGAIN if swap.way else 0
    try:
        while problem := golden_answers.difference_of(
            release, swap.answers, host.name, exact=swap.way is not None
        ):
            if not tries:
                raise Failed(f"{problem}; {golden_answers.held_back(release, swap.answers, host.name)}")
            tries -= 1
            swap.answers = answered(host, server, texts)
    except PlanError as error:
        raise Failed(str(error)) from None


def _leave(host: Host, swap: _Swap, reason: str) -> None:
    """After a failed side-by-side swap: the old release serves, or is put back, and the second server is stopped."""
    release, beside = swap.release, swap.release.servers[1]
    links = host.get_fact(ReleaseLinks, state_root=release.settings.state_root)
    if links.get("current") == release.id:
        try:
            _put_previous_back(host, swap, reason)
            judged(host, release.settings, release.id, "failed", reason)
        except Failed as problem:
            _leave_beside(host, swap, f"{reason}; {problem}")
            return
    else:
        logger.error(f"{host.print_prefix}release {swap.running} went on serving")
        judged(host, release.settings, release.id, "failed", reason)
        rollout.failed(host, f"kept {swap.running}: {reason}", swap.running)
    try:
        front.point_to(host, release, swap.stays)
    except Failed as problem:
        logger.error(f"{host.print_prefix}{problem}")
    front.stop_server(host, beside.service)
    shell(host, f"rm -f {release.settings.state_root}/{beside.link}")


def _leave_beside(host: Host, swap: _Swap, reason: str) -> None:
    """The main server is down: the second server, which is proven and serves clients, continues."""
    release, beside = swap.release, swap.release.servers[1]
    # the attempt to put back a release without a proxy has stopped the proxy
    try:
        front.point_to(host, release, beside)
    except Failed as problem:
        logger.error(f"{host.print_prefix}{problem}")
        rollout.failed(host, f"DOWN: {reason}; {problem}", release.id)
        return
    logger.error(
        f"{host.print_prefix}release {release.id} serves clients from {beside.service}.service, which does not "
        f"start at boot; fix what keeps {swap.stays.service}.service from starting, and run again"
    )
    rollout.failed(host, f"serves from the second server, not started at boot: {reason}", release.id)


def take_back(host: Host, release: Release, reason: str) -> None:
    """A release that was proven, and that clients have found wrong, is withdrawn: the one before serves. Raises Failed."""
    # first: where the one before does not start, no later run is to take this one for proven
    judged(host, release.settings, release.id, "withdrawn", reason)
    _put_previous_back(host, _Swap(release, None, (), False, release.id, False, False), reason)


def _put_previous_back(host: Host, swap: _Swap, reason: str) -> None:
    """Run the previous release again on the main server. Raises Failed after the host's status says so."""
    release = swap.release
    previous = host.get_fact(ReleaseLinks, state_root=release.settings.state_root).get("previous")
    if not previous or previous == release.id:
        logger.error(f"{host.print_prefix}no previous release to put back; no proven release serves")
        rollout.failed(host, f"NOT PROVEN: {reason}; no previous release to put back", release.id)
        raise Failed("no previous release to put back")
    # the release that ran when this run began is reachable for the same clients as before
    if previous != swap.running and (open_to := open_past_the_gateway(host, release.settings, previous)):
        problem = (
            f"{previous} is from before the gateway, on {open_to} without TLS and keys, and was not put back"
        )
        logger.error(
            f"{host.print_prefix}{problem}; fix the cause and run again, or take gateway out of the inventory"
        )
        state = "DOWN" if swap.switched else "NOT PROVEN"
        rollout.failed(host, f"{state}: {reason}; {problem}", release.id)
        raise Failed(problem)
    try:
        put_back(host, release.settings, previous)
    except Failed as failure:
        logger.error(f"{host.print_prefix}previous release {previous} could not be put back: {failure}")
        rollout.failed(host, f"DOWN: {reason}; {previous} could not be put back", previous)
        raise Failed(f"{previous} could not be put back") from failure
    logger.error(f"{host.print_prefix}previous release {previous} was put back and serves")
    rollout.failed(host, f"put back {previous}: {reason}", previous)
