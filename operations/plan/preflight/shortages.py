"""What a host may lack for a release: disk and memory, compared with the forecast."""

from __future__ import annotations

from collections.abc import Sequence

from operations.plan.capacity.fit import deployment
from operations.plan.capacity.forecast import forecast
from operations.plan.capacity.limits import check_memory_free
from operations.plan.catalog.shapes import SHAPES, Shape
from operations.plan.machine.local_disks import space_to_come
from operations.plan.observed.observed import Observed
from operations.plan.profile.profiles import EngineProfile
from operations.plan.release import Release
from operations.plan.units import gib


def needed(release: Release, observed: Observed) -> tuple[dict[str, int], int] | None:
    """
    What still has to be made takes: bytes on disk by kind, and bytes of host memory; None if it is not known.

    The weights' sum is exact, the others are estimates.
    """
    seen = deployment(release.profile, release.stack, release.gpus[0])
    if seen is None:
        return None
    figures = forecast(seen)

    def missing(kind: str) -> bool:
        stored = observed.artifacts.get((kind, release.artifact(kind).key))
        return stored is None or bool(stored.problem)

    built = isinstance(release.profile, EngineProfile)
    if not missing("engine" if built else "weights"):
        return {}, 0
    sizes = {"engine": figures.disk_engine} if built else {}
    sizes |= {"weights": figures.disk_weights} if missing("weights") else {}
    sizes |= {"checkpoint": figures.disk_checkpoint} if built and missing("checkpoint") else {}
    sizes |= {"image": figures.disk_image} if release.image.tag not in observed.images else {}
    return sizes, max(figures.ram_build, figures.ram_conversion if built and missing("checkpoint") else 0)


def needed_together(releases: Sequence[Release], observed: Observed) -> tuple[dict[str, int], int] | None:
    """
    The same for the releases of several services of one host, which are made at the same time; what two share counts once.

    + releases: not empty; what one of the others takes may not be known

    None if it is not known of the first.
    """
    sizes: dict[str, int] = {}
    memory, counted = 0, set()
    for number, release in enumerate(releases):
        wanted = needed(release, observed)
        if wanted is None:
            if number == 0:
                return None
            continue
        memory += wanted[1]
        for kind, size in wanted[0].items():
            made = release.image.tag if kind == "image" else release.artifact(kind).key
            sizes[kind] = sizes.get(kind, 0) + (0 if made in counted else size)
            counted.add(made)
    return sizes, memory


def on_local_disks_to_come(release: Release, observed: Observed) -> bool:
    """Whether the data root will be on local disks that are not mounted yet: their free space was not measured."""
    return release.settings.local_disks != "none" and observed.data_root.mount != release.data_root


def data_space(release: Release, observed: Observed, shape: Shape | None) -> int:
    """Free bytes for the data root, also on local disks that this run will mount; 0 if that is not known."""
    if on_local_disks_to_come(release, observed):
        return space_to_come(release.settings, observed.data_root, observed.local, shape)
    return observed.data_free


def shortages(release: Release, observed: Observed) -> tuple[str, ...]:
    """
    Warnings about space and memory for what still has to be made.

    Nothing is refused here, because these figures are estimates. preflight.py refuses far too little space, and the
    download compares the sizes that the hub states before its first byte.
    """
    wanted = needed(release, observed)
    if wanted is None:
        return ()
    sizes, memory = wanted
    warnings = [*_other_processes(release, observed)]
    free = data_space(release, observed, SHAPES.get(release.settings.shape or ""))
    if free and free < sum(sizes.values()):
        parts = ", ".join(f"{name} {gib(size)}" for name, size in sizes.items())
        warnings.append(
            f"disk: found {gib(free)} free under {release.data_root}, expected about "
            f"{gib(sum(sizes.values()))} ({parts})"
        )
    if observed.memory and observed.memory < memory:
        warnings.append(
            f"host memory: found {gib(observed.memory)}, expected about {gib(memory)} to convert and build; "
            "where the work ends with exit code 137, take a larger shape or add swap"
        )
    return tuple(warnings)


def _other_processes(release: Release, observed: Observed) -> tuple[str, ...]:
    """Warnings about GPU memory that another process uses; not checked while our own server runs, which uses it itself."""
    seen = deployment(release.profile, release.stack, release.gpus[0])
    if seen is None or (observed.container and observed.container.running):
        return ()
    return check_memory_free(forecast(seen), release.gpus)
