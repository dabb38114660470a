"""The project's own model repositories, migrations and documents: files/model_repository, files/database, files/documents.

Read here and not on the host, because what they say is part of a release's id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from operations.plan.errors import PlanError
from operations.plan.model_repository import fill
from operations.plan.profile_tables import Value

FILES = Path(__file__).resolve().parents[2] / "files"


def names(family: str) -> list[str]:
    """The models of one repository, by name."""
    return sorted({path.split("/")[0] for path in _texts(family)})


def filled(family: str, values: Mapping[str, Value]) -> dict[str, str]:
    """One repository's files, the placeholders of every config.pbtxt filled: path -> text."""
    return {
        path: fill(path.split("/")[0], text, values) if path.endswith("/config.pbtxt") else text
        for path, text in _texts(family).items()
    }


@cache
def _texts(family: str) -> dict[str, str]:
    root = FILES / "model_repository" / family
    found = {
        str(path.relative_to(root)): path.read_text("utf-8")
        for path in sorted(root.rglob("*"))
        if path.suffix in (".py", ".pbtxt") and not path.name.startswith(".")
    }
    # one text for two places: what prepares a request also prepares the calibration data
    for path in [path for path in found if path.endswith("_preprocessing/1/model.py")]:
        found[path.replace("model.py", "encoder_inputs.py")] = image_file("encoder_inputs.py")
    return found


@cache
def image_file(name: str) -> str:
    """A script of files/image."""
    return (FILES / "image" / "plan" / name).read_text("utf-8")


@cache
def migrations() -> dict[int, str]:
    """The database's migrations, number -> SQL, from files/database/NNN_what.sql."""
    found = {}
    for path in sorted((FILES / "database").glob("*.sql")):
        if number := re.match(r"(\d{3})_", path.name):
            found[int(number[1])] = path.read_text("utf-8")
    return found


@cache
def documents(name: str) -> str:
    """files/documents/<name>.jsonl; raises PlanError where there is none."""
    path = FILES / "documents" / f"{name}.jsonl"
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise PlanError("documents.seed", name, "a file in files/documents", str(error.strerror)) from None
