"""What an inventory says of monitoring: where the host's own metrics go, and where Prometheus finds the host's exporters."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from operations.plan.catalog.known_values import Whole
from operations.plan.inventory.field_types import AbsolutePath

# Debian's and EPEL's packages of node_exporter are often started with other ones: the option is --collector.textfile.directory
TEXTFILES = "/var/lib/node_exporter/textfile_collector"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def _port(value: object) -> object:
    if expected := Whole(1, 65535).complaint(value):
        raise ValueError(expected)
    return value


def _reachable(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("a name or an IPv4 address without a port, such as gpu-1.example")
    return value


def _of_its_own(value: str) -> str:
    """A directory that no system program reads: root writes there, and removes its file again."""
    levels = [level for level in value.split("/") if level not in ("", ".")]
    if ".." in levels or len(levels) < 2 or levels[0] in ("boot", "dev", "etc", "proc", "sys", "tmp"):
        raise ValueError(f"the directory that node_exporter reads, such as {TEXTFILES}")
    if not re.fullmatch(r"[A-Za-z0-9/._-]+", value):
        raise ValueError("a directory of letters, digits and /._- alone")
    return f"/{'/'.join(levels)}"


Exporter = Annotated[int, BeforeValidator(_port)]


class MonitoringSettings(BaseModel):
    """
    What the inventory says of monitoring.

    + textfile_directory: where the host writes its own metrics, for node_exporter's textfile collector
    + address: where Prometheus reaches the host; None: bind_address, or the address that a deploy uses
    + node_port, dcgm_port: of node_exporter and dcgm-exporter, which this tool does not install
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    textfile_directory: Annotated[AbsolutePath, AfterValidator(_of_its_own)] = TEXTFILES
    address: Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_reachable)] | None = None
    node_port: Exporter = 9100
    dcgm_port: Exporter = 9400
