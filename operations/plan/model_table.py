"""The model table for a reader: which architectures are served, by which kind, from which release on."""

from __future__ import annotations

from typing import Any

from operations.plan.catalog.models import MODELS, Model, Version
from operations.plan.catalog.support_matrix import RELEASES
from operations.plan.planning import FIRST_LLMAPI_VERSION, LAST_ENGINE_VERSION


def model_rows() -> list[dict[str, Any]]:
    """One row an architecture: config.json's words, people's names, and the releases of each kind; null where a kind has it not."""
    return [
        {
            "architecture": row.architecture,
            "model_type": row.model_type,
            "models": row.models,
            "engine": _engine(row),
            "llmapi": _llmapi(row),
            "pictures": row.sees,
        }
        for row in MODELS.values()
    ]


def _engine(row: Model) -> str | None:
    if not row.family:
        return None
    return f"{_first(row.engine)} to {max(r for r, s in RELEASES.items() if s.version[:2] <= LAST_ENGINE_VERSION)}"


def _llmapi(row: Model) -> str | None:
    if row.pytorch is None or row.purpose:
        return None
    return f"from {_first(max(row.pytorch, FIRST_LLMAPI_VERSION))}"


def _first(version: Version) -> str:
    return min(release for release, stack in RELEASES.items() if stack.version >= version)


def model_table() -> str:
    """The same as aligned lines."""
    head = ("architecture", "engine", "llmapi", "models")
    rows = [
        (row["architecture"], row["engine"] or "-", row["llmapi"] or "-", row["models"])
        for row in model_rows()
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(3)]
    lines = [
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in (head, *rows)
    ]
    return "\n".join(lines) + "\n"
