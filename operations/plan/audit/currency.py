"""Compare the support matrix, floors, branches, pins and shapes with what their publishers say. Pure.

operations/currency.py reads the publishers' pages and passes them on as text, JSON or versions; here they are parsed and
compared. A malformed page raises PageError: what cannot be compared has not passed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from packaging.version import InvalidVersion, Version

from operations.plan.catalog.support_matrix import StackRelease
from operations.plan.catalog.version_floors import BRANCHES, Branch, Component, Floor

# Products of NVIDIA's bulletins that have a floor; the driver's are those for Linux, by branch.
PRODUCTS: dict[str, Component] = {
    "Triton Inference Server": "triton",
    "TensorRT-LLM": "tensorrt-llm",
    "TensorRT": "tensorrt",
    "NVIDIA Container Toolkit": "nvidia-container-toolkit",
    "GeForce": "driver",
    "Tesla": "driver",
}
# Where the matrix differs from the compatibility page on purpose; the reason is beside its row.
DIFFERENT_ON_PURPOSE = {("24.05", "tensorrt")}
YEARS_MAINTAINED = {"lts": 3, "long term": 3, "production": 1, "new feature": 1}
MONTHS_OF_GRACE = 3


class PageError(ValueError):
    """Why a page cannot be compared: one line."""


@dataclass(frozen=True)
class Row:
    """One thing that has moved."""

    thing: str
    ours: str
    theirs: str
    source: str


@dataclass(frozen=True)
class Tables:
    """This project's tables."""

    releases: Mapping[str, StackRelease]
    floors: Sequence[Floor]
    # by repository, docker and toolkit: rpm -> [epoch:]version-release, {os_major} for the version of the system
    packages: Mapping[str, Mapping[str, str]]
    shapes: Iterable[str]
    plain: Mapping[str, StackRelease] = field(default_factory=dict)
    branches: Mapping[str, Branch] = field(default_factory=lambda: BRANCHES)


@dataclass(frozen=True)
class Fix:
    """The lowest version that a bulletin calls fixed; `branch` only for the driver."""

    component: Component
    minimum: str
    bulletin: str
    published: str
    branch: str = ""


# --- NVIDIA's bulletins


def bulletins(index: str) -> list[str]:
    """The numbers of the bulletins about our components, in the index of a year, CVE_index.csv."""
    try:
        head, *rows = csv.reader(index.splitlines(), delimiter=";")
        number, product = head.index("Bulletin"), head.index("Affected Product")
    except (csv.Error, ValueError):
        raise PageError("found no columns Bulletin and Affected Product, expected CVE_index.csv") from None
    found: dict[str, None] = {}
    for row in rows:
        if len(row) > max(number, product) and row[product] in PRODUCTS:
            if not re.fullmatch(r"[0-9]{1,6}", row[number]):
                raise PageError(f"found the bulletin {row[number][:20]!r}, expected a number")
            found[row[number]] = None
    return list(found)


def fixes(bulletin: Any, floors: Sequence[Floor] = ()) -> list[Fix]:
    """
    What a bulletin (CSAF 2.0) calls fixed: the highest version of each component and branch.

    + floors: a component of which only single versions are affected is skipped, unless one of them is a floor's
    """
    tracking = _get(_get(bulletin, "document"), "tracking")
    number, published = str(_get(tracking, "id")), str(_get(tracking, "current_release_date"))[:10]
    versions = {
        product_id: (platform, name, text)
        for platform, name, text, product_id in _versions(
            _get(_get(bulletin, "product_tree"), "branches"), ""
        )
    }
    best: dict[tuple[Component, str], Fix] = {}
    for vulnerability in _list(_get(bulletin, "vulnerabilities")):
        status = _get(vulnerability, "product_status")
        affected: dict[tuple[Component, str], list[str]] = {}
        for product_id in _list(status.get("known_affected", [])):
            if (place := _place(versions, product_id)) is not None:
                affected.setdefault(place[:2], []).append(place[2])
        for product_id in _list(status.get("fixed", [])):
            place = _place(versions, product_id)
            if place is None or _spared(place[0], affected.get(place[:2], []), floors):
                continue
            component, branch, text = place
            fix = Fix(component, minimum(text), number, published, branch)
            known = best.get((component, branch))
            if known is None or Version(known.minimum) < Version(fix.minimum):
                best[component, branch] = fix
    return list(best.values())


