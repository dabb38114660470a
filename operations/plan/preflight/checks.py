"""The preflight: everything that does not fit, at once, before anything is changed. Pure: it judges what was observed.

A check is `failed` where a deployment cannot or must not go on, a `warning` where it can and somebody should know, and
`not checked`, with the reason, where what it needs could not be read: that is no pass. A failed check whose cause may pass
by itself does not keep a deploy from beginning: its own steps ask again, wait, and say what they miss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from operations.plan.errors import PlanError, one_line
from operations.plan.observed.health import Verdict
from operations.plan.preflight.check import Check, Checks, Subject
from operations.plan.preflight.gpus import of_driver, of_gpus, of_links, of_shape, of_xids
from operations.plan.preflight.host import of_clock, of_host, of_settings
from operations.plan.preflight.sources import PASSING, of_network
from operations.plan.preflight.space import of_space


def checks(subject: Subject) -> list[Check]:
    """Every check of a host, in the order of `CHECKS`; what the inventory waives is a warning."""
    found = [check for judge in _JUDGES for check in judge(subject)]
    waived = set(subject.settings.preflight_waived)
    return [_waived(check) if check.name in waived else check for check in found]


def _waived(check: Check) -> Check:
    if check.verdict != "failed":
        return check
    return replace(
        check, verdict="warning", then=f"{check.then}; waived by preflight_waived".removeprefix("; ")
    )


def of_deploy(found: Sequence[Check]) -> list[Check]:
    """The same, as a deploy takes them: a fault that may pass by itself keeps it from nothing."""
    return [
        replace(check, verdict="warning")
        if check.name in PASSING and check.verdict == "failed" and not check.lasting
        else check
        for check in found
    ]


def status(found: Sequence[Check]) -> Verdict:
    """The worst of the verdicts; a check that was not made counts for more than a warning."""
    order: tuple[Verdict, ...] = ("failed", "not checked", "warning")
    return next((verdict for verdict in order if any(c.verdict == verdict for c in found)), "ok")


def exit_code(statuses: Sequence[str]) -> int:
    """0: no check failed; 3: a check failed; 5: a host was not reached; 4: a check was not made, and none failed."""
    for word, code in (("failed", 3), ("unreachable", 5), ("not checked", 4)):
        if word in statuses:
            return code
    return 0


def table(found: Sequence[Check], verdicts: Sequence[Verdict] = ()) -> list[str]:
    """The checks as aligned rows; `verdicts`: only those."""
    rows = [("verdict", "check", "found", "expected; what to do")]
    for check in found:
        if not verdicts or check.verdict in verdicts:
            advice = "; ".join(filter(None, (check.expected, check.then)))
            # what a host says of itself may hold what a terminal obeys
            rows.append((check.verdict, check.name, one_line(check.found), one_line(advice)))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    widths.append(min(max(len(row[2]) for row in rows), 60))
    return [
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3])).rstrip()
        for row in rows
    ]


_JUDGES: tuple[Callable[[Subject], Checks], ...] = (
    *(of_host, of_shape, of_driver),
    *(of_gpus, of_xids, of_links),
    *(of_space, of_clock, of_network, of_settings),
)


def as_json(
    hosts: Mapping[str, tuple[str, Sequence[Check], float, str]],
    errors: Mapping[str, PlanError] | None = None,
) -> dict[str, Any]:
    """
    The report for a program; its keys stay.

    + hosts: name -> status, checks, seconds, and what is wrong where there are no checks
    + errors: name -> the error that the last of these was made of, where it was one of the plan
    """
    known = errors or {}
    return {
        "hosts": {
            name: {
                "status": state,
                "problem": problem,
                "error": known[name].as_dict() if name in known else None,
                "checks": [check.as_dict() for check in found],
                "seconds": round(seconds, 2),
            }
            for name, (state, found, seconds, problem) in hosts.items()
        }
    }
