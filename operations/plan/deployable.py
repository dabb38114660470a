"""What a deploy refuses of a host before it has seen it."""

from __future__ import annotations

from datetime import date

from operations.plan.catalog.version_floors import check_docker, check_floors
from operations.plan.errors import PlanError
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