def minimum(text: str) -> str:
    """A version as the bulletins write one: `r26.07`, `v1.3.0 rc17`, `595.71.05`."""
    found = re.fullmatch(r"\s*[vr]?\s*([0-9]{1,6}(?:\.[0-9]{1,6})+)\s*(rc[0-9]{1,4})?\s*", text)
    if not found:
        raise PageError(f"found the fixed version {text[:60]!r}, expected one such as 26.07")
    return found[1] + (found[2] or "")


def _spared(component: Component, affected: Sequence[str], floors: Sequence[Floor]) -> bool:
    """Whether only single versions are affected, none of which is a floor's: versions below or above them are not."""
    try:
        single = [minimum(text) for text in affected]
    except PageError:
        return False
    return bool(single) and not {f.minimum for f in floors if f.component == component} & set(single)


def _versions(branches: Any, above: str) -> Iterator[tuple[str, str, str, str]]:
    """Each version of a product tree: its platform, product, text and id."""
    for branch in _list(branches):
        product = branch.get("product")
        if branch.get("category") == "product_version" and product is not None:
            yield above, str(branch.get("name")), str(_get(product, "name")), str(_get(product, "product_id"))
        yield from _versions(branch.get("branches", []), str(branch.get("name")))


def _place(
    versions: Mapping[str, tuple[str, str, str]], product_id: Any
) -> tuple[Component, str, str] | None:
    """Component, branch and text of a version; None if it is not one of ours."""
    if product_id not in versions:
        return None
    platform, name, text = versions[product_id]
    component = PRODUCTS.get(name)
    if component != "driver":
        return (component, "", text) if component else None
    linux = re.fullmatch(r"Linux ?\(R([0-9]{3})\)", platform)
    return (component, linux[1], text) if linux else None


def moved_floors(ours: Tables, found: Iterable[Fix], source: str) -> Iterator[Row]:
    """Floors below what a bulletin calls fixed, and those that are missing. `source`: the bulletin's address, with {number}."""
    best: dict[tuple[Component, str], Fix] = {}
    for fix in found:
        known = best.get((fix.component, fix.branch))
        if known is None or Version(known.minimum) < Version(fix.minimum):
            best[fix.component, fix.branch] = fix
    for (component, branch), fix in sorted(best.items()):
        floors = [f for f in ours.floors if f.component == component and f.branch == branch]
        # a branch without a floor is refused as a whole; an older bulletin's fix for it says nothing new
        latest = max((f.published for f in ours.floors if f.component == component), default="")
        if branch and not floors and fix.published < latest:
            continue
        highest = max(floors, key=lambda floor: Version(floor.minimum), default=None)
        if highest is None or Version(highest.minimum) < Version(fix.minimum):
            yield Row(
                f"floor of {component}{f' R{branch}' if branch else ''}",
                f"{highest.minimum} ({highest.bulletin})" if highest else "none",
                f"{fix.minimum} (NVIDIA {fix.bulletin} of {fix.published})",
                source.replace("{number}", fix.bulletin),
            )


# --- images


def moved_matrix(ours: Tables, page: str, source: str) -> Iterator[Row]:
    """Rows of Triton's compatibility.md that the support matrix lacks, or that differ from it."""
    tables = _markdown_tables(page)
    with_llm = [row for row in tables if "TensorRT-LLM version" in row]
    if not with_llm:
        raise PageError("found no table with TensorRT-LLM versions, expected Triton's compatibility.md")
    names = {"tensorrt_llm": "TensorRT-LLM version", "tensorrt": "TensorRT version"}
    both = {"cuda": "CUDA version", "driver": "CUDA Driver version"}
    for row in with_llm:
        release = _release(row)
        known = ours.releases.get(release)
        if known is None:
            yield Row(
                f"image {release}-trtllm-python-py3",
                "none",
                f"TensorRT-LLM {row[names['tensorrt_llm']]}",
                source,
            )
            continue
        yield from _differences(known, row, {**names, **both}, source)
    for row in tables:
        release = _release(row)
        if "vLLM version" not in row or release in ours.releases or release < min(ours.releases):
            continue
        plain = ours.plain.get(release)
        if plain is None:
            theirs = f"CUDA {row.get(both['cuda'], '?')}, driver {row.get(both['driver'], '?')}"
            yield Row(f"image {release}-py3", "none", theirs, source)
        else:
            yield from _differences(plain, row, both, source)


