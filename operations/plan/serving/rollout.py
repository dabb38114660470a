"""
The order of a rollout: serving hosts are changed in inventory order, the first one alone, and a failure stops the rest.

A service of a host with several is a place of its own; never are two of one host changed at the same time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from operations.plan.inventory.services import machine_of

MANY = 20  # hosts: of more, a person reads what differs, and how many are well
# How the status of a host begins that needs nobody
LEFT_OUT = "left out by --limit or --exclude"
WENT_WELL = frozenset({"converged", "repaired", "serves", LEFT_OUT})


@dataclass(frozen=True)
class Place:
    """One host of a rollout. `serves`: clients use it now; changing a host that does not serve affects no client."""

    name: str
    serves: bool
    stage: Literal["waiting", "at work", "done", "failed", "unreached"] = "waiting"

    @property
    def machine(self) -> str:
        """The host that it is on."""
        return machine_of(self.name)


def stopped_by(places: Sequence[Place]) -> str:
    """The host whose failure keeps the waiting hosts from starting; empty: none."""
    return next((place.name for place in places if place.stage == "failed"), "")


def held_by(places: Sequence[Place], name: str) -> str:
    """
    The host that keeps this one from being changed in this run; empty: none.

    A failure stops all waiting hosts. A host that could not be reached may not serve, so it stops those after it in the
    inventory: with another one taken down, more hosts could be missing than are allowed.
    """
    before = [place.name for place in places][: [place.name for place in places].index(name)]
    unreached = (p.name for p in places if p.stage == "unreached" and p.name in before)
    return stopped_by(places) or next(unreached, "")


def may_begin(places: Sequence[Place], name: str, max_unavailable: int) -> bool:
    """
    Whether a waiting host may be changed now.

    + places: the hosts of the run, in inventory order
    + max_unavailable: how many serving hosts are changed at a time, once the first has succeeded
    """
    if held_by(places, name):
        return False
    own = next(place for place in places if place.name == name)
    if any(place.machine == own.machine and place.stage == "at work" for place in places):
        return False
    if not own.serves:
        return True
    serving = [place for place in places if place.serves and place.stage != "unreached"]
    before = serving[: serving.index(own)]
    if not before:
        return True
    if before[0].stage != "done" or any(place.stage == "waiting" for place in before):
        return False
    return sum(1 for place in serving if place.stage == "at work") < max_unavailable


def report(rows: Sequence[tuple[str, str, str]], counted: bool = False) -> list[str]:
    """
    The run's last table: each host of the inventory with its release and its status.

    + rows: host, release (empty: not known), status
    + counted: those that went well are counted, and those that failed in the same words are one line
    """
    shown = _condensed(rows) if counted else _without_left_out(rows)
    header = ("host", "release", "status")
    widths = [max(len(row[column]) for row in (header, *shown)) for column in (0, 1)]
    return ["  ".join((row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2])) for row in (header, *shown)]


def went_well(status: str) -> bool:
    """Whether nobody needs to look at a host of this status."""
    return _state(status) in WENT_WELL


def _state(status: str) -> str:
    return re.split(r"[:,]", status, maxsplit=1)[0]


def _without_left_out(rows: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Of a large inventory, those that a run was not for are one line."""
    left = [row for row in rows if row[2] == LEFT_OUT]
    if len(left) <= MANY:
        return list(rows)
    return [*(row for row in rows if row[2] != LEFT_OUT), (f"{len(left)} hosts", _releases(left), LEFT_OUT)]


def _condensed(rows: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """What needs a person first."""
    well: dict[str, list[tuple[str, str, str]]] = {}
    other: dict[str, list[tuple[str, str, str]]] = {}
    for row in rows:
        if went_well(row[2]):
            well.setdefault(_state(row[2]), []).append(row)
        else:
            other.setdefault(row[2], []).append(row)
    found = []
    for status, same in other.items():
        name = same[0][0] if len(same) == 1 else f"{same[0][0]} and {len(same) - 1} more"
        found.append((name, _releases(same), status))
    for state, same in well.items():
        name, status = (same[0][0], same[0][2]) if len(same) == 1 else (f"{len(same)} hosts", state)
        found.append((name, _releases(same), status))
    return found


def _releases(rows: Sequence[tuple[str, str, str]]) -> str:
    found = {release for _, release, _ in rows}
    return found.pop() if len(found) == 1 else f"{len(found)} releases"
