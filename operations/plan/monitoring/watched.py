"""What Prometheus finds on a host: the targets of an inventory, as file_sd reads them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from operations.plan.inventory.services import machine_of
from operations.plan.inventory.settings import Settings
from operations.plan.profile.profiles import Profile

# name of the job -> whether it reaches the host over TLS with a key
JOBS = {"triton": False, "triton-gateway": True, "door": False, "node": False, "dcgm": False}


@dataclass(frozen=True)
class Target:
    """One address of a job, with the labels that each of its series gets."""

    job: str
    address: str
    labels: tuple[tuple[str, str], ...]

    def entry(self) -> dict[str, object]:
        """As file_sd reads it."""
        return {"targets": [self.address], "labels": dict(self.labels)}


@dataclass(frozen=True)
class Watched:
    """
    One entry of the inventory, as Prometheus sees it.

    + targets: none twice
    + remarks: what is not watched, and why
    """

    host: str
    service: str
    targets: tuple[Target, ...]
    remarks: tuple[str, ...] = ()


def watched(name: str, settings: Settings, profile: Profile, reached: str) -> Watched:
    """
    The targets of one entry.

    + name: of the inventory: a host, or HOST/SERVICE
    + reached: where a deploy reaches the host
    """
    assert settings.monitoring
    host, service = machine_of(name).removeprefix("@ssh/"), settings.service_name
    bound = IPv4Address(settings.bind_address)
    published = not bound.is_loopback
    own = settings.bind_address if published and not bound.is_unspecified else ""
    address = settings.monitoring.address or own or reached
    of_service = (("host", host), ("service", service), ("profile", settings.model))
    targets, remarks = [], []
    metrics = settings.metrics_port or profile.server.metrics_port
    if not published:
        remarks.append(
            f"{name}: Triton's metrics are on {settings.bind_address} alone, where Prometheus does not reach them; set "
            "bind_address and allowed_sources"
        )
    elif settings.gateway:
        targets.append(Target("triton-gateway", f"{address}:{settings.gateway.port}", of_service))
    else:
        targets.append(Target("triton", f"{address}:{metrics}", of_service))
    if door := _door_port(settings):
        targets.append(Target("door", f"{address}:{door}", of_service))
    of_host = (("host", host),)
    targets.append(Target("node", f"{address}:{settings.monitoring.node_port}", of_host))
    targets.append(Target("dcgm", f"{address}:{settings.monitoring.dcgm_port}", of_host))
    return Watched(host, service, tuple(targets), tuple(remarks))


def _door_port(settings: Settings) -> int:
    """The port of the OpenAI door; 0 without one, and for settings that do not know it."""
    door = getattr(settings, "door", None)
    return int(getattr(door, "port", 0))


def targets_of(entries: Iterable[Watched]) -> dict[str, list[Target]]:
    """job -> its targets, each once: the services of a host share its exporters."""
    found: dict[str, dict[Target, None]] = {job: {} for job in JOBS}
    for entry in entries:
        for target in entry.targets:
            found[target.job][target] = None
    return {job: list(targets) for job, targets in found.items()}
