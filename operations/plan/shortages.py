"""What a host may lack on the way to a release: disk and memory, against the forecast."""

from __future__ import annotations

from operations.plan.capacity import deployment
from operations.plan.forecast import forecast, gib
from operations.plan.observed import Observed
from operations.plan.release import Release


def shortages(release: Release, observed: Observed) -> tuple[str, ...]:
    """
    Warnings, for what has still to be made.

    Nothing is refused here, because these figures are estimates: the download itself refuses, by the sizes that the hub
    states, before its first byte.
    """
    seen = deployment(release.profile, release.stack, release.gpus[0])
    if seen is None:
        return ()
    figures = forecast(seen)

    def missing(kind: str) -> bool:
        stored = observed.artifacts.get((kind, release.artifact(kind).key))
        return stored is None or bool(stored.problem)

    if not missing("engine"):
        return ()
    sizes = {"engine": figures.disk_engine}
    sizes |= {"weights": figures.disk_weights} if missing("weights") else {}
    sizes |= {"checkpoint": figures.disk_checkpoint} if missing("checkpoint") else {}
    sizes |= {"image": figures.disk_image} if release.image.tag not in observed.images else {}
    warnings = []
    # local disks that are not mounted yet are not what was measured
    there = release.settings.local_disks == "none" or observed.data_root.mount == release.data_root
    if there and observed.data_free and observed.data_free < sum(sizes.values()):
        parts = ", ".join(f"{name} {gib(size)}" for name, size in sizes.items())
        warnings.append(
            f"disk: found {gib(observed.data_free)} free under {release.data_root}, expected about "
            f"{gib(sum(sizes.values()))} ({parts})"
        )
    needed = max(figures.ram_build, figures.ram_conversion if missing("checkpoint") else 0)
    if observed.memory and observed.memory < needed:
        warnings.append(
            f"host memory: found {gib(observed.memory)}, expected about {gib(needed)} to convert and build; "
            "where the work ends with exit code 137, take a larger shape or add swap"
        )
    return tuple(warnings)
