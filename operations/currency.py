"""Compare the project's tables with the publishers' pages, and print a row for each difference.

python -m operations.currency
python -m operations.currency --from DIR --json
python -m operations.currency --source triton-compatibility=https://mirror.example/compatibility.md
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
import re
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from xml.etree import ElementTree
from xml.parsers import expat

from operations.bundle.fetch import BundleError
from operations.bundle.images import Registry
from operations.bundle.rpms import parse_primary
from operations.plan.audit import currency
from operations.plan.audit.currency import PageError, Row, Tables
from operations.plan.catalog.shapes import SHAPES
from operations.plan.catalog.support_matrix import PLAIN_RELEASES, RELEASES
from operations.plan.catalog.version_floors import FLOORS
from operations.plan.errors import PlanError, one_line, suggestion
from operations.plan.inventory.hosts import read_group_data
from operations.plan.paths import PROJECT

GROUP_DATA = PROJECT / "inventories" / "group_data" / "all.py"
PROGRAM = "python -m operations.currency"
_RAW = "https://raw.githubusercontent.com"
# Name -> URL; --source sets another, such as a mirror's. For a dnf repository: the folder that has repodata/.
SOURCES = {
    "nvidia-bulletins": f"{_RAW}/NVIDIA/product-security/main/{{year}}/CVE_index.csv",
    "nvidia-bulletin": f"{_RAW}/NVIDIA/product-security/main/{{year}}/{{number}}/{{number}}.json",
    "triton-compatibility": f"{_RAW}/triton-inference-server/server/main/docs/introduction/compatibility.md",
    "triton-tags": "https://nvcr.io/v2/nvidia/tritonserver/tags/list",
    "nvidia-drivers": "https://docs.nvidia.com/datacenter/tesla/drivers/releases.json",
    "docker-el8": "https://download.docker.com/linux/rhel/8/x86_64/stable",
    "docker-el9": "https://download.docker.com/linux/rhel/9/x86_64/stable",
    "toolkit": "https://nvidia.github.io/libnvidia-container/stable/rpm/x86_64",
    "oci-shapes": f"{_RAW}/oracle-quickstart/oci-hpc-oke/main/docs/worker-node-images.json",
}
# The file names that --from reads. A repository is two files: NAME-repomd.xml, and NAME- with the list's file name.
FILES = {
    "nvidia-bulletins": "nvidia-bulletins-{year}.csv",
    "nvidia-bulletin": "nvidia-{number}.json",
    "triton-compatibility": "compatibility.md",
    "triton-tags": "tags.json",
    "nvidia-drivers": "releases.json",
    "docker-el8": "docker-el8-",
    "docker-el9": "docker-el9-",
    "toolkit": "toolkit-",
    "oci-shapes": "worker-node-images.json",
}
LARGEST_PAGE, LARGEST_UNPACKED = 16 * 2**20, 32 * 2**20
SECONDS_OF_SILENCE, SECONDS_OF_A_PAGE = 15, 60
DEEPEST_XML = 32
MOST_PAGES_OF_TAGS = 50
# what the readers of text, JSON, XML and packed files raise for a malformed page
_NOT_A_PAGE = (
    *(ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError, EOFError),
    *(ElementTree.ParseError, expat.ExpatError, zlib.error, lzma.LZMAError),
)
_REPO = "{http://linux.duke.edu/metadata/repo}"


@dataclass
class Pages:
    """Where pages come from: saved copies in `directory`, or their URLs."""

    directory: Path | None = None
    sources: Mapping[str, str] = field(default_factory=lambda: SOURCES)
    token: str = ""

    def read(self, name: str, *, more: str = "", **words: str) -> bytes:
        """
        The content of one page.

        + more: for a repository, the path below it
        + words: the values of {year} and {number}

        Raises PageError if it cannot be read, or is too large.
        """
        if self.directory is not None:
            path = self.directory / f"{_filled(FILES[name], words)}{more.rpartition('/')[2]}"
            try:
                with path.open("rb") as file:
                    return _bounded(file.read(LARGEST_PAGE + 1))
            except OSError as error:
                raise PageError(f"found {error.strerror}, expected the file {path}") from None
        url = self.url(name, more=more, **words)
        answer, _ = self._asked(url)
        return answer

    def url(self, name: str, *, more: str = "", **words: str) -> str:
        """The page's address."""
        url = _filled(self.sources[name], words)
        return f"{url.rstrip('/')}/{more}" if more else url

    def tags(self) -> list[str]:
        """Every tag of Triton's images: https://distribution.github.io/distribution/spec/api/#listing-image-tags."""
        if self.directory is not None:
            return _tags(self.read("triton-tags"))
        url, found = self.url("triton-tags"), list[str]()
        for _ in range(MOST_PAGES_OF_TAGS):
            answer, link = self._asked(url)
            found += _tags(answer)
            following = re.search(r'<([^>]+)>\s*;\s*rel="?next', link)
            if not following:
                return found
            url = urljoin(url, following[1])
        raise PageError(f"found more than {MOST_PAGES_OF_TAGS} pages of tags, expected an end")

    def _asked(self, url: str) -> tuple[bytes, str]:
        """The answer, and its Link header, which names the next part of a list."""
        if not url.startswith(("https://", "http://")):
            raise PageError(f"found {url[:80]!r}, expected a URL of http or https")
        for attempt in (1, 2):
            headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            try:
                with urllib.request.urlopen(
                    urllib.request.Request(url, headers=headers), timeout=SECONDS_OF_SILENCE
                ) as answer:
                    return _in_time(answer), answer.headers.get("Link", "")
            except urllib.error.HTTPError as error:
                challenge = error.headers.get("WWW-Authenticate", "")
                if error.code != 401 or attempt == 2 or not challenge:
                    raise PageError(f"found HTTP {error.code} of {url}, expected the page") from None
                registry = Registry(url.split("/")[2], url.startswith("http://"))
                self.token = registry.new_token(challenge, url)
            except (OSError, ValueError) as error:
                reason = getattr(error, "reason", error)
                raise PageError(f"found {one_line(str(reason))[:200]} of {url}, expected the page") from None
        raise AssertionError("unreachable")


