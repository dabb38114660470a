"""Pin what an inventory needs: ask registries, the hub and dnf repositories, and write inventories/lock.toml.

python -m operations.lock_inventory inventories/oci.py
python -m operations.lock_inventory inventories/oci.py --check
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.error import HTTPError

from operations.bundle import rpms
from operations.bundle.fetch import BundleError
from operations.bundle.images import Registry
from operations.bundle.make import gpus_for, settings_in
from operations.hub_repository import newest_commit
from operations.intake.secrets import SecretMissing
from operations.plan.artifacts.artifact import ServingImage, published
from operations.plan.artifacts.images import registry_of
from operations.plan.balancing import load_balancer
from operations.plan.errors import PlanError
from operations.plan.explain import UNKNOWN_DIGEST
from operations.plan.inventory import lock_file
from operations.plan.inventory.lock_file import Locked, read_lock, text_of
from operations.plan.inventory.settings import Settings
from operations.plan.machine.packages import (
    SUPPORTED_OS_MAJORS,
    for_os,
    runtime_packages,
    same_version,
    toolkit_url,
)
from operations.plan.monitoring import server
from operations.plan.planning import plan_release
from operations.plan.profile.profiles import load_profile
from operations.plan.release import Release
from operations.whole_file import beside

PROGRAM = "python -m operations.lock_inventory"


class Image(NamedTuple):
    """What is pulled. + plain: the registry speaks HTTP"""

    name: str
    registry: str
    plain: bool


class Model(NamedTuple):
    """A repository of a hub, at the commit that a profile pins."""

    name: str
    hub: str
    commit: str


class Package(NamedTuple):
    """A package for a version of Oracle Linux, in the repository that has it."""

    name: str
    version: str
    os_major: str
    url: str


@dataclass(frozen=True)
class Wanted:
    """What an inventory's hosts fetch, each once."""

    images: frozenset[Image]
    models: frozenset[Model]
    packages: frozenset[Package]


class _AnyDigest(dict[str, str]):
    """Digests in which none is missing, so that an inventory can be planned before they are known."""

    def __missing__(self, name: str) -> str:
        return UNKNOWN_DIGEST

    def get(self, name: str, default: object = None) -> str:
        return self[name]


def wanted_of(inventory: Path, os_majors: Iterable[str]) -> Wanted:
    """What an inventory's hosts need. Raises PlanError as a deploy would, but for missing digests."""
    images: set[Image] = set()
    models: set[Model] = set()
    packages: set[Package] = set()
    with lock_file.unread():
        hosts = settings_in(inventory)
    for settings in hosts.values():
        if settings.load_balancer:
            for major in os_majors:
                packages |= _packages(settings, load_balancer.packages(settings, major), major)
            continue
        if settings.monitoring_server:
            digests = _AnyDigest(settings.image_digests)
            made = server.images(settings.model_copy(update={"image_digests": digests}))
            images |= _images(settings, made)
            for major in os_majors:
                packages |= _packages(settings, server.packages(settings, major), major)
            continue
        release = _planned(settings)
        images |= _images(settings, release.images)
        for step in release.recipe.downloads:
            if step.artifact.kind == "weights":
                inputs = step.artifact.inputs
                models.add(Model(inputs["repository"], settings.hub_endpoint, inputs["revision"]))
        for major in os_majors:
            packages |= _packages(settings, runtime_packages(settings, major), major)
    return Wanted(frozenset(images), frozenset(models), frozenset(packages))


def _planned(settings: Settings) -> Release:
    profile = load_profile(settings.model, settings.profile_overrides)
    digests = _AnyDigest(settings.image_digests)
    everything = settings.model_copy(update={"gpu_ids": "all", "image_digests": digests})
    return gpus_for(settings, profile, lambda gpus: plan_release(everything, gpus, profile=profile))


def _images(settings: Settings, wanted: Iterable[ServingImage]) -> set[Image]:
    """What of published images these are, or are made from."""
    found = set()
    for image in wanted:
        registry = registry_of(settings, image)
        insecure = settings.docker_daemon_settings.get("insecure-registries", [])
        plain = registry in insecure or f"http://{registry}" in insecure
        found |= {Image(name, registry, plain) for name in published(image.inputs)}
    return found


