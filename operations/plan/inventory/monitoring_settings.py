"""What an inventory says of monitoring: where the host's own metrics go, its exporters, and where Prometheus finds them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from operations.plan.catalog.known_values import Whole
from operations.plan.catalog.values import Switch
from operations.plan.inventory.field_types import AbsolutePath, Network
from operations.plan.wording import complaint

# Debian's and EPEL's packages of node_exporter are often started with other ones: the option is --collector.textfile.directory
TEXTFILES = "/var/lib/node_exporter/textfile_collector"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def any_port(value: object) -> object:
    """A port, those of root among them. Raises ValueError."""
    if expected := Whole(1, 65535).complaint(value):
        raise ValueError(expected)
    return value


def _reachable(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("a name or an IPv4 address without a port, such as gpu-1.example")
    return value


Reachable = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_reachable)]


def _of_its_own(value: str) -> str:
    """A directory that no system program reads: root writes there, and removes its file again."""
    levels = [level for level in value.split("/") if level not in ("", ".")]
    if ".." in levels or len(levels) < 2 or levels[0] in ("boot", "dev", "etc", "proc", "sys", "tmp"):
        raise ValueError(f"the directory that node_exporter reads, such as {TEXTFILES}")
    if not re.fullmatch(r"[A-Za-z0-9/._-]+", value):
        raise ValueError("a directory of letters, digits and /._- alone")
    return f"/{'/'.join(levels)}"


# https://github.com/prometheus/node_exporter/releases
NODE_IMAGE = "prom/node-exporter:v1.12.1"
DCGM_IMAGE = "nvidia/k8s/dcgm-exporter:4.5.3-4.8.2-distroless"
# of DCGM, and of the exporter: https://github.com/NVIDIA/product-security, bulletin 5857 (CVE-2026-47483)
DCGM_FLOOR = ((4, 5, 3), (4, 8, 2))
EVERYBODY = IPv4Network("0.0.0.0/0")


def unprivileged_port(value: object) -> object:
    """A port that a user without rights may listen on. Raises ValueError."""
    if expected := Whole(1024, 65535).complaint(value):
        raise ValueError(f"{expected}, and not one that root alone may listen on")
    return value


def not_everybody(
    key: str, networks: Sequence[IPv4Network], expose: bool, within: tuple[str, ...] = ()
) -> None:
    """
    Everybody is admitted only on purpose.

    + key, within: which networks these are, and the tables around them

    Raises a ValidationError.
    """
    if EVERYBODY in networks and not expose:
        raise complaint(
            key,
            [str(network) for network in networks],
            "known networks",
            within=within,
            then=f"refusing {EVERYBODY}, everybody, without expose=True",
            reference="public-sources",
        )


def _node_exporter(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(
        r"([a-z0-9._-]+/)*node[-_]exporter:v?1\.[0-9]+\.[0-9]+[A-Za-z0-9._-]*", value
    ):
        raise ValueError(
            f"an image of node_exporter 1 as name:version without registry, such as {NODE_IMAGE}"
        )
    return value


def _dcgm_exporter(value: object) -> object:
    """An image of dcgm-exporter, in whose tag its own version is behind that of DCGM; none with a known hole."""
    said = re.fullmatch(
        r"([a-z0-9._-]+/)*dcgm-exporter:([0-9]+\.[0-9]+\.[0-9]+)-([0-9]+\.[0-9]+\.[0-9]+)(-[A-Za-z0-9._-]+)?",
        value if isinstance(value, str) else "",
    )
    if not said:
        raise ValueError(f"an image of dcgm-exporter as name:version without registry, such as {DCGM_IMAGE}")
    if tuple(tuple(map(int, version.split("."))) for version in said.group(2, 3)) < DCGM_FLOOR:
        raise ValueError("dcgm-exporter 4.5.3-4.8.2 or later (NVIDIA 5857: CVE-2026-47483)")
    return value


def host_address(value: object) -> object:
    """An IPv4 address, as text. Raises ValueError."""
    try:
        return str(IPv4Address(value)) if isinstance(value, str) else host_address("")
    except ValueError:
        raise ValueError("an IPv4 address of the host, such as 127.0.0.1") from None


Exporter = Annotated[int, BeforeValidator(any_port)]


class NodeExporter(BaseModel):
    """
    node_exporter, in a container of its own.

    + port: where it listens
    + image: name:version; its digest is in image_digests
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    port: Annotated[int, BeforeValidator(unprivileged_port)] = 9100
    image: Annotated[str, BeforeValidator(_node_exporter)] = NODE_IMAGE


class DcgmExporter(BaseModel):
    """
    dcgm-exporter, in a container of its own.

    + port: where it listens
    + image: name:version, of NVIDIA's registry; its digest is in image_digests
    + profiling: also what needs root and CAP_SYS_ADMIN
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    port: Annotated[int, BeforeValidator(unprivileged_port)] = 9400
    image: Annotated[str, BeforeValidator(_dcgm_exporter)] = DCGM_IMAGE
    profiling: Switch = False


class Exporters(BaseModel):
    """The exporters that this tool runs on the host. None: it runs none of that kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: NodeExporter | None = None
    dcgm: DcgmExporter | None = None

    @property
    def there(self) -> bool:
        """Whether it runs one."""
        return bool(self.node or self.dcgm)


class MonitoringSettings(BaseModel):
    """
    What the inventory says of monitoring.

    + textfile_directory: where the host writes its own metrics, for node_exporter's textfile collector
    + address: where Prometheus reaches the host; None: bindhost_address, or the address that a deploy uses
    + node_port, dcgm_port: of exporters that this tool does not run
    + exporters: those that it runs
    + bind: where these listen; None: bindhost_address
    + sources: the networks that may reach them there
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    textfile_directory: Annotated[AbsolutePath, AfterValidator(_of_its_own)] = TEXTFILES
    address: Reachable | None = None
    node_port: Exporter = 9100
    dcgm_port: Exporter = 9400
    exporters: Exporters = Exporters()
    bind: Annotated[str, BeforeValidator(host_address)] | None = None
    sources: list[Network] = []

    def listens(self, bindhost_address: str) -> str:
        """The address of its exporters. `bindhost_address`: of clients."""
        return self.bind or bindhost_address

    def check_reach(self, bindhost_address: str, expose: bool) -> None:
        """Exporters that listen for the network have declared sources. Raises a ValidationError."""
        address = self.listens(bindhost_address)
        if not self.exporters.there or IPv4Address(address).is_loopback:
            return
        if not self.sources:
            raise complaint(
                "sources",
                [],
                f'networks such as ["10.0.0.0/24"], who may reach the exporters on {address}',
                within=("monitoring",),
                then='or bind = "127.0.0.1" in monitoring',
                reference="no-monitoring-sources",
            )
        not_everybody("sources", self.sources, expose, within=("monitoring",))
