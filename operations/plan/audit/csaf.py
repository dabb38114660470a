"""A security bulletin as a CSAF 2.0 document: what it says of the components of this tool. Pure.

https://docs.oasis-open.org/csaf/csaf/v2.0/os/csaf-v2.0-os.html. NVIDIA publishes its bulletins so at
https://github.com/NVIDIA/product-security, a folder for each year and number, and does it in a way of its own: a leaf of the
product tree has the product's name where CSAF expects the version, and the versions are a sentence: "All versions prior to
r26.03", "0.0 - 26.04", "v19.11 through v24.08". Both ways are read here. A sentence that is not understood is kept as it
is: what could not be read has not passed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from packaging.version import InvalidVersion, Version

from operations.plan.audit.currency import PRODUCTS
from operations.plan.catalog.version_floors import Component
from operations.plan.errors import one_line

LONGEST = 200  # characters of a sentence that is shown
DEEPEST = 32  # branches below each other
# The hosts' GPUs are those that a bulletin calls Tesla; it speaks for a branch of the driver before GeForce does.
_BEFORE = ("Tesla", "GeForce")
_VERSION = r"[vr]?\s*(?P<{0}>[0-9]{{1,6}}(?:\.[0-9]{{1,6}})*(?:\.post[0-9]{{1,4}})?(?:\s*rc\s*[0-9]{{1,4}})?)"
_A, _B = _VERSION.format("a"), _VERSION.format("b")
_ALL = r"(?:all\s+)?(?:drivers?\s+)?versions?\s+"
# what may stand behind a range: a condition, which is not looked at, so that a host counts as affected
_REST = r"(?:\s*\(.*\)|\s+only\s.*)?"
_THROUGH = re.compile(
    rf"(?:{_ALL})?(?:up\s+to(?:\s+and\s+including)?|prior\s+to\s+and\s+including|through)\s+{_A}{_REST}|"
    rf"{_B}\s+(?:and|or)\s+(?:prior|earlier|older|below)(?:\s+versions?)?{_REST}"
)
_BELOW = re.compile(rf"(?:{_ALL})?(?:prior\s+to|before|earlier\s+than)\s+{_A}{_REST}")
_FROM_TO = re.compile(rf"{_A}\s*(?:-|\u2013|to|through)\s*{_B}{_REST}")
_ONE = re.compile(rf"{_A}{_REST}")
_BOUND = re.compile(rf"(?P<sign><=|>=|<|>|=)\s*{_A}")


class CsafError(ValueError):
    """Why a document cannot be read: one line."""


@dataclass(frozen=True)
class Range:
    """
    Versions that are affected: from `low` on, below `below`, or up to `through`; empty: no bound.

    Without any bound, all are.
    """

    low: str = ""
    below: str = ""
    through: str = ""

    def holds(self, version: Version) -> bool:
        """Whether a version is among them; 10.16.1.11 counts as 10.16.1 of the last that is affected."""
        if self.low and version < Version(self.low):
            return False
        if self.below and version >= Version(self.below):
            return False
        if not self.through or version <= Version(self.through):
            return True
        last = Version(self.through)
        return not last.is_prerelease and version.release[: len(last.release)] == last.release


@dataclass(frozen=True)
class Statement:
    """
    One vulnerability of one component.

    + branch: of the driver, 580; empty for the others
    + fixed: the least version that has the fix; empty where the document names none
    + cvss: the base score, version 3; None where the document has none
    + remedy: what the document says to do, where it names no fixed version
    """

    component: Component
    branch: str
    affected: Range
    fixed: str
    cve: str
    cvss: float | None = None
    remedy: str = ""


@dataclass(frozen=True)
class Bulletin:
    """
    What a document says of our components.

    + name: as the floors name it, NVIDIA 5865
    + unread: sentences about our components that were not understood
    """

    name: str
    published: str  # YYYY-MM-DD, of the current release
    statements: tuple[Statement, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Leaf:
    component: Component
    branch: str
    product: str
    platform: str
    text: str

    @property
    def place(self) -> tuple[str, str]:
        return self.product, self.platform


def read(document: Any) -> Bulletin:
    """A document, as JSON gives it. Raises CsafError for what is none."""
    head = _table(document, "document")
    if not str(head.get("csaf_version", "")).startswith("2."):
        raise CsafError(f"found csaf_version {_shown(head.get('csaf_version'))}, expected 2.0")
    tracking = _table(head, "tracking")
    number, published = _text(tracking, "id"), _text(tracking, "current_release_date")[:10]
    try:
        date.fromisoformat(published)
    except ValueError:
        raise CsafError(f"found the date {_shown(published)}, expected one of current_release_date") from None
    publisher = str(_table(head, "publisher").get("name", ""))
    maker = "NVIDIA" if "nvidia" in publisher.casefold() else one_line(publisher)[:40]
    name = f"{maker} {number[:32]}".strip()
    tree = _table(document, "product_tree")
    leaves = dict(_leaves(tree.get("branches", []), ()))
    statements: list[Statement] = []
    unread: dict[str, None] = {}
    for vulnerability in _list(document, "vulnerabilities", ()):
        found, odd = _of_one(vulnerability, leaves)
        statements += found
        unread |= dict.fromkeys(odd)
    ours = any(leaves.values())  # what is odd about other products costs nothing here
    return Bulletin(name, published, tuple(dict.fromkeys(statements)), tuple(unread) if ours else ())


# --- the product tree


def _leaves(branches: Any, above: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, _Leaf | None]]:
    """Each product of the tree by its id; None: not one of ours."""
    if len(above) > DEEPEST:
        raise CsafError(f"found more than {DEEPEST} branches below each other, expected a product tree")
    if not isinstance(branches, list):
        raise CsafError(f"found branches of type {type(branches).__name__}, expected a list")
    for branch in branches:
        category, name = str(_of(branch, "category", "")), str(_of(branch, "name", ""))
        if (product := branch.get("product")) is not None:
            yield _text(product, "product_id"), _leaf(category, name, _text(product, "name"), above)
        yield from _leaves(branch.get("branches", []), (*above, (category, name)))


def _leaf(category: str, name: str, full: str, above: tuple[tuple[str, str], ...]) -> _Leaf | None:
    platform = next((title for kind, title in reversed(above) if kind == "architecture"), "")
    if component := _component(name):  # NVIDIA's way
        product, text = name, full if category.startswith("product_version") else ""
    else:
        product = next((title for kind, title in reversed(above) if kind == "product_name"), "")
        component, text = _component(product), name
    if component is None:
        return None
    if component == "driver":
        linux = re.fullmatch(r"Linux ?\(R([0-9]{3})\)", platform)
        return _Leaf(component, linux[1], product, platform, text) if linux else None
    elsewhere = re.search(r"windows|macos", platform, re.IGNORECASE)
    if elsewhere and not re.search("linux", platform, re.IGNORECASE):
        return None
    return _Leaf(component, "", product, platform, text)


def _component(product: str) -> Component | None:
    """The component that a bulletin means, with or without its maker's name in front."""
    for name in (product, product.removeprefix("NVIDIA "), f"NVIDIA {product}"):
        if name in PRODUCTS:
            return PRODUCTS[name]
    return None