def _differences(
    known: StackRelease, row: Mapping[str, str], columns: Mapping[str, str], source: str
) -> Iterator[Row]:
    for name, column in columns.items():
        mine, theirs = str(getattr(known, name)), row.get(column, "")
        # 13.1.0 is the page's 13.1.0.036
        same = not theirs or theirs == mine or theirs.startswith(f"{mine}.")
        if mine and not same and (known.release, name) not in DIFFERENT_ON_PURPOSE:
            yield Row(f"{column} of {known.release}", mine, theirs, source)
        if not mine and theirs:
            yield Row(f"{column} of {known.release}", "not known", theirs, source)


def _release(row: Mapping[str, str]) -> str:
    release = row.get("Triton release version", "")
    if not re.fullmatch(r"[0-9]{2}\.[0-9]{2}", release):
        raise PageError(f"found the release {release[:20]!r}, expected YY.MM")
    return release


def _markdown_tables(page: str) -> list[dict[str, str]]:
    """Every row of the page's tables of releases, by its table's heads."""
    rows: list[dict[str, str]] = []
    heads: list[str] = []
    for line in page.splitlines():
        if not line.startswith("|"):
            heads = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not heads:
            heads = cells
        elif heads[0] == "Triton release version" and not set("".join(cells)) <= set("-: "):
            rows.append(dict(zip(heads, cells, strict=False)))
    return rows


def moved_images(ours: Tables, tags: Sequence[str], source: str) -> Iterator[Row]:
    """Releases whose images the registry has but the matrix does not, and the other way round."""
    with_llm = {found[1] for tag in tags if (found := re.fullmatch(r"(\d\d\.\d\d)-trtllm-python-py3", tag))}
    plain = {found[1] for tag in tags if (found := re.fullmatch(r"(\d\d\.\d\d)-py3", tag))}
    if not with_llm or not plain:
        raise PageError("found no tags YY.MM-py3 and YY.MM-trtllm-python-py3, expected those of tritonserver")
    newest = max(ours.releases)
    for release in sorted(name for name in with_llm if name > newest):
        yield Row(f"image {release}-trtllm-python-py3", "none", "published", source)
    for release in sorted(name for name in plain if name > newest and name not in ours.plain):
        yield Row(f"image {release}-py3", "none", "published", source)
    for release in sorted(set(ours.releases) - with_llm):
        yield Row(f"image {release}-trtllm-python-py3", "in the matrix", "no such tag", source)
    for release in sorted(set(ours.plain) - plain):
        yield Row(f"image {release}-py3", "in the matrix", "no such tag", source)


# --- drivers


