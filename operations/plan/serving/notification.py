"""The message about a run: which event it is, and its JSON. Words of our own alone: no answer of a model, no line of a log, no prompt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

VERSION = 1  # raised when a key goes or gets another meaning, not when one is added
LARGEST = 60_000  # bytes: OCI Notifications takes messages of 64 KB

Event = Literal["start", "success", "put back", "failed", "down", "converged"]
HostState = Literal[
    "to be changed",
    "converged",
    "repaired",
    "serves",
    "put back",
    "kept",
    "down",
    "failed",
    "refused",
    "untouched",
    "unreachable",
    "differs",
]
HOST_STATES: tuple[HostState, ...] = get_args(HostState)
# How a status of the run's last table begins -> the state. The first that fits; whatever else a failed host says is `failed`.
_BEGINNINGS: tuple[tuple[str, HostState], ...] = (
    ("converged", "converged"),
    ("repaired", "repaired"),
    ("serves from the second server", "failed"),
    ("serves", "serves"),
    ("put back", "put back"),
    ("kept", "kept"),
    ("left as it was", "kept"),
    ("DOWN", "down"),
    ("refused", "refused"),
    ("untouched", "untouched"),
    ("unreachable", "unreachable"),
    ("differs", "differs"),
)


class HostNotified(BaseModel):
    """One host of the message, or one service."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    state: HostState
    failed: bool = False
    model: str = ""
    release: str = ""  # that serves, as far as it is known
    wanted: str = ""  # that the inventory says, where the host was to be changed
    differences: int | None = None  # that the run found; None: the host was not read


class Message(BaseModel):
    """What is sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    event: Event
    run: str  # the same in all messages of one run
    inventory: str
    at: str
    duration_s: float
    differences: int  # of all hosts
    hosts: list[HostNotified]
    hosts_left_out: int = 0  # because the message would be too large: those that did not fail first

    @property
    def title(self) -> str:
        """One line for a person."""
        failed = sum(1 for host in self.hosts if host.failed)
        count = (
            f"{len(self.hosts) + self.hosts_left_out} hosts" if len(self.hosts) != 1 else self.hosts[0].host
        )
        return f"tritonhost {self.event}: {self.inventory}, {count}{f', {failed} failed' if failed else ''}"


def state_of(status: str, failed: bool) -> HostState:
    """The state that a status of the run's last table means."""
    known = next((state for beginning, state in _BEGINNINGS if status.startswith(beginning)), None)
    if known is None or (failed and known in ("converged", "repaired", "serves", "differs")):
        return "failed"
    return known


def event_of(hosts: Sequence[HostNotified]) -> Event | None:
    """The event that a run ends with, the worst of its hosts'; None: nothing was done, and nothing failed."""
    states = {host.state for host in hosts}
    if "down" in states:
        return "down"
    if "put back" in states:
        return "put back"
    if any(host.failed for host in hosts):
        return "failed"
    if "differs" in states or not states:
        return None
    return "converged" if states == {"converged"} else "success"


def message(
    event: Event, run: str, inventory: str, hosts: Sequence[HostNotified], began: datetime, at: datetime
) -> Message:
    """The message, with as many hosts as it has room for."""
    all_found = sum(host.differences or 0 for host in hosts)
    kept = sorted(hosts, key=lambda host: not host.failed)
    while True:
        made = Message(
            event=event,
            run=run,
            inventory=inventory,
            at=at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            duration_s=round((at - began).total_seconds(), 1),
            differences=all_found,
            # in the order of the inventory
            hosts=[host for host in hosts if host in kept],
            hosts_left_out=len(hosts) - len(kept),
        )
        if len(made.model_dump_json().encode()) <= LARGEST or not kept:
            return made
        kept = kept[: len(kept) * 9 // 10]
