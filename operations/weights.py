"""Model weights and calibration datasets, from a Hugging Face hub at pinned revisions."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation

from operations import artifacts
from operations.facts.artifacts import ArtifactState, Described
from operations.plan import PlanError
from operations.plan.capacity.described import check_described
from operations.plan.profile.profiles import EngineProfile
from operations.plan.release import Release
from operations.remote.refusal import refuse


@deploy("Weights")
def download(release: Release) -> None:
    """
    The weights are on the host. The serving image verifies them, so the host needs no Python of ours.

    The hub's small files come first. They are checked against the profile and the GPUs before the weights are downloaded.
    """
    for step in release.recipe.descriptions.values():
        artifacts.artifact(name=step.title, wanted=step.artifact, unless=step.unless)
    fitting(name="Check that the model fits the release and the GPUs", release=release)
    for step in release.recipe.downloads:
        artifacts.artifact(name=step.title, wanted=step.artifact, unless=step.unless)


@operation()
def fitting(release: Release) -> Generator[FunctionCommand, None, None]:
    """
    By the hub's own files, the model matches the profile and fits the release and the GPUs.

    + release: what is to be made; nothing is checked if it is already made
    """
    made = "engine" if isinstance(release.profile, EngineProfile) else ""
    if made and host.get_fact(ArtifactState, path=release.artifact(made).path).complete:
        host.noop("the engine is complete")
        return
    described = {
        role: host.get_fact(Described, paths=[step.unless.path if step.unless else "", step.artifact.path])
        for role, step in release.recipe.descriptions.items()
    }
    if not any(one.config or one.weight_bytes for one in described.values()):
        # the first run plans its steps before the download: only the profile's own numbers have been checked
        host.noop("the hub's files are not downloaded yet")
        return
    try:
        warnings = check_described(release.profile, release.stack, release.gpus, described)
    except PlanError as error:
        yield refuse(str(error))
        return
    for warning in warnings:
        logger.warning(f"{host.print_prefix}{warning}")
    host.noop("the model fits")
