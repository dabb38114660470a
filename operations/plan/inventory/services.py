"""Several services on one host: one entry of the inventory for each, and what two services of a host may not share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from operations.plan.errors import Origin, PlanError, suggestion, typed

HostEntry = tuple[str, dict[str, Any]]

# What a service may set in its own table. All other settings are the host's: docker, packages, disks and mirrors are shared.
OF_A_SERVICE = frozenset(
    {
        "at_data_root",
        "allowed_sources",
        "bench_gate",
        "bench_share",
        "bind_address",
        "door",
        "drain_s",
        "egress",
        "expose",
        "gateway",
        "golden_agreement",
        "golden_directory",
        "golden_less_likely",
        "gpu_ids",
        "grpc_port",
        "http_port",
        "keep_releases",
        "latency_factor",
        "measurements_directory",
        "metrics_port",
        "model",
        "pids_limit",
        "profile_overrides",
        "record_golden",
        "retry_failed",
        "server_user",
        "service_name",
        "soak_s",
        "start_timeout_s",
        "stop_timeout_s",
        "tritonserver_arguments",
    }
)
# the units that a service has beside its own, named after it
_UNITS = (
    "database",
    "dcgm-exporter",
    "door",
    "front",
    "gateway",
    "guard",
    "metrics",
    "next",
    "node-exporter",
)
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


def machine_of(name: str) -> str:
    """
    The host of an inventory's entry: `gpu-1` of `gpu-1/llama`, and of `gpu-1`, which has one service.

    The name of one of pyinfra's connectors, such as `@ssh/`, belongs to the host's.
    """
    return "/".join(name.split("/")[: 2 if name.startswith("@") else 1])


def units_of(services: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """service -> the name of its unit: the service's own, unless its table says another."""
    return {name: str(table.get("service_name", name)) for name, table in services.items()}


def entries(host: str, address: str, services: object, origin: Origin) -> list[HostEntry]:
    """
    The entries of a host's services, `HOST/SERVICE`, with the data that each has of its own.

    + address: where the host is reached
    + services: the tables of the inventory, by the services' names
    + origin: where they were written, for the error

    Raises PlanError for tables that are none, names that cannot be, keys that are the host's, and units of one name.
    """

    def refused(key: str, found: object, expected: str, then: str = "", reference: str = "") -> PlanError:
        error = PlanError(key, found, expected, then, reference=reference)
        return error.placed(origin, host)

    if not isinstance(services, Mapping) or not services:
        expected = "a table [hosts.NAME.services.SERVICE] for each service"
        raise refused("services", typed(services), expected, "leave it out for one service", "not-a-table")
    made = []
    for name, table in services.items():
        key = f"services.{name}"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            expected = "a name of lower-case letters, digits and -, 32 at most, such as llama"
            raise refused("services", typed(name), expected, reference="not-a-service")
        if not isinstance(table, Mapping):
            raise refused(key, typed(table), "a table with the service's settings", reference="not-a-table")
        for word in table:
            if word not in OF_A_SERVICE:
                then = f"write it for the host; of a service: {suggestion(str(word), OF_A_SERVICE)}"
                expected = "settings of a service: the others are the host's"
                raise refused(f"{key}.{word}", f"{word}", expected, then, "setting-of-the-host")
        made.append(
            (
                f"{host}/{name}",
                {"ssh_hostname": address, "service_name": name, **table, "services": dict(services)},
            )
        )
    _check_units(units_of(services), refused)
    if len(first := [name for name, table in services.items() if table.get("at_data_root")]) > 1:
        then = "it is for the one service that the host had before"
        raise refused(
            "at_data_root", f"it in {', '.join(first)}", "one service at most", then, "service-twice"
        )
    return made


def _check_units(units: Mapping[str, str], refused: Any) -> None:
    """Each service has units of its own, also those that are named after it."""
    seen: dict[str, str] = {}
    for service, unit in units.items():
        for name in (unit, *(f"{unit}-{suffix}" for suffix in _UNITS)):
            if name in seen:
                expected = "units of its own for each service"
                then = f"services.{seen[name]} has it too; give one another name"
                raise refused(f"services.{service}", f"unit {name}", expected, then, "service-twice")
            seen[name] = service


def check_roots(roots: Mapping[str, str]) -> None:
    """
    The services of a host keep their links, databases and gateways in different directories.

    + roots: service -> `state_root`

    Raises PlanError.
    """
    seen: dict[str, str] = {}
    for service, root in roots.items():
        if root in seen:
            expected = "a directory of its own for each service"
            then = f"services.{seen[root]} has it too; write at_data_root in the table of one service alone"
            raise PlanError(
                f"services.{service}.at_data_root", root, expected, then, reference="service-twice"
            )
        seen[root] = service


def check_gpus(gpus: Mapping[str, Sequence[int] | str]) -> None:
    """
    The services of a host use different GPUs.

    + gpus: service -> `gpu_ids`

    Raises PlanError.
    """
    seen: dict[int, str] = {}
    for service, indices in gpus.items():
        key = f"services.{service}.gpu_ids"
        if isinstance(indices, str):
            then = 'such as gpu_ids = [0]; "all" is for a host with one service'
            raise PlanError(key, typed(indices), "the GPUs of this service", then, reference="gpu-shared")
        for index in indices:
            if index in seen:
                then = f"services.{seen[index]} has GPU {index} too"
                raise PlanError(
                    key,
                    typed(list(indices)),
                    "GPUs of its own for each service",
                    then,
                    reference="gpu-shared",
                )
            seen[index] = service


def check_ports(ports: Mapping[str, Sequence[int]]) -> None:
    """
    The services of a host listen on different ports.

    + ports: service -> every port that it uses on the host, those behind a proxy and the gateway's among them

    Raises PlanError.
    """
    seen: dict[int, str] = {}
    for service, own in ports.items():
        for port in own:
            if port in seen:
                expected = "ports of its own for each service"
                then = (
                    f"services.{seen[port]} has it too; set http_port, grpc_port and metrics_port, or gateway.port, "
                    f"in [hosts.NAME.services.{service}]"
                )
                raise PlanError(
                    f"services.{service}", f"port {port}", expected, then, reference="port-shared"
                )
        seen |= dict.fromkeys(own, service)
