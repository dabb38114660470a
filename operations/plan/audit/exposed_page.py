"""The answer of `tritonhost exposure` as a table and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import date
from textwrap import wrap
from typing import Any

from operations.plan.audit.bulletins import DAYS, Feed
from operations.plan.audit.exposed import ADVISED, WAIVED, Audit, Finding, by_version
from operations.plan.audit.fleet import Fleet
from operations.plan.audit.pins import Proposal

FORMAT = 1
RUNNING = "running"
HEADS = ("host", "component", "version", "bulletin", "CVSS", "fixed in", "waiver")


def page(
    fleet: Fleet,
    feed: Feed,
    found: Audit,
    proposed: Sequence[Proposal],
    today: date,
    where: str = "",
    every: bool = False,
) -> list[str]:
    """
    The lines for an operator.

    + where: the feed's file
    + every: a row for each bulletin, and not one for each version
    """
    lines = [*_feed(feed, today, where), *_hosts(fleet, found), ""]
    rows: list[tuple[str, ...]] = [
        (one.host, "read in part" if one.components else "not read", *[""] * (len(HEADS) - 2))
        for one in fleet.hosts
        if one.problem
    ]
    rows += [_row(*group) for group in _groups(found.findings, every)]
    lines += _aligned([HEADS, *rows]) if rows else ["nothing is exposed"]
    lines += _section("not read", (f"{name}: {problem}" for name, problem in found.unread.items()))
    lines += _section("proposed pins", (line for one in proposed for line in _proposal(one)))
    lines += _section("waived", _notes(found.findings, WAIVED))
    lines += _section("not required", _notes(found.findings, ADVISED))
    lines += _section("to be known", (*found.notes, *_unread(feed)))
    return [*lines, *_section("not compared", found.uncompared)]


def _feed(feed: Feed, today: date, where: str) -> list[str]:
    days = feed.age(today)
    old = f"; more than {DAYS} days: make it again with --update-feed" if feed.old(today) else ""
    newest = f", the newest of {feed.newest}" if feed.newest else ""
    lines = [f"bulletins of {feed.collected}, {days} day{'' if days == 1 else 's'} old{newest}{old}"]
    said = f"{where}: {feed.source}" if where else feed.source
    return [*lines, *wrap(said, 120, initial_indent="  ", subsequent_indent="  ", break_long_words=False)]


def _unread(feed: Feed) -> list[str]:
    count = len(feed.unread)
    if not count:
        return []
    return [
        f"{count} sentence{'' if count == 1 else 's'} of the bulletins could not be read: `unread` of the feed's file"
    ]


def _hosts(fleet: Fleet, found: Audit) -> list[str]:
    machines = {entry.machine for entry in fleet.hosts}
    lost = f", {len(found.unread)} not read" if found.unread else ""
    at = fleet.observed.isoformat(timespec="minutes")
    return [
        f"{len(machines)} host{'' if len(machines) == 1 else 's'} of {at}: {len(found.exposed)} exposed{lost}"
    ]


def _groups(findings: Sequence[Finding], every: bool) -> list[tuple[Finding, int, str]]:
    return [(one, 0, one.fixed) for one in findings] if every else by_version(findings)


def _row(worst: Finding, others: int, fixed: str) -> tuple[str, ...]:
    # docker's packages may be newer than what runs
    engine = (worst.component, worst.where) == ("docker-ce", RUNNING)
    version = f"{worst.version} ({RUNNING})" if engine else worst.version
    bulletin = f"{worst.bulletin} and {others} more" if others else worst.bulletin
    score = "" if worst.cvss is None else f"{worst.cvss:.1f}"
    return (worst.host, worst.component, version, bulletin, score, fixed, _waiver(worst))


def _waiver(finding: Finding) -> str:
    if finding.status == ADVISED:
        return "not required"
    if finding.waiver is None:
        return ""
    return f"{'until' if finding.status == WAIVED else 'ended'} {finding.waiver}"


def _notes(findings: Iterable[Finding], status: str) -> list[str]:
    return list(
        dict.fromkeys(
            f"{one.component} {one.version}: {one.note}" for one in findings if one.status == status
        )
    )


def _proposal(one: Proposal) -> list[str]:
    about = f"{', '.join(one.components)} on {', '.join(one.hosts)}"
    if not one.key:
        return [f"{about}: {one.note}"]
    if isinstance(one.value, dict) and not one.there:
        pins = [f"    {name} = {version or 'any version'}" for name, version in one.value.items()]
        return [f"{about}: {one.key} of {one.place}: {one.note}", *pins]
    value = f' = "{one.value}"' if isinstance(one.value, str) else ""
    return [f"{about}: {one.key}{value} of {one.place}: {one.note}"]


def _section(title: str, lines: Iterable[str]) -> list[str]:
    listed = [f"  {line}" for line in lines]
    return ["", f"{title}:", *listed] if listed else []


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def as_json(
    fleet: Fleet, feed: Feed, found: Audit, proposed: Sequence[Proposal], today: date, where: str = ""
) -> dict[str, Any]:
    """The same for a program, each bulletin on its own; its keys are stable."""
    return {
        "format": FORMAT,
        "exit_code": found.exit_code,
        "feed": {
            "date": feed.collected.isoformat(),
            "age_days": feed.age(today),
            "old": feed.old(today),
            "newest": feed.newest,
            "file": where,
            "source": feed.source,
            "unread": list(feed.unread),
        },
        "observed": fleet.observed.isoformat(),
        "hosts": [
            {
                "host": entry.host,
                "problem": entry.problem,
                "release": entry.release,
                "components": [one.model_dump() for one in entry.components],
            }
            for entry in fleet.hosts
        ],
        "findings": [_finding(one) for one in found.findings],
        "proposed": [asdict(one) for one in proposed],
        "not_compared": list(found.uncompared),
        "notes": list(found.notes),
    }


def _finding(one: Finding) -> dict[str, Any]:
    table = asdict(one)
    return {
        **table,
        "published": one.published.isoformat(),
        "waiver": one.waiver.isoformat() if one.waiver else None,
    }
