"""The files of a load balancer, rendered."""

from __future__ import annotations

from operations.plan.balancing.load_balancer import (
    CANARY_MAP,
    CONFIGURATION,
    DIRECTORY,
    FILES,
    GATEWAY_CA,
    NAME,
    RECORD,
    SOCKET,
    TLS,
    WEIGHT,
    LoadBalancerPlan,
)
from operations.plan.difference_rows import ExpectedFile
from operations.plan.exposure.host_program import unit_path
from operations.remote.host_files import digest, guard_rules, remembered
from operations.remote.rendering import HostFile, rendered_text, unit_text
from operations.remote.repository_files import system_repositories


def files(wanted: LoadBalancerPlan) -> dict[str, HostFile]:
    """The repositories, the units and the guard's rules, by their paths: everybody may read them."""
    place, configuration = wanted.guard, f"{DIRECTORY}/{CONFIGURATION}"
    names = " ".join(f"{DIRECTORY}/{name}" for name in FILES)
    unit = unit_text(
        NAME,
        name=NAME,
        guard_unit=place.unit,
        configuration=configuration,
        record=RECORD,
        remember=f"cat {names} | sha256sum | cut -c -64 >{RECORD}",
        descriptors=2 * wanted.own.max_connections + 1000,
    )
    guard = unit_text("guard", guard=place, file=place.rules_path, remember=remembered(NAME))
    found = [
        *system_repositories(wanted.settings, wanted.os_major),
        HostFile("network", place.rules_path, guard_rules(place)),
        HostFile("service", f"/etc/systemd/system/{place.unit}", guard),
        HostFile("service", unit_path(NAME), unit),
    ]
    return {file.path: file for file in found}


def expected(wanted: LoadBalancerPlan) -> list[ExpectedFile]:
    """The same files, by their digests."""
    return [ExpectedFile(file.stage, file.path, digest(file.text)) for file in files(wanted).values()]


def read(wanted: LoadBalancerPlan) -> dict[str, str]:
    """Name -> text of what haproxy reads, for root alone: one of them has the private key."""
    configuration = rendered_text(
        "load-balancer.cfg.j2",
        own=wanted.own,
        members=wanted.members,
        directory=DIRECTORY,
        tls=TLS,
        canary_map=CANARY_MAP,
        gateway_ca=GATEWAY_CA,
        socket=SOCKET,
        weight=WEIGHT,
        drain_s=wanted.settings.drain_s,
    )
    return {
        CONFIGURATION: configuration,
        TLS: wanted.secrets.tls,
        GATEWAY_CA: wanted.secrets.gateway_ca,
        CANARY_MAP: "".join(f"{member.name} 0\n" for member in wanted.members),
    }