def moved_branches(ours: Tables, releases: Any, today: date, source: str) -> Iterator[Row]:
    """
    Branches of the driver that are newer than those known, and those that have ended by NVIDIA's own rule.

    + releases: releases.json: branch -> its type, and its versions with their dates
    """
    if not isinstance(releases, dict) or not releases:
        raise PageError("found no branches, expected releases.json of the drivers")
    known = {**{f.branch: None for f in ours.floors if f.branch}, **dict.fromkeys(ours.branches)}
    understood = 0
    for key in sorted(releases, key=str):
        number, entry = str(key).removeprefix("R"), releases[key]
        if not re.fullmatch(r"[0-9]{3}", number):
            continue
        dates = [str(_get(info, "release_date")) for info in _list(_get(entry, "driver_info"))]
        kind = str(_get(entry, "type")).lower()
        understood += 1
        if known and number > max(known):
            yield Row(f"driver branch R{number}", "not known", kind, source)
        elif number in known and dates:
            years = next((years for word, years in YEARS_MAINTAINED.items() if word in kind), 0)
            first = _day(min(dates))
            until = ours.branches[number].until if number in ours.branches else ""
            late = (today.year - first.year) * 12 + today.month - first.month - 12 * years
            if years and late > MONTHS_OF_GRACE and (not until or until >= f"{today:%Y-%m}"):
                ended = f"{first.year + years}-{first.month:02}"
                yield Row(
                    f"driver branch R{number}",
                    f"until {until or 'an end not known'}",
                    f"{kind}, until about {ended}",
                    source,
                )
    if not understood:
        raise PageError("found no branch with a number, expected releases.json of the drivers")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise PageError(f"found the date {text[:20]!r}, expected YYYY-MM-DD") from None


# --- packages


def moved_packages(
    pins: Mapping[str, str], published: Mapping[str, Sequence[str]], os_major: str, source: str
) -> Iterator[Row]:
    """
    Pins that a repository lacks, and those that are not its newest.

    + published: name -> every epoch:version-release of the repository
    """
    if not set(pins) & set(published):
        raise PageError("found none of the pinned packages, expected them in the repository's metadata")
    for name, spec in pins.items():
        pinned = spec.replace("{os_major}", os_major)
        pinned = pinned if ":" in pinned else f"0:{pinned}"
        newest = max(published.get(name, ()), key=_upstream, default="")
        if not newest:
            yield Row(f"{name} of el{os_major}", pinned, "no such package", source)
        elif pinned not in published[name]:
            yield Row(f"{name} of el{os_major}", pinned, f"not there; the newest is {newest}", source)
        elif _upstream(pinned) < _upstream(newest):
            yield Row(f"{name} of el{os_major}", pinned, newest, source)


def _upstream(spec: str) -> Version:
    """The publisher's version in epoch:version-release; an unusual one counts as older than all others."""
    try:
        return Version(spec.partition(":")[2].partition("-")[0])
    except InvalidVersion:
        return Version("0")


# --- shapes


def moved_shapes(ours: Tables, images: Any, source: str) -> Iterator[Row]:
    """Shapes with NVIDIA's GPUs and x86_64 that images are offered for and that have no row."""
    known, found = set(ours.shapes), dict[str, None]()
    for image in _list(_get(images, "images")):
        if image.get("arch") == "x86_64" and image.get("vendor") == "nvidia":
            found |= dict.fromkeys(str(name) for name in _list(_get(image, "shapes")))
    if not found:
        raise PageError("found no images for NVIDIA's GPUs and x86_64, expected worker-node-images.json")
    for name in found:
        if name not in known:
            yield Row(f"shape {name}", "none", "offered", source)


# --- reading data of an unknown form


def _get(table: Any, key: str) -> Any:
    if not isinstance(table, Mapping) or key not in table:
        raise PageError(f"found no {key}, expected one: the page's format has changed, or it is another page")
    return table[key]


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise PageError(f"found {type(value).__name__}, expected a list: the page's format has changed")
    return value


def table(rows: Sequence[Row], unread: Mapping[str, str]) -> list[str]:
    """The rows that have moved, aligned, and below them the pages that could not be read."""
    cells = [("thing", "ours", "theirs", "source"), *((r.thing, r.ours, r.theirs, r.source) for r in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    lines = [
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]))
        for row in (cells if rows else ())
    ]
    return [*lines, *(f"not read: {page}: {problem}" for page, problem in unread.items())]


def as_json(rows: Sequence[Row], unread: Mapping[str, str]) -> dict[str, Any]:
    """The same for a program; its keys are stable."""
    return {"moved": [asdict(row) for row in rows], "unread": dict(unread)}


def exit_code(rows: Sequence[Row], unread: Mapping[str, str]) -> int:
    """3: a page could not be read; 1: something has moved; 0: nothing has moved."""
    return 3 if unread else 1 if rows else 0
