"""What of an inventory is watched, and which of its hosts watch: read from its data, no host is asked."""

from __future__ import annotations

from collections.abc import Iterable

from pyinfra import host as here
from pyinfra.api.host import Host

from operations.plan.errors import PlanError
from operations.plan.inventory.monitoring_server_settings import KEY
from operations.plan.inventory.settings import from_host_data
from operations.plan.monitoring.watched import Watched, watched
from operations.plan.profile.profiles import load_profile
from operations.pyinfra_patches import data_of


def serves_models(host: Host) -> bool:
    """Whether a host is one of those that serve, and not a monitoring server."""
    return data_of(host).get(KEY) is None


def watches() -> bool:
    """Whether the current host is a monitoring server."""
    return not serves_models(here)


def entries_of(inventory: Iterable[Host]) -> list[Watched]:
    """The entries of an inventory that want monitoring, in its order. Raises PlanError."""
    found = []
    for host in inventory:
        data = data_of(host)
        settings = from_host_data(data, host.name)
        if settings.monitoring is None:
            continue
        profile = load_profile(settings.model, settings.profile_overrides)
        found.append(watched(host.name, settings, profile, str(data.get("ssh_hostname", host.name))))
    if not found:
        raise PlanError(
            "monitoring",
            "no host with it",
            "at least one",
            "write monitoring = {} into inventories/group_data/all.py, or into a host's own data",
            reference="no-monitoring",
        )
    return found
