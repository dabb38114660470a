"""What a deploy refuses of a host before it has seen it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from operations.plan.catalog.version_floors import check_docker, check_floors
from operations.plan.errors import PlanError
from operations.plan.inventory import services
from operations.plan.inventory.settings import Settings
from operations.plan.inventory.versions import components
from operations.plan.profile.profiles import load_profile


def check_deployable(name: str, settings: Settings, today: date) -> None:
    """
    Refuse what a deploy would refuse of a host before it has seen it: the profile, versions below their floors, images
    without a digest, and ports that are taken twice.

    + name: the host's, for the error
    + today: the day that waivers are compared with

    Asked of deploys alone: a person who goes back to the previous release is not held up by a waiver that has ended.
    Raises PlanError.
    """
    # imported here: an inventory that is only listed does without
    from operations.plan.planning import check_before_gpus

    try:
        profile = load_profile(settings.model, settings.profile_overrides)
        check_docker(settings.docker_packages, name)
        check_floors(name, components(settings, profile), settings.waivers, today)
        check_before_gpus(settings, profile)
    except PlanError as error:
        raise error.placed(host=name) from None


def check_services(machine: str, settings: Mapping[str, Settings]) -> None:
    """
    The services of one host share no directory of links and data, no GPU and no port.

    + machine: the host's name, for the error
    + settings: service -> its settings

    Raises PlanError.
    """
    from operations.plan.planning import ports_of

    try:
        services.check_roots({name: one.state_root for name, one in settings.items()})
        services.check_gpus({name: one.gpu_ids for name, one in settings.items()})
        services.check_ports(
            {
                name: ports_of(one, load_profile(one.model, one.profile_overrides))
                for name, one in settings.items()
            }
        )
    except PlanError as error:
        raise error.placed(host=machine) from None
