"""The pictures of the page of `tritonhost report`, as inline SVG: states, GPU memory, and when which verdict was recorded. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from operations.plan.html_page import label, picture, plain_text
from operations.plan.report import MemoryParts, ReleaseKept
from operations.plan.status import STATES, HostStatus
from operations.plan.units import MIB, gib

STYLE = """
.serving, .proven { fill: var(--good); } .starting { fill: var(--one); } .differs, .withdrawn { fill: var(--two); }
.down, .failed { fill: var(--bad); } .not-deployed, .unknown { fill: var(--line); } .unreachable { fill: var(--lost); }
.weights { fill: var(--one); } .activations { fill: var(--two); } .context { fill: var(--line); } .cache { fill: var(--good); }
.measured { fill: var(--text); } .limit { stroke: var(--bad); stroke-width: 2; stroke-dasharray: 5 3; }
.dot { display: inline-block; width: .75em; height: .75em; vertical-align: baseline; }
"""

_WIDTH = 600
_PARTS = (
    ("weights", "weights"),
    ("activations", "activations"),
    ("context", "CUDA and NCCL"),
    ("cache", "KV cache"),
)
_MOST_VERDICTS = 12  # lanes of a picture, the newest
_LANE, _FROM, _TO = 26, 220, 580


def css_of(word: str) -> str:
    """The class of a state or of an outcome."""
    known = (*STATES, "proven", "failed", "withdrawn")
    return word.replace(" ", "-") if word in known else "unknown"


def dot(css: str) -> str:
    """A dot of a colour, beside a word that says the same."""
    return f'<svg class="dot" viewBox="0 0 10 10" aria-hidden="true"><circle class="{css}" cx="5" cy="5" r="5"/></svg>'


def states(hosts: Sequence[HostStatus]) -> str:
    """One bar: which part of the hosts is in which state, with a legend."""
    counts = Counter(host.state for host in hosts)
    parts, x = [], 0.0
    legend = []
    for state in STATES:
        if count := counts[state]:
            width = _WIDTH * count / len(hosts)
            # a gap between two neighbours, which may look alike where there is no colour
            parts.append(
                f'<rect class="{css_of(state)}" x="{x:.4g}" y="0" width="{max(width - 2, 1):.4g}" height="18"/>'
            )
            legend.append(f"<span>{dot(css_of(state))} {count} {state}</span>")
            x += width
    said = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return f'{picture(said or "no hosts", _WIDTH, 18, parts)}<p class="legend">{"".join(legend)}</p>'


def memory(found: MemoryParts) -> str:
    """Two bars: the forecast in its parts, and what was measured, against the memory of one GPU; and the numbers."""
    most = max(found.gpu, found.forecast, found.measured or 0, 1)
    unit = (_WIDTH - 4) / most
    parts, x = [label(0, 16, f"forecast {_mib(found.forecast)}", "start")], 0.0
    for name, _ in _PARTS:
        width = getattr(found, name) * unit
        parts.append(_bar(name, x, 24, width))
        x += width
    height = 52
    if found.measured is not None:
        height = 104
        parts += [
            label(0, 70, f"measured {_mib(found.measured)}", "start"),
            _bar("measured", 0, 78, found.measured * unit),
        ]
    if found.gpu:
        at = found.gpu * unit
        parts += [
            f'<path class="limit" d="M{at:.4g} 20V{height - 4}"/>',
            label(_WIDTH - 4, 16, f"one GPU: {_mib(found.gpu)}", "end"),
        ]
    legend = "".join(
        f"<span>{dot(name)} {title} {_mib(getattr(found, name))}</span>" for name, title in _PARTS
    )
    if found.measured is not None:
        legend += f"<span>{dot('measured')} measured on the fullest GPU {_mib(found.measured)}{_deviation(found)}</span>"
    return f'{picture(_said(found), _WIDTH, height, parts)}<p class="legend">{legend}</p>'


def _bar(css: str, x: float, y: int, width: float) -> str:
    return f'<rect class="{css}" x="{x:.4g}" y="{y}" width="{max(width, 0.5):.4g}" height="20"/>'


def _mib(size: int) -> str:
    return gib(size * MIB)


def _deviation(found: MemoryParts) -> str:
    if not found.measured or not found.forecast:
        return ""
    return f" ({100 * (found.measured - found.forecast) / found.forecast:+.0f}%)"


def _said(found: MemoryParts) -> str:
    measured = "" if found.measured is None else f", measured {_mib(found.measured)}"
    return f"GPU memory: forecast {_mib(found.forecast)}{measured}"


def dated(releases: Sequence[ReleaseKept]) -> list[tuple[datetime, ReleaseKept]]:
    """The releases whose verdict has a time, the oldest first."""
    found = [(one.at, one) for one in releases if one.outcome and one.at]
    return sorted(found, key=lambda pair: pair[0])


def timeline(releases: Sequence[ReleaseKept]) -> str:
    """A lane for each release with a verdict, at its time; empty where there are fewer than two."""
    shown = dated(releases)[-_MOST_VERDICTS:]
    if len(shown) < 2:
        return ""
    first, last = shown[0][0], shown[-1][0]
    span = max((last - first).total_seconds(), 1.0)
    bottom = _LANE * len(shown)
    parts = []
    for number, (at, one) in enumerate(shown):
        y = _LANE * number + _LANE / 2
        x = _FROM + (_TO - _FROM) * (at - first).total_seconds() / span
        parts += [
            f'<path class="grid" d="M{_FROM} {y:.4g}H{_TO}"/>',
            label(0, y + 5, f"{plain_text(one.id[:8])} {plain_text(one.outcome[:12])}", "start"),
            _mark(one.outcome, x, y),
        ]
    parts += [
        f'<path class="axis" d="M{_FROM} {bottom}H{_TO}"/>',
        label(_FROM, bottom + 22, f"{first:%Y-%m-%d %H:%M}", "start"),
        label(_TO, bottom + 22, f"{last:%Y-%m-%d %H:%M}", "end"),
    ]
    return picture(f"{len(shown)} verdicts by their time", _WIDTH, bottom + 30, parts)


def _mark(outcome: str, x: float, y: float) -> str:
    """A circle, and for what is not proven another form: a colour alone does not say it."""
    css = css_of(outcome)
    if css == "proven":
        return f'<circle class="{css}" cx="{x:.4g}" cy="{y:.4g}" r="7"/>'
    if css == "failed":
        return f'<path class="{css}" d="M{x - 8:.4g} {y + 7:.4g}h16l-8 -14z"/>'
    return f'<rect class="{css}" x="{x - 6:.4g}" y="{y - 6:.4g}" width="12" height="12"/>'
