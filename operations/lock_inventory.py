"""Pin what an inventory needs: ask registries, the hub and dnf repositories, and write inventories/lock.toml.

python -m operations.lock_inventory inventories/oci.py
python -m operations.lock_inventory inventories/oci.py --check
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError

from operations.bundle import rpms
from operations.bundle.fetch import BundleError
from operations.bundle.images import Registry
from operations.hub_repository import newest_commit
from operations.intake.secrets import SecretMissing
from operations.plan.artifacts.artifact import published
from operations.plan.errors import PlanError
from operations.plan.explain import UNKNOWN_DIGEST, gpus_from
from operations.plan.inventory import lock_file
from operations.plan.inventory.hosts import checked_hosts, settings_of
from operations.plan.inventory.lock_file import Locked, read_lock, text_of
from operations.plan.inventory.settings import Settings
from operations.plan.machine.packages import (
    SUPPORTED_OS_MAJORS,
    for_os,
    runtime_packages,
    same_version,
    toolkit_url,
)
from operations.plan.planning import plan_release
from operations.plan.profile.profiles import load_profile
from operations.plan.release import Release

PROGRAM = "python -m operations.lock_inventory"


@dataclass(frozen=True)
class Wanted:
    """
    What is asked for.

    + images: name:tag -> registry, and whether it speaks plain HTTP
    + models: OWNER/NAME -> the hub's URL, and the commit that a profile pins
    + packages: (Oracle Linux version, repository's URL) -> package -> version
    """

    images: Mapping[str, tuple[str, bool]]
    models: Mapping[str, tuple[str, str]]
    packages: Mapping[tuple[str, str], Mapping[str, str]]


class _AnyDigest(dict[str, str]):
    """Digests in which none is missing, so that an inventory can be planned before they are known."""

    def __missing__(self, name: str) -> str:
        return UNKNOWN_DIGEST

    def get(self, name: str, default: object = None) -> str:
        return self[name]


def wanted_of(inventory: Path, os_majors: Iterable[str]) -> Wanted:
    """What an inventory's hosts need. Raises PlanError as a deploy would, but for missing digests."""
    if not inventory.is_file() or inventory.suffix != ".py":
        found = "a file of another kind" if inventory.is_file() else "no such file"
        then = "such as inventories/oci.py"
        raise PlanError(
            "", found, "the Python file of an inventory", then, where=str(inventory), reference="no-inventory"
        )
    hosts = checked_hosts(runpy.run_path(str(inventory)).get("hosts"), inventory.name)
    images: dict[str, tuple[str, bool]] = {}
    models: dict[str, tuple[str, str]] = {}
    packages: dict[tuple[str, str], dict[str, str]] = {}
    for settings in settings_of(hosts, inventory.stem, inventory.parent / "group_data").values():
        release = _planned(settings)
        for image in release.images:
            registry = settings.image_registry if image.name == "serving" else settings.docker_hub_registry
            insecure = settings.docker_daemon_settings.get("insecure-registries", [])
            plain = registry in insecure or f"http://{registry}" in insecure
            images |= dict.fromkeys(published(image.inputs), (registry, plain))
        for step in release.recipe.downloads:
            if step.artifact.kind == "weights":
                models[step.artifact.inputs["repository"]] = (
                    settings.hub_endpoint,
                    step.artifact.inputs["revision"],
                )
        for major in os_majors:
            _add_packages(packages, settings, major)
    return Wanted(images, models, packages)


def _planned(settings: Settings) -> Release:
    profile = load_profile(settings.model, settings.profile_overrides)
    hardware = profile.hardware
    gpus = f"{hardware.gpu}:{hardware.count}" if hardware else f"NVIDIA H200:{profile.gpus_needed}"
    digests = _AnyDigest(settings.image_digests)
    everything = settings.model_copy(update={"gpu_ids": "all", "image_digests": digests})
    return plan_release(everything, gpus_from(gpus), profile=profile)


def _add_packages(packages: dict[tuple[str, str], dict[str, str]], settings: Settings, major: str) -> None:
    """The pinned packages, each in the repository that has it."""
    urls = {True: toolkit_url(settings, major), False: settings.docker_repository_url}
    for name, version in runtime_packages(settings, major).items():
        if version:
            of_toolkit = name.startswith(("nvidia-", "libnvidia-"))
            url = for_os(urls[of_toolkit], major).replace("$basearch", "x86_64")
            packages.setdefault((major, url), {})[name] = version


def found(wanted: Wanted, today: date) -> list[Locked]:
    """
    Ask for everything.

    Raises BundleError for a source that does not answer, or does not have what is pinned.
    """
    at = today.isoformat()
    entries = []
    for name, (registry, plain) in sorted(wanted.images.items()):
        repository, _, tag = name.partition(":")
        digest = Registry(registry, plain).digest(repository, tag)
        entries.append(Locked("images", name, digest, registry, at))
    for name, (endpoint, pinned) in sorted(wanted.models.items()):
        newest_commit(name, endpoint, pinned)  # the pinned one is there
        entries.append(Locked("models", name, newest_commit(name, endpoint), endpoint, at))
    for (major, url), versions in sorted(wanted.packages.items()):
        with TemporaryDirectory(prefix="tritonhost-") as folder:
            there = rpms.mirror_metadata(url, Path(folder), "packages")
        for name, version in sorted(versions.items()):
            if not any(rpm.name == name and same_version(version, str(rpm.version)) for rpm in there):
                has = ", ".join(
                    str(rpm.version) for rpm in rpms.newest(rpm for rpm in there if rpm.name == name)
                )
                raise BundleError(
                    f"package {name} {version}: found {has or 'none'} in {url}, expected that version; correct the pin, or the repository"
                )
            entries.append(Locked("packages", f"{name}.el{major}", version, url, at))
    return entries


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
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".lock-", suffix=".toml", dir=path.parent)
        part = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text_of(entries))
            read_lock(part)
            part.chmod(0o644)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
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
        before = read_lock(lock_file.LOCK)
        entries = found(wanted_of(given.inventory, given.os), today or datetime.now(UTC).date())
        rows = moved(before, entries)
        if not given.check:
            write(entries)
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
