"""Which hosts are exposed: their versions against the floors and the bulletins, and what would close it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import cast, get_args

from packaging.version import InvalidVersion, Version

from operations.plan.audit.bulletins import Affected, Feed
from operations.plan.audit.fleet import WITHOUT_BULLETINS, Entry, Fleet, Found
from operations.plan.catalog.version_floors import (
    FLOORS,
    Component,
    Floor,
    Waiver,
    ended,
    not_reached,
)
from operations.plan.inventory.services import machine_of

EXPOSED, WAIVED, ADVISED = "exposed", "waived", "advice"
_ORDER = (EXPOSED, WAIVED, ADVISED)
_KNOWN: tuple[str, ...] = get_args(Component)


@dataclass(frozen=True)
class Finding:
    """
    One version on one host that one bulletin speaks of.

    + host: with its service, where the component is a service's own
    + where: what says that the version is there
    + cvss: the highest base score of its vulnerabilities that the version has; None: none is known
    + fixed: the least version without them, or what is to be done
    + status: exposed, waived, or advice: the floors do not require the fix, and say why in `note`
    + waiver: the last day of a waiver for this version, also of one that is over
    """

    host: str
    component: Component
    version: str
    where: str
    bulletin: str
    published: date
    cvss: float | None
    cves: tuple[str, ...]
    fixed: str
    status: str = EXPOSED
    waiver: date | None = None
    note: str = ""

    @property
    def rank(self) -> tuple[object, ...]:
        """Sorts the worst first: what is exposed, by its score; a bulletin without one behind those that have one."""
        score = -1.0 if self.cvss is None else self.cvss
        newest = -self.published.toordinal()
        return (
            _ORDER.index(self.status),
            -score,
            newest,
            self.host,
            self.component,
            self.version,
            self.bulletin,
        )


@dataclass(frozen=True)
class Audit:
    """
    The answer.

    + findings: the worst first
    + unread: host -> why it could not be read, or what of it
    + uncompared: versions that no bulletin is read for, or that are no versions
    + notes: what is to be known besides, such as a branch of the driver that has ended
    """

    findings: tuple[Finding, ...]
    unread: Mapping[str, str]
    uncompared: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def exposed(self) -> tuple[str, ...]:
        """The hosts, without their services, that are exposed."""
        return tuple(dict.fromkeys(machine_of(one.host) for one in self.findings if one.status == EXPOSED))

    @property
    def exit_code(self) -> int:
        """1: something is exposed; 2: nothing is, as far as the hosts could be read; 0: nothing is."""
        if self.exposed:
            return 1
        return 2 if self.unread else 0


def audit(fleet: Fleet, feed: Feed, today: date) -> Audit:
    """What of the hosts is exposed on a day."""
    findings: dict[tuple[str, str, str, str], Finding] = {}
    uncompared: dict[str, None] = {}
    notes: dict[str, None] = {}
    for entry in fleet.hosts:
        for found in entry.components:
            place = entry.place(found.component)
            if found.component not in _KNOWN or not _is_version(found.version):
                uncompared[_uncompared(place, found)] = None
                continue
            for one in findings_of(found, place, feed, entry.wanted.waivers, today):
                key = (one.host, one.component, one.version, one.bulletin)
                # of what services share, a waiver holds where each of them has it
                if key not in findings or findings[key].status != EXPOSED:
                    findings[key] = one
            if found.component == "driver" and (said := ended(found.version, today)):
                notes[f"{place}: {said}"] = None
        if not entry.problem and not entry.release:
            notes[f"{entry.host}: no release of this tool runs"] = None
    unread = {entry.host: entry.problem for entry in fleet.hosts if entry.problem}
    ordered = tuple(sorted(findings.values(), key=lambda finding: finding.rank))
    return Audit(ordered, unread, tuple(uncompared), tuple(notes))


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def _uncompared(place: str, found: Found) -> str:
    why = (
        "no bulletins are read for it" if found.component in WITHOUT_BULLETINS else "not a version in numbers"
    )
    return f"{place}: {found.component} {found.version}: {why}"


def findings_of(
    found: Found, place: str, feed: Feed, waivers: Sequence[Waiver], today: date
) -> Iterator[Finding]:
    """
    What the bulletins and the floors say of one version; each bulletin once.

    + place: the host, or the service of it
    """
    component = cast(Component, found.component)
    floors = not_reached(component, found.version)
    by_bulletin = {finding.bulletin: finding for finding in _of_feed(found, component, place, feed)}
    for floor in floors:
        if floor.bulletin not in by_bulletin:
            by_bulletin[floor.bulletin] = _of_floor(found, component, place, floor)
    for finding in by_bulletin.values():
        yield _judged(finding, floors, waivers, today)


def _of_feed(found: Found, component: Component, place: str, feed: Feed) -> Iterator[Finding]:
    for entry in feed.bulletins:
        ranges = [one for one in entry.affects if one.component == component and one.holds(found.version)]
        if not ranges:
            continue
        scores = {cve: score for one in ranges for cve, score in one.cves.items()}
        worst = sorted(scores, key=lambda cve: (-(scores[cve] or 0), cve))
        known = [score for score in scores.values() if score is not None]
        yield Finding(
            place,
            component,
            found.version,
            found.where,
            entry.bulletin,
            entry.published,
            max(known, default=None),
            tuple(worst),
            _fixed(ranges),
        )


def _fixed(ranges: Sequence[Affected]) -> str:
    versions = [one.fixed for one in ranges]
    if all(versions):
        return max(versions, key=Version)
    return next((one.remedy for one in ranges if one.remedy), "no fix named")


def _of_floor(found: Found, component: Component, place: str, floor: Floor) -> Finding:
    """What a floor says that no bulletin of the feed does: of docker and nginx, or of a branch without a fix."""
    score = re.search(r"CVSS (?:up to )?([0-9]+\.[0-9])", floor.why)
    return Finding(
        place,
        component,
        found.version,
        found.where,
        floor.bulletin,
        date.fromisoformat(floor.published),
        float(score[1]) if score else None,
        tuple(re.findall(r"CVE-[0-9]{4}-[0-9]+", floor.why)),
        _of_branches(floor)
        if floor.branch and found.version.split(".")[0] != floor.branch
        else floor.minimum,
    )


def _of_branches(floor: Floor) -> str:
    least = [
        other.minimum
        for other in FLOORS
        if (other.component, other.bulletin) == (floor.component, floor.bulletin)
    ]
    return " or ".join(least)


def _judged(finding: Finding, floors: Sequence[Floor], waivers: Sequence[Waiver], today: date) -> Finding:
    """With its status: a waiver for this version; or a floor that covers the fix and does not require it."""
    fitting = [w for w in waivers if (w.component, w.version) == (finding.component, finding.version)]
    until = max((waiver.until for waiver in fitting), default=None)
    advice = _advice(finding, floors)
    if advice is not None:
        return replace(finding, status=ADVISED, waiver=until, note=advice.advice)
    if until is not None and until >= today:
        reason = max(fitting, key=lambda waiver: waiver.until).reason
        return replace(finding, status=WAIVED, waiver=until, note=reason)
    return replace(finding, waiver=until)


def _advice(finding: Finding, floors: Sequence[Floor]) -> Floor | None:
    """
    The floor whose advice covers a bulletin: its own, or one whose least version has the fix too.

    None where a floor that is required has it as well.
    """
    covering = [
        floor for floor in floors if floor.bulletin == finding.bulletin or _covers(floor, finding.fixed)
    ]
    if not covering or any(not floor.advice for floor in covering):
        return None
    return covering[0]


def _covers(floor: Floor, fixed: str) -> bool:
    return _is_version(fixed) and Version(floor.minimum) >= Version(fixed)


def by_version(findings: Iterable[Finding]) -> list[tuple[Finding, int, str]]:
    """The worst finding of each version on each host, the number of the others, and the version that closes all of them."""
    grouped: dict[tuple[str, str, str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda finding: finding.rank):
        grouped.setdefault((finding.status, finding.host, finding.component, finding.version), []).append(
            finding
        )
    return [(group[0], len(group) - 1, highest_fix(group)) for group in grouped.values()]


def highest_fix(findings: Sequence[Finding]) -> str:
    """The version that has every fix; words, where one of them has no number."""
    others = [finding.fixed for finding in findings if not _is_version(finding.fixed)]
    return others[0] if others else max((finding.fixed for finding in findings), key=Version)


def is_exposed(found: Iterable[tuple[str, str]], feed: Feed, today: date) -> bool:
    """Whether one of these versions would be exposed without a waiver."""
    return any(
        finding.status == EXPOSED
        for component, version in found
        for finding in findings_of(Found(component=component, version=version), "", feed, (), today)
    )


def entries_with(fleet: Fleet, findings: Iterable[Finding], components: Iterable[str]) -> list[Entry]:
    """The entries that have an exposed version of one of these components."""
    places: set[tuple[str, str]] = {(one.host, one.component) for one in findings if one.status == EXPOSED}
    wanted = set(components)
    return [
        entry
        for entry in fleet.hosts
        if {
            (entry.place(one.component), one.component) for one in entry.components if one.component in wanted
        }
        & places
    ]
