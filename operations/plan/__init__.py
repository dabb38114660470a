"""Decide: pure functions from inventory data, a model profile and host facts to a fully resolved release.

Nothing here imports pyinfra or touches a host; a test holds it to that.
"""

from operations.plan.errors import PlanError
from operations.plan.release import Release, plan_release
from operations.plan.settings import Settings

__all__ = ["PlanError", "Release", "Settings", "plan_release"]
