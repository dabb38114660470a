"""How a release replaces the running one: side by side or in place, and the outage that this costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from operations.plan.capacity.fit import deployment
from operations.plan.capacity.forecast import forecast
from operations.plan.observed.observed import Measurements, Observed
from operations.plan.release import Release
from operations.plan.serving import gates
from operations.plan.serving.gates import Speed
from operations.plan.units import MIB

# Free memory varies by some per cent while a model is loaded: CUDA's own context, workspaces, the allocator's rounding.
MARGIN = 1.05


@dataclass(frozen=True)
class Swap:
    """The way, the reason for it, and the expected outage in seconds (None: nothing was measured yet)."""

    way: Literal["first start", "in place", "side by side"]
    why: str
    outage_s: float | None = None

    def __str__(self) -> str:
        if self.way == "first start":
            return "first start: nothing serves yet"
        if self.way == "side by side":
            return f"side by side: {self.why}; no outage expected"
        outage = "of unknown length, nothing was measured yet"
        if self.outage_s is not None:
            outage = f"of about {self.outage_s:.0f} s, as measured"
        return f"in place: {self.why}; an outage {outage}"


def swap(release: Release, observed: Observed) -> Swap:
    """How a swap to `release` would be done on the host, by its observed state."""
    container = observed.container
    if container is None or not container.running:
        return Swap("first start", "")
    running = observed.serving
    load = _measured(observed, release.id).load_s
    load = _measured(observed, running).load_s if load is None else load
    reason = _not_beside(release, observed, running)
    if reason:
        return Swap("in place", reason, load)
    return Swap("side by side", "both fit on the GPUs", 0.0)


def _not_beside(release: Release, observed: Observed, running: str) -> str:
    """Why the release cannot run beside the running release; empty: it can."""
    if len(release.servers) < 2:
        return "no proxy is configured, so there is no switch without an outage (front)"
    if running == release.id:
        return "the same release is started again"
    front = f"{release.settings.service_name}-front.service"
    if observed.units.get(front, {}).get("ActiveState") != "active":
        return "the proxy does not run yet"
    if release.servers[0].ports[0] not in observed.listening:
        return "the running release has other ports than those behind the proxy"
    beside = release.servers[1]
    left = observed.units.get(f"{beside.service}.service", {}).get("ActiveState") == "active"
    if not left and (taken := sorted(set(beside.ports) & observed.listening)):
        return f"port {taken[0]} is taken by another program"
    needed = needed_mib(release, observed, running)
    if needed is None:
        return "the GPU memory that it needs is not known until it has been loaded once"
    free = min((gpu.memory_free_mib for gpu in release.gpus), default=0)
    if free < needed * MARGIN:
        return f"it needs {needed} MiB on each GPU, {free} MiB are free beside the running release"
    return ""


def comparable(release: Release, observed: Observed) -> bool:
    """Whether the running server can answer the release's golden request: it runs another release of the same model."""
    stored = observed.artifacts.get(("release", observed.serving))
    if (
        observed.serving == release.id
        or stored is None
        or stored.inputs.get("model") != release.settings.model
    ):
        return False
    return release.servers[0].ports[1] in observed.listening


def baseline(release: Release, observed: Observed) -> Speed | None:
    """The recorded speed of the release that ran before, if it is another one of the same model on the same GPUs."""
    before = observed.serving or observed.current
    stored = observed.artifacts.get(("release", before))
    model = release.settings.model
    if before == release.id or stored is None or stored.inputs.get("model") != model:
        return None
    return gates.baseline(_measured(observed, before), bench_of(release))


def bench_of(release: Release) -> str:
    """What the recorded speed of another release must be of, to be compared with this one's."""
    gpus = [gpu.name for gpu in release.gpus]
    return gates.bench_of(release.settings.bench_gate or "smoke", release.settings.model, gpus)


def needed_mib(release: Release, observed: Observed, running: str) -> int | None:
    """
    The GPU memory that a server of the release takes on each GPU, in MiB; None if it is not known.

    As measured when it was loaded before; otherwise what the running release took, if it has the same engine or weights;
    otherwise the forecast.
    """
    same = observed.container is not None and set(release.mounts) <= observed.container.sources
    for known in (release.id, running if same else ""):
        measured = _measured(observed, known).gpu_mib
        if measured is not None:
            return measured
    wanted = deployment(release.profile, release.stack, release.gpus[0])
    if wanted is None:
        return None
    # what it takes when it runs alone: a cache sized for the memory beside another server would stay that small
    return forecast(wanted).gpu_needed // MIB


def _measured(observed: Observed, release_id: str) -> Measurements:
    return observed.measurements.get(release_id, Measurements())
