"""Bring a release to serve: beside the one that serves or in its place, gated, and taken back where it fails."""

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
from operations.detached import LOST, log_lost, shell
from operations.facts.releases import ReleaseLinks
from operations.plan import gates
from operations.plan import swap as plan_swap
from operations.plan.difference import empty_encoders, running_problems
from operations.plan.release import Release, Server
from operations.release import link_script, put_back, switched
from operations.server import answer_seconds, answered, judged, measured, soaked, start
from operations.tunnel import forwarded


@deploy("Swap")
def serve(release: Release) -> None:
    """The running server is the release, its models are ready, and its answer is the known one."""
    serving(name="Serve the release", release=release)


@operation()
def serving(release: Release) -> Generator[FunctionCommand, None, None]:
    """
    `current` points to the release, its server runs it, its models are ready and it gives the golden answer.

    + release: what must serve; it is laid out already

    Restarted because of what runs, never because of what this run changed: a run that was killed between a change
    and its restart would otherwise leave the old release serving for ever. If the new release does not come up,
    gives another answer, is too slow or ends while it is watched, the previous one is put back and the run fails.
    """
    observed = convergence.observe(release.settings, release.profile)
    current = observed.current == release.id
    unit = f"{release.settings.service_name}.service"
    active = observed.units.get(unit, {}).get("ActiveState") == "active"
    # not one that waits for its next try (auto-restart): what it failed for may have been made meanwhile
    starting = current and observed.units.get(unit, {}).get("SubState") in ("start", "start-post")
    problems = [f"{what}: {found}" for _, what, found, _ in running_problems(release, observed)]
    if not active:
        problems = problems or ["service: not active"]
    empty = [f"{what}: {found}" for _, what, found, _ in empty_encoders(release, observed)]
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
    """One swap on its way. `running`: the release that served before; `before_s`: how long its golden answer took."""

    release: Release
    way: plan_swap.Swap | None  # None: it runs already, and is only asked
    problems: Sequence[str]
    empty: bool
    running: str
    starting: bool  # its unit is being started, and will run the release
    comparable: bool  # another release of the same model serves, in the same place
    before_s: float | None = None
    figures: dict[str, float | None] = field(default_factory=dict)
    switched: bool = False  # `current` points to the release, and what served before was stopped
    cost: str = "no interruption"

    @property
    def stays(self) -> Server:
        """Where the release runs in the end."""
        return self.release.servers[0]


def _serve(state: State, host: Host, swap: _Swap) -> bool:
    release = swap.release
    try:
        problem = _swap(host, swap)
        if not problem:
            judged(host, release.data_root, release.id, "proven")
            measured(host, release.settings, release.id, swap.figures)
            what = f"serves, {swap.way.way}, {swap.cost}" if swap.way else "serves, asked again"
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
        rollout.failed(host, "connection lost while the release was brought to serve")
    return False


def _swap(host: Host, swap: _Swap) -> str:
    """What went wrong on the way, or nothing."""
    release, way = swap.release, swap.way
    if way is None:
        # it runs already; `current` may be gone all the same, or lead elsewhere at the next start
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
    The new server is gated beside the old one, people are led to it, and the old one's place is taken while they are.

    The release is loaded twice: so that whatever happens later, the one unit that is started at boot is what serves.
    """
    release, beside = swap.release, swap.release.servers[1]
    ok, output = shell(host, link_script(release.data_root, beside.link, release.id))
    if not ok:
        return " ".join(output[-3:])
    began = time.monotonic()
    problem = start(host, release.settings, beside.service, beside.link)
    swap.figures["load_s"] = time.monotonic() - began
    problem = problem or _gates(host, swap, beside) or front.point_to(host, release, beside)
    if problem:
        return problem
    _drain(host, release, swap.stays)
    # From here on people are served by the new release, whatever happens to the old one's place.
    problem = _start_current(host, swap) or answered(
        host, swap.stays, release.profile.golden, release.database.seed if release.database else ""
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
    """Golden answers, where need be after the first documents, speed, then a soak; what is wrong, or nothing."""
    release = swap.release
    seed = release.database.seed if release.database else ""
    if swap.empty:
        with forwarded(host, server.address, server.ports[1]) as endpoint:
            if problem := documents.stored(host, release, endpoint, seed):
                return f"documents: {problem}"
    if problem := answered(host, server, release.profile.golden, seed):
        return problem
    swap.figures["answer_s"] = answer_seconds(host, server, release.profile.golden)
    factor = release.settings.latency_factor
    if problem := gates.slower(swap.before_s, swap.figures["answer_s"], factor):
        return problem
    return soaked(host, server.service, release.settings.soak_s)


def _leave(host: Host, swap: _Swap, reason: str) -> None:
    """After a side-by-side swap that failed: the old release serves, or is put back, and the new one is not left."""
    release, beside = swap.release, swap.release.servers[1]
    links = host.get_fact(ReleaseLinks, data_root=release.data_root)
    if links.get("current") == release.id:
        _put_previous_back(host, swap, reason)
    else:
        logger.error(f"{host.print_prefix}release {swap.running} went on serving")
        judged(host, release.data_root, release.id, "failed", reason)
        rollout.failed(host, f"kept {swap.running}: {reason}", swap.running)
    if problem := front.point_to(host, release, swap.stays):
        logger.error(f"{host.print_prefix}{problem}")
    front.stop_server(host, beside.service)
    shell(host, f"rm -f {release.data_root}/{beside.link}")


def _put_previous_back(host: Host, swap: _Swap, reason: str) -> None:
    release = swap.release
    previous = host.get_fact(ReleaseLinks, data_root=release.data_root).get("previous")
    if not previous or previous == release.id:
        logger.error(f"{host.print_prefix}no previous release to put back; nothing that was proven serves")
        rollout.failed(host, f"NOT PROVEN: {reason}; no previous release to put back", release.id)
        return
    if problem := put_back(host, release.settings, previous):
        logger.error(f"{host.print_prefix}previous release {previous} could not be put back: {problem}")
        rollout.failed(host, f"DOWN: {reason}; {previous} could not be put back", previous)
        return
    logger.error(f"{host.print_prefix}previous release {previous} was put back and serves")
    rollout.failed(host, f"put back {previous}: {reason}", previous)
    # only what was taken back: without a release before it, the same command is the repair
    judged(host, release.data_root, release.id, "failed", reason)
