"""What Prometheus finds on a host: the targets of an inventory, as file_sd reads them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from operations.plan.inventory.load_balancer_settings import LoadBalancer
from operations.plan.inventory.services import machine_of
from operations.plan.inventory.settings import Settings
from operations.plan.profile.profiles import Profile


@dataclass(frozen=True)
class Job:
    """
    How the targets of one kind are reached.

    + tls: over TLS with a key of the gateway
    + path: where the metrics are
    + label: what its series have as `job`, for the same rules; empty: its own name
    """

    tls: bool = False
    path: str = "/metrics"
    label: str = ""


# The door listens on the loopback alone: its metrics are a path of the gateway, templates/gateway.conf.j2
JOBS = {
    "triton": Job(),
    "triton-gateway": Job(tls=True, label="triton"),
    "door": Job(tls=True, path="/metrics/door"),
    "node": Job(),
    "dcgm": Job(),
    "load-balancer": Job(),
}


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
    if settings.door and settings.gateway and published:
        targets.append(Target("door", f"{address}:{settings.gateway.port}", of_service))
    elif settings.door and published:
        remarks.append(f"{name}: the door's metrics are on the host's loopback alone; set gateway")
    of_host = (("host", host),)
    monitoring, listens = settings.monitoring, IPv4Address(settings.monitoring.listens(settings.bind_address))
    of_exporters = monitoring.address or (reached if listens.is_unspecified else str(listens))
    for job, one, port in (
        ("node", monitoring.exporters.node, monitoring.node_port),
        ("dcgm", monitoring.exporters.dcgm, monitoring.dcgm_port),
    ):
        if one is None:
            targets.append(Target(job, f"{address}:{port}", of_host))
        elif listens.is_loopback:
            remarks.append(
                f"{host}: the {job} exporter is on {listens} alone, where Prometheus does not reach it; set bind and sources of "
                "monitoring"
            )
        else:
            targets.append(Target(job, f"{of_exporters}:{one.port}", of_host))
    return Watched(host, service, tuple(targets), tuple(remarks))


def watched_load_balancer(name: str, own: LoadBalancer) -> Watched:
    """
    The target of a load balancer.

    + name: of the inventory
    """
    if not own.metrics_port or not own.metrics_sources:
        remark = f"{name}: haproxy's metrics are not where Prometheus reaches them; set metrics_sources of load_balancer"
        return Watched(name, "", (), (remark,))
    return Watched(name, "", (Target("load-balancer", f"{own.bind}:{own.metrics_port}", (("host", name),)),))


def targets_of(entries: Iterable[Watched]) -> dict[str, list[Target]]:
    """job -> its targets, each once: the services of a host share its exporters."""
    found: dict[str, dict[Target, None]] = {job: {} for job in JOBS}
    for entry in entries:
        for target in entry.targets:
            found[target.job][target] = None
    return {job: list(targets) for job, targets in found.items()}
