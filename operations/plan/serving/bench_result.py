"""A measured speed as a document, by the release that has it; two of them compared; what AIPerf writes, as ours."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from operations.plan.errors import PlanError, one_line
from operations.plan.serving.benched import PROFILE_VERSION, Figures, ProfileName, Slo, Spread

VERSION: Literal[1] = 1  # raised when a key goes or gets another meaning, not when one is added
# requests that must lie above a percentile before two of them are judged
ABOVE = 3
_PARTS = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9.]+")
# AIPerf's name of a metric -> ours
_OF_AIPERF = {
    "time_to_first_token": "ttft_ms",
    "inter_token_latency": "itl_ms",
    "request_latency": "request_ms",
}


class Measured(BaseModel):
    """One phase of a profile. + rate: requests a second that were sent; None: as many at once as the phase says"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    rate: float | None = None
    within_slo: bool | None = None
    figures: Figures


class BenchDocument(BaseModel):
    """
    The speed of one release.

    + release: its id, as the door says it
    + gpu: the GPU's name, and how many; empty: not known
    + tool: what sent the requests and measured, with its version
    + ignore_eos: whether each answer was as long as it may be
    + capacity_per_s: the highest rate within the promise; 0: none is
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = VERSION
    at: str
    host: str
    model: str
    release: str
    gpu: str = ""
    gpus: int = 0
    profile: ProfileName
    profile_version: int = PROFILE_VERSION
    tool: str
    seed: int
    ignore_eos: bool = True
    slo: Slo | None = None
    capacity_per_s: float | None = None
    phases: tuple[Measured, ...]

    @property
    def file(self) -> str:
        """Where it is kept, below the directory of all: by model, release, GPU and profile."""
        parts = (self.model, self.release, f"{self.gpus or 'n'}x-{self.gpu or 'unknown'}", self.profile)
        model, release, gpu, profile = (_NOT_A_NAME.sub("-", part).strip("-.") or "unknown" for part in parts)
        return f"{model}/{release}.{gpu}.{profile}.json"

    def phase(self, name: str) -> Figures | None:
        """The figures of one phase; None where it has none."""
        return next((each.figures for each in self.phases if each.name == name), None)


def read(content: bytes, where: str) -> BenchDocument:
    """A document of a file. Raises PlanError."""
    try:
        return BenchDocument.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "document"
        raise PlanError(
            place,
            one_line(str(first["msg"]))[:100],
            f"a result of tritonhost bench, version {VERSION}",
            where=where,
            reference="not-a-bench-result",
        ) from None


def text_of(document: BenchDocument) -> str:
    """What a file holds."""
    return document.model_dump_json(indent=1) + "\n"


# --- two of them


class Row(NamedTuple):
    """
    One figure of both.

    + change: from A to B, as a part of A; None where A is 0
    + worse: B is worse than A by more than is allowed
    + judged: it may be; otherwise too few requests lie above a percentile
    """

    label: str
    unit: str
    a: float
    b: float
    change: float | None
    judged: bool
    worse: bool


@dataclass(frozen=True)
class Comparison:
    """Two results. + notes: in what they differ beside their figures"""

    a: BenchDocument
    b: BenchDocument
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def worse(self) -> bool:
        """Whether B is worse by more than is allowed, in any figure."""
        return any(row.worse for row in self.rows)


def compare(a: BenchDocument, b: BenchDocument, allowed: float) -> Comparison:
    """
    Two results of the same profile, figure by figure.

    + allowed: the part of A's by which B may be worse

    Raises PlanError for results of different profiles.
    """
    ours, theirs = (f"{each.profile}, version {each.profile_version}" for each in (a, b))
    if ours != theirs:
        raise PlanError("B", theirs, f"a result of the profile of A: {ours}", reference="other-bench-profile")
    rows: list[Row] = []
    if a.capacity_per_s is not None and b.capacity_per_s is not None:
        rows.append(_row("capacity", "/s", a.capacity_per_s, b.capacity_per_s, allowed, higher=True))
    for each in a.phases:
        if (found := b.phase(each.name)) is not None and a.profile != "capacity":
            rows += _rows(each.name, each.figures, found, allowed)
    if not rows:
        raise PlanError("B", "no phase of A", "results of the same rate", reference="other-bench-profile")
    return Comparison(a, b, tuple(rows), tuple(_notes(a, b)))


def _rows(phase: str, a: Figures, b: Figures, allowed: float) -> list[Row]:
    rows = []
    for label, name in (
        ("time to first token", "ttft_ms"),
        ("between tokens", "itl_ms"),
        ("whole answer", "request_ms"),
    ):
        one, two = getattr(a, name), getattr(b, name)
        if one is None or two is None:
            continue
        for part, share in _PARTS.items():
            judged = min(a.requests - a.errors, b.requests - b.errors) * (1 - share) >= ABOVE
            values = getattr(one, part), getattr(two, part)
            rows.append(_row(f"{phase}: {label}, {part}", "ms", *values, allowed, judged=judged))
    rows.append(_row(f"{phase}: tokens", "/s", a.tokens_per_s, b.tokens_per_s, allowed, higher=True))
    if a.goodput_per_s is not None and b.goodput_per_s is not None:
        label = f"{phase}: good requests"
        rows.append(_row(label, "/s", a.goodput_per_s, b.goodput_per_s, allowed, higher=True))
    if a.errors or b.errors:
        worse = b.errors > a.errors
        change = b.errors / a.errors - 1 if a.errors else None
        rows.append(Row(f"{phase}: errors", "", a.errors, b.errors, change, True, worse))
    return rows


def _row(
    label: str, unit: str, a: float, b: float, allowed: float, higher: bool = False, judged: bool = True
) -> Row:
    """One figure. + higher: more of it is better"""
    worse = b < a * (1 - allowed) if higher else b > a * (1 + allowed)
    return Row(label, unit, a, b, (b - a) / a if a else None, judged, judged and worse)


def _notes(a: BenchDocument, b: BenchDocument) -> list[str]:
    """What else differs, so that a reader does not take it for the release's."""
    notes = []
    for label, one, two in (
        ("model", a.model, b.model),
        ("GPU", f"{a.gpus} {a.gpu}", f"{b.gpus} {b.gpu}"),
        ("tool", a.tool, b.tool),
        ("promise", str(a.slo or "none"), str(b.slo or "none")),
        ("answers to their full length", str(a.ignore_eos), str(b.ignore_eos)),
    ):
        if one != two:
            notes.append(f"not the same {label}: {one}, and {two}")
    return notes