def _packages(settings: Settings, wanted: Mapping[str, str | None], major: str) -> set[Package]:
    """The pinned packages."""
    urls = {True: toolkit_url(settings, major), False: settings.docker_repository_url}
    found = set()
    for name, version in wanted.items():
        if version:
            of_toolkit = name.startswith(("nvidia-", "libnvidia-"))
            url = for_os(urls[of_toolkit], major).replace("$basearch", "x86_64")
            found.add(Package(name, version, major, url))
    return found


def found(wanted: Wanted, today: date, inventory: str) -> list[Locked]:
    """
    Ask for everything.

    + inventory: its name, for which the entries are made

    Raises BundleError for a source that does not answer, or does not have what is pinned.
    """
    at, used = today.isoformat(), (inventory,)
    entries = [
        *(
            Locked("images", name, value, origin, at, used)
            for name, (value, origin) in _digests(wanted).items()
        ),
        *(
            Locked("models", name, value, origin, at, used)
            for name, (value, origin) in _commits(wanted).items()
        ),
        *(
            Locked("packages", name, value, origin, at, used)
            for name, (value, origin) in _versions(wanted).items()
        ),
    ]
    return entries


def _digests(wanted: Wanted) -> dict[str, tuple[str, str]]:
    """name:tag -> digest and registry. Two registries must agree: a deploy has one digest for a name."""
    seen: dict[str, tuple[str, str]] = {}
    for image in sorted(wanted.images):
        repository, _, tag = image.name.partition(":")
        digest = Registry(image.registry, image.plain).digest(repository, tag)
        other, where = seen.setdefault(image.name, (digest, image.registry))
        if other != digest:
            raise BundleError(
                f"image {image.name}: found {digest} at {image.registry} and {other} at {where}, expected one digest; "
                "write image_digests of these hosts into the inventory"
            )
    return seen


def _commits(wanted: Wanted) -> dict[str, tuple[str, str]]:
    """Repository -> the newest commit and its hub. Each pinned commit must be there."""
    seen: dict[str, tuple[str, str]] = {}
    for model in sorted(wanted.models):
        try:
            newest_commit(model.name, model.hub, model.commit)
            if model.name not in seen:
                seen[model.name] = newest_commit(model.name, model.hub), model.hub
        except PlanError as error:
            raise BundleError(str(error)) from None
    return seen


def _versions(wanted: Wanted) -> dict[str, tuple[str, str]]:
    """NAME.elN -> the pinned version and its repository; with the version in the name where hosts pin several."""
    there: dict[str, list[rpms.Rpm]] = {}
    pinned: dict[str, set[str]] = {}
    for package in wanted.packages:
        pinned.setdefault(f"{package.name}.el{package.os_major}", set()).add(package.version)
    seen: dict[str, tuple[str, str]] = {}
    for package in sorted(wanted.packages):
        if package.url not in there:
            with TemporaryDirectory(prefix="tritonhost-") as folder:
                there[package.url] = rpms.mirror_metadata(package.url, Path(folder), "packages")
        of_name = [rpm for rpm in there[package.url] if rpm.name == package.name]
        if not any(same_version(package.version, str(rpm.version)) for rpm in of_name):
            has = ", ".join(str(rpm.version) for rpm in rpms.newest(of_name)) or "none"
            raise BundleError(
                f"package {package.name} {package.version}: found {has} in {package.url}, expected that version; correct the pin, or the "
                "repository"
            )
        name = f"{package.name}.el{package.os_major}"
        name = name if len(pinned[name]) == 1 else f"{name} {package.version}"
        seen.setdefault(name, (package.version, package.url))
    return seen


