"""A run's report as JSON, for programs that start runs: written once, when the run ends, to TRITONHOST_REPORT."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from operations.plan.difference_rows import Difference

VARIABLE = "TRITONHOST_REPORT"


def write(
    rows: Sequence[tuple[str, str, str]],
    failed: set[str],
    differences: Mapping[str, Sequence[Difference]],
    began: datetime,
) -> str:
    """
    Write the report atomically. Returns the problem in one line, or an empty string.

    + rows: host, release (empty: not known), status, as in the run's last table
    + failed: hosts that failed
    + differences: for each probed host, what was found and what is wanted; empty: the host was converged
    """
    given = os.environ.get(VARIABLE, "")
    if not given:
        return ""
    report = {
        "began": began.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "hosts": [
            {
                "host": name,
                "release": release,
                "status": status,
                "failed": name in failed,
                "differences": [asdict(one) for one in differences[name]] if name in differences else None,
            }
            for name, release, status in rows
        ],
    }
    path = Path(given)
    try:
        descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(report, indent=2) + "\n")
        os.replace(fresh, path)
    except OSError as error:
        return f"{VARIABLE}={given}: {error.strerror or error}; the report was not written; name a file in a directory that can be written"
    return ""
