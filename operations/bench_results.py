"""The measured speeds of releases, on the machine that deploys: one file for each model, release, GPU and profile."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from operations.plan.errors import PlanError, one_line
from operations.plan.paths import PROJECT
from operations.plan.serving import bench_result
from operations.plan.serving.bench_result import BenchDocument, Measured
from operations.plan.serving.benched import Phase, Slo, Timing, as_json, figures
from operations.server.golden import in_a_process
from operations.whole_file import beside

DIRECTORY = "inventories/measurements"
TOOL = "tritonhost"  # what measured, where no other program did
_LARGEST = 4 * 2**20  # bytes of a file


class NotMeasured(Exception):
    """Why there are no figures."""


def timed(
    url: str, phases: Sequence[Phase], limit_s: float, arguments: Sequence[str] = ()
) -> tuple[Mapping[str, Any], list[Timing]]:
    """
    Send the requests of all phases by a process of its own: what it says of the door, and the time of each request.

    + url: the door's base URL
    + limit_s: for all of it; a request without a time by then is an error
    + arguments: further ones of operations.server.bench

    Raises NotMeasured where the door did not answer the first request.
    """
    found, problem = in_a_process("bench", url, bench_text(phases), limit_s, arguments)
    if not found:
        raise NotMeasured(problem or "no answer")
    about, *times = found
    timings = [Timing(**each) for each in times]
    there = {(timing.phase, timing.number) for timing in timings}
    timings += [
        Timing(phase.name, request.number, error=problem or "no answer")
        for phase in phases
        for request in phase.requests
        if (phase.name, request.number) not in there
    ]
    return about, timings


def bench_text(phases: Iterable[Phase]) -> str:
    """What the process reads."""
    return json.dumps(as_json(phases))


def measured(
    phases: Iterable[Phase], timings: Sequence[Timing], slo: Slo | None = None, rate: float | None = None
) -> tuple[Measured, ...]:
    """The figures of each phase."""
    return tuple(
        Measured(
            name=phase.name,
            rate=rate,
            figures=figures([timing for timing in timings if timing.phase == phase.name], slo),
        )
        for phase in phases
    )


def now() -> str:
    """The time of a document."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(path: Path) -> BenchDocument:
    """The document of a file. Raises PlanError."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        expected = "a result that tritonhost bench has written"
        raise PlanError(
            "", error.strerror, expected, where=str(path), reference="file-not-readable"
        ) from None
    if len(content) > _LARGEST:
        raise PlanError("", "a larger file", f"at most {_LARGEST} bytes", where=str(path))
    return bench_result.read(content, str(path))


def write(document: BenchDocument, directory: str) -> Path:
    """The document's file has it, whole. Raises OSError."""
    path = PROJECT / directory / document.file
    with beside(path, bench_result.text_of(document), ".json") as part:
        part.replace(path)
    return path


def keep(document: BenchDocument, directory: str) -> str:
    """The same for a swap, which it does not hold up: one line where it could not be written."""
    try:
        write(document, directory)
    except OSError as error:
        return f"measured speed not recorded: {one_line(str(error))}"
    return ""


def shown(path: Path) -> str:
    """A path for a reader."""
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)
