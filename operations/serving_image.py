"""The image that converts, builds and serves, from sources or NGC."""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from operations import detached
from operations.plan.release import Release


@deploy("Serving image")
def build(release: Release) -> None:
    """An image is built from the checkout; a newer one that is pulled carries the templates itself."""
    if release.source is None:
        detached.image(name="Build or pull the serving image", wanted=release.image)
    elif release.image_first:
        detached.image(name="Pull the serving image", wanted=release.image)
        detached.artifact(name="Take the templates out of the image", wanted=release.source)
    else:
        detached.artifact(name="Check out tensorrtllm_backend", wanted=release.source)
        detached.image(name="Build or pull the serving image", wanted=release.image)
