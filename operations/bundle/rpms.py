"""Packages: each repository's metadata as published, with its signatures, and those of its rpms that are needed.

What a host needs depends on what it already has. So the bundle has everything that the wanted packages need, down to
the C library: for each requirement, every package that meets it, at its newest version, as dnf would choose among
them. It also has the packages that would block an update: those built from the same source that require a package at
exactly its version. A host that has an older version of one needs the new one, or dnf finds a conflict. The metadata
lists more rpms than the bundle has; dnf requests none of those.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property, total_ordering
from itertools import zip_longest
from pathlib import Path
from urllib.parse import quote

from operations.bundle.fetch import BundleError, download, is_page, read
from operations.plan.catalog.package_names import UNTOUCHED
from operations.plan.machine.packages import same_version

_REPO = "{http://linux.duke.edu/metadata/repo}"
_COMMON = "{http://linux.duke.edu/metadata/common}"
_RPM = "{http://linux.duke.edu/metadata/rpm}"
ARCHITECTURES = ("x86_64", "noarch")


@total_ordering
@dataclass(frozen=True)
class Version:
    """epoch:version-release, ordered as rpm orders them."""

    epoch: int
    version: str
    release: str

    def __str__(self) -> str:
        return f"{self.epoch}:{self.version}-{self.release}"

    def __lt__(self, other: Version) -> bool:
        return self._order < other._order

    @cached_property
    def _order(self) -> tuple[int, _Segments, _Segments]:
        return self.epoch, _Segments(self.version), _Segments(self.release)


@total_ordering
class _Segments:
    """A version's text by rpm's rules: https://rpm.org/docs/latest/man/rpm-version.7 (segments, ~ before all, ^ after)."""

    def __init__(self, text: str) -> None:
        self.parts = re.findall(r"[0-9]+|[A-Za-z]+|~|\^", text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Segments) and not self < other and not other < self

    def __hash__(self) -> int:
        return hash(tuple(self.parts))

    def __lt__(self, other: _Segments) -> bool:
        for ours, theirs in zip_longest(self.parts, other.parts):
            if (one := _rank(ours)) != (two := _rank(theirs)):
                return one < two
        return False


def _rank(part: str | None) -> tuple[int, int, str]:
    if part is None:
        return (1, 0, "")
    if part in "~^":
        return (0 if part == "~" else 2, 0, "")
    # a number is newer than letters
    return (4, int(part), "") if part.isdigit() else (3, 0, part)


@dataclass(frozen=True)
class Need:
    """One requirement or provision: a name, and with `flags` EQ, GE … a version; parts of it may be missing."""

    name: str
    flags: str = ""
    version: str = ""
    release: str = ""


@dataclass(frozen=True)
class Rpm:
    """One package of a repository's metadata."""

    repository: str
    name: str
    version: Version
    location: str
    checksum: tuple[str, str]  # kind, hexadecimal
    source: str = ""  # the file name of its source package, with the version
    provides: tuple[Need, ...] = ()
    requires: tuple[Need, ...] = ()
    files: tuple[str, ...] = field(default=(), repr=False)

    @property
    def modular(self) -> bool:
        """Whether it belongs to a module's stream. Which stream a host has enabled is not known here."""
        return ".module" in self.version.release


def parse_primary(text: bytes, repository: str) -> list[Rpm]:
    """The packages of a primary.xml for this processor."""
    found = []
    for package in _packages(text):
        if _text(package, "arch") not in ARCHITECTURES:
            continue
        version = package.find(f"{_COMMON}version")
        checksum = package.find(f"{_COMMON}checksum")
        location = package.find(f"{_COMMON}location")
        details = package.find(f"{_COMMON}format")
        if version is None or checksum is None or location is None or details is None:
            raise BundleError(f"{repository}: found a package without version or location in primary.xml")
        found.append(
            Rpm(
                repository=repository,
                name=_text(package, "name"),
                version=Version(
                    int(version.get("epoch") or 0), version.get("ver", ""), version.get("rel", "")
                ),
                location=location.get("href", ""),
                checksum=(_hash_name(checksum), (checksum.text or "").strip()),
                source=details.findtext(f"{_RPM}sourcerpm", "").strip(),
                provides=tuple(_needs(details, "provides")),
                # dnf also installs what is recommended, unless it is told otherwise
                requires=(*_needs(details, "requires"), *_needs(details, "recommends")),
                files=tuple(file.text or "" for file in details.iter(f"{_COMMON}file")),
            )
        )
    return found


