"""The image that converts, builds and serves, from tensorrtllm_backend's sources or NGC."""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from operations import detached
from operations.plan.release import Release


@deploy("Serving image")
def build(release: Release) -> None:
    """The checkout comes first: an image is built from it, and every model repository from its templates."""
    detached.artifact(name="Check out tensorrtllm_backend", wanted=release.source)
    detached.image(name="Build or pull the serving image", wanted=release.image)
