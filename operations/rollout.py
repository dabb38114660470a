"""One host after another: whatever can interrupt a service, in inventory order, and at the end what became of each host.

pyinfra's `--serial` visits hosts in no order and goes on after a failure (`_run_serial_ops` and `_run_single_op` of
pyinfra/api/operations.py, 3.10), so each host's own step waits here for its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import gevent
from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.exceptions import NestedOperationError, PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import BaseStateCallback, State

from operations import lock, notifications, pyinfra_patches, run_report, shorter_output
from operations.intake import host_key
from operations.plan.difference_rows import Difference
from operations.plan.inventory.services import machine_of
from operations.plan.observed.observed import Observed
from operations.plan.release import Release
from operations.plan.serving.notification import HostNotified, HostState, state_of
from operations.plan.serving.rollout import LEFT_OUT, Place, held_by, may_begin, report, went_well
from operations.pyinfra_patches import operation_of_operations
from operations.remote.units import until_active
from operations.watched_hosts import serves_models

TURN = "Serve the release, one host after another"
UNCHANGED = "differs, nothing was changed"
POLL_SECONDS = 0.2

Step = Callable[..., Any]


class _Run:
    """What is known of the hosts of this process's one run, by name."""

    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        self.releases: dict[str, str] = {}
        self.statuses: dict[str, str] = {}
        self.failed: set[str] = set()  # hosts whose status already explains the failure
        self.unreached: list[str] = []
        self.unreached_serving: list[str] = []  # of those, hosts that take part in the rollout
        self.differences: dict[str, Sequence[Difference]] = {}
        self.since = datetime.now(UTC)
        self.containers: dict[str, str] = {}
        self.before: dict[str, str] = {}  # the releases that served when the run began
        self.canaries: dict[str, dict[str, str]] = {}  # host -> load balancer -> since when
        self.leaders: dict[str, str] = {}  # by machine: the entry that does what all its services share
        self.beside: dict[str, tuple[str, ...]] = {}  # units of other services that ran
        self.shared: set[str] = set()  # machines on which what the services share is done
        self.wanted: dict[str, str] = {}  # the release that the inventory says, of hosts to be changed
        self.announced = False
        self.began = False
        self.reported = False


_run = _Run()


def watch() -> None:
    """Follow the run from here on: who fails where, and the report when it ends."""
    if pyinfra_patches.follow(_Watch()):
        # pyinfra says in one line why a run ended, and gevent would print the traceback of it as well
        pyinfra_patches.print_no_traceback_of(PyinfraError)


def expect(release: Release, observed: Observed) -> None:
    """The host is to be changed; what it serves meanwhile decides whether it has to wait for its turn."""
    # one that is being started again and again serves nobody, and is not waited for
    running = tuple(unit for unit in release.settings.beside if observed.active(unit))
    _run.beside[host.name] = running
    # what restarts docker interrupts the host's other services as well
    _run.places[host.name] = Place(host.name, bool(observed.serving or running))
    _run.leaders.setdefault(machine_of(host.name), host.name)
    _run.releases[host.name] = _run.before[host.name] = observed.serving
    _run.wanted[host.name] = release.id
    _run.containers[host.name] = observed.container.id if observed.container else ""
    _run.statuses[host.name] = UNCHANGED


def found(rows: Sequence[Difference]) -> None:
    """What differs on the current host, for the report."""
    _run.differences[host.name] = rows


def rows() -> Sequence[Difference]:
    """What differed on the current host when the run looked at it."""
    return _run.differences.get(host.name, ())


def differences(stage: str = "") -> int:
    """How many differences this run found on the current host. `stage`: of one stage alone."""
    return sum(1 for row in rows() if not stage or row.stage == stage)


def started_meanwhile(host: Host, observed: Observed) -> bool:
    """Whether another container serves than when the host was looked at: docker's own upgrade restarts what runs in it."""
    now = observed.container.id if observed.container else ""
    return _run.containers.get(host.name, now) != now