def _packages(text: bytes) -> Iterator[ElementTree.Element]:
    """One after the other, each freed before the next: Oracle's lists are hundreds of megabytes as a tree."""
    for _, element in ElementTree.iterparse(io.BytesIO(text)):
        if element.tag == f"{_COMMON}package":
            yield element
            element.clear()


def _hash_name(checksum: ElementTree.Element) -> str:
    kind = checksum.get("type", "")
    return "sha1" if kind == "sha" else kind  # an old name of it


def _text(package: ElementTree.Element, name: str) -> str:
    return package.findtext(f"{_COMMON}{name}", "").strip()


def _needs(details: ElementTree.Element, kind: str) -> Iterable[Need]:
    for entry in details.iterfind(f"{_RPM}{kind}/{_RPM}entry"):
        name = entry.get("name", "")
        if not name.startswith("rpmlib("):
            yield Need(name, entry.get("flags", ""), entry.get("ver", ""), entry.get("rel", ""))


def closure(
    rpms: Sequence[Rpm], wanted: Iterable[tuple[str, str | None]], welcome: Iterable[str] = ()
) -> list[Rpm]:
    """
    The wanted packages, everything that they may need, and what must be updated with these; sorted.

    + wanted: names, each with its epoch:version-release, or None for the newest
    + welcome: further names, taken at their newest version if a repository has them

    Raises BundleError if no repository has a wanted package. A requirement that no package here meets is ignored: the
    host meets it already, or dnf would refuse it online as well.
    """
    by_name: dict[str, list[Rpm]] = {}
    by_source: dict[str, list[Rpm]] = {}
    providers: dict[str, list[tuple[Rpm, Need]]] = {}
    for rpm in rpms:
        by_name.setdefault(rpm.name, []).append(rpm)
        if rpm.source:
            by_source.setdefault(rpm.source, []).append(rpm)
        for need in rpm.provides:
            providers.setdefault(need.name, []).append((rpm, need))
        for path in rpm.files:
            providers.setdefault(path, []).append((rpm, Need(path)))
    chosen: dict[tuple[str, str], Rpm] = {}
    waiting = newest(rpm for name in welcome for rpm in by_name.get(name, ()))
    for name, version in wanted:
        there = by_name.get(name, [])
        fitting = [rpm for rpm in there if version is None or same_version(version, str(rpm.version))]
        if not fitting:
            known = (
                ", ".join(str(rpm.version) for rpm in sorted(there, key=lambda r: r.version)[-3:]) or "none"
            )
            raise BundleError(
                f"package {name}: found {known}, expected {version or 'any version'}; check the repositories"
            )
        waiting += newest(fitting)
    while waiting:
        rpm = waiting.pop()
        if (rpm.repository, rpm.location) in chosen:
            continue
        chosen[rpm.repository, rpm.location] = rpm
        for need in rpm.requires:
            for simple in simple_needs(need):
                waiting += newest(_meeting(simple, providers))
        waiting += newest(_bound_to(rpm, by_source.get(rpm.source, ())))
    return [chosen[key] for key in sorted(chosen)]


def simple_needs(need: Need) -> list[Need]:
    """All the names in a rich requirement, `(a if b)`: the host decides which of them count."""
    if not need.name.startswith("("):
        return [need]
    return [Need(name) for name in re.findall(r"[^\s()]+(?:\([^()\s]*\))*", need.name)]


def _meeting(need: Need, providers: Mapping[str, Sequence[tuple[Rpm, Need]]]) -> list[Rpm]:
    there = providers.get(need.name, ())
    if need.flags == "EQ":
        exact = [rpm for rpm, has in there if _is_exactly(has, need)]
        if exact:
            return exact
    return [rpm for rpm, _ in there]


