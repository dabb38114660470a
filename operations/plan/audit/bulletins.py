"""The feed: what the bulletins say of our components, as one small file that is read without a network. Pure but for that file.

`tritonhost exposure --update-feed` makes it from CSAF documents; files/exposure/bulletins.json is the one that is shipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from operations.plan.audit.csaf import Bulletin, CsafError, Range, read
from operations.plan.catalog.version_floors import Component
from operations.plan.errors import PlanError, one_line
from operations.plan.paths import PROJECT, TREE

SHIPPED = TREE / "files" / "exposure" / "bulletins.json"
# A project's own: the newer of the two is read
OWN = PROJECT / "inventories" / "bulletins.json"
FORMAT = 1
DAYS = 60  # from then on a feed is called old
LARGEST = 16 * 2**20
_THEN = "make it again: tritonhost exposure --update-feed DIRECTORY"


def _version(text: str) -> str:
    if text:
        try:
            Version(text)
        except InvalidVersion:
            raise ValueError("a version in numbers, such as 26.07") from None
    return text


Number = Annotated[str, Field(max_length=40), AfterValidator(_version)]
Line = Annotated[str, AfterValidator(one_line), Field(max_length=2000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Affected(_Part):
    """
    A component that a bulletin names, with the vulnerabilities that one range of versions has.

    + branch: of the driver; low, below, through, fixed, remedy: as in operations/plan/audit/csaf.py
    + cves: each with its CVSS base score, null where the document has none
    """

    component: Component
    branch: Annotated[str, Field(pattern=r"^[0-9]{0,4}$")] = ""
    low: Number = ""
    below: Number = ""
    through: Number = ""
    fixed: Number = ""
    remedy: Line = ""
    cves: Annotated[dict[str, Annotated[float, Field(ge=0, le=10)] | None], Field(min_length=1)]

    def holds(self, version: str) -> bool:
        """Whether a version is affected. Raises InvalidVersion."""
        if self.branch and version.split(".")[0] != self.branch:
            return False
        return Range(self.low, self.below, self.through).holds(Version(version))


class Entry(_Part):
    """One bulletin, NVIDIA 5865."""

    bulletin: Annotated[Line, Field(min_length=1, max_length=80)]
    published: date
    affects: list[Affected]


class Feed(_Part):
    """
    The file.

    + collected: the day on which the documents were collected
    + source: where they are from
    + unread: sentences about our components that were not understood
    """

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)]
    collected: date
    source: Line
    bulletins: list[Entry]
    unread: list[Line] = []

    @property
    def newest(self) -> str:
        """The day of the newest bulletin; empty where there is none."""
        return max((entry.published.isoformat() for entry in self.bulletins), default="")

    def lacks(self, other: Feed) -> list[str]:
        """The bulletins that another feed has, and this one has not."""
        names = {entry.bulletin for entry in self.bulletins}
        return [entry.bulletin for entry in other.bulletins if entry.bulletin not in names]

    def age(self, today: date) -> int:
        """In days."""
        return (today - self.collected).days

    def old(self, today: date) -> bool:
        """Whether it is too old to be relied on."""
        return self.age(today) > DAYS


def made_of(documents: Iterable[tuple[str, Any]], collected: date, source: str) -> Feed:
    """
    The feed of these documents. Of two of one bulletin the later release is taken.

    + documents: the name of each for errors, and what its JSON says

    Raises PlanError that names the document.
    """
    found: dict[str, Bulletin] = {}
    for name, document in documents:
        try:
            bulletin = read(document)
        except CsafError as error:
            raise _no_document(name, str(error)) from None
        known = found.get(bulletin.name)
        if known is None or known.published <= bulletin.published:
            found[bulletin.name] = bulletin
    ordered = sorted(found.values(), key=lambda one: (one.published, one.name), reverse=True)
    entries = [entry for bulletin in ordered if (entry := _entry(bulletin)).affects]
    unread = [f"{bulletin.name}: {text}" for bulletin in ordered for text in bulletin.unread]
    return Feed(format=FORMAT, collected=collected, source=source, bulletins=entries, unread=unread)


def _no_document(name: str, said: str) -> PlanError:
    found, _, expected = said.removeprefix("found ").partition(", expected ")
    return PlanError("", found, expected or "a CSAF 2.0 document", where=name, reference="not-a-bulletin")


def _entry(bulletin: Bulletin) -> Entry:
    ranges: dict[tuple[Any, ...], dict[str, float | None]] = {}
    for one in bulletin.statements:
        key = (one.component, one.branch, one.affected, one.fixed, one.remedy)
        cves = ranges.setdefault(key, {})
        cves[one.cve] = max(
            (score for score in (cves.get(one.cve), one.cvss) if score is not None), default=None
        )
    affects = [
        Affected(
            component=component,
            branch=branch,
            low=affected.low,
            below=affected.below,
            through=affected.through,
            fixed=fixed,
            remedy=remedy,
            cves=dict(sorted(cves.items())),
        )
        for (component, branch, affected, fixed, remedy), cves in sorted(
            ranges.items(), key=lambda item: (item[0][0], item[0][1], str(item[0][2]))
        )
    ]
    return Entry(bulletin=bulletin.name, published=date.fromisoformat(bulletin.published), affects=affects)


def as_text(feed: Feed) -> str:
    """The file's text: a bulletin's component in one line, so that a difference can be read."""
    head = {"format": feed.format, "collected": feed.collected.isoformat(), "source": feed.source}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    bulletins = []
    for entry in feed.bulletins:
        affects = ",\n    ".join(
            json.dumps(one.model_dump(exclude_defaults=True), ensure_ascii=False) for one in entry.affects
        )
        bulletins.append(
            f'  {{"bulletin": {json.dumps(entry.bulletin)}, "published": "{entry.published}", "affects": [\n    {affects}]}}'
        )
    unread = ",\n  ".join(json.dumps(text, ensure_ascii=False) for text in feed.unread)
    body = [' "bulletins": [', ",\n".join(bulletins), " ],", f' "unread": [{unread}]']
    return "\n".join(["{", *lines, *body, "}"]) + "\n"


def load(path: Path) -> Feed:
    """A feed's file. Raises PlanError."""
    return Feed.model_validate(checked(path, Feed, _THEN))


def newest(paths: Sequence[Path]) -> tuple[Feed, Path]:
    """The feed that was collected last, of those files that are there. Raises PlanError."""
    found = [(load(path), path) for path in paths if path.is_file()]
    if not found:
        raise PlanError("--feed", "no feed", f"the file {paths[0]}", _THEN, reference="no-feed")
    return max(found, key=lambda pair: pair[0].collected)


def read_json(path: Path, then: str = "") -> Any:
    """A file's JSON. Raises PlanError with one line."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise PlanError(
            "",
            error.strerror or "no file",
            "a file that can be read",
            then,
            where=str(path),
            reference="no-file",
        ) from None
    if len(content) > LARGEST:
        raise PlanError(
            "", f"more than {LARGEST // 2**20} MiB", "less", then, where=str(path), reference="file-too-large"
        )
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        said = one_line(str(error))[:100] if isinstance(error, ValueError) else "nested too deep"
        raise PlanError(
            "", f"text that is no JSON ({said})", "JSON", then, where=str(path), reference="not-json"
        ) from None


def checked(path: Path, model: type[BaseModel], then: str = "") -> BaseModel:
    """A file's JSON as such a model. Raises PlanError that names the first key that is wrong."""
    value = read_json(path, then)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise PlanError(
            key,
            first["input"],
            first["msg"].removeprefix("Value error, "),
            then,
            where=str(path),
            reference="not-our-file",
        ) from None