def _filled(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"{{{word}}}", value)
    return text


def _bounded(content: bytes) -> bytes:
    if len(content) > LARGEST_PAGE:
        raise PageError(f"found more than {LARGEST_PAGE // 2**20} MiB, expected a page")
    return content


def _in_time(answer: Any) -> bytes:
    content, until = b"", time.monotonic() + SECONDS_OF_A_PAGE
    while chunk := answer.read1(2**16):
        content = _bounded(content + chunk)
        if time.monotonic() > until:
            raise PageError(f"found no end within {SECONDS_OF_A_PAGE} s, expected the page")
    return content


def _json(content: bytes) -> Any:
    if not content.strip():
        raise PageError("found nothing, expected JSON")
    try:
        return json.loads(content)
    except RecursionError:
        raise PageError("found JSON that is nested too deep, expected a page") from None
    except ValueError as error:
        begins = one_line(content[:40].decode("utf-8", "replace"))
        raise PageError(f"found {begins!r} …, expected JSON ({one_line(str(error))[:100]})") from None


def _tags(content: bytes) -> list[str]:
    document = _json(content)
    tags = document.get("tags") if isinstance(document, dict) else None
    if not isinstance(tags, list):
        raise PageError("found no tags, expected a list of them")
    return [str(tag) for tag in tags]


def _checked_xml(content: bytes) -> bytes:
    """The same content, if it is XML without a DTD and not nested too deep. Raises PageError otherwise."""
    parser, depth = expat.ParserCreate(), 0

    def begin(*_: Any) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST_XML:
            raise PageError("found XML that is nested too deep, expected a repository's metadata")

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    def refuse(*_: Any) -> None:
        raise PageError("found a document type, expected a repository's metadata")

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(content, True)
    return content


def _unpacked(content: bytes, name: str) -> bytes:
    kinds: dict[str, Callable[[io.BytesIO], Any]] = {
        ".gz": lambda file: gzip.GzipFile(fileobj=file),
        ".xz": lzma.LZMAFile,
        ".bz2": bz2.BZ2File,
        ".xml": lambda file: file,
    }
    suffix = f".{name.rpartition('.')[2]}"
    if suffix not in kinds:
        raise PageError(f"found a list packed as {suffix[:20]}, expected one of {', '.join(kinds)}")
    text: bytes = kinds[suffix](io.BytesIO(content)).read(LARGEST_UNPACKED + 1)
    if len(text) > LARGEST_UNPACKED:
        raise PageError(f"found more than {LARGEST_UNPACKED // 2**20} MiB unpacked, expected a list")
    return text


def packages(pages: Pages, name: str) -> dict[str, list[str]]:
    """Every package of a dnf repository: name -> its epoch:version-release."""
    head = ElementTree.fromstring(_checked_xml(pages.read(name, more="repodata/repomd.xml")))
    place = head.find(f"{_REPO}data[@type='primary']/{_REPO}location")
    location = place.get("href", "") if place is not None else ""
    if not re.fullmatch(r"[A-Za-z0-9._/-]+", location) or ".." in location or location.startswith("/"):
        raise PageError("found no list of packages in repomd.xml, expected a dnf repository")
    text = _checked_xml(_unpacked(pages.read(name, more=location), location))
    found: dict[str, list[str]] = {}
    for rpm in parse_primary(text, name):
        found.setdefault(rpm.name, []).append(str(rpm.version))
    return found


def tables() -> Tables:
    """The project's current tables."""
    data = read_group_data(GROUP_DATA)
    pins = {"docker": data["docker_packages"], "toolkit": data["nvidia_container_toolkit_packages"]}
    return Tables(RELEASES, FLOORS, pins, SHAPES, PLAIN_RELEASES)


