"""What differs between a monitoring server as it should be and as it is: pure, and the reason for every change."""

from __future__ import annotations

from collections.abc import Sequence

from operations.plan.artifacts.keys import digest
from operations.plan.difference_rows import (
    Difference,
    ExpectedFile,
    Rows,
    docker_rows,
    file_rows,
    guard_rows,
    image_rows,
    key_rows,
    opening_rows,
    package_rows,
    program_rows,
)
from operations.plan.exposure import firewall
from operations.plan.machine.packages import DOCKER_KEY
from operations.plan.monitoring.server import NAME, PASSWORD_FILE, MonitoringPlan, administered
from operations.plan.observed.firewall import Firewall, Rule
from operations.plan.observed.observed import Observed


def difference(server: MonitoringPlan, observed: Observed, files: Sequence[ExpectedFile]) -> list[Difference]:
    """
    Everything that differs, in the order of the steps.

    + files: those outside its data root, as they should be
    """
    return [
        *file_rows("packages", files, observed),
        *key_rows((DOCKER_KEY,), observed),
        *package_rows(server.packages, server.locks, server.settings.version_lock, observed),
        *docker_rows(server.docker_settings, observed, nvidia=False),
        *image_rows(server.images, observed),
        *file_rows("network", files, observed),
        *file_rows("service", files, observed),
        *guard_rows(server.guard, files, observed),
        *opening_rows(openings(server, observed.firewall), firewall.with_mark(NAME, observed.firewall)),
        *_configuration(server, observed),
        *file_rows("monitoring", files, observed),
        *_programs(server, observed),
        *_administrator(server, observed),
    ]


def openings(server: MonitoringPlan, found: Firewall) -> frozenset[Rule]:
    """firewalld's rules for who may reach Grafana."""
    own = server.own
    if not own.published:
        return frozenset()
    return firewall.placed([(own.bind, firewall.rules_for(NAME, own.sources, (own.port,)))], found)


def _configuration(server: MonitoringPlan, observed: Observed) -> Rows:
    if observed.current != server.key:
        yield Difference("monitoring", "configuration", observed.current or "absent", server.key)
        return
    for name, file in server.read.items():
        # what its digest is, is not said: some hold secrets
        if observed.file_digests.get(f"{server.current}/{name}") != digest(file.text):
            yield Difference("monitoring", f"configuration, {name}", "another content", "the inventory's")


def _administrator(server: MonitoringPlan, observed: Observed) -> Rows:
    """A password that Grafana was not proven to have: a run may have ended between its file and Grafana."""
    password = server.read[PASSWORD_FILE].text
    wanted = digest(f"{digest(password)}\n")
    if observed.file_digests.get(administered(server.data_root)) != wanted:
        yield Difference("monitoring", "Grafana's administrator", "not proven", "the inventory's password")


def _programs(server: MonitoringPlan, observed: Observed) -> Rows:
    for program in server.programs:
        unit = f"{program.service}.service"
        yield from program_rows(program, observed)
        if observed.units.get(unit, {}).get("NeedDaemonReload") == "yes":
            yield Difference("monitoring", unit, "changed on disk", "reloaded by systemd")