def note(host: Host, status: str, release: str = "") -> None:
    """What became of a host, for the report."""
    _run.statuses[host.name] = status
    if release:
        _run.releases[host.name] = release


@operation()
def repaired() -> Generator[FunctionCommand, None, None]:
    """The run's last table says of a host without a model that what differed is as it should be."""
    yield FunctionCommand(_repaired, (), {})


def _repaired(state: State, host: Host) -> bool:
    note(host, "repaired: what differed is as it should be")
    return True


def failed(host: Host, status: str, release: str = "") -> None:
    """What a failure led to on a host; nothing said later about its steps replaces it."""
    note(host, status, release)
    _run.failed.add(host.name)


def is_first(name: str, release: Release) -> bool:
    """Whether a host is the first that this run has brought to a release, which no host serves already."""
    before = _run.before.get(name, "")
    first = next(
        (
            place.name
            for place in _run.places.values()
            if place.serves and _run.wanted.get(place.name) == release.id != _run.before.get(place.name)
        ),
        "",
    )
    # a host that served it when the run began, and differs in nothing, was decided about
    known = any(
        _run.releases.get(other) == release.id and status.startswith("converged")
        for other, status in _run.statuses.items()
    )
    return name == first and before not in ("", release.id) and not known


def begin_canary(name: str, since: dict[str, str]) -> None:
    """A host serves a share of the requests. `since`: load balancer -> its own time."""
    _run.canaries[name] = since


def canary_since(name: str) -> dict[str, str] | None:
    """See begin_canary; None of a host that is no canary."""
    return _run.canaries.get(name)


def end_canary(name: str) -> None:
    """It was decided about."""
    _run.canaries.pop(name, None)


def leave_out(message: str) -> None:
    """The current host is not changed, because of its own state or inventory; the others are not ended by it."""
    logger.error(f"{host.print_prefix}{message}")
    # what watches takes no part in the rollout, and holds nobody up
    if serves_models(host):
        _run.places[host.name] = Place(host.name, True, "failed")
    failed(host, f"refused: {message}")
    pyinfra_patches.leave_out_current_host()


def once_a_host(release: Release, steps: Sequence[Step]) -> None:
    """
    The steps are run once for each host: of several services, the first that has to be changed runs them for all.

    + steps: what all services of a host share; if one fails, none of them goes on
    """
    if _leads():
        for step in steps:
            step(release=release)


def _leads() -> bool:
    return _run.leaders.get(machine_of(host.name)) == host.name


def unless_serving(release: Release, steps: Sequence[Step]) -> None:
    """
    The steps are run on hosts that serve nobody, on all of them at once.

    + steps: what `host_by_host` runs again, in the turn of a host that serves
    """
    if _leads() and not _run.places[host.name].serves:
        for step in steps:
            step(release=release)
    if release.settings.services:
        ready(name="Wait until the host is ready for its services")


@operation()
def ready() -> Generator[FunctionCommand, None, None]:
    """
    What the services of a host share has been done; nothing else is done here.

    An operation of all services, which pyinfra runs only when each has come to it: what one of them alone runs before it is
    then before what the others run after it. It fails where that one has failed.
    """
    yield FunctionCommand(_is_ready, (), {})


def _is_ready(state: State, host: Host) -> bool:
    machine = machine_of(host.name)
    leader = _run.leaders.get(machine, host.name)
    if leader != host.name and leader in pyinfra_patches.failed_hosts(state):
        failed(host, f"untouched: {leader} failed before it")
        logger.error(
            f"{host.print_prefix}host: found {leader} failed, expected it to prepare the host for all of its services; fix "
            f"{leader}, and run again"
        )
        return False
    _run.shared.add(machine)
    return True


@deploy("Rollout")
def host_by_host(
    release: Release, steps: Sequence[Step], after_failure: Callable[[Host, Release], None]
) -> None:
    """
    The steps are run on one serving host after another, in the inventory's order; see operations/plan/serving/rollout.py.

    + steps: deploys or operations that take `release`, in order; all of them have run before the next host begins
    + after_failure: what is done on a host where one of them failed
    """
    turn(name=TURN, release=release, steps=steps, after_failure=after_failure)


