"""The long work that runs on a host now, as files/host/at_work.sh reads it."""

from __future__ import annotations

from operations.facts.parse import sections
from operations.plan.progress import Work
from operations.scripts import host_script

_PART = "\x1f"


def command() -> str:
    """The shell text: it needs nothing and changes nothing."""
    return host_script("at_work.sh", {})


def at_work(output: list[str]) -> tuple[Work, ...]:
    """The script's output. Raises ValueError if it is truncated."""
    part = sections(output)
    if "end" not in part:
        raise ValueError("the answer ends early")
    uptime = _number("".join(part.get("uptime", [])))
    found = []
    for chunk in "\n".join(part.get("work", [])).split(_PART)[1:]:
        unit, _, rest = chunk.partition("\n")
        began, _, journal = rest.partition("\n")
        lines = [line for line in journal.splitlines() if line.strip()]
        # of a progress bar, what it shows last
        said = lines[-1].rstrip("\r").rpartition("\r")[2] if lines else ""
        found.append(Work(unit.strip(), max(0.0, uptime - _number(began) / 1e6), said.strip()))
    return tuple(found)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
