"""Which hosts are exposed: what is on them, against the version floors and NVIDIA's security bulletins. Changes nothing on a host.

python -m operations.exposure                                        # read the hosts of inventories/oci.py
python -m operations.exposure --save facts.json                      # and keep what was read
python -m operations.exposure --facts facts.json --json              # without hosts and without a network
python -m operations.exposure --update-feed product-security/2026    # make the feed from CSAF documents

Exit codes: 0 nothing is exposed, 1 something is, 2 wrong usage, or a host could not be read and nothing is exposed on the others.
"""

from __future__ import annotations

if __name__ == "__main__":
    # before anything else is imported, as for the preflight
    from gevent import monkey

    monkey.patch_all()

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.host import Host

from operations import inputs, preflight, pyinfra_patches
from operations.facts import versions
from operations.intake import host_key
from operations.intake.refusing import refusing
from operations.plan.audit import bulletins, exposed_page, fleet
from operations.plan.audit.exposed import audit
from operations.plan.audit.fleet import Entry, Fleet, Found, Wanted
from operations.plan.audit.pins import Pins, proposals
from operations.plan.errors import PlanError, one_line, suggestion
from operations.plan.inventory.hosts import read_group_data
from operations.plan.inventory.settings import Settings, from_host_data
from operations.plan.paths import PROJECT, TREE
from operations.plan.profile.profiles import load_profile
from operations.remote.detached import LOST, shell

PROGRAM = "python -m operations.exposure"
INVENTORY = "inventories/oci.py"
SECONDS = 120
SHIPPED_DATA = TREE / "inventories" / "group_data" / "all.py"


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """The program's options. + prog: the name that its messages use"""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="show which hosts have versions with known vulnerabilities; changes nothing on a host",
    )
    parser.add_argument(
        "--inventory", metavar="FILE", help=f"default: {INVENTORY}; with --facts: what the facts have of it"
    )
    parser.add_argument(
        "--limit", action="append", default=[], help="only these hosts or this group; may be repeated"
    )
    parser.add_argument(
        "--facts", type=Path, metavar="FILE", help="what --save has written, in place of the hosts"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="write what was read of the hosts")
    parser.add_argument(
        "--feed",
        type=Path,
        metavar="FILE",
        help="the bulletins; default: the newer of inventories/bulletins.json and the one that is shipped",
    )
    parser.add_argument(
        "--all", action="store_true", help="a row for each bulletin, and not one for each version"
    )
    parser.add_argument("--json", action="store_true", help="for a program, on standard output")
    parser.add_argument(
        "--update-feed",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="make the feed from CSAF documents, or folders with them; no host is read",
    )
    parser.add_argument(
        "--collected",
        metavar="YYYY-MM-DD",
        help="with --update-feed: the day on which they were collected; default: today",
    )
    parser.add_argument(
        "--source", default="", metavar="TEXT", help="with --update-feed: where they are from"
    )
    inputs.add_data(parser)
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = PROGRAM, today: date | None = None) -> int:
    """The command; see the exit codes at the top of this file."""
    given = parser(prog).parse_args(arguments)
    day = today or datetime.now(UTC).date()
    inputs.quieten()
    with refusing(as_json=given.json):
        _check(given)
        if given.update_feed:
            return update(given, day)
        feed, where = chosen_feed(given)
        observed = _limited(of_facts(given), given.limit) if given.facts else of_hosts(given)
        if given.save:
            _write(given.save, fleet.as_text(observed), "--save")
        found = audit(observed, feed, day)
        proposed = proposals(observed, found.findings, feed, shipped_pins(), day)
    if given.json:
        print(json.dumps(exposed_page.as_json(observed, feed, found, proposed, day, _short(where)), indent=2))
    else:
        print("\n".join(exposed_page.page(observed, feed, found, proposed, day, _short(where), given.all)))
    for name, problem in found.unread.items():
        print(f"tritonhost: {name}: not read: {problem}", file=sys.stderr)
    return found.exit_code


def _check(given: argparse.Namespace) -> None:
    """Options that do not go together. Raises PlanError."""
    together = [
        ("--facts", given.facts),
        ("--save", given.save),
        ("--json", given.json),
        ("--limit", given.limit),
    ]
    if given.update_feed:
        for name, value in together:
            if value:
                raise PlanError(
                    name, "it beside --update-feed", "one of the two", reference="options-that-exclude"
                )
    elif given.collected or given.source:
        raise PlanError(
            "--collected" if given.collected else "--source",
            "it without --update-feed",
            "both",
            reference="options-that-exclude",
        )
    if given.facts and given.save:
        raise PlanError("--save", "it beside --facts", "one of the two", reference="options-that-exclude")


