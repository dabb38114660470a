"""The project's own model repositories, migrations and documents: files/model_repository, files/database, files/documents.

They are read here and not on the host, because their content is part of a release's id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from operations.plan.catalog.values import Value
from operations.plan.errors import PlanError
from operations.plan.paths import PROJECT, TREE
from operations.plan.profile.model_repository import fill

FILES = TREE / "files"


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
    # one text for two places: the code that prepares a request also prepares the calibration data
    for path in [path for path in found if path.endswith("_preprocessing/1/model.py")]:
        found[path.replace("model.py", "encoder_inputs.py")] = image_file("encoder_inputs.py")
    return found


@cache
def image_file(name: str, kind: str = "plan") -> str:
    """A file of files/image. + kind: of the profile whose image it is for"""
    return (FILES / "image" / kind / name).read_text("utf-8")


@cache
def programs(kind: str) -> tuple[str, ...]:
    """The names of the Python files of files/image/<kind>."""
    return tuple(sorted(path.name for path in (FILES / "image" / kind).glob("*.py")))


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
    """files/documents/<name>.jsonl. Raises PlanError if there is no such file."""
    own = PROJECT / "files" / "documents" / f"{name}.jsonl"
    path = own if own.is_file() else FILES / "documents" / own.name
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise PlanError("documents.seed", name, "a file in files/documents", str(error.strerror)) from None
