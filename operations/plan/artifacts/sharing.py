"""Of several hosts that need the same artifact, who makes it and who receives it from whom: of one run, without a host.

An artifact's name is the hash of what it is made from, with the GPU's model and the image among it, so a host that has it has what the
others would make. An engine is also bound to the driver's branch, which the hash leaves out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

# The unit that gives them. Not tritonhost-…: it is no work that a run would wait for.
UNIT = "sharing-of-tritonhost"
# Receivers of one host at the same time: with more, the second generation of senders would begin later.
SENDING = 2
# A host that could not give an artifact to so many others gives it to nobody any more. Where so many transfers of a run have failed
# and none has ended well, nothing is transferred: the network between the hosts may not admit it.
DOUBTS = 2
# Makers that failed: what fails on two hosts fails on the third.
TRIES = 2
# What runs on the driver that it was compiled for
_BOUND = ("engine", "plan")

Do = Literal["make", "fetch", "wait", "give up"]
# How a transfer ended: well, or because of the way to the giver, of what the giver has, or of the receiver's own fault
End = Literal["well", "way", "giver", "own"]


@dataclass(frozen=True)
class Turn:
    """
    What a host is to do now.

    + other: the host that it receives the artifact from, that it waits for, or that failed last
    """

    do: Do
    other: str = ""


@dataclass
class _Shared:
    """What is known of one artifact."""

    holders: list[str] = field(default_factory=list)
    maker: str = ""
    sending: Counter[str] = field(default_factory=Counter)
    doubted: dict[str, set[str]] = field(default_factory=dict)  # holder -> hosts that it could not give it to
    failed: list[str] = field(default_factory=list)
    alone: set[str] = field(
        default_factory=set
    )  # hosts that make it themselves, because no transfer to them ended well


class Exchange:
    """The artifacts of one run's hosts, by the unit that makes each."""

    def __init__(self) -> None:
        self._drivers: dict[str, str] = {}
        self._transfers = Counter[bool]()  # how many ended well, and how many did not
        self._shared: dict[str, _Shared] = {}

    def join(self, host: str, driver: str) -> None:
        """
        A host takes part.

        + driver: the version of its GPUs' driver
        """
        self._drivers[host] = driver.partition(".")[0]

    def takes_part(self, host: str) -> bool:
        """Whether a host hands artifacts to others."""
        return host in self._drivers

    @property
    def hosts(self) -> int:
        """How many hosts take part."""
        return len(self._drivers)

    def has(self, unit: str, host: str) -> None:
        """The host has the artifact, complete."""
        one = self._of(unit)
        if host not in one.holders:
            one.holders.append(host)
        if one.maker == host:
            one.maker = ""

    def next(self, unit: str, host: str) -> Turn:
        """
        What the host that needs an artifact is to do. `make` and `fetch` are its own until it says how they ended.

        A host that has it already makes it: its artifact is damaged, or its work was left by another run.
        """
        one = self._of(unit)
        if host in one.holders:
            one.holders.remove(host)
        willing = [each for each in self._givers(unit, host) if host not in one.doubted.get(each, ())]
        if self._transfers[False] >= DOUBTS and not self._transfers[True]:
            one.alone.add(host)
        if host in one.alone:
            willing = []
        free = [each for each in willing if one.sending[each] < SENDING]
        if free:
            giver = min(free, key=lambda each: one.sending[each])
            one.sending[giver] += 1
            return Turn("fetch", giver)
        if willing:
            return Turn("wait", willing[0])
        # one that has waited for a transfer, and got none, does not wait for another host's making on top of it
        if one.maker and one.maker != host and host not in one.alone and self._fits(unit, one.maker, host):
            return Turn("wait", one.maker)
        if len(one.failed) >= TRIES and host not in one.failed:
            return Turn("give up", one.failed[-1])
        one.maker = one.maker or host
        return Turn("make")

    def elsewhere(self, unit: str, host: str) -> str:
        """Another host that makes an artifact, or that could give it; empty: none."""
        one = self._of(unit)
        if one.maker and one.maker != host and self._fits(unit, one.maker, host):
            return one.maker
        return next(iter(self._givers(unit, host)), "")

    def fetched(self, unit: str, host: str, giver: str, end: End) -> None:
        """How a transfer ended."""
        one = self._of(unit)
        one.sending[giver] -= 1
        if end == "well":
            self.has(unit, host)
        if end in ("well", "way"):
            self._transfers[end == "well"] += 1
        if end in ("way", "giver"):
            one.doubted.setdefault(giver, set()).add(host)
        if end in ("way", "own"):
            one.alone.add(host)

    def makes(self, unit: str, host: str) -> None:
        """A host is at it already."""
        one = self._of(unit)
        one.maker = one.maker or host

    def made(self, unit: str, host: str, well: bool, theirs: bool = True) -> None:
        """
        How a host's own making ended.

        + theirs: the work itself failed, and would fail elsewhere; False: the host was lost
        """
        one = self._of(unit)
        if one.maker == host:
            one.maker = ""
        if well:
            self.has(unit, host)
        elif theirs and host not in one.failed:
            one.failed.append(host)

    def _of(self, unit: str) -> _Shared:
        return self._shared.setdefault(unit, _Shared())

    def _givers(self, unit: str, host: str) -> list[str]:
        """The other hosts that have an artifact which is of use to this one."""
        one = self._of(unit)
        return [
            each
            for each in one.holders
            if each != host
            and self.takes_part(each)
            and len(one.doubted.get(each, ())) < DOUBTS
            and self._fits(unit, each, host)
        ]

    def _fits(self, unit: str, giver: str, receiver: str) -> bool:
        bound = unit.removeprefix("tritonhost-").startswith(tuple(f"{kind}-" for kind in _BOUND))
        return not bound or self._drivers.get(giver) == self._drivers.get(receiver)
