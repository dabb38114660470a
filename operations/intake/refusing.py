"""Refuse to go on with one line, before any host is connected to. Needs no pyinfra: programs without it refuse the same way."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from operations.plan.errors import PlanError


@contextmanager
def refusing(as_json: bool = False) -> Iterator[None]:
    """
    End the program with a PlanError's one line and exit code 2, before pyinfra connects anywhere.

    + as_json: for a program, its parts on standard output too
    """
    try:
        yield
    except PlanError as error:
        print(f"tritonhost: {error}", file=sys.stderr)
        if as_json:
            print(json.dumps({"error": error.as_dict()}, indent=2))
        raise SystemExit(2) from None
