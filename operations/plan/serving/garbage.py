"""Which releases are kept, and which of the artifacts no kept release needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from operations.plan.artifacts.artifact import artifact_path
from operations.plan.observed.observed import Outcome, ReleaseVerdict
from operations.plan.serving.compile_cache import DIRECTORY as CACHES


@dataclass(frozen=True)
class Stored:
    """A complete release on a host."""

    id: str
    made: int  # seconds since 1970
    verdict: ReleaseVerdict | None  # None: never started
    model: str
    stack: str  # YY.MM
    artifacts: tuple[tuple[str, str], ...]  # kind and key
    images: tuple[str, ...]  # tags
    golden: tuple[Mapping[str, Any], ...] = ()
    cache: str = ""  # the key of the directory that its server writes
    service: str = ""  # the unit that it was made for; empty: a version before wrote it
    address: str = "127.0.0.1"
    grpc_port: int = 8001


def unread(stored: Sequence[Stored], names: Sequence[str]) -> list[str]:
    """Releases that could not be read. What they need is not known, so nothing may be removed then."""
    known = {release.id for release in stored}
    releases = (name for name in names if name.startswith("releases/") and not name.endswith(".partial"))
    return sorted(
        name for name in releases if not name.startswith("releases/.") and name.split("/")[1] not in known
    )


def garbage(
    stored: Sequence[Stored],
    links: Mapping[str, str],
    names: Sequence[str],
    keep: int,
    in_use: Collection[str] = (),
    linked: Collection[str] = (),
    beside: Collection[str] = (),
    of: str = "",
) -> tuple[list[str], list[str]]:
    """
    Directories below the data root, and tags of images, that no kept release needs.

    + stored: the host's releases
    + links: `current` and `previous`, as ids
    + names: what exists: `<directory>/<key>`, and `tritonhost/…` tags
    + in_use: names among those that are always kept, because the plan wants them now
    + keep: how many releases to keep; current and previous are always among them
    + linked: ids of releases that a service of the host links to: they are kept
    + of: the service whose releases they are; those of one that the host has not any more do not count as kept
    + beside: the other services of the host, whose releases are theirs to remove; then only what a removed release names goes

    Nothing if `current` is not known: then the running release cannot be told from the others.
    """
    known = {release.id for release in stored}
    own = {links.get("current", ""), links.get("previous", "")} & known
    others = {release.id for release in stored if release.service in beside and release.id not in own}
    if links.get("current") not in known:
        return [], []
    ours = [one for one in stored if one.id not in others and not (beside and one.service not in ("", of))]
    kept = set(own)
    for release in _proven(ours):
        if len(kept) >= keep:
            break
        kept.add(release.id)
    kept |= others | (set(linked) & known)
    if unread(stored, names):
        return [], []
    needed = _named_by(release for release in stored if release.id in kept) | set(in_use)
    removed = sorted(name for name in names if name not in needed)
    if beside:
        # what no release names may be what another service is making, or its gateway's image
        gone = _named_by(release for release in stored if release.id not in kept)
        removed = [name for name in removed if name in gone]
    images = [name for name in removed if name.startswith("tritonhost/")]
    return [name for name in removed if name not in images], images


def _proven(releases: Iterable[Stored]) -> list[Stored]:
    """Those that were proven, the newest first."""
    proven = (one for one in releases if one.verdict and one.verdict.outcome is Outcome.PROVEN)
    return sorted(proven, key=lambda one: (-one.made, one.id))


def _named_by(releases: Iterable[Stored]) -> set[str]:
    """What releases are, and are made of: directories below the data root, and tags of images."""
    names: set[str] = set()
    for release in releases:
        names.add(artifact_path("", "release", release.id)[1:])
        names |= {artifact_path("", kind, key)[1:] for kind, key in release.artifacts}
        names |= {*release.images, *([f"{CACHES}/{release.cache}"] if release.cache else [])}
    return names
