"""A load balancer as it should be: haproxy of the distribution, and what it reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from operations.plan.balancing.members import Member
from operations.plan.errors import PlanError
from operations.plan.exposure import network
from operations.plan.exposure.host_program import unit_path
from operations.plan.inventory.load_balancer_settings import KEY, LoadBalancer
from operations.plan.inventory.settings import Settings
from operations.plan.machine.packages import LOCK_PLUGIN, for_os, only_repositories
from operations.plan.machine.version_locks import locks_of

# of the unit, its socket, its record and the guard
NAME = "load-balancer"
DIRECTORY = f"/etc/{NAME}"
CONFIGURATION, TLS, GATEWAY_CA = "haproxy.cfg", "clients.pem", "gateways.pem"
CANARY_MAP = "canary.map"  # which host gets which share, in ten-thousandths; haproxy is told while it runs
FILES = (CONFIGURATION, TLS, GATEWAY_CA, CANARY_MAP)
FRESH = ".new"  # where files are put before they are in place
SOCKET = f"/run/{NAME}.sock"
# says which files haproxy has read
RECORD = f"/run/{NAME}.read"
# of 256, so that a share of a per cent can be said
WEIGHT = 200
OLDEST = "9"  # Oracle Linux 8 has haproxy 1.8, which does not speak HTTP/2 to servers


@dataclass(frozen=True)
class Secrets:
    """
    What the machine that deploys has for a load balancer; never printed.

    + tls: certificates and private key, PEM. + certificate: the first of them, DER
    + gateway_ca: the root of the gateways' certificates, PEM
    + warnings: what is to be known of the certificate
    """

    tls: str = field(repr=False)
    certificate: bytes = field(repr=False)
    gateway_ca: str = field(repr=False)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadBalancerPlan:
    """Everything that such a host should be."""

    settings: Settings
    os_major: str
    selinux: bool
    members: tuple[Member, ...]
    secrets: Secrets = field(repr=False)

    @property
    def own(self) -> LoadBalancer:
        """The inventory's table."""
        assert self.settings.load_balancer
        return self.settings.load_balancer

    @property
    def packages(self) -> dict[str, str | None]:
        """haproxy, and what the guard needs."""
        return packages(self.settings, self.os_major)

    @property
    def locks(self) -> dict[str, str]:
        """Of those, the locks of dnf."""
        return locks_of(self.packages) if self.settings.version_lock else {}

    @property
    def repositories(self) -> tuple[str, ...]:
        """dnf's options for the inventory's own repositories alone; none if it names none."""
        return only_repositories(self.settings, ())

    @property
    def guard(self) -> network.Guard:
        """Who reaches haproxy."""
        own = self.own
        return network.Guard(
            service=NAME,
            ports=(own.port,),
            fronted=True,
            sources=network.without_overlaps(own.sources),
            egress=(),
            watched=(own.metrics_port,) if own.metrics_port and own.metrics_sources else (),
            watchers=network.without_overlaps(own.metrics_sources),
        )


def packages(settings: Settings, os_major: str) -> dict[str, str | None]:
    """See LoadBalancerPlan.packages."""
    wanted: dict[str, str | None] = {"nftables": None, **settings.haproxy_packages, **settings.extra_packages}
    if settings.version_lock and any(wanted.values()):
        wanted[LOCK_PLUGIN] = None
    return {name: for_os(version, os_major) if version else None for name, version in wanted.items()}


def file_paths() -> list[str]:
    """What haproxy reads."""
    return [f"{DIRECTORY}/{name}" for name in FILES]


def etc_paths() -> list[str]:
    """Every file of ours."""
    guard = [f"/etc/systemd/system/{network.unit(NAME)}", network.rules_path(NAME)]
    return [unit_path(NAME), *guard, *file_paths()]


def planned(
    settings: Settings, os_major: str, selinux: bool, members: tuple[Member, ...], secrets: Secrets
) -> LoadBalancerPlan:
    """What a host of the group `front` should be. Raises PlanError for a distribution whose haproxy is too old."""
    if os_major < OLDEST:
        raise PlanError(
            KEY,
            f"Oracle Linux {os_major}, whose haproxy does not speak HTTP/2 to servers",
            f"Oracle Linux {OLDEST} or newer",
            "make the load balancer of another host",
        )
    return LoadBalancerPlan(settings, os_major, selinux, members, secrets)
