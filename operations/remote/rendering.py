"""Texts of templates/, rendered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from operations.plan.difference_rows import FileStage
from operations.plan.paths import TREE

TEMPLATES = TREE / "templates"


@dataclass(frozen=True)
class HostFile:
    """
    One file as it should be; everybody may read it.

    + stage: whose rows of the table of differences it is among
    """

    stage: FileStage
    path: str
    text: str


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # no HTML here
    )


def rendered_text(template: str, **values: object) -> str:
    """A file of templates/, rendered."""
    return _environment().get_template(template).render(**values)


def unit_text(template: str, **values: object) -> str:
    """A unit of templates/, rendered."""
    return rendered_text(f"{template}.service.j2", **values)