@operation_of_operations
def turn(
    release: Release, steps: Sequence[Step], after_failure: Callable[[Host, Release], None]
) -> Generator[FunctionCommand, None, None]:
    """
    The host is the release, and was changed only after the serving hosts before it in the inventory had succeeded.

    + steps: what changes it
    + after_failure: what is done where one of them failed
    """
    yield FunctionCommand(_take_turn, (release, steps, after_failure), {})


def _take_turn(
    state: State,
    host: Host,
    release: Release,
    steps: Sequence[Step],
    after_failure: Callable[[Host, Release], None],
) -> bool:
    if not _run.began and len(_run.places) > 1:
        logger.error(
            f"{host.print_prefix}rollout: found --serial or --no-wait, expected neither; hosts are changed one after "
            "the other by themselves, and max_unavailable says how many at a time"
        )
        failed(host, "refused: --serial or --no-wait")
        # with --no-wait pyinfra ends with 0 whatever happens
        pyinfra_patches.mark_failed(state, host)
        return False
    while not may_begin(list(_run.places.values()), host.name, release.settings.max_unavailable):
        if other := held_by(list(_run.places.values()), host.name):
            unreached = _run.places[other].stage == "unreached"
            failed(host, f"untouched: {other} {'was not reached' if unreached else 'failed before it'}")
            logger.error(
                f"{host.print_prefix}rollout: found {other} {'not reached' if unreached else 'failed'}, expected no "
                f"failure before this host's turn; the running release was left as it is; fix {other}, or exclude it with "
                f"--exclude {other}, and run again"
            )
            return False
        gevent.sleep(POLL_SECONDS)
    _set(host, "at work")
    succeeded = False
    try:
        for step in steps:
            # a deploy that was stopped may continue here, while another run holds the host's lock
            if problem := lock.lost(host):
                logger.error(f"{host.print_prefix}{problem}; nothing more is done; run again")
                failed(host, f"given up before the step {step.__name__}: {problem}")
                return False
            step(release=release)
        if problem := _beside_problem(host, release):
            logger.error(f"{host.print_prefix}{problem}")
            failed(host, problem)
            after_failure(host, release)
            return False
        succeeded = True
        if _run.statuses[host.name] == UNCHANGED:
            note(host, "repaired: what differed is as it should be")
    except (NestedOperationError, PyinfraError):
        # reported already: by the operation itself, or by its fact, which found no connection
        if not lock.lost(host):
            after_failure(host, release)
    finally:
        # in every case: a host that waits for this one must not wait without end
        _set(host, "done" if succeeded else "failed")
    return succeeded


def _beside_problem(host: Host, release: Release) -> str:
    """Waits for the other services of the host that served before this turn: a restart of docker restarts them. Why not."""
    if not (units := _run.beside.get(host.name)):
        return ""
    own = release.settings.start_timeout_s
    others = (int(table.get("start_timeout_s", own)) for table in release.settings.services.values())
    seconds = max([own, *others])
    problem = until_active(host, units, seconds)
    return f"services beside it: {problem}" if problem else ""


def _set(host: Host, stage: Any) -> None:
    _run.places[host.name] = replace(_run.places[host.name], stage=stage)


def _status(name: str, failed: bool) -> str:
    status = _run.statuses.get(name, "")
    if failed and status == UNCHANGED:
        return "failed: see the lines above; the running release was left as it is"
    if failed and went_well(status):
        return f"failed afterwards: see the lines above; before that: {status}"
    return status


