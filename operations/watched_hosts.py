"""What of an inventory is watched and balanced, and which of its hosts do that: read from its data, no host is asked."""

from __future__ import annotations

from collections.abc import Iterable

from pyinfra import host as here
from pyinfra.api.host import Host

from operations.plan.balancing.members import Serving, member_name, members
from operations.plan.errors import PlanError
from operations.plan.inventory import load_balancer_settings, monitoring_server_settings
from operations.plan.inventory.settings import from_host_data
from operations.plan.inventory.without_model import kind_of
from operations.plan.monitoring.watched import Watched, watched, watched_load_balancer
from operations.plan.profile.profiles import load_profile
from operations.pyinfra_patches import data_of


def serves_models(host: Host) -> bool:
    """Whether a host is one of those that serve, and not a monitoring server or a load balancer."""
    return not kind_of(data_of(host))


def watches() -> bool:
    """Whether the current host is a monitoring server."""
    return kind_of(data_of(here)) == monitoring_server_settings.KEY


def balances() -> bool:
    """Whether the current host is a load balancer."""
    return kind_of(data_of(here)) == load_balancer_settings.KEY


def serving_of(inventory: Iterable[Host]) -> list[Serving]:
    """The entries of an inventory that serve a model, in its order. Raises PlanError."""
    return [
        Serving(
            host.name,
            from_host_data(data_of(host), host.name),
            str(data_of(host).get("ssh_hostname", host.name)),
        )
        for host in inventory
        if serves_models(host)
    ]


def load_balancers_of(host: Host) -> list[Host]:
    """The load balancers of the inventory that send requests to a host. Raises PlanError."""
    found, name = [], member_name(host.name)
    serving = serving_of(host.inventory)
    for each in host.inventory:
        if kind_of(data_of(each)) == load_balancer_settings.KEY:
            own = from_host_data(data_of(each), each.name).load_balancer
            if own and any(member.name == name for member in members(own, serving)):
                found.append(each)
    return found


def entries_of(inventory: Iterable[Host]) -> list[Watched]:
    """The entries of an inventory that want monitoring, in its order, and its load balancers. Raises PlanError."""
    found, balancers = [], []
    for host in inventory:
        data = data_of(host)
        settings = from_host_data(data, host.name)
        if settings.load_balancer:
            balancers.append(watched_load_balancer(host.name, settings.load_balancer))
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
    return [*found, *balancers]
