"""Engines and plans: converted, quantized or exported, then built, in the very image that serves."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation

from operations import detached
from operations.facts.artifacts import ArtifactState, ModelConfig
from operations.plan import PlanError
from operations.plan.architecture import Architecture
from operations.plan.capacity import check_capacity
from operations.plan.profiles import EngineProfile
from operations.plan.release import Release
from operations.refusal import refuse


@deploy("Engine")
def build(release: Release) -> None:
    """What an engine is made from, a checkpoint or a graph, is only made where the engine is not there."""
    if isinstance(release.profile, EngineProfile):
        fitting(name="Check that the model fits the GPUs", release=release)
    for step in release.recipe.steps:
        detached.artifact(name=step.title, wanted=step.artifact, unless=step.unless)


@operation()
def fitting(release: Release) -> Generator[FunctionCommand, None, None]:
    """
    The downloaded model fits the GPUs, by the numbers of its own config.json: the profile's may be missing or wrong.

    + release: what is to be built; nothing is asked where its engine is complete
    """
    if host.get_fact(ArtifactState, path=release.artifact("engine").path).complete:
        host.noop("the engine is complete")
        return
    config = host.get_fact(ModelConfig, path=f"{release.artifact('weights').path}/config.json")
    if not config:
        # the first run plans its steps before the download: the profile's own numbers have been asked
        host.noop("the weights are not there yet")
        return
    try:
        architecture = Architecture.from_config(config)
    except PlanError as error:
        host.noop(f"not forecast, and left to the converter to judge: {error}")
        return
    try:
        warnings = check_capacity(release.profile, release.stack, release.gpus, architecture)
    except PlanError as error:
        yield refuse(str(error))
        return
    for warning in warnings:
        logger.warning(f"{host.print_prefix}{warning}")
    host.noop("the model fits the GPUs")