# --- vulnerabilities


def _of_one(vulnerability: Any, leaves: Mapping[str, _Leaf | None]) -> tuple[list[Statement], list[str]]:
    cve = _text(vulnerability, "cve") if "cve" in _checked(vulnerability) else "without a CVE"
    status = _of(vulnerability, "product_status", {})
    fixed: dict[tuple[str, str], list[str]] = {}
    unread: list[str] = []
    for product_id in (*_list(status, "fixed", ()), *_list(status, "first_fixed", ())):
        if leaf := leaves.get(str(product_id)):
            version = _number(leaf.text)
            if version and _is_release(leaf.component, version):
                fixed.setdefault(leaf.place, []).append(version)
            else:
                unread.append(f"{cve}: {leaf.product}: fixed in {_shown(leaf.text)}")
    found: dict[tuple[str, str], list[tuple[_Leaf, Statement]]] = {}
    for product_id in _list(status, "known_affected", ()):
        if str(product_id) not in leaves:
            unread.append(f"{cve}: product {_shown(product_id)}, which the product tree lacks")
        leaf = leaves.get(str(product_id))
        if leaf is None:
            continue
        affected, version = affected_range(leaf.text), ""
        if affected is not None and not _is_range_of(leaf.component, affected):
            affected = None
        else:
            version = _fix(affected, fixed.get(leaf.place, ()))
        if affected is None and not version:
            unread.append(f"{cve}: {leaf.product}: affected {_shown(leaf.text)}")
            continue
        score, remedy = _score(vulnerability, product_id), _remedy(vulnerability, product_id)
        statement = Statement(
            leaf.component,
            leaf.branch,
            _joined(affected, version),
            version,
            cve,
            score,
            "" if version else remedy,
        )
        found.setdefault((leaf.component, leaf.branch), []).append((leaf, statement))
    return [statement for of_place in found.values() for statement in _first(of_place)], unread


def _first(found: Sequence[tuple[_Leaf, Statement]]) -> Iterable[Statement]:
    """All of them; of the driver, those of the product that speaks for a host's GPUs."""
    for product in _BEFORE:
        if chosen := [statement for leaf, statement in found if leaf.product == product]:
            return chosen
    return [statement for _, statement in found]


def _fix(affected: Range | None, versions: Sequence[str]) -> str:
    """Of the fixed versions of a product, the one that ends a range; the highest where none is above it."""
    ordered = sorted(versions, key=Version)
    end = (affected.below or affected.through) if affected else ""
    above = [version for version in ordered if end and Version(version) >= Version(end)]
    return (above or ordered[::-1] or [""])[0]


