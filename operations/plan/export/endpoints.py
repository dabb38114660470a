"""The running hosts of an inventory, as llm-d's router and Prometheus read them from a file.

Sources: llm-d/llm-d-router, pkg/epp/framework/plugins/datalayer/discovery/file (endpoints.yaml: one entry that is wrong stops the
router; an address is a literal IPv4, a port is text); prometheus/prometheus, docs/configuration, <file_sd_config>.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from operations.plan.errors import PlanError
from operations.plan.inventory.settings import Settings
from operations.plan.monitoring.watched import JOBS, Watched, targets_of
from operations.plan.monitoring.yaml_text import document

ENGINE = "triton-tensorrt-llm"  # llm-d's name of Triton's metrics


@dataclass(frozen=True)
class Endpoint:
    """
    One host, or one service of a host.

    + name: of the inventory
    + address: a literal IPv4 address
    + tls: only with TLS and a key
    """

    name: str
    model: str
    address: str
    port: int
    metrics_port: int
    tls: bool


def endpoint(name: str, settings: Settings, reached: str, ports: tuple[int, int, int]) -> Endpoint:
    """
    Where clients reach an entry of the inventory.

    + reached: where a deploy reaches the host
    + ports: Triton's HTTP, gRPC and metrics

    Raises PlanError for one that others do not reach, and for an address that is a name.
    """
    bound = IPv4Address(settings.bind_address)
    if bound.is_loopback:
        then = f"write bind_address and allowed_sources for {name}"
        raise PlanError("bind_address", f"{bound} at {name}", "an address that the network reaches", then)
    address = reached if bound.is_unspecified else settings.bind_address
    try:
        IPv4Address(address)
    except ValueError:
        then = "name the host by its address, or set bind_address"
        raise PlanError(
            "address", f"{address} at {name}", "an IPv4 address: llm-d takes no names", then
        ) from None
    port = settings.gateway.port if settings.gateway else ports[0]
    return Endpoint(name.replace("/", "-"), settings.model, address, port, ports[2], bool(settings.gateway))


def llm_d(endpoints: Sequence[Endpoint]) -> str:
    """endpoints.yaml of llm-d's router, with the part of its configuration that reads it, as comments."""
    metrics = {each.metrics_port for each in endpoints}
    if len(metrics) > 1:
        found = ", ".join(map(str, sorted(metrics)))
        raise PlanError(
            "metrics_port", found, "the same at all hosts: llm-d has one for all", reference="ports-differ"
        )
    head = (
        "# Written by tritonhost export: changes are overwritten. For the plugin file-discovery of llm-d's router 0.10 or later, with\n"
        f"# metrics-data-source: {{port: {min(metrics)}}} and parsers: [openai-parser, passthrough-parser].\n"
    )
    names = [each.name for each in endpoints]
    if twice := [name for name in names if names.count(name) > 1]:
        raise PlanError("host", f"two of the name {twice[0]}", "names that differ by more than / and -")
    entries = [
        {
            "name": each.name,
            "address": each.address,
            "port": str(each.port),
            "labels": {"llm-d.ai/engine-type": ENGINE, "model": each.model},
        }
        for each in endpoints
    ]
    return document({"endpoints": entries}, head)


def remarks(endpoints: Iterable[Endpoint]) -> list[str]:
    """What a person has to know of endpoints that are behind a gateway."""
    behind = [each.name for each in endpoints if each.tls]
    then = "give the proxy before the router both; llm-d does not read metrics there"
    return [f"{', '.join(behind)}: only with TLS and a key of the gateway; {then}"] if behind else []


def prometheus(entries: Iterable[Watched]) -> str:
    """One list for file_sd, with the path and scheme of each target among its labels."""
    groups = []
    for job, targets in targets_of(entries).items():
        own = {"__metrics_path__": JOBS[job].path, "__scheme__": "https" if JOBS[job].tls else "http"}
        for target in targets:
            labels = {**dict(target.labels), "job": JOBS[job].label or job, **own}
            groups.append({"targets": [target.address], "labels": labels})
    return json.dumps(groups, indent=2) + "\n"