def compared(pages: Pages, ours: Tables, today: date) -> tuple[list[Row], dict[str, str]]:
    """The rows that differ, and for each page that could not be read, the reason."""
    comparison = _Comparison(pages, ours, today)
    comparison.bulletins()
    comparison.releases()
    comparison.packages()
    return list(dict.fromkeys(comparison.rows)), comparison.unread


@dataclass
class _Comparison:
    """+ rows, unread: what compared() returns"""

    pages: Pages
    ours: Tables
    today: date
    rows: list[Row] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)

    def look(self, page: str, compare: Callable[[], Iterable[Row]]) -> None:
        """Add the rows of a page, or the reason why it could not be read."""
        try:
            self.rows.extend(list(compare()))
        except (PageError, BundleError) as error:
            self.unread[page] = one_line(str(error))
        except _NOT_A_PAGE as error:
            self.unread[page] = (
                f"found {type(error).__name__}: {one_line(str(error))[:160]}, expected the page's format"
            )

    def text(self, name: str, **words: str) -> str:
        """A page that is text."""
        return self.pages.read(name, **words).decode("utf-8", "replace")

    def bulletins(self) -> None:
        """NVIDIA's bulletins since the year of the first that the tables name."""
        found: list[currency.Fix] = []

        def one(year: str, number: str) -> Iterator[Row]:
            page = _json(self.pages.read("nvidia-bulletin", year=year, number=number))
            found.extend(currency.fixes(page, self.ours.floors))
            yield from ()

        def index(year: str) -> Iterator[Row]:
            for number in currency.bulletins(self.text("nvidia-bulletins", year=year)):
                self.look(f"nvidia-bulletin {number}", partial(one, year, number))
            yield from ()

        nvidia = (floor for floor in self.ours.floors if floor.bulletin.startswith("NVIDIA"))
        first = max(int(floor.published[:4]) for floor in nvidia)
        for year in map(str, range(first, self.today.year + 1)):
            self.look(f"nvidia-bulletins {year}", partial(index, year))
        source = self.pages.url("nvidia-bulletin", year=str(self.today.year))
        self.rows.extend(currency.moved_floors(self.ours, found, source))

    def releases(self) -> None:
        """Triton's releases and images, and the branches of the driver."""
        url, ours = self.pages.url, self.ours
        self.look(
            "triton-compatibility",
            lambda: currency.moved_matrix(
                ours, self.text("triton-compatibility"), url("triton-compatibility")
            ),
        )
        self.look("triton-tags", lambda: currency.moved_images(ours, self.pages.tags(), url("triton-tags")))
        self.look(
            "nvidia-drivers",
            lambda: currency.moved_branches(
                ours, _json(self.pages.read("nvidia-drivers")), self.today, url("nvidia-drivers")
            ),
        )

    def packages(self) -> None:
        """The packages that are pinned, and OCI's shapes."""

        def of_repository(name: str, os_major: str) -> Iterable[Row]:
            pins = self.ours.packages[name.partition("-")[0]]
            return currency.moved_packages(pins, packages(self.pages, name), os_major, self.pages.url(name))

        for name, os_major in (("docker-el8", "8"), ("docker-el9", "9"), ("toolkit", "9")):
            self.look(name, partial(of_repository, name, os_major))
        self.look(
            "oci-shapes",
            lambda: currency.moved_shapes(
                self.ours, _json(self.pages.read("oci-shapes")), self.pages.url("oci-shapes")
            ),
        )


def _sources(given: list[str]) -> dict[str, str]:
    found = dict(SOURCES)
    for text in given:
        name, equals, url = text.partition("=")
        if name not in SOURCES or not equals or not url.startswith(("https://", "http://")):
            raise PlanError(
                "--source", one_line(text)[:120], "NAME=URL of http or https", suggestion(name, SOURCES)
            )
        found[name] = url
    return found


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """The command's options. + prog: the name that its messages use"""
    parser = argparse.ArgumentParser(prog=prog, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--from", dest="directory", type=Path, help="a folder with saved copies of the pages")
    parser.add_argument("--source", action="append", default=[], metavar="NAME=URL", help=", ".join(SOURCES))
    parser.add_argument("--json", action="store_true", help="for a program")
    return parser


def main(arguments: list[str] | None = None, today: date | None = None, prog: str = PROGRAM) -> int:
    """The command; 0 nothing has moved, 1 something has, 2 wrong usage, 3 a page could not be read."""
    given = parser(prog).parse_args(arguments)
    try:
        sources = _sources(given.source)
        if given.directory and not given.directory.is_dir():
            raise PlanError("--from", str(given.directory), "a folder with saved copies of the pages")
    except PlanError as error:
        print(f"tritonhost: {error}", file=sys.stderr)
        return 2
    rows, unread = compared(Pages(given.directory, sources), tables(), today or date.today())
    if given.json:
        print(json.dumps(currency.as_json(rows, unread), indent=2))
    else:
        print("\n".join(currency.table(rows, unread)) or "nothing has moved")
    return currency.exit_code(rows, unread)


if __name__ == "__main__":
    sys.exit(main())
