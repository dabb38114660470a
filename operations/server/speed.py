"""The speed of a release through the door, as the gate of a swap: measured, compared with the release before, recorded."""

from __future__ import annotations

import statistics

from pyinfra import logger
from pyinfra.api.host import Host

from operations import bench_results
from operations.bench_results import NotMeasured
from operations.plan.errors import one_line
from operations.plan.exposure.door import NEXT
from operations.plan.release import Release
from operations.plan.serving import gates
from operations.plan.serving.bench_result import BenchDocument
from operations.plan.serving.benched import Timing, figures, smoke
from operations.plan.serving.gates import Speed
from operations.plan.serving.servers import LOOPBACK, Server
from operations.plan.swap import bench_of
from operations.remote.detached import LOST
from operations.remote.refusal import Failed
from operations.remote.tunnel import forwarded

# times that a release is measured before it is held back for its speed: another program may have had the GPU
TRIES = 2
SECONDS = 300  # for one of them


def proven(host: Host, release: Release, server: Server, before: Speed | None) -> dict[str, float | str]:
    """
    The release answers through the door about as fast as the one before. Returns its figures, for operations.server.control.measured.

    + server: who runs it: the main server, or the second one before clients reach it
    + before: the recorded speed of the release before; None: none was recorded, and any is accepted

    Raises Failed where it is slower, or does not answer every request.
    """
    best: Speed | None = None
    for seed in range(1, TRIES + 1):
        document, now = _tried(host, release, server, seed)
        best = now if best is None else Speed(min(best.first_ms, now.first_ms), max(best.rate, now.rate))
        problem = gates.below_share(before, best, release.settings.bench_share)
        if not problem:
            break
    else:
        raise Failed(problem)
    share = f"{best.rate / before.rate:.0%} of the release before" if before else "the first that is recorded"
    logger.info(
        f"{host.print_prefix}the door: {best.rate:.0f} tokens a second, {best.first_ms:.0f} ms to the first token: {share}"
    )
    if unwritten := bench_results.keep(document, release.settings.measurements_directory):
        logger.warning(f"{host.print_prefix}{unwritten}")
    return recorded(release, best)


def recorded(release: Release, speed: Speed) -> dict[str, float | str]:
    """What files/host/measure.sh writes of it."""
    return {"bench_first_ms": speed.first_ms, "bench_rate": speed.rate, "bench_of": bench_of(release)}


def _tried(host: Host, release: Release, server: Server, seed: int) -> tuple[BenchDocument, Speed]:
    """One measurement. Raises Failed for a request without an answer."""
    door = release.door
    assert door is not None
    phases = smoke(seed)
    headers = ["--header", f"{NEXT[0]}={NEXT[1]}"] if server.link == "next" else []
    try:
        with forwarded(host, LOOPBACK, door.port) as endpoint:
            about, timings = bench_results.timed(f"http://{endpoint}/v1", phases, SECONDS, headers)
    except NotMeasured as problem:
        raise Failed(f"bench: {problem}") from None
    except LOST as error:
        raise Failed(f"bench: no answer: {one_line(str(error))}") from None
    if about["release"] != release.id:
        raise Failed(f"bench: the door answered with release {about['release']}, expected {release.id}")
    if wrong := [timing for timing in timings if timing.error]:
        raise Failed(f"bench: {len(wrong)} of {len(timings)} requests failed, the first: {wrong[0].error}")
    document = BenchDocument(
        at=bench_results.now(),
        host=host.name,
        model=release.settings.model,
        release=release.id,
        gpu=release.gpus[0].name,
        gpus=len(release.gpus),
        profile="smoke",
        tool=bench_results.TOOL,
        seed=seed,
        ignore_eos=bool(about["ignore_eos"]),
        phases=bench_results.measured(phases, timings),
    )
    return document, speed_of(timings)


def speed_of(timings: list[Timing]) -> Speed:
    """What the gate compares."""
    alone = [timing for timing in timings if timing.phase == "alone"]
    together = [timing for timing in timings if timing.phase == "together"]
    first = 1000 * statistics.median(timing.first_s for timing in alone)
    return Speed(first, figures(together).tokens_per_s)