def _joined(affected: Range | None, fixed: str) -> Range:
    """
    The range up to the fix: what lies between the last version that is named and the fix, such as 10.16.1.11, is affected too.

    A sentence that was not understood means every version below the fix.
    """
    affected = affected or Range()
    if not fixed or (affected.below and Version(affected.below) >= Version(fixed)):
        return affected
    if affected.through and Version(affected.through) >= Version(fixed):
        return affected
    return Range(affected.low, fixed)


def affected_range(text: str) -> Range | None:
    """The versions that a sentence means; None where it is not understood."""
    words = " ".join(text.split()).casefold()
    if words.startswith("vers:") or _BOUND.match(words):
        return _bounds(words.rpartition("/")[2])
    if words in ("", "*", "all", "all versions"):
        return Range()
    if found := _FROM_TO.fullmatch(words):
        return Range(low=_plain(found["a"]), through=_plain(found["b"]))
    if found := _THROUGH.fullmatch(words):
        return Range(through=_plain(found["a"] or found["b"]))
    if found := _BELOW.fullmatch(words):
        return Range(below=_plain(found["a"]))
    if found := _ONE.fullmatch(words):
        return Range(low=_plain(found["a"]), through=_plain(found["a"]))
    return None


def _bounds(words: str) -> Range | None:
    """`>=1.0|<1.2`, as CSAF's product_version_range has it."""
    low = below = through = ""
    for part in re.split(r"[|,]", words):
        found = _BOUND.fullmatch(part.strip())
        if not found or found["sign"] == ">":
            return None
        version = _plain(found["a"])
        if found["sign"] in (">=", "="):
            low = version
        if found["sign"] in ("<=", "="):
            through = version
        if found["sign"] == "<":
            below = version
    return Range(low, below, through)


def _number(text: str) -> str:
    """A fixed version, as the bulletins write one: `r26.07`, `v1.3.0 rc17`, `>=1.19.1`; empty where it is none."""
    words = " ".join(text.split()).casefold().removeprefix(">=")
    found = _ONE.fullmatch(words.strip())
    return _plain(found["a"]) if found else ""


def _plain(text: str) -> str:
    plain = re.sub(r"\s+", "", text)
    try:
        Version(plain)
    except InvalidVersion:  # pragma: no cover - the pattern allows none
        raise CsafError(f"found the version {_shown(text)}, expected one such as 26.07") from None
    return plain


def _is_release(component: Component, version: str) -> bool:
    """Whether a number is one of those by which a component is known here: of Triton, the release YY.MM and not 2.40."""
    return component != "triton" or Version(version) == Version("0.0") or Version(version).major >= 10


def _is_range_of(component: Component, affected: Range) -> bool:
    return all(_is_release(component, end) for end in (affected.below, affected.through) if end)


def _score(vulnerability: Any, product_id: object) -> float | None:
    """The highest base score, CVSS version 3, for a product."""
    found = []
    for score in _list(vulnerability, "scores", ()):
        products = _list(score, "products", ())
        value = _of(_of(score, "cvss_v3", {}), "baseScore", None)
        if value is None or (products and product_id not in products):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
            raise CsafError(f"found the CVSS score {_shown(value)}, expected a number from 0 to 10")
        found.append(float(value))
    return max(found, default=None)


def _remedy(vulnerability: Any, product_id: object) -> str:
    """What to do about a product, in the document's words: the vendor's fix before a way around it."""
    found: dict[str, str] = {}
    for each in _list(vulnerability, "remediations", ()):
        products = _list(each, "product_ids", ())
        if not products or product_id in products:
            found.setdefault(
                str(_of(each, "category", "")), one_line(str(_of(each, "details", "")))[:LONGEST]
            )
    return next((found[kind] for kind in ("vendor_fix", "mitigation", "workaround") if kind in found), "")


# --- reading data of an unknown form


def _checked(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise CsafError(f"found {type(value).__name__}, expected a table: no CSAF document")
    return value


def _of(table: Any, key: str, default: Any) -> Any:
    return _checked(table).get(key, default)


def _table(table: Any, key: str) -> Mapping[str, Any]:
    value = _checked(table).get(key)
    if not isinstance(value, Mapping):
        raise CsafError(f"found no table {key}, expected one: no CSAF document")
    return value


def _text(table: Any, key: str) -> str:
    value = _checked(table).get(key)
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        raise CsafError(f"found {_shown(value)} for {key}, expected text")
    return one_line(str(value))[:LONGEST]


def _list(table: Any, key: str, default: Sequence[Any]) -> Sequence[Any]:
    value = _checked(table).get(key, default)
    if not isinstance(value, list | tuple):
        raise CsafError(f"found {key} of type {type(value).__name__}, expected a list")
    return value


def _shown(value: object) -> str:
    return f'"{one_line(str(value))[:60]}"' if value not in (None, "") else "nothing"
