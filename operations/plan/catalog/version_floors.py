"""The least version of each component that is free of known remote or container-escape vulnerabilities, and waivers.

A floor is a fact with a bulletin and a date; a waiver is a site's decision to run below it, for one version, with a
reason and a last day. Nothing else makes a host below a floor acceptable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Annotated, Literal

from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field

from operations.plan.errors import TOKEN, PlanError, Said
from operations.plan.wording import Form

if TYPE_CHECKING:
    pass

Component = Literal[
    "triton",
    "tensorrt-llm",
    "tensorrt",
    "docker-ce",
    "containerd.io",
    "nvidia-container-toolkit",
    "nginx",
    "driver",
]
# From this release on the plain image and the one with TensorRT-LLM differ in TensorRT by more than a minor version.
PLAIN_MAY_BE_NEWER = "26.06"
DAYS_OF_NOTICE = 30  # a waiver that ends within as many days is mentioned at each run
LONGEST_WAIVER = 366  # days; a longer one is a decision that nobody will look at again


@dataclass(frozen=True)
class Floor:
    """
    One component's least version.

    + minimum: where `branch` is given, of that branch alone
    + branch: the first number of the versions it speaks of; empty for all
    + advice: printed where the floor is not required: no image meets it, or nobody outside reaches the flaw that it fixes
    """

    component: Component
    minimum: str
    bulletin: str
    published: str  # YYYY-MM-DD
    why: str
    branch: str = ""
    advice: str = ""


# NVIDIA's bulletins are read at https://github.com/NVIDIA/product-security, folder of the year and the number.
FLOORS = (
    # Triton's version here is the image's, YY.MM
    Floor(
        "triton",
        "26.07",
        "NVIDIA 5875",
        "2026-09-08",
        "CVE-2026-16497, a server that anybody can stop, CVSS 7.5; before 26.06 also NVIDIA 5865: CVE-2026-47627, CVSS 9.8",
    ),
    Floor(
        "tensorrt-llm", "1.2.1", "NVIDIA 5805", "2026-05-19", "CVE-2026-24163 and four more, CVSS up to 7.5"
    ),
    # 5840 names 1.3.0rc17 as the one that is fixed, and images up to 26.07 hold 1.2.1: whether its fixes were brought
    # back to 1.2 is not known. Most of them are in servers of TensorRT-LLM's own, which are not started here.
    Floor(
        "tensorrt-llm",
        "1.3.0rc17",
        "NVIDIA 5840",
        "2026-07-14",
        "CVE-2026-24233 and eleven more, CVSS up to 8.4",
        advice="no image holds it yet; only safetensors are loaded, and none of TensorRT-LLM's own servers is started",
    ),
    # A plan or engine that somebody else made is what an attacker would hand in; here every one is built on the host.
    Floor(
        "tensorrt",
        "11.0",
        "NVIDIA 5855",
        "2026-07-14",
        "CVE-2026-24268 and three more, CVSS up to 7.8",
        advice="no image with TensorRT-LLM holds it, and engines are built on the host alone; a profile of kind plan can move "
        "to release 26.08 or later",
    ),
    Floor(
        "nvidia-container-toolkit",
        "1.19.1",
        "NVIDIA 5850",
        "2026-06-30",
        "CVE-2026-24260, from a container to the host, CVSS 8.5",
    ),
    # https://docs.docker.com/engine/release-notes/29/; before 28.5.2 also three ways through runc from a container to the host
    Floor(
        "docker-ce",
        "29.3.1",
        "Docker Engine 29.3.1",
        "2026-03-31",
        "CVE-2026-34040, past an authorization plugin, CVSS 8.8, and CVE-2026-33997",
    ),
    # https://github.com/moby/moby/releases/tag/docker-v29.9.0
    Floor(
        "docker-ce",
        "29.9.0",
        "Docker Engine 29.9.0",
        "2026-10-08",
        "CVE-2026-97032 and four more, a daemon that its clients can stop",
        advice="its clients are root's alone here: docker listens on a socket, and no port",
    ),
    # The package carries runc; 2.1.5 is also the least that docker-ce 29 requires (SPECS/docker-ce.spec of docker-ce-packaging).
    Floor(
        "containerd.io",
        "2.1.5",
        "containerd 2.1.5",
        "2025-11-05",
        "CVE-2024-25621, and of runc CVE-2025-31133, -52565 and -52881, from a container to the host",
    ),
    # of the stable branch, which gateway.image is of; https://nginx.org/en/security_advisories.html names each
    Floor(
        "nginx",
        "1.30.7",
        "MGASA-2026-0605",
        "2026-11-20",
        "CVE-2026-113425 and nine more; before 1.30.4 also CVE-2026-42533, in maps with patterns as the gateway has",
    ),
    *(
        Floor(
            "driver",
            minimum,
            "NVIDIA 5861",
            "2026-09-30",
            "CVE-2026-47601 and many more, from any user of the host to root, CVSS up to 7.8",
            branch=minimum.split(".")[0],
        )
        for minimum in ("580.178.04", "595.91.07", "610.57.04")
    ),
    # the last bulletin that names a fix for it
    Floor(
        "driver",
        "535.309.01",
        "NVIDIA 5821",
        "2026-05-19",
        "CVE-2026-24187 and 14 more, CVSS up to 8.8",
        branch="535",
    ),
)


@dataclass(frozen=True)
class Branch:
    """A branch of the driver: its kind in NVIDIA's words, and the last month it is maintained; empty: not known."""

    kind: str
    until: str = ""  # YYYY-MM


