"""The plan: pure functions that turn inventory data, a model profile and host facts into a complete release.

Nothing here imports pyinfra or contacts a host; a test checks it.
"""

from operations.plan.errors import PlanError
from operations.plan.inventory.settings import Settings
from operations.plan.planning import plan_release
from operations.plan.release import Release

__all__ = ["PlanError", "Release", "Settings", "plan_release"]
