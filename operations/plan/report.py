"""What the page of `tritonhost report` shows: the status of each host with what the host remembers, a run, and what is exposed. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from operations.plan.audit.bulletins import Feed, checked
from operations.plan.audit.exposed import EXPOSED, WAIVED, Audit, Finding, by_version
from operations.plan.capacity.fit import deployment
from operations.plan.capacity.forecast import Forecast, forecast
from operations.plan.errors import PlanError
from operations.plan.inventory.services import machine_of
from operations.plan.machine import wave
from operations.plan.observed.observed import Measurements, Observed, ReleaseVerdict
from operations.plan.release import Release
from operations.plan.status import DifferenceFound, HostStatus, exit_code, plain
from operations.plan.units import MIB

# components that the packages' own names say
_PACKAGES = ("docker-ce", "containerd.io", "nvidia-container-toolkit", "haproxy")
Place = Literal["running", "current", "previous", "wanted"]
# of a file that others may have written: one line, bounded, and without what looks like a secret
_Text = Annotated[str, AfterValidator(plain)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReleaseKept(_Part):
    """What the host remembers of one release; empty or None: nothing."""

    id: str
    places: list[Place] = []  # what the release is now
    model: str = ""
    outcome: str = ""  # of its verdict
    at: datetime | None = None  # of its verdict
    why: str = ""
    load_s: float | None = None
    answer_s: float | None = None
    gpu_mib: int | None = None  # on the fullest GPU


class MemoryParts(_Part):
    """GPU memory on each GPU of the service, in MiB: the forecast for the inventory's release, and what was measured."""

    gpu: int  # of one GPU; 0: not known
    weights: int
    activations: int
    context: int  # CUDA and NCCL
    cache: int
    measured: int | None = None
    measured_of: str = ""  # the release

    @property
    def forecast(self) -> int:
        """All of it."""
        return self.weights + self.activations + self.context + self.cache


class HostReport(_Part):
    """
    One host of the inventory, or one service of it.

    + versions: of the inventory's release, and of what is installed: name, version
    + releases: the newest verdict first; those without one behind them
    + memory: None where there is no forecast for the model
    """

    status: HostStatus
    versions: list[tuple[str, str]] = []
    releases: list[ReleaseKept] = []
    memory: MemoryParts | None = None


class RunDifference(BaseModel):
    """One difference that a run found."""

    model_config = ConfigDict(frozen=True)
    stage: _Text
    what: _Text
    found: _Text
    wanted: _Text

    def as_found(self) -> DifferenceFound:
        """The same as a status has it."""
        return DifferenceFound(stage=self.stage, what=self.what, found=self.found, wanted=self.wanted)


class RunHost(BaseModel):
    """One host of a run, as operations/run_report.py writes it."""

    model_config = ConfigDict(frozen=True)
    host: _Text
    release: _Text
    status: _Text
    failed: bool
    differences: list[RunDifference] | None


class Run(BaseModel):
    """The report of a run, TRITONHOST_REPORT; keys that this version does not know are left out."""

    model_config = ConfigDict(frozen=True)
    began: AwareDatetime
    ended: AwareDatetime
    hosts: Annotated[list[RunHost], Field(max_length=10_000)]


class ExposureRow(_Part):
    """One version on one host that bulletins speak of: the worst of them, and how many more."""

    host: str
    component: str
    version: str
    bulletin: str
    others: int
    cvss: float | None
    fixed: str
    status: str  # exposed, waived, advice
    until: str = ""  # the last day of a waiver


class Exposure(_Part):
    """What is exposed. + unread: host -> why its versions are not known, or not all of them"""

    feed: str  # what the bulletins are of
    rows: list[ExposureRow]
    unread: dict[str, str]

    @property
    def exposed(self) -> list[str]:
        """The hosts, without their services, that are exposed."""
        return sorted({machine_of(row.host) for row in self.rows if row.status == EXPOSED})

    def of(self, host: HostStatus) -> list[ExposureRow]:
        """The rows of a host or service, with what all services of the host share."""
        return [row for row in self.rows if row.host in (host.name, host.host)]


class Report(_Part):
    """All of the page."""

    at: datetime
    inventory: str
    hosts: list[HostReport]
    run: Run | None = None
    exposure: Exposure | None = None

    @property
    def exit_code(self) -> int:
        """0: all serve what the inventory says, and nothing that was compared is exposed."""
        found = self.exposure
        return exit_code([host.status for host in self.hosts]) or int(
            bool(found and (found.exposed or found.unread))
        )


def of_reading(status: HostStatus, observed: Observed, release: Release | None) -> HostReport:
    """A host that was read. + release: what the inventory says; None: there is no plan"""
    return HostReport(
        status=status,
        versions=_versions(observed, release),
        releases=_releases(status, observed),
        memory=_memory(status, observed, release),
    )