# https://docs.nvidia.com/datacenter/tesla/drivers/driver-lifecycle.html and the pages of each branch. Of R615, which came with
# CUDA 13.4, no end was found.
BRANCHES = {
    "535": Branch("long term support", "2026-06"),
    "580": Branch("long term support", "2028-06"),
    "595": Branch("production", "2027-03"),
    "610": Branch("new feature", "2026-08"),
    "615": Branch("new feature"),
    "620": Branch("long term support", "2029-09"),
}


def ended(driver: str, today: date) -> str:
    """What to say of a driver whose branch is maintained no more; empty where it is, or where that is not known."""
    number = driver.split(".")[0]
    branch = BRANCHES.get(number)
    month = f"{today:%Y-%m}"
    if branch is None or not branch.until or branch.until >= month:
        return ""
    living = [f"R{n} (until {other.until})" for n, other in BRANCHES.items() if other.until >= month]
    then = f"move to {', '.join(living[:-1])} or {living[-1]}" if len(living) > 1 else "move to a newer one"
    return f"driver {driver} is of R{number}, which NVIDIA ended in {branch.until}: later bulletins name no fix for it; {then}"


# The packages of the toolkit are released together.
_SAME = {
    "nvidia-container-toolkit-base": "nvidia-container-toolkit",
    "libnvidia-container-tools": "nvidia-container-toolkit",
    "libnvidia-container1": "nvidia-container-toolkit",
    "docker-ce-cli": "docker-ce",
}