def _is_exactly(has: Need, need: Need) -> bool:
    return has.version == need.version and (not need.release or has.release == need.release)


def _bound_to(rpm: Rpm, siblings: Iterable[Rpm]) -> list[Rpm]:
    """
    The packages of the same source that require this one at exactly its version.

    Which of them a host has is not known here, so all are taken. Such a requirement between sources is rare, because each
    update would wait for the other: those are not searched for. Packages that our dnf never touches are excluded.
    """
    provided: dict[str, list[Need]] = {}
    for has in rpm.provides:
        provided.setdefault(has.name, []).append(has)
    return [
        sibling
        for sibling in siblings
        if not any(fnmatchcase(sibling.name, pattern) for pattern in UNTOUCHED)
        and any(
            need.flags == "EQ" and any(_is_exactly(has, need) for has in provided.get(need.name, ()))
            for need in sibling.requires
        )
    ]


def newest(rpms: Iterable[Rpm]) -> list[Rpm]:
    """The newest package of each name, and all packages of modules."""
    best: dict[str, Rpm] = {}
    modular = []
    for rpm in rpms:
        if rpm.modular:
            modular.append(rpm)
        elif rpm.name not in best or best[rpm.name].version < rpm.version:
            best[rpm.name] = rpm
    return [*best.values(), *modular]


def mirror_metadata(url: str, directory: Path, name: str) -> list[Rpm]:
    """
    `directory` has the repository's metadata, unchanged. Returns its packages.

    + url: the repository's address; + name: its name in the bundle
    """
    base = url.rstrip("/")
    download(f"{base}/repodata/repomd.xml", directory / "repodata" / "repomd.xml")
    signature = directory / "repodata" / "repomd.xml.asc"
    try:
        signature.write_bytes(read(f"{base}/repodata/repomd.xml.asc"))
    except BundleError as error:
        # most repositories sign only their packages; one that fails in another way may have a signature
        if error.status not in (403, 404, 410):
            raise
        signature.unlink(missing_ok=True)
    else:
        if is_page(signature.read_bytes()):
            signature.unlink()  # a page that says that there is none
    primary = None
    try:
        listed = ElementTree.parse(directory / "repodata" / "repomd.xml").getroot()
    except ElementTree.ParseError as error:
        raise BundleError(
            f"{url}: found a repomd.xml that is not XML ({error}), expected a dnf repository"
        ) from None
    for data in listed.iter(f"{_REPO}data"):
        kind = data.get("type", "")
        location, checksum = data.find(f"{_REPO}location"), data.find(f"{_REPO}checksum")
        if location is None or checksum is None or kind.endswith("_db") or kind.startswith("other"):
            continue  # dnf reads neither
        place = directory / _inside(location.get("href", ""), url)
        download(f"{base}/{location.get('href')}", place, (checksum.text or "").strip(), _hash_name(checksum))
        if kind == "primary":
            primary = place
    if primary is None:
        raise BundleError(f"{url}: found no primary in repomd.xml, expected a dnf repository")
    return parse_primary(_unpacked(primary), name)


def _inside(location: str, url: str) -> str:
    if location.startswith("/") or ".." in location.split("/") or not location:
        raise BundleError(f"{url}: found the location {location!r}, expected a path inside the repository")
    return location


def _unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    known = {".gz": gzip.decompress, ".xz": lzma.decompress, ".bz2": bz2.decompress}
    if path.suffix in known:
        return known[path.suffix](content)
    if path.suffix == ".zst":
        if not shutil.which("zstd"):
            raise BundleError(f"{path.name}: found no program zstd, expected one to read it; install zstd")
        return subprocess.run(
            ["zstd", "--decompress", "--stdout", str(path)], capture_output=True, check=True
        ).stdout
    return content


def fetch(rpm: Rpm, url: str, directory: Path) -> None:
    """The package is in the bundle, with the hash that the metadata states."""
    kind, digest = rpm.checksum
    place = directory / _inside(rpm.location, url)
    download(f"{url.rstrip('/')}/{quote(rpm.location)}", place, digest, kind)
