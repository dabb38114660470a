"""Model weights from a Hugging Face hub, at a pinned revision."""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from operations import detached
from operations.plan.release import Release


@deploy("Weights")
def download(release: Release) -> None:
    """Downloaded and verified inside the serving image: the host needs no Python of ours."""
    detached.artifact(name="Download the weights", wanted=release.weights)