def merged(before: Iterable[Locked], now: Iterable[Locked], inventory: str) -> list[Locked]:
    """The entries of an inventory in the place of its earlier ones; those of other inventories stay."""
    entries = {(entry.kind, entry.name): entry for entry in now}
    for old in before:
        others = tuple(name for name in old.inventories if name != inventory)
        if not others:
            continue
        new = entries.get((old.kind, old.name))
        entries[old.kind, old.name] = replace(
            new or old, inventories=(*others, *(new.inventories if new else ()))
        )
    return list(entries.values())


@dataclass(frozen=True)
class Row:
    """One difference between the lock file and what was found. + before: empty where the file has no such entry"""

    kind: str
    name: str
    before: str
    now: str


def moved(before: Iterable[Locked], now: Iterable[Locked]) -> list[Row]:
    """What differs, and what the file has that is not needed any more."""
    old = {(entry.kind, entry.name): entry.value for entry in before}
    new = {(entry.kind, entry.name): entry.value for entry in now}
    return [
        Row(*key, old.get(key, ""), new.get(key, ""))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def write(entries: list[Locked]) -> None:
    """The lock file has these entries: it is replaced whole, after it was read again."""
    path = lock_file.LOCK
    try:
        with beside(path, text_of(entries), ".toml") as part:
            read_lock(part)
            part.replace(path)
    except OSError as error:
        raise PlanError(
            str(path), error.strerror, "a file that can be written", reference="not-written"
        ) from None


def parser(prog: str = PROGRAM, inventory: str | None = None) -> argparse.ArgumentParser:
    """The command's options. + prog: the name that its messages use; inventory: the one where none is named"""
    parser = argparse.ArgumentParser(prog=prog, description="Pin what an inventory's hosts fetch.")
    parser.add_argument(
        "inventory",
        type=Path,
        nargs="?" if inventory else None,
        default=inventory and Path(inventory),
        help="such as inventories/oci.py",
    )
    parser.add_argument(
        "--check", action="store_true", help="only say what has moved; exit code 1 if something has"
    )
    parser.add_argument(
        "--os", nargs="+", choices=SUPPORTED_OS_MAJORS, default=["9"], help="versions of Oracle Linux"
    )
    parser.add_argument("--json", action="store_true", help="for a program")
    return parser


def main(
    arguments: list[str] | None = None,
    prog: str = PROGRAM,
    today: date | None = None,
    inventory: str | None = None,
) -> int:
    """The command: 0, 1 for a source that does not answer or, with --check, for what has moved, 2 for a bad inventory."""
    given = parser(prog, inventory).parse_args(arguments)
    try:
        name = given.inventory.stem
        before = _before(given.check)
        entries = found(wanted_of(given.inventory, given.os), today or datetime.now(UTC).date(), name)
        rows = moved([entry for entry in before if name in entry.inventories], entries)
        if not given.check:
            write(merged(before, entries, name))
    except (PlanError, SecretMissing) as error:
        print(f"tritonhost: {error}", file=sys.stderr)
        return 2
    except HTTPError as error:
        problem = f"found HTTP {error.code}, expected an answer without an account"
        print(f"lock: {error.url.partition('?')[0]}: {problem}", file=sys.stderr)
        return 1
    except (BundleError, OSError) as error:
        print(f"lock: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps({"moved": [asdict(row) for row in rows], "entries": len(entries)}, indent=2))
    else:
        print(_table(rows, len(entries), given.check), end="")
    return 1 if given.check and rows else 0


def _before(check: bool) -> list[Locked]:
    """The entries of the lock file. A damaged one is written again, and compared with nothing."""
    try:
        return read_lock(lock_file.LOCK)
    except PlanError as error:
        if check:
            raise
        print(f"lock: {error}", file=sys.stderr)
        return []


def _table(rows: list[Row], count: int, check: bool) -> str:
    lines = [(row.kind, row.name, row.before or "-", row.now or "not needed") for row in rows]
    widths = [max((len(line[column]) for line in lines), default=0) for column in range(3)]
    table = [
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False)), line[3]])
        for line in lines
    ]
    what = (
        f"{count} entries, {len(rows)} moved"
        if check
        else f"{count} entries in inventories/lock.toml, {len(rows)} new or moved"
    )
    return "\n".join([*table, f"lock: {what}"]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
