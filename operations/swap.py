"""Swap releases: start the new one beside the running one or in its place, gate it, and go back if it fails."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations import convergence, documents, front, rollout
from operations.facts.releases import ReleaseLinks
from operations.plan import swap as plan_swap
from operations.plan.difference import empty_encoders, running_problems
from operations.plan.release import Release
from operations.plan.serving import gates
from operations.plan.serving.servers import Server
from operations.release import _past_the_gateway, link_script, put_back, switched
from operations.remote.detached import LOST, log_lost, said, shell
from operations.remote.tunnel import forwarded
from operations.server.control import answer_seconds, answered, judged, measured, soaked, start


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
    yield FunctionCommand(
        _serve, (_Swap(release, way, problems, bool(empty), observed.serving, starting, comparable),), {}
    )


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
    figures: dict[str, float | None] = field(default_factory=dict)
    switched: bool = False  # `current` points to the release, and the previous server was stopped
    cost: str = "no interruption"

    @property
    def stays(self) -> Server:
        """The main server, which runs the release in the end."""
        return self.release.servers[0]


def _serve(state: State, host: Host, swap: _Swap) -> bool:
    release = swap.release
    try:
        problem = _swap(host, swap)
        if not problem:
            judged(host, release.data_root, release.id, "proven")
            measured(host, release.settings, release.id, swap.figures)
            what = f"serves, {swap.way.way}, {swap.cost}" if swap.way else "serves, verified again"
            rollout.note(host, what, release.id)
            return True
        logger.error(f"{host.print_prefix}release {release.id}: {problem}")
        if swap.way and swap.way.way == "side by side":
            _leave(host, swap, problem)
        elif swap.switched or not swap.way:
            _put_previous_back(host, swap, problem)
        else:
            rollout.failed(host, f"left as it was: {problem}")
    except LOST as error:
        log_lost(host, f"release {release.id}", release.settings.service_name, error)
        rollout.failed(host, "connection lost during the swap")
    return False


def _swap(host: Host, swap: _Swap) -> str:
    """Swap the releases. Returns the problem, or an empty string."""
    release, way = swap.release, swap.way
    if way is None:
        # it already runs; even so, `current` may be missing, or point elsewhere at the next start
        return switched(host, release.data_root, release.id) or _gates(host, swap, swap.stays)
    logger.info(f"{host.print_prefix}release {release.id}: {way} ({'; '.join(swap.problems)})")
    if swap.comparable:
        swap.before_s = answer_seconds(host, swap.stays, release.profile.golden)
    if way.way == "side by side":
        return _side_by_side(host, swap)
    return _in_place(host, swap)


def _in_place(host: Host, swap: _Swap) -> str:
    began = time.monotonic()
    if problem := _start_current(host, swap):
        return problem
    seconds = time.monotonic() - began
    swap.cost = f"{seconds:.1f} s without service" if swap.running else f"ready after {seconds:.1f} s"
    swap.figures["load_s"] = seconds
    # a release that nobody can reach does not serve
    problem = front.point_to(host, swap.release, swap.stays) if swap.release.fronted else ""
    return problem or _gates(host, swap, swap.stays)


def _start_current(host: Host, swap: _Swap) -> str:
    release = swap.release
    if problem := switched(host, release.data_root, release.id):
        return problem
    swap.switched = True
    if swap.starting and not start(host, release.settings, join=True):
        return ""
    return start(host, release.settings)


def _side_by_side(host: Host, swap: _Swap) -> str:
    """
    Gate the new server beside the old one, switch clients to it, and meanwhile start the release on the main server.

    The release is loaded twice, so that in the end the unit that starts at boot is the one that serves.
    """
    release, beside = swap.release, swap.release.servers[1]
    ok, output = shell(host, link_script(release.data_root, beside.link, release.id))
    if not ok:
        return said(output, 3)
    began = time.monotonic()
    problem = start(host, release.settings, beside.service, beside.link)
    swap.figures["load_s"] = time.monotonic() - began
    problem = problem or _gates(host, swap, beside) or front.point_to(host, release, beside)
    if problem:
        return problem
    _drain(host, release, swap.stays)
    # From here on the new release serves clients, whatever happens to the main server.
    problem = _start_current(host, swap) or answered(
        host, swap.stays, release.profile.golden_requests, release.database.seed if release.database else ""
    )
    if problem:
        return problem
    if problem := front.point_to(host, release, swap.stays):
        return problem
    _drain(host, release, beside)
    front.stop_server(host, beside.service)
    shell(host, f"rm -f {release.data_root}/{beside.link}")
    return ""


def _drain(host: Host, release: Release, server: Server) -> None:
    if left := front.drained(host, release, server):
        logger.info(
            f"{host.print_prefix}{left} connections to {server.service} are still open after {release.settings.drain_s} s; "
            "it ends them when it has answered"
        )


def _gates(host: Host, swap: _Swap, server: Server) -> str:
    """Check golden answers (after storing the first documents, if needed), speed, then soak. Returns the problem or ""."""
    release = swap.release
    seed = release.database.seed if release.database else ""
    if swap.empty:
        with forwarded(host, server.address, server.ports[1]) as endpoint:
            if problem := documents.stored(host, release, endpoint, seed):
                return f"documents: {problem}"
    if problem := answered(host, server, release.profile.golden_requests, seed):
        return problem
    swap.figures["answer_s"] = answer_seconds(host, server, release.profile.golden)
    factor = release.settings.latency_factor
    if problem := gates.slower(swap.before_s, swap.figures["answer_s"], factor):
        return problem
    return soaked(host, server.service, release.settings.soak_s)


def _leave(host: Host, swap: _Swap, reason: str) -> None:
    """After a failed side-by-side swap: the old release serves, or is put back, and the second server is stopped."""
    release, beside = swap.release, swap.release.servers[1]
    links = host.get_fact(ReleaseLinks, data_root=release.data_root)
    if links.get("current") == release.id:
        if problem := _put_previous_back(host, swap, reason):
            _leave_beside(host, swap, f"{reason}; {problem}")
            return
    else:
        logger.error(f"{host.print_prefix}release {swap.running} went on serving")
        judged(host, release.data_root, release.id, "failed", reason)
        rollout.failed(host, f"kept {swap.running}: {reason}", swap.running)
    if problem := front.point_to(host, release, swap.stays):
        logger.error(f"{host.print_prefix}{problem}")
    front.stop_server(host, beside.service)
    shell(host, f"rm -f {release.data_root}/{beside.link}")


def _leave_beside(host: Host, swap: _Swap, reason: str) -> None:
    """The main server is down: the second server, which is proven and serves clients, continues."""
    release, beside = swap.release, swap.release.servers[1]
    # the attempt to put back a release without a proxy has stopped the proxy
    if problem := front.point_to(host, release, beside):
        logger.error(f"{host.print_prefix}{problem}")
        rollout.failed(host, f"DOWN: {reason}; {problem}", release.id)
        return
    logger.error(
        f"{host.print_prefix}release {release.id} serves clients from {beside.service}.service, which does not "
        f"start at boot; fix what keeps {swap.stays.service}.service from starting, and run again"
    )
    rollout.failed(host, f"serves from the second server, not started at boot: {reason}", release.id)


def _put_previous_back(host: Host, swap: _Swap, reason: str) -> str:
    """Run the previous release again on the main server. Returns the problem, or an empty string."""
    release = swap.release
    previous = host.get_fact(ReleaseLinks, data_root=release.data_root).get("previous")
    if not previous or previous == release.id:
        logger.error(f"{host.print_prefix}no previous release to put back; no proven release serves")
        rollout.failed(host, f"NOT PROVEN: {reason}; no previous release to put back", release.id)
        return "no previous release to put back"
    # the release that ran when this run began is reachable for the same clients as before
    if previous != swap.running and (open_to := _past_the_gateway(host, release.settings, previous)):
        problem = (
            f"{previous} is from before the gateway, on {open_to} without TLS and keys, and was not put back"
        )
        logger.error(
            f"{host.print_prefix}{problem}; fix the cause and run again, or take gateway out of the inventory"
        )
        state = "DOWN" if swap.switched else "NOT PROVEN"
        rollout.failed(host, f"{state}: {reason}; {problem}", release.id)
        return problem
    if problem := put_back(host, release.settings, previous):
        logger.error(f"{host.print_prefix}previous release {previous} could not be put back: {problem}")
        rollout.failed(host, f"DOWN: {reason}; {previous} could not be put back", previous)
        return f"{previous} could not be put back"
    logger.error(f"{host.print_prefix}previous release {previous} was put back and serves")
    rollout.failed(host, f"put back {previous}: {reason}", previous)
    # only if another release serves now: without one, the same command is the repair
    judged(host, release.data_root, release.id, "failed", reason)
    return ""
