"""Everything that a site's Prometheus, Alertmanager and Grafana read, as files of one directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from operations.plan.catalog.gpu_counters import counters
from operations.plan.monitoring import board, prometheus, yaml_text
from operations.plan.monitoring.rules import rules
from operations.plan.monitoring.watched import Watched, targets_of

# The page in the repository; a site that publishes docs/ has a URL of its own
RUNBOOKS = "docs/how-to/alerts.md"
# Where the board is on Grafana's machine
BOARDS = "/etc/grafana/dashboards"
# not for a monitoring server: it has what its site says, and its exporters are on other hosts
EXAMPLE, COUNTERS = "alertmanager.example.yml", "dcgm-counters.csv"


@dataclass(frozen=True)
class Site:
    """
    What the inventory does not say.

    + prometheus: URL at which Grafana reaches it
    + alertmanager: host:port at which Prometheus reaches it
    + remote_write: URL; empty: none
    + runbooks: URL of the page with a heading for each alert
    """

    prometheus: str = "http://127.0.0.1:9090"
    alertmanager: str = "127.0.0.1:9093"
    remote_write: str = ""
    runbooks: str = RUNBOOKS


def files(entries: Sequence[Watched], site: Site, boards: str = BOARDS) -> dict[str, str]:
    """path -> text, in the order in which they are written: what others name comes first. `boards`: where Grafana finds its own."""
    targets = targets_of(entries)
    listed = {
        f"targets/{job}.json": json.dumps([target.entry() for target in found], indent=2) + "\n"
        for job, found in targets.items()
    }
    return {
        **listed,
        prometheus.RULES: yaml_text.document(rules(site.runbooks)),
        "prometheus.yml": prometheus.prometheus(targets, site.remote_write, site.alertmanager),
        EXAMPLE: prometheus.alertmanager(),
        COUNTERS: counters(),
        "grafana/dashboards/tritonhost.json": board.board(),
        "grafana/provisioning/dashboards/tritonhost.yml": board.provider(boards),
        "grafana/provisioning/datasources/tritonhost.yml": board.data_source(
            site.prometheus, f"http://{site.alertmanager}"
        ),
    }


def without_receivers() -> str:
    """An alertmanager.yml that tells nobody: alerts are shown, and can be silenced."""
    return prometheus.alertmanager(told=False)
