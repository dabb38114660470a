"""The installed package: a command, and the way from a project's directory to the code.

The code is `operations` with the files that it reads, as in the checkout. A wheel carries them in tritonhost/_tree. That
directory is put on sys.path when it is needed, so that site-packages gets no package with the common name `operations`.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

__version__ = "0.2.0.dev0"  # the one place: CONTRIBUTING.md has the rule
PROJECT = "TRITONHOST_PROJECT"  # the variable that operations/plan/paths.py reads; child processes inherit it


@cache
def tree() -> Path:
    """The directory with operations/, templates/ and files/: in the package where it is installed, else the checkout."""
    here = Path(__file__).resolve().parent
    carried = here / "_tree"
    return carried if carried.is_dir() else here.parent


def use(project: Path | None) -> None:
    """
    The code can be imported, and finds a project's files before those that are shipped.

    + project: the project's directory; None: only what is shipped
    """
    if project is None:
        os.environ.pop(PROJECT, None)
    else:
        os.environ[PROJECT] = str(project)
    if str(tree()) not in sys.path:
        sys.path.insert(0, str(tree()))


def run(name: str, module: dict[str, Any]) -> None:
    """
    Execute a file of the installed version in a project's file of the same name.

    + name: relative to the project, such as inventories/oci.py
    + module: globals() of the project's file; its __file__ stays, so that the code reads what lies beside it
    """
    use(Path(module["__file__"]).resolve().parents[name.count("/")])
    exec(_code(tree() / name), module)


@cache
def _code(path: Path) -> CodeType:
    return compile(path.read_text(encoding="utf-8"), str(path), "exec")
