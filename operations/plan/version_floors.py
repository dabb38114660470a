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

from operations.plan import gateway
from operations.plan.errors import TOKEN, PlanError
from operations.plan.support_matrix import stack_release

if TYPE_CHECKING:
    from operations.plan.profiles import Profile
    from operations.plan.settings import Settings

Component = Literal[
    "triton", "tensorrt-llm", "docker-ce", "containerd.io", "nvidia-container-toolkit", "nginx", "driver"
]
DAYS_OF_NOTICE = 30  # a waiver that ends within as many days is mentioned at each run


@dataclass(frozen=True)
class Floor:
    """
    One component's least version.

    + minimum: where `branch` is given, of that branch alone
    + branch: the first number of the versions it speaks of; empty for all
    + advice: what is said where it cannot be met by any image that exists; empty where it is demanded
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
    Floor("triton", "26.06", "NVIDIA 5865", "2026-08-18", "CVE-2026-47627 and four more, CVSS up to 9.8"),
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
    Floor(
        "nvidia-container-toolkit",
        "1.19.1",
        "NVIDIA 5850",
        "2026-06-30",
        "CVE-2026-24260, from a container to the host, CVSS 8.5",
    ),
    # https://docs.docker.com/engine/release-notes/28/#2852 and https://github.com/containerd/containerd/releases/tag/v1.7.29
    Floor(
        "docker-ce",
        "28.5.2",
        "Docker Engine 28.5.2",
        "2025-11-05",
        "CVE-2025-31133, -52565 and -52881 of runc, from a container to the host",
    ),
    Floor(
        "containerd.io",
        "1.7.29",
        "containerd 1.7.29",
        "2025-11-05",
        "the package carries runc: CVE-2025-31133, -52565 and -52881",
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
            "NVIDIA 5821",
            "2026-05-19",
            "CVE-2026-24187 and 14 more, CVSS up to 8.8",
            branch=minimum.split(".")[0],
        )
        for minimum in ("535.309.01", "580.159.03", "595.71.05")
    ),
)
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
    + reason: why that is acceptable here, for whoever reads the inventory later
    + until: the last day it holds, YYYY-MM-DD
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    component: Component
    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z._-]{1,40}$")]
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


def components(settings: Settings, profile: Profile, driver: str = "") -> list[tuple[Component, str]]:
    """
    Everything with a floor that a host would run.

    + driver: as nvidia-smi prints it; empty before a host was asked
    """
    stack = stack_release(profile.image.release, "image.release")
    found: list[tuple[Component, str]] = [("triton", stack.release)]
    if profile.kind != "plan":  # whose encoders run on TensorRT alone
        found.append(("tensorrt-llm", stack.tensorrt_llm))
    if settings.gateway:
        found.append(("nginx", gateway.version(settings.gateway.image)))
    found += package_components({**settings.docker_packages, **settings.nvidia_container_toolkit_packages})
    return [*found, ("driver", driver)] if driver else found


def check_floors(
    host: str, found: Sequence[tuple[Component, str]], waivers: Sequence[Waiver], today: date
) -> tuple[str, ...]:
    """
    Refuse what is below its floor and not waived; what is to be known all the same comes back as warnings.

    + host: its name, for the error
    + found: component and version of everything that would run
    + waivers: the inventory's
    + today: the day that waivers are compared with

    Raises PlanError for the first that is below, with the bulletin, and what to write where it has to be accepted.
    """
    warnings: list[str] = []
    for component, version in found:
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
            raise PlanError(
                f"{host}: {component} version",
                version,
                f"{_wanted(floor, version)} ({_source(floor)})",
                f"upgrade it; or accept it for a while: waivers = [{{'component': '{component}', 'version': "
                f"'{version}', 'reason': '…', 'until': 'YYYY-MM-DD'}}]",
            )
        waiver = max(fitting, key=lambda waiver: waiver.until)
        if waiver.until < today:
            raise PlanError(
                f"{host}: waivers: {component} {version}",
                f"a waiver that ended on {waiver.until.isoformat()}",
                f"{_wanted(floor, version)} ({_source(floor)})",
                "upgrade it, or renew the waiver with its reason",
            )
        left = (waiver.until - today).days
        ends = f"; {left} day{'' if left == 1 else 's'} left" if left <= DAYS_OF_NOTICE else ""
        warnings.append(
            f"{component} {version} is below {floor.minimum} ({_source(floor)}), waived until "
            f"{waiver.until.isoformat()}{ends}: {waiver.reason}"
        )
    return tuple(warnings)


def below(component: Component, version: str) -> Floor | None:
    """The floor that a version does not reach; demanded ones first. None where it reaches all, or none is known."""
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
    return min(missed, key=lambda floor: bool(floor.advice), default=None)


def _number(component: Component, version: str) -> Version:
    try:
        return Version(version)
    except InvalidVersion:
        found = "a token" if TOKEN.search(version) else version
        raise PlanError(f"{component} version", found, "a version in numbers, such as 26.07") from None


def _wanted(floor: Floor, version: str) -> str:
    if not floor.branch or version.split(".")[0] == floor.branch:
        return f"at least {floor.minimum}"
    least = [other.minimum for other in FLOORS if other.component == floor.component]
    return f"a branch with a published fix, from {', '.join(least)} on"


def _source(floor: Floor) -> str:
    return f"{floor.bulletin} of {floor.published}: {floor.why}"