class Waiver(BaseModel):
    """
    A site's decision to run one version of one component below its floor.

    + component, version: what is waived; another version needs another decision
    + reason: why that is acceptable here, for operators who read the inventory later
    + until: the last day it holds, YYYY-MM-DD
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    component: Component
    version: Annotated[
        str,
        Field(pattern=r"^[0-9A-Za-z._-]{1,40}$"),
        Form('the version that is waived, in quotes, such as "24.09"'),
    ]
    reason: Annotated[str, Field(min_length=12, max_length=400)]
    until: date


def package_components(packages: Mapping[str, str | None]) -> list[tuple[Component, str]]:
    """
    The components among rpm packages, with their versions as their makers count them.

    + packages: name -> [epoch:]version-release
    """
    found: dict[tuple[Component, str], None] = {}
    for name, spec in packages.items():
        component = _SAME.get(name, name)
        for known in ("docker-ce", "containerd.io", "nvidia-container-toolkit"):
            if component == known and spec:
                found[known, spec.rpartition(":")[2].partition("-")[0]] = None
    return list(found)


def check_docker(packages: Mapping[str, str | None], host: str = "") -> None:
    """
    Refuse pins of docker and containerd.io that dnf would refuse on the host: docker-ce 29 requires containerd.io 2.1.5.

    + host: its name, for the error

    The requirement is SPECS/docker-ce.spec's of https://github.com/docker/docker-ce-packaging. Raises PlanError.
    """
    found = dict(package_components(packages))
    docker, containerd = found.get("docker-ce"), found.get("containerd.io")
    if docker is None or containerd is None:
        return
    if _number("docker-ce", docker) >= Version("29") and _number("containerd.io", containerd) < Version(
        "2.1.5"
    ):
        raise PlanError(
            "docker_packages: containerd.io",
            f"{containerd} beside docker-ce {docker}",
            "2.1.5 or later, which docker-ce requires from 29 on",
            "pin both",
            host=host,
            reference="containerd-too-old",
        )


@dataclass(frozen=True)
class Missed:
    """
    A version below its floor that no waiver accepts.

    + others: the versions of this component that are waived
    + ended: the last day of a waiver for this version, which is over; empty where there is none
    """

    component: Component
    version: str
    floor: Floor
    others: tuple[str, ...] = ()
    ended: str = ""

    @property
    def note(self) -> str:
        """What is to be said of a waiver that is there all the same."""
        if self.ended:
            return f"a waiver that ended on {self.ended}"
        return f"a waiver for {self.component} {', '.join(self.others)} does not match" if self.others else ""

    @property
    def expected(self) -> str:
        """The least version, and the bulletin that says so."""
        return f"{_wanted(self.floor, self.version)} ({_source(self.floor)})"


def missed_floors(
    found: Sequence[tuple[Component, str]], waivers: Sequence[Waiver], today: date
) -> tuple[tuple[Missed, ...], tuple[str, ...]]:
    """
    What is below its floor and not waived, and warnings of what is to be known all the same.

    + found: component and version of everything that would run
    + waivers: the inventory's
    + today: the day that waivers are compared with
    """
    missed: list[Missed] = []
    warnings: list[str] = []
    for component, version in found:
        if component == "driver" and (said := ended(version, today)):
            warnings.append(said)
        floor = below(component, version)
        if floor is None:
            continue
        if floor.advice:
            warnings.append(
                f"{component} {version} is below {floor.minimum} ({_source(floor)}); {floor.advice}"
            )
            continue
        fitting = [w for w in waivers if (w.component, w.version) == (component, version)]
        if not fitting:
            others = tuple(w.version for w in waivers if w.component == component)
            missed.append(Missed(component, version, floor, others))
            continue
        waiver = max(fitting, key=lambda waiver: waiver.until)
        if waiver.until < today:
            missed.append(Missed(component, version, floor, ended=waiver.until.isoformat()))
            continue
        left = (waiver.until - today).days
        ends = f"; {left} day{'' if left == 1 else 's'} left" if left <= DAYS_OF_NOTICE else ""
        if left > LONGEST_WAIVER:
            ends = f", expected a day within {LONGEST_WAIVER} days"
        warnings.append(
            f"{component} {version} is below {floor.minimum} ({_source(floor)}), waived until "
            f"{waiver.until.isoformat()}{ends}: {waiver.reason}"
        )
    return tuple(missed), tuple(warnings)


def check_floors(
    host: str, found: Sequence[tuple[Component, str]], waivers: Sequence[Waiver], today: date
) -> tuple[str, ...]:
    """
    Refuse what is below its floor and not waived; what is to be known all the same comes back as warnings.

    + host: its name, for the error

    The other parameters are those of missed_floors. Raises PlanError that names everything below its floor, with the
    bulletin, and what to write where it has to be accepted.
    """
    missed, warnings = missed_floors(found, waivers, today)
    if missed:
        raise refusal(missed, host)
    return warnings


def refusal(missed: Sequence[Missed], host: str = "") -> PlanError:
    """The error about all that is below its floor."""
    [first, *others] = missed
    listed = ", ".join(
        f'{{component = "{each.component}", version = "{each.version}", reason = "why this host may run it", '
        f'until = "YYYY-MM-DD"}}'
        for each in missed
    )
    if others:
        found = ", ".join(
            f"{each.component} {each.version}{f' ({each.note})' if each.note else ''}" for each in missed
        )
        return PlanError(
            "versions",
            Said(found),
            ", ".join(f"{each.component} {each.expected}" for each in missed),
            f"upgrade them; or accept them for a while: waivers = [{listed}] under [hosts.NAME]",
            host=host,
            reference="version-below-floor",
        )
    if first.ended:
        return PlanError(
            f"waivers: {first.component} {first.version}",
            f"a waiver that ended on {first.ended}",
            first.expected,
            "upgrade it, or renew the waiver with its reason",
            host=host,
            reference="waiver-ended",
        )
    then = f"upgrade it; or accept it for a while: waivers = [{listed}] under [hosts.NAME]"
    return PlanError(
        f"{first.component} version",
        first.version,
        first.expected,
        f"{first.note}; {then}" if first.note else then,
        host=host,
        reference="version-below-floor",
    )


def below(component: Component, version: str) -> Floor | None:
    """The floor that a version does not reach; demanded ones first. None where it reaches all, or none is known."""
    return min(not_reached(component, version), key=lambda floor: bool(floor.advice), default=None)


def not_reached(component: Component, version: str) -> tuple[Floor, ...]:
    """Every floor that a version does not reach. Raises PlanError for a version that is none."""
    number = _number(component, version)
    missed = [
        floor
        for floor in FLOORS
        if floor.component == component
        and number < Version(floor.minimum)
        and (not floor.branch or version.split(".")[0] == floor.branch)
    ]
    branches = [floor for floor in FLOORS if floor.component == component and floor.branch]
    known = {floor.branch for floor in branches}
    if branches and not missed and version.split(".")[0] not in known:
        # a branch for which no fix was published; one that is newer than the bulletin holds it from its first version
        newest = max(branches, key=lambda floor: Version(floor.minimum))
        missed = [newest] if number < Version(newest.minimum) else []
    return tuple(missed)


def _number(component: Component, version: str) -> Version:
    try:
        return Version(version)
    except InvalidVersion:
        found = "a token" if TOKEN.search(version) else version
        expected = "a version in numbers, such as 26.07"
        raise PlanError(f"{component} version", found, expected, reference="not-a-version") from None


def _wanted(floor: Floor, version: str) -> str:
    """What is expected in place of a version that does not reach a floor."""
    if not floor.branch or version.split(".")[0] == floor.branch:
        return f"at least {floor.minimum}"
    least = [
        other.minimum
        for other in FLOORS
        if (other.component, other.bulletin) == (floor.component, floor.bulletin)
    ]
    return f"a branch with a published fix, from {', '.join(least)} on"


def _source(floor: Floor) -> str:
    return f"{floor.bulletin} of {floor.published}: {floor.why}"