def _write(path: Path, text: str, option: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PlanError(option, error.strerror or "an error", f"a file that can be written: {path}") from None


# --- the feed


def chosen_feed(given: argparse.Namespace) -> tuple[bulletins.Feed, Path]:
    """The feed and its file. Raises PlanError."""
    if given.feed:
        return bulletins.load(given.feed), given.feed
    return bulletins.newest([bulletins.OWN, bulletins.SHIPPED])


def _short(path: Path) -> str:
    """A path as an operator writes it: within the project from there on."""
    for root in (PROJECT, TREE):
        if path.is_relative_to(root):
            return str(path.relative_to(root))
    return str(path)


def update(given: argparse.Namespace, today: date) -> int:
    """Write the feed that these documents make; what of them was not understood is printed. Raises PlanError."""
    try:
        collected = date.fromisoformat(given.collected) if given.collected else today
    except ValueError:
        raise PlanError("--collected", given.collected, "a day as YYYY-MM-DD") from None
    source = one_line(given.source) or f"{', '.join(path.name for path in given.update_feed)}"[:1000]
    feed = bulletins.made_of(documents(given.update_feed), collected, source)
    if not feed.bulletins:
        paths = ", ".join(map(str, given.update_feed))
        raise PlanError(
            "--update-feed", f"no bulletin about a component of ours in {paths}", "CSAF 2.0 documents"
        )
    path = given.feed or bulletins.OWN
    _write(path, bulletins.as_text(feed), "--feed")
    for text in feed.unread:
        print(f"tritonhost: not understood: {text}", file=sys.stderr)
    known, where = bulletins.newest([bulletins.SHIPPED])
    if lacking := feed.lacks(known):
        print(
            f"tritonhost: not among these documents: {', '.join(lacking)}, which {_short(where)} has",
            file=sys.stderr,
        )
    count = len(feed.bulletins)
    print(f"{_short(path)}: {count} bulletin{'' if count == 1 else 's'}, the newest of {feed.newest}")
    return 0


def documents(paths: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    """
    Each CSAF document of these files and folders, with its name. In a folder other JSON is skipped: NVIDIA keeps records of
    single CVEs beside each bulletin. Raises PlanError.
    """
    for path in paths:
        if not path.is_dir():
            yield str(path), bulletins.read_json(path)
            continue
        for file in sorted(path.rglob("*.json")):
            document = bulletins.read_json(file)
            if isinstance(document, dict) and "csaf_version" in (document.get("document") or {}):
                yield str(file), document


def shipped_pins() -> Pins:
    """The packages as this version pins them."""
    data = read_group_data(SHIPPED_DATA)
    return {key: data.get(key, {}) for key in ("docker_packages", "nvidia_container_toolkit_packages")}


# --- the hosts


def of_facts(given: argparse.Namespace) -> Fleet:
    """A saved observation; where an inventory is named, with its waivers and pins of today. Raises PlanError."""
    saved = fleet.load(given.facts)
    if not given.inventory:
        return saved
    _, hosts = preflight.state_and_hosts(argparse.Namespace(**{**vars(given), "limit": []}))
    return with_wanted(saved, hosts)


def with_wanted(saved: Fleet, hosts: Sequence[Host]) -> Fleet:
    """A saved observation with the waivers and pins that the inventory's hosts have now."""
    wanted = {host.name: _wanted(_settings(host)) for host in hosts}
    entries = [
        entry.model_copy(update={"wanted": wanted.get(entry.host, entry.wanted)}) for entry in saved.hosts
    ]
    return saved.model_copy(update={"hosts": entries})


def _limited(saved: Fleet, limits: Sequence[str]) -> Fleet:
    """The hosts of saved facts that --limit names, each by its own name or by its host's. Raises PlanError."""
    words = [word for part in limits for word in part.split(",") if word]
    known = {name for entry in saved.hosts for name in (entry.host, entry.machine)}
    for word in words:
        if word not in known:
            raise PlanError("--limit", word, "a host of the saved facts", suggestion(word, known))
    kept = [entry for entry in saved.hosts if not words or {entry.host, entry.machine} & set(words)]
    return saved.model_copy(update={"hosts": kept})


def of_hosts(given: argparse.Namespace) -> Fleet:
    """What is on the hosts of the inventory now: each is read in one round trip, all at once. Raises PlanError."""
    given.inventory = given.inventory or INVENTORY
    state, hosts = preflight.state_and_hosts(given)
    found = pyinfra_patches.on_all(state, hosts, read, SECONDS)
    lost = f"no answer within {SECONDS} s"
    entries = [found[host.name] or Entry(host=host.name, problem=lost) for host in hosts]
    return Fleet(format=fleet.FORMAT, observed=datetime.now(UTC).replace(microsecond=0), hosts=entries)


def read(host: Host) -> Entry:
    """What is on one host, or why it could not be read."""
    wanted = _wanted(_settings(host))
    try:
        with pyinfra_patches.connected(host):
            return of_connected(host)
    except ConnectError as error:
        problem = host_key.problem(host, error) or one_line(str(error))
    except (PlanError, PyinfraError, ValueError, *LOST) as error:
        problem = one_line(str(error)) or type(error).__name__
    finally:
        if host.connected:
            host.disconnect()
    return Entry(host=host.name, problem=problem[:1000], wanted=wanted)


def of_connected(host: Host) -> Entry:
    """The same of a host that is connected."""
    problem, identity = "", ""
    components: list[Found] = []
    settings = _settings(host)
    wanted = _wanted(settings)
    try:
        _, output = shell(host, versions.script(settings), timeout=SECONDS)
        components, identity, problem = versions.versions(output, settings.service_name)
    except (PlanError, PyinfraError, ValueError, *LOST) as error:
        problem = one_line(str(error)) or type(error).__name__
    return Entry(
        host=host.name, problem=problem[:1000], release=identity, components=components, wanted=wanted
    )


def _settings(host: Host) -> Settings:
    return from_host_data(pyinfra_patches.data_of(host), host.name)


def _wanted(settings: Settings) -> Wanted:
    profile = load_profile(settings.model, settings.profile_overrides)
    return Wanted(
        model=settings.model,
        kind=profile.kind,
        source=profile.image.source,
        image_release=profile.image.release,
        gateway_image=settings.gateway.image if settings.gateway else "",
        docker_packages=dict(settings.docker_packages),
        nvidia_container_toolkit_packages=dict(settings.nvidia_container_toolkit_packages),
        waivers=list(settings.waivers),
    )


if __name__ == "__main__":
    sys.exit(main())
