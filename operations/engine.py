"""Engines and plans: converted, quantized or exported, then built, inside the image that serves them."""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from operations import artifacts
from operations.plan.release import Release


@deploy("Engine")
def build(release: Release) -> None:
    """A checkpoint or a graph, which an engine is built from, is made only if the engine is missing."""
    for step in release.recipe.steps:
        artifacts.artifact(name=step.title, wanted=step.artifact, unless=step.unless)
