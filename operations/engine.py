"""TensorRT-LLM engines: convert or quantize, then build, in the very image that serves."""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from operations import detached
from operations.plan.release import Release


@deploy("Engine")
def build(release: Release) -> None:
    """A checkpoint only exists to build engines from, so a complete engine does without one."""
    if release.checkpoint and release.engine:  # a profile of kind llmapi has neither
        detached.artifact(
            name="Convert the weights to a checkpoint", wanted=release.checkpoint, unless=release.engine
        )
        detached.artifact(name="Build the engine", wanted=release.engine)