def _versions(observed: Observed, release: Release | None) -> list[tuple[str, str]]:
    found = []
    if release:
        stack = release.stack
        found = [
            ("image", stack.release),
            ("Triton", stack.triton),
            ("TensorRT-LLM", stack.tensorrt_llm),
            ("TensorRT", stack.tensorrt),
            ("CUDA", stack.cuda),
        ]
    found.append(("driver", ", ".join(sorted({gpu.driver for gpu in observed.gpus}))))
    found += [(name, ", ".join(observed.packages.get(name, ()))) for name in _PACKAGES]
    system = observed.os_release
    found.append(("system", f"{system.get('ID', '')} {system.get('VERSION_ID', '')}"))
    return [(name, said) for name, version in found if (said := plain(version))]


def _releases(status: HostStatus, observed: Observed) -> list[ReleaseKept]:
    ids = status.release
    places: tuple[tuple[Place, str], ...] = (
        ("running", ids.running),
        ("current", ids.current),
        ("previous", ids.previous),
        ("wanted", ids.wanted),
    )
    named = [release for _, release in places if release]
    stored = {key for kind, key in observed.artifacts if kind == "release"}
    judged = {name for name in observed.verdicts if not name.startswith(wave.PREFIX)}
    found = []
    for release in dict.fromkeys([*named, *sorted({*judged, *observed.measurements, *stored})]):
        manifest = observed.artifacts.get(("release", release))
        measured = observed.measurements.get(release, Measurements())
        outcome, at, why = _verdict(observed.verdicts.get(release))
        found.append(
            ReleaseKept(
                id=plain(release),
                places=[place for place, known in places if known == release],
                model=plain(str(manifest.inputs.get("model", ""))) if manifest else "",
                outcome=outcome,
                at=at,
                why=why,
                load_s=measured.load_s,
                answer_s=measured.answer_s,
                gpu_mib=measured.gpu_mib,
            )
        )
    return sorted(found, key=lambda one: -one.at.timestamp() if one.at else 0.0)


def _verdict(verdict: ReleaseVerdict | None) -> tuple[str, datetime | None, str]:
    """Outcome, when, why; a line of judge.sh's."""
    if verdict is None:
        return "", None, ""
    word, _, rest = verdict.text.partition(" ")
    time, _, why = rest.partition(" ")
    try:
        at = datetime.fromisoformat(f"{time[:19]}+00:00")
    except ValueError:
        at = None
    return plain(verdict.outcome.value if verdict.outcome else word), at, plain(why)


def _memory(status: HostStatus, observed: Observed, release: Release | None) -> MemoryParts | None:
    """The measured figure is the running release's, or else that of the one that starts at boot."""
    seen = _forecast(release)
    if seen is None:
        return None
    shown = status.release.running or status.release.current
    measured = observed.measurements.get(shown, Measurements()).gpu_mib
    return MemoryParts(
        gpu=seen.gpu_memory // MIB,
        weights=seen.weights_per_rank // MIB,
        activations=seen.activations // MIB,
        context=seen.cuda_context // MIB,
        cache=(seen.kv_tokens or 0) * seen.kv_bytes_per_token // MIB,
        measured=measured,
        measured_of=plain(shown) if measured is not None else "",
    )


def _forecast(release: Release | None) -> Forecast | None:
    if release is None:
        return None
    try:
        wanted = deployment(release.profile, release.stack, release.gpus[0])
        return forecast(wanted) if wanted else None
    except PlanError:
        return None  # a picture less, and not a page less


def load_run(path: Path) -> Run:
    """The report that a run wrote. Raises PlanError."""
    then = "name the file that a deploy wrote to TRITONHOST_REPORT"
    return Run.model_validate(checked(path, Run, then))


def exposure_of(found: Audit, feed: Feed, today: datetime) -> Exposure:
    """The rows of an audit, one for each version."""
    days = feed.age(today.astimezone(UTC).date())
    said = f"bulletins of {feed.collected}, {days} day{'' if days == 1 else 's'} old"
    if feed.old(today.astimezone(UTC).date()):
        said += ": too old to be relied on; make the feed again with tritonhost exposure --update-feed"
    return Exposure(
        feed=said,
        rows=[_row(*group) for group in by_version(found.findings)],
        unread={name: plain(problem) for name, problem in found.unread.items()},
    )


def _row(worst: Finding, others: int, fixed: str) -> ExposureRow:
    return ExposureRow(
        host=worst.host,
        component=worst.component,
        version=plain(worst.version),
        bulletin=worst.bulletin,
        others=others,
        cvss=worst.cvss,
        fixed=plain(fixed),
        status=worst.status,
        until=worst.waiver.isoformat() if worst.waiver and worst.status == WAIVED else "",
    )
