"""One check of a host, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date

from operations.plan.catalog.shapes import SHAPES, Shape
from operations.plan.errors import PlanError, derived_reference
from operations.plan.inventory.settings import Settings
from operations.plan.observed.health import GpuHealth, Health, HubAnswer, Verdict
from operations.plan.observed.observed import Observed
from operations.plan.profile.profiles import Profile
from operations.plan.release import Release


@dataclass(frozen=True)
class Check:
    """One check. `found` is never empty; `expected` and `then` say what to do about a verdict that is not ok."""

    name: str
    verdict: Verdict
    found: str
    expected: str = ""
    then: str = ""
    lasting: bool = False  # of those that may pass: not this time
    reference: str = ""  # of the error that it was made of; empty: of its name

    @classmethod
    def from_error(cls, name: str, error: PlanError, found: str = "", verdict: Verdict = "failed") -> Check:
        """What the plan refuses, as a check; `found`: in the place of the error's own."""
        return cls(name, verdict, found or error.found, error.expected, error.then, reference=error.reference)

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        fields = {name: value for name, value in asdict(self).items() if name != "lasting"}
        return {**fields, "reference": self.reference or derived_reference(self.name)}


@dataclass(frozen=True)
class Subject:
    """What is judged: what the host should be, as far as that is known, and what it was found to be."""

    settings: Settings
    profile: Profile
    release: Release | None
    health: Health
    observed: Observed | None = None
    hub: HubAnswer | None = None
    problem: PlanError | str = ""  # why there is no release
    sudo_problem: str = ""
    today: date | None = None  # that waivers are compared with
    beside: tuple[Release, ...] = ()  # of the host's other services in this run

    @property
    def shape(self) -> Shape | None:
        """The shape, of the inventory or of the instance's own metadata, where it is one of those known."""
        return SHAPES.get(self.settings.shape or self.health.shape)

    @property
    def driver(self) -> str:
        """The driver that the release will run on: a wave changes it before."""
        wave = self.settings.wave
        return (wave.driver if wave else None) or self.health.driver

    @property
    def gpus(self) -> tuple[GpuHealth, ...]:
        """Those that the host uses."""
        chosen = self.settings.gpu_ids
        return tuple(gpu for gpu in self.health.gpus if chosen == "all" or gpu.index in chosen)

    @property
    def switched(self) -> bool:
        """
        Whether the host has NVSwitches, which a fabric manager on it has to set up.

        GPUs that are handed into a virtual machine tell of a fabric too, and its manager is outside: seen on H200.
        """
        return bool(self.health.switches or (self.shape and self.shape.nvswitch))


Checks = Iterator[Check]


def raised(name: str, found: str, ask: Callable[[], object]) -> Check:
    """A check that a function of the plan makes: what it raises is the verdict."""
    try:
        ask()
    except PlanError as error:
        return Check.from_error(name, error, found)
    return Check(name, "ok", found)
