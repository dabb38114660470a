"""The host's own metrics: names and places of the script that prints them, and of the timer that writes them for node_exporter."""

from __future__ import annotations

from operations.plan.inventory.settings import Settings

SCRIPT = "metrics.sh"
EXPECTED = "expected"  # digests and paths of what the last run left outside the data root
RUN = "run"  # what the last run knew: written by it, and by nothing else
EVERY_S = 30


def unit(service: str) -> str:
    """The name of the timer and of the unit that it starts, of the server's name."""
    return f"{service}-metrics"


def directory(state_root: str) -> str:
    """Where the script is, and what it reads."""
    return f"{state_root}/monitoring"


def script(state_root: str) -> str:
    """The script's path."""
    return f"{directory(state_root)}/{SCRIPT}"


def own_paths(settings: Settings) -> list[str]:
    """Its directory, and the files that a run writes there: all of them root's, because root runs the script."""
    place = directory(settings.state_root)
    return [place, f"{place}/{SCRIPT}", f"{place}/{EXPECTED}"]


def output(settings: Settings) -> str:
    """The file that node_exporter reads. Empty without monitoring."""
    if settings.monitoring is None:
        return ""
    return f"{settings.monitoring.textfile_directory}/tritonhost-{settings.service_name}.prom"
