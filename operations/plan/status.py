"""What a host does now, in one word and one row, against what the inventory says: `tritonhost status`. Reads nothing, changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from operations.plan.audit.redaction import redacted
from operations.plan.capacity.gpu import Gpu
from operations.plan.columns import Column, table
from operations.plan.difference_rows import Difference
from operations.plan.errors import one_line
from operations.plan.inventory.services import machine_of
from operations.plan.inventory.settings import Settings
from operations.plan.observed.observed import Observed
from operations.plan.release import Release

VERSION = 1  # of the document: it is raised when a key goes or gets another meaning, not when one is added

State = Literal["serving", "starting", "differs", "down", "not deployed", "unreachable"]
STATES: tuple[State, ...] = get_args(State)
_LONGEST = 400  # characters of a text that a host or a library wrote


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReleaseIds(_Part):
    """Release ids; empty: there is none, or it is not known."""

    running: str = ""  # whose server runs
    current: str = ""  # that starts at boot
    previous: str = ""  # that a rollback runs
    wanted: str = ""  # that the inventory says


class VerdictFound(_Part):
    """What the host remembers of the release that runs, or that starts at boot."""

    outcome: Literal["proven", "failed", "withdrawn"]
    at: str


class DifferenceFound(_Part):
    """One thing that is not what the inventory says."""

    stage: str
    what: str
    found: str
    wanted: str


class GpuFound(_Part):
    """One GPU of the service."""

    index: int
    name: str
    memory_mib: int
    driver: str


class HostStatus(_Part):
    """One host of the inventory, or one service of it."""

    name: str  # in the inventory: gpu-1, or gpu-1/llama
    host: str
    service: str = ""  # empty where the host has one
    state: State
    model: str  # that the inventory says
    running_model: str = ""
    release: ReleaseIds = ReleaseIds()
    since: str = ""  # when the server's container was started, in UTC
    verdict: VerdictFound | None = None
    differences: list[DifferenceFound] | None = None  # None: not known
    gpus: list[GpuFound] = []
    certificate_ends: str = ""  # of the gateway, in UTC
    at_work: list[str] = []  # units of long work that run on the host now
    problem: str = ""  # why it is not reached, or why it has no plan
    seconds: float = 0  # that the answer took


class StatusDocument(_Part):
    """What `tritonhost status --json` prints."""

    version: Literal[1] = 1
    at: str
    inventory: str
    hosts: list[HostStatus]
    states: dict[State, int]  # how many there are of each; all states are there


def deployed(settings: Settings, observed: Observed) -> bool:
    """Whether anything of the service is on the host."""
    unit = observed.units.get(f"{settings.service_name}.service", {})
    return bool(observed.current or observed.container) or unit.get("LoadState") == "loaded"


def state_of(
    settings: Settings, observed: Observed, urls: Sequence[str], wanted: str, rows: Sequence[object] | None
) -> State:
    """
    The state of a host that was read.

    + urls: where the models of the inventory's release say that they are ready
    + wanted: the release that the inventory says; empty: there is no plan
    + rows: what differs; None: not known
    """
    if not deployed(settings, observed):
        return "not deployed"
    unit = observed.units.get(f"{settings.service_name}.service", {})
    runs = observed.container is not None and observed.container.running
    ready = bool(urls) and all(observed.ready.get(url) == "200" for url in urls)
    # the URLs are those of the inventory's release: another one may have other models and other ports
    same = _model_of(observed, observed.serving) in ("", settings.model)
    spoke = any(observed.ready.get(url, "000") != "000" for url in urls)
    another = observed.active(settings.service_name) and observed.serving not in ("", wanted)
    if runs and (ready or (another and not (same and (spoke or not wanted)))):
        return "serving" if rows is not None and not rows else "differs"
    # a unit that waits for its next try has failed
    if unit.get("ActiveState") == "activating" and unit.get("SubState") != "auto-restart":
        return "starting"
    return "down"


def _model_of(observed: Observed, release: str) -> str:
    """The model of a release, as its manifest has it."""
    stored = observed.artifacts.get(("release", release))
    return str(stored.inputs.get("model", "")) if stored else ""


def of_host(
    name: str,
    settings: Settings,
    observed: Observed,
    urls: Sequence[str],
    release: Release | None,
    rows: Sequence[Difference] | None,
    certificate_ends: datetime | None = None,
    problem: str = "",
    seconds: float = 0,
) -> HostStatus:
    """
    The status of a host that was read.

    + release: what the inventory says; None: there is no plan, and `problem` says why
    + rows: what differs; None: not known
    """
    wanted = release.id if release else ""
    shown = observed.serving or observed.current
    verdict = observed.verdicts.get(shown)
    judged = verdict.text.split() if verdict and verdict.outcome else []
    gpus: Sequence[Gpu] = release.gpus if release else observed.gpus
    running = observed.container is not None and observed.container.running
    # of a release that is not to be tried again a run says no more either
    refused = observed.verdicts.get(wanted)
    if refused and refused.outcome and refused.rejected and not problem:
        problem = f"release {wanted}, which the inventory says: {refused.outcome.value}"
    return HostStatus(
        name=name,
        host=machine_of(name),
        service=name.removeprefix(machine_of(name)).removeprefix("/"),
        state=state_of(settings, observed, urls, wanted, rows),
        model=settings.model,
        running_model=_model_of(observed, observed.serving),
        release=ReleaseIds(
            running=observed.serving, current=observed.current, previous=observed.previous, wanted=wanted
        ),
        since=_time(observed.container.started_at) if observed.container and running else "",
        verdict=VerdictFound(outcome=verdict.outcome.value, at=_time(judged[1] if judged[1:] else ""))
        if verdict and verdict.outcome
        else None,
        differences=None if rows is None else [_difference(row) for row in rows],
        gpus=[
            GpuFound(index=gpu.index, name=gpu.name, memory_mib=gpu.memory_total_mib, driver=gpu.driver)
            for gpu in gpus
        ],
        certificate_ends=_utc(certificate_ends) if certificate_ends else "",
        at_work=[plain(unit) for unit in observed.detached_units],
        problem=plain(problem),
        seconds=round(seconds, 2),
    )


def unreachable(name: str, model: str, problem: str, seconds: float) -> HostStatus:
    """The status of a host that was not read."""
    return HostStatus(
        name=name,
        host=machine_of(name),
        service=name.removeprefix(machine_of(name)).removeprefix("/"),
        state="unreachable",
        model=model,
        problem=plain(problem),
        seconds=round(seconds, 2),
    )


def document(hosts: Sequence[HostStatus], inventory: str, at: datetime) -> StatusDocument:
    """All of it, for a program."""
    counted = Counter(host.state for host in hosts)
    return StatusDocument(
        at=_utc(at),
        inventory=inventory,
        hosts=list(hosts),
        states={state: counted[state] for state in STATES},
    )


def exit_code(hosts: Sequence[HostStatus]) -> int:
    """0: all serve what the inventory says."""
    return 0 if all(host.state == "serving" for host in hosts) else 1


# --- the table

_COLUMNS = (
    Column("host", 20, 40, keep=10),
    Column("state", 12, keep=9),
    Column("release", 8, keep=7),
    Column("model", 8, 32, keep=6),
    Column("since (UTC)", 10, keep=4),
    Column("verdict", 6, keep=3),
    Column("differs", 7, keep=8),
    Column("GPUs", 6, 28, keep=2),
    Column("certificate", 10, keep=1, optional=True),
    Column("remark", 16, keep=5, optional=True),
)


def lines(hosts: Sequence[HostStatus], total: int = 0) -> list[str]:
    """
    The table, and a line that counts the states.

    + total: the cells of a line of the terminal; 0: no limit
    """
    return [*table(_COLUMNS, [_cells(host) for host in hosts], total), summary(hosts)]


def _cells(host: HostStatus) -> list[str]:
    names = Counter(gpu.name.removeprefix("NVIDIA ") for gpu in host.gpus)
    work = [unit.removeprefix("tritonhost-").removesuffix(".service") for unit in host.at_work]
    return [
        host.name,
        host.state,
        host.release.running or host.release.current or "-",
        host.model,
        host.since[:16].replace("T", " ") or "-",
        host.verdict.outcome if host.verdict else "-",
        "?" if host.differences is None else str(len(host.differences)),
        ", ".join(f"{count} x {name}" for name, count in names.items()) or "-",
        host.certificate_ends[:10],
        "; ".join([*work, *filter(None, [host.problem])]),
    ]


def summary(hosts: Sequence[HostStatus]) -> str:
    """How many there are of each state."""
    counted = Counter(host.state for host in hosts)
    machines = len({host.host for host in hosts})
    of = f"{machines} host{'s' if machines != 1 else ''}"
    if len(hosts) != machines:
        of = f"{len(hosts)} services on {of}"
    return f"{of}: {', '.join(f'{counted[state]} {state}' for state in STATES if counted[state])}"


# --- texts


def _difference(row: Difference) -> DifferenceFound:
    said: Mapping[str, str] = {name: plain(getattr(row, name)) for name in DifferenceFound.model_fields}
    return DifferenceFound(**said)


def plain(text: str) -> str:
    """One line, bounded, and without what looks like a secret: a host's own files may hold a proxy's password."""
    said = one_line(redacted(text)[0])
    return f"{said[: _LONGEST - 1]}…" if len(said) > _LONGEST else said


def _time(text: str) -> str:
    """A time of docker's or of judge.sh's in whole seconds; empty where it is none."""
    try:
        return _utc(datetime.fromisoformat(f"{text[:19]}+00:00"))
    except ValueError:
        return ""


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
