"""The page of `tritonhost report`: one HTML file that fetches nothing and runs nothing. Pure: data to text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import NamedTuple

from operations.plan.audit.exposed import ADVISED, WAIVED
from operations.plan.html_page import NONE, cards, document, plain_text, visible
from operations.plan.report import Exposure, ExposureRow, HostReport, ReleaseKept, Report, Run
from operations.plan.report_pictures import STYLE, css_of, dot, memory, states, timeline
from operations.plan.status import DifferenceFound, HostStatus, summary

_STYLE = """
:root { --good: #1a7f37; --lost: #8250df; }
@media (prefers-color-scheme: dark) { :root { --good: #4ac26b; --lost: #bc8cff; } }
a { color: inherit; } h3 { font-size: 1rem; margin: 1rem 0 .2rem; } .n { white-space: nowrap; }
details { border-bottom: 1px solid var(--faint); padding: .5rem 0; } summary { cursor: pointer; }
summary .name { font-weight: 600; } details > div { padding: .2rem 0 .8rem 1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .5rem 0; } dt { color: var(--quiet); } dd { margin: 0; }
@media (max-width: 44rem) { details > div { padding-left: 0; } dl { display: block; } dd { margin: 0 0 .3rem; }
  .cards td { display: flex; gap: .8rem; } .cards td::before { flex: 0 0 6.5rem; } .cards .none { display: none; } }
@media (min-width: 72rem) { .w { white-space: nowrap; } th { overflow-wrap: normal; } }
@media print {
  :root { --good: #1a7f37; --lost: #8250df; }
  details::details-content { content-visibility: visible; display: block; }
}
"""
LARGEST = 2_000_000  # bytes of a page
# Rows of one table, and characters of one text: the first that make a page small enough
_SIZES = ((40, 400), (10, 100), (5, 60), (2, 30), (0, 12))
_LONGEST_NAME = 120  # characters
_ONE_WORD = 20  # characters of a name or an id that stands on one line where there is room
_OPEN = 4  # a page of so few hosts shows their details at once


def page(report: Report) -> str:
    """The page, with as much of long lists and texts as keeps it small."""
    made = ""
    for rows, characters in _SIZES:
        made = _page(report, _Bounds(rows, characters, len(report.hosts) <= _OPEN))
        if len(made.encode()) <= LARGEST:
            break
    return made


def _page(report: Report, bounds: _Bounds) -> str:
    statuses = [host.status for host in report.hosts]
    title = f"{plain_text(_cut(report.inventory, _LONGEST_NAME))}, {_time(report.at)} UTC"
    body = [
        f"<h1>{title}</h1><p>{escape(summary(statuses))}.</p>",
        states(statuses) if statuses else "",
        _run(report.run, bounds) if report.run else "",
        f"<h2>Hosts</h2>{_hosts(statuses, bounds)}",
        _exposure(report.exposure) if report.exposure else "",
        "<h2>Each host</h2>",
        *(_host(number, host, report, bounds) for number, host in enumerate(report.hosts, start=1)),
    ]
    return document(title, "".join(body), STYLE + _STYLE)


class _Bounds(NamedTuple):
    """How much is shown. + rows: of one table; characters: of one text; opened: whether a host's details are"""

    rows: int
    characters: int
    opened: bool

    def said(self, text: str) -> str:
        """HTML of a text that a host or a library wrote."""
        css = ' class="w"' if len(text) <= _ONE_WORD and " " not in text else ""
        return f'<span{css} dir="auto">{visible(_cut(text, self.characters))}</span>' if text else NONE

    def rest(self, count: int, of: str) -> str:
        """What is not shown of a list."""
        left = count - self.rows
        return f'<p class="quiet">… and {left} more {of}</p>' if left > 0 else ""


def _cut(text: str, longest: int) -> str:
    return f"{text[: longest - 1]}…" if len(text) > longest else text


def _name(text: str) -> str:
    css = ' class="w"' if len(text) <= _ONE_WORD else ""
    return f"<bdi{css}>{visible(_cut(text, _LONGEST_NAME))}</bdi>"


def _short(text: str) -> str:
    """A word or a time of ours, which is not broken over two lines."""
    return f'<span class="n">{visible(text)}</span>' if text else NONE


def _state(word: str) -> str:
    css = ' class="n"' if len(word) <= _ONE_WORD else ""
    return f"<span{css}>{dot(css_of(word))} {visible(_cut(word, _LONGEST_NAME))}</span>"


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _moment(text: str) -> str:
    """A time of a status, 2026-11-21T04:00:00Z, for a reader."""
    return text[:16].replace("T", " ")


# --- the fleet


def _hosts(hosts: Sequence[HostStatus], bounds: _Bounds) -> str:
    heads = ("host", "state", "release", "model", "since (UTC)", "verdict", "differs", "remark")
    return cards(heads, (_host_row(number, host, bounds) for number, host in enumerate(hosts, start=1)))


def _host_row(number: int, host: HostStatus, bounds: _Bounds) -> tuple[str, ...]:
    work = [unit.removeprefix("tritonhost-").removesuffix(".service") for unit in host.at_work]
    remark = "; ".join(filter(None, [*work, host.problem]))
    return (
        f'<a href="#h{number}">{_name(host.name)}</a>',
        _state(host.state),
        bounds.said(host.release.running or host.release.current),
        bounds.said(host.model),
        _short(_moment(host.since)),
        _state(host.verdict.outcome) if host.verdict else NONE,
        "?" if host.differences is None else str(len(host.differences)),
        bounds.said(remark),
    )


def _run(run: Run, bounds: _Bounds) -> str:
    seconds = max(0, round((run.ended - run.began).total_seconds()))
    failed = sum(one.failed for one in run.hosts)
    heads = ("host", "result", "release", "what the run says", "differences before")
    rows = (
        (
            _name(one.host),
            _state("failed") if one.failed else _short("done"),
            bounds.said(one.release),
            bounds.said(one.status),
            "?" if one.differences is None else str(len(one.differences)),
        )
        for one in run.hosts
    )
    lists = "".join(
        f"<details><summary>{_name(one.host)}: {_many(len(one.differences), 'difference')} before the run</summary>"
        f"<div>{_differences([each.as_found() for each in one.differences], bounds)}</div></details>"
        for one in run.hosts
        if one.differences
    )
    ended = f"{_time(run.began)} to {_time(run.ended)} UTC, {seconds // 60}:{seconds % 60:02} minutes"
    return (
        f"<h2>The run</h2><p>{ended}: {_many(len(run.hosts), 'host')}, {failed} failed.</p>"
        f"{cards(heads, rows)}{lists}"
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _exposure(found: Exposure) -> str:
    hosts = ", ".join(map(_name, found.exposed))
    said = f"<p>Exposed: {hosts}.</p>" if found.exposed else "<p>Nothing that was compared is exposed.</p>"
    unread = "".join(
        f'<p class="bad">{_name(name)}: not read: <span dir="auto">{visible(_cut(problem, 200))}</span></p>'
        for name, problem in found.unread.items()
    )
    return f'<h2>Exposure</h2>{said}<p class="quiet">{escape(found.feed)}</p>{unread}'


# --- one host


def _host(number: int, host: HostReport, report: Report, bounds: _Bounds) -> str:
    status = host.status
    parts = [_facts(host, report.at, bounds)]
    if status.differences:
        parts.append(f"<h3>Differences</h3>{_differences(status.differences, bounds)}")
    if host.memory:
        of = f", measured of release {visible(host.memory.measured_of)}" if host.memory.measured_of else ""
        parts.append(f"<h3>GPU memory, forecast of the inventory's release{of}</h3>{memory(host.memory)}")
    if host.releases:
        parts.append(
            f"<h3>Releases and gates</h3>{timeline(host.releases)}{_releases(host.releases, bounds)}"
        )
    if report.exposure and (rows := report.exposure.of(status)):
        parts.append(f"<h3>Exposure</h3>{_exposed(rows, bounds)}")
    opened = " open" if bounds.opened else ""
    return (
        f'<details id="h{number}"{opened}><summary><span class="name">{_name(status.name)}</span> {_state(status.state)}</summary>'
        f"<div>{''.join(parts)}</div></details>"
    )


def _facts(host: HostReport, at: datetime, bounds: _Bounds) -> str:
    status, ids = host.status, host.status.release
    gpus: dict[tuple[str, int, str], int] = {}
    for gpu in status.gpus:
        key = (gpu.name, gpu.memory_mib, gpu.driver)
        gpus[key] = gpus.get(key, 0) + 1
    rows: list[tuple[str, Iterable[str]]] = [
        ("problem", [status.problem]),
        ("model", [status.model]),
        ("running model", [status.running_model if status.running_model != status.model else ""]),
        ("running release", [ids.running]),
        ("starts at boot", [ids.current if ids.current != ids.running else ""]),
        ("previous release", [ids.previous]),
        ("inventory's release", [ids.wanted]),
        ("since", [f"{_moment(status.since)} UTC" if status.since else ""]),
        (
            "GPUs",
            [f"{count} x {name}, {mib} MiB, driver {driver}" for (name, mib, driver), count in gpus.items()],
        ),
        ("versions", [", ".join(f"{name} {version}" for name, version in host.versions)]),
        ("certificate", [_certificate(status.certificate_ends, at)]),
        ("at work", status.at_work),
    ]
    cells = ((title, "<br>".join(bounds.said(text) for text in texts if text)) for title, texts in rows)
    return f"<dl>{''.join(f'<dt>{title}</dt><dd>{cell}</dd>' for title, cell in cells if cell)}</dl>"


def _certificate(ends: str, at: datetime) -> str:
    if not ends:
        return ""
    days = (datetime.fromisoformat(ends) - at).days
    return f"ends {_moment(ends)} UTC, " + (f"in {_many(days, 'day')}" if days >= 0 else "which is over")


def _differences(rows: Sequence[DifferenceFound], bounds: _Bounds) -> str:
    heads = ("stage", "what", "found", "wanted")
    shown = (tuple(bounds.said(getattr(row, name)) for name in heads) for row in rows[: bounds.rows])
    return cards(heads, shown) + bounds.rest(len(rows), "differences: tritonhost status --json has all")


def _releases(releases: Sequence[ReleaseKept], bounds: _Bounds) -> str:
    heads = ("release", "now", "verdict", "at (UTC)", "why", "loaded in", "golden answer", "GPU memory")
    rows = (
        (
            bounds.said(one.id),
            ", ".join(one.places) or NONE,
            _state(one.outcome) if one.outcome else NONE,
            _short(_time(one.at) if one.at else ""),
            bounds.said(one.why),
            _measured(one.load_s, lambda value: f"{value:.1f} s"),
            _measured(one.answer_s, lambda value: f"{value:.2f} s"),
            _measured(one.gpu_mib, lambda value: f"{value:.0f} MiB"),
        )
        for one in releases[: bounds.rows]
    )
    return cards(heads, rows) + bounds.rest(len(releases), "releases")


def _measured(value: float | None, text: Callable[[float], str]) -> str:
    return NONE if value is None else _short(text(value))


def _exposed(rows: Sequence[ExposureRow], bounds: _Bounds) -> str:
    heads = ("component", "version", "bulletin", "CVSS", "fixed in", "accepted")
    shown = (
        (
            _short(row.component),
            bounds.said(row.version),
            escape(f"{row.bulletin} and {row.others} more" if row.others else row.bulletin),
            NONE if row.cvss is None else f"{row.cvss:.1f}",
            bounds.said(row.fixed),
            {WAIVED: f"until {escape(row.until)}", ADVISED: "not required"}.get(row.status, "no"),
        )
        for row in rows[: bounds.rows]
    )
    return cards(heads, shown) + bounds.rest(len(rows), "versions")
