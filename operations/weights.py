"""Model weights, and datasets to calibrate with, from a Hugging Face hub at pinned revisions."""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from operations import detached
from operations.plan.release import Release


@deploy("Weights")
def download(release: Release) -> None:
    """Downloaded and verified inside the serving image: the host needs no Python of ours."""
    for step in release.recipe.downloads:
        detached.artifact(name=step.title, wanted=step.artifact, unless=step.unless)