def number(value: float) -> str:
    """A figure for a reader, not as 1.23e+03."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def changed(row: Row) -> str:
    """The change of a figure in per cent, and whether that is too much."""
    if row.change is None:
        return "worse" if row.worse else "-"
    return f"{100 * row.change:+.1f}%{' worse' if row.worse else '' if row.judged else ' (few)'}"


def lines(found: Comparison) -> list[str]:
    """The comparison as an aligned table."""
    table = [("", f"A {found.a.release}", f"B {found.b.release}", "change")]
    for row in found.rows:
        one, two = (f"{number(value)} {row.unit}".rstrip() for value in (row.a, row.b))
        table.append((row.label, one, two, changed(row)))
    return [*aligned(table), *found.notes]


def shown(document: BenchDocument) -> list[str]:
    """One result as an aligned table."""
    gpu = f"{document.gpus or ''} {document.gpu}".strip() or "GPU not known"
    head = f"{document.model}, release {document.release or 'not known'}, {gpu}: {document.profile} by {document.tool}"
    table = [("", "first token p50/p90/p99", "between tokens p50/p90/p99", "tokens", "good", "errors")]
    for each in document.phases:
        found = each.figures
        good = "-" if found.goodput_per_s is None else f"{number(found.goodput_per_s)} /s"
        table.append(
            (
                each.name + ("" if each.within_slo is not False else " (too fast)"),
                _three(found.ttft_ms),
                _three(found.itl_ms),
                f"{number(found.tokens_per_s)} /s",
                good,
                f"{found.errors} of {found.requests}",
            )
        )
    rows = [head, *aligned(table)]
    if document.capacity_per_s is not None and document.slo is not None:
        limits = (
            f"{document.slo.ttft_ms:g} ms to the first token and {document.slo.itl_ms:g} ms between tokens"
        )
        rows.append(f"capacity: {number(document.capacity_per_s)} requests a second within {limits}")
    return rows


def _three(found: Spread | None) -> str:
    return "-" if found is None else f"{number(found.p50)}/{number(found.p90)}/{number(found.p99)} ms"


def aligned(table: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows with their columns under each other."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def as_json(found: Comparison) -> dict[str, Any]:
    """The comparison for a program."""
    rows = [row._asdict() for row in found.rows]
    return {
        "version": VERSION,
        "a": found.a.model_dump(mode="json", exclude={"phases"}),
        "b": found.b.model_dump(mode="json", exclude={"phases"}),
        "worse": found.worse,
        "notes": list(found.notes),
        "figures": rows,
    }


# --- AIPerf


def of_aiperf(content: bytes, where: str) -> tuple[str, Figures]:
    """
    AIPerf's version, and the figures of its profile_export_aiperf.json.

    Raises PlanError for a file that is not one, or without a figure.
    """
    try:
        document = json.loads(content)
        found = {ours: _spread_of(document.get(name)) for name, ours in _OF_AIPERF.items()}
        errors = _average(document.get("error_request_count")) or 0.0
        answered = float(document["request_count"]["avg"])
        rates = {name: _average(document.get(f"{name}_throughput")) for name in ("output_token", "request")}
        figures = Figures(
            requests=round(answered + errors),
            errors=round(errors),
            tokens=round(_average(document.get("total_output_tokens")) or 0.0),
            seconds=round(_average(document["benchmark_duration"]) or 0.0, 3),
            tokens_per_s=round(rates["output_token"] or 0.0, 3),
            requests_per_s=round(rates["request"] or 0.0, 3),
            goodput_per_s=_average(document.get("goodput")),
            **found,
        )
        return str(document["aiperf_version"]), figures
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise PlanError(
            "",
            f"{type(error).__name__}: {one_line(str(error))[:80]}",
            "profile_export_aiperf.json of AIPerf 0.13",
            where=where,
            reference="not-an-aiperf-export",
        ) from None


def _average(metric: Mapping[str, Any] | None) -> float | None:
    return None if metric is None else float(metric["avg"])


def _spread_of(metric: Mapping[str, Any] | None) -> Spread | None:
    if metric is None:
        return None
    if metric["unit"] != "ms":
        raise ValueError(f"found unit {metric['unit']}, expected ms")
    return Spread(**{part: round(float(metric[part]), 3) for part in _PARTS})
