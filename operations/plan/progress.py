"""How far each host is, stage by stage, while something changes it: the picture of `tritonhost watch`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from operations.plan.columns import Column, cut, table
from operations.plan.status import HostStatus, plain, summary

# A column -> the stages of `difference` that it counts, and how the names of its units begin, behind tritonhost-
_STAGES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("host", ("storage", "ownership", "packages", "selinux", "container runtime"), ("packages",)),
    ("image", ("source",), ("source", "image")),
    ("weights", ("weights", "dataset", "description"), ("weights", "dataset", "description")),
    ("engine", ("checkpoint", "engine", "onnx", "plan"), ("checkpoint", "engine", "onnx", "plan")),
    ("release", ("model repository", "release"), ()),
    ("serving", ("network", "database", "service", "front", "door", "gateway", "monitoring"), ()),
)
DONE, NOW, UNKNOWN = "ok", "now", "?"
_COLUMNS = (
    Column("", 20, 40, keep=10),
    Column("state", 12, keep=9),
    *(Column(name, 4, keep=3) for name, _, _ in _STAGES),
    Column("at work", 20, keep=8, optional=True),
)


@dataclass(frozen=True)
class Work:
    """
    One unit of long work on a host.

    + seconds: how long it has run
    + line: what it wrote last
    """

    unit: str
    seconds: float
    line: str


@dataclass(frozen=True)
class Progress:
    """One host, as it was read last."""

    status: HostStatus
    work: tuple[Work, ...] = ()

    @property
    def waited_for(self) -> bool:
        """Whether it does not serve what it should, or something is at work on it."""
        return self.status.state != "serving" or bool(self.work)


def name_of(unit: str) -> str:
    """engine-4f2a of tritonhost-engine-4f2a.service."""
    return unit.removeprefix("tritonhost-").removesuffix(".service")


def marks(progress: Progress) -> list[str]:
    """For each stage: done, at work now, or how many things differ."""
    names = [name_of(work.unit) for work in progress.work]
    rows = progress.status.differences
    found = []
    for _, stages, units in _STAGES:
        count = sum(1 for row in rows or () if _column_of(row.stage) == stages)
        if any(name == unit or name.startswith(f"{unit}-") for name in names for unit in units):
            found.append(NOW)
        else:
            found.append(UNKNOWN if rows is None else str(count) if count else DONE)
    return found


def _column_of(stage: str) -> tuple[str, ...]:
    """The stages of the column that a stage of `difference` is counted in; an image's has the image's name in it."""
    if stage.endswith(" image"):
        return _STAGES[1][1]
    return next((stages for _, stages, _ in _STAGES if stage in stages), ())


def lines(hosts: Sequence[Progress], total: int = 0, height: int = 0) -> list[str]:
    """
    The picture: a line for each host, and one that counts the states.

    + total, height: of the terminal; 0: no limit. Where there are more hosts than lines, those that are waited for are shown
    """
    room = max(1, height - 4) if height else len(hosts)
    shown = hosts
    if len(hosts) > room:
        chosen = {id(each) for each in sorted(hosts, key=lambda each: not each.waited_for)[:room]}
        shown = [each for each in hosts if id(each) in chosen]
    left = [f"{len(hosts) - len(shown)} more"] if len(shown) < len(hosts) else []
    rows = [[each.status.name, each.status.state, *marks(each), _at_work(each)] for each in shown]
    counted = summary([each.status for each in hosts])
    return [*table(_COLUMNS, rows, total), *left, cut(counted, total) if total else counted]


def _at_work(progress: Progress) -> str:
    if not progress.work:
        return progress.status.problem
    return "; ".join(
        f"{name_of(work.unit)} {_clock(work.seconds)}{f': {plain(work.line)}' if work.line else ''}"
        for work in progress.work
    )


def _clock(seconds: float) -> str:
    whole = int(seconds)
    hours = f"{whole // 3600}:" if whole >= 3600 else ""
    return f"{hours}{whole % 3600 // 60:02}:{whole % 60:02}"