def _print_report(state: State) -> None:
    """Once: each host of the inventory, and what became of it."""
    if _run.reported:
        return
    _run.reported = True
    lost, wanted = pyinfra_patches.failed_hosts(state), pyinfra_patches.hosts_of_run(state)
    rows = [
        (
            each.name,
            _run.releases.get(each.name, ""),
            _status(each.name, each.name in lost) or ("not looked at" if each.name in wanted else LEFT_OUT),
        )
        for each in state.inventory
    ]
    logger.info("--> Hosts:")
    for line in report(rows, shorter_output.many()):
        logger.info(f"    {line}")
    if problem := run_report.write(rows, lost, _run.differences, _run.since):
        logger.error(problem)
    statuses = {name: status for name, _, status in rows if name in wanted}
    hosts = [
        _notified(each, state_of(statuses[each.name], each.name in lost), lost)
        for each in state.inventory
        if each.name in statuses
    ]
    notifications.ended(list(state.inventory), hosts, _run.since)


def _announce(state: State) -> None:
    """Once, before the first operation: which hosts are to be changed."""
    if _run.announced or not _run.places:
        return
    _run.announced = True
    lost = pyinfra_patches.failed_hosts(state)
    hosts = [
        _notified(
            each,
            "to be changed"
            if each.name in _run.places and each.name not in lost
            else state_of(_run.statuses[each.name], each.name in lost),
            lost,
        )
        for each in state.inventory
        if each.name in _run.statuses
    ]
    notifications.started(list(state.inventory), hosts, _run.since)


def _notified(each: Host, what: HostState, lost: set[str]) -> HostNotified:
    """A host's row of a message about the run: no status, whose text may be a model's."""
    rows = _run.differences.get(each.name)
    return HostNotified(
        host=each.name,
        state=what,
        failed=each.name in lost,
        model=str(each.data.get("model") or ""),
        release=_run.releases.get(each.name, ""),
        wanted=_run.wanted.get(each.name, ""),
        differences=None if rows is None else len(rows),
    )


class _Watch(BaseStateCallback):
    """pyinfra's callbacks: they are static, so what they know is in `_run`."""

    @staticmethod
    def host_connect_error(state: State, host: Host, error: Exception) -> None:
        key = host_key.problem(host, error)
        if key:
            logger.error(f"{host.print_prefix}{key}")
        _run.unreached.append(host.name)
        if serves_models(host):
            _run.unreached_serving.append(host.name)
        failed(host, f"unreachable: {key or str(error)}")
        # pyinfra disconnects from the hosts it has connected to, so that where there are none nobody else says this
        if len(_run.unreached) == len(pyinfra_patches.hosts_of_run(state)):
            _print_report(state)

    @staticmethod
    def operation_start(state: State, op_hash: str) -> None:
        _announce(state)
        if not any(TURN in name for name in pyinfra_patches.names_of_operation(state, op_hash)):
            return
        _run.began = True
        order = {each.name: number for number, each in enumerate(state.inventory)}
        active = pyinfra_patches.active_hosts(state)
        for name in _run.unreached_serving:
            _run.places[name] = Place(name, True, "unreached")
        for name in sorted(_run.places, key=lambda name: order[name]):
            place = _run.places.pop(name)
            lost = name not in active and place.stage != "unreached"
            _run.places[name] = replace(place, stage="failed") if lost else place
        # a host that waits for its turn must not keep the one that it waits for from starting
        pyinfra_patches.start_together(state, op_hash, len(_run.places))

    @staticmethod
    def operation_host_error(
        state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        names = " ".join(pyinfra_patches.names_of_operation(state, op_hash))
        if TURN in names:
            return
        if host.name not in _run.failed:
            failed(host, f"failed: {names}")
        machine = machine_of(host.name)
        if machine not in _run.shared and _run.leaders.get(machine) == host.name:
            # what they share was to be made by this one
            for each in state.inventory:
                if (
                    machine_of(each.name) == machine
                    and each.name not in _run.failed
                    and each.name in _run.places
                ):
                    failed(each, f"untouched: {host.name} failed before it")
                    pyinfra_patches.leave_out(state, each)

    @staticmethod
    def host_disconnect(state: State, host: Host) -> None:
        if _run.statuses:
            _print_report(state)
