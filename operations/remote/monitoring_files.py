"""The files of a monitoring server outside its data root, rendered."""

from __future__ import annotations

from operations.plan.difference_rows import ExpectedFile
from operations.plan.monitoring.server import MonitoringPlan
from operations.remote.host_files import digest, guard_rules, program_files, remembered
from operations.remote.rendering import HostFile, unit_text
from operations.remote.repository_files import docker_repositories


def files(server: MonitoringPlan) -> dict[str, HostFile]:
    """Every file outside its data root of a host that runs Prometheus, Alertmanager and Grafana, by its path."""
    found = [*docker_repositories(server.settings, server.os_major)]
    place = server.guard
    found.append(HostFile("network", place.rules_path, guard_rules(place)))
    unit = unit_text("guard", guard=place, file=place.rules_path, remember=remembered(place.service))
    found.append(HostFile("service", f"/etc/systemd/system/{place.unit}", unit))
    for program in server.programs:
        found += program_files(program, place.unit)
    return {file.path: file for file in found}


def expected(server: MonitoringPlan) -> list[ExpectedFile]:
    """The same files, by their digests."""
    return [ExpectedFile(file.stage, file.path, digest(file.text)) for file in files(server).values()]
