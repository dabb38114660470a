"""Check an inventory before pyinfra opens a connection: pyinfra itself takes an empty or misspelt one for success."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from traceback import extract_tb
from typing import Any

from operations.plan.errors import NOWHERE, Origin, PlanError, nearest, suggestion, typed
from operations.plan.inventory import services
from operations.plan.inventory.oci import identifier, refuse_secrets
from operations.plan.inventory.services import HostEntry, machine_of
from operations.plan.inventory.settings import Settings, from_host_data
from operations.plan.inventory.without_model import GROUPS, kind_of
from operations.plan.toml_file import read_toml

LARGEST_SOURCE = 10**6  # bytes: thousands of hosts
VARIABLE = "OCI_HOSTS"
TABLES = ("hosts", "oci", "provision")

# A DNS name or an IPv4 address: what may follow on an ssh command line without being taken for an option.
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9][A-Za-z0-9-]*(\.[A-Za-z0-9][A-Za-z0-9-]*)*\Z")


def hosts_from_text(text: str) -> list[HostEntry]:
    """`gpu-1=10.0.0.11,gpu-2` -> entries; what stands before = is the name that is printed."""
    entries: list[HostEntry] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, equals, address = word.partition("=")
        entries.append((name, {"ssh_hostname": address if equals else name}))
    return entries


def tables_from_toml(path: Path) -> dict[str, Any]:
    """The tables of an inventory's TOML file: `hosts`; `oci` and `provision` for modules of those names in this folder."""
    where = f"{path.parent.name}/{path.name}"
    if not path.exists():
        then = "write it, or set OCI_HOSTS=name=address,…"
        raise PlanError("", "no such file", "one with hosts", then, where=where, reference="no-inventory")
    data = read_toml(path, where, "an inventory")
    for key in data:
        if key not in TABLES:
            then = suggestion(key, TABLES)
            raise PlanError(
                key,
                f"unknown key {key}",
                f"one of the tables {', '.join(TABLES)}",
                then,
                where=where,
                reference="unknown-key",
            )
    refuse_secrets(data, where)
    return data


def static_hosts(data: Mapping[str, Any], where: str) -> list[HostEntry]:
    """The hosts that the tables [hosts.NAME] name one by one."""
    hosts = data.get("hosts", {})
    tables = hosts.values() if isinstance(hosts, dict) else ["no table"]
    if not all(isinstance(table, dict) for table in tables):
        raise PlanError(
            "hosts", typed(hosts), "a table [hosts.NAME] for each host", where=where, reference="not-a-table"
        )
    return [
        (name, {("ssh_hostname" if key == "address" else key): value for key, value in table.items()})
        for name, table in hosts.items()
    ]


def origins_of(names: Iterable[str], where: str) -> dict[str, Origin]:
    """Of hosts that a TOML file names: their tables there, for errors."""
    return {name: Origin(where, f"[hosts.{name}]", ("address",)) for name in names}


def checked_hosts(hosts: object, where: str, origins: Mapping[str, Origin] | None = None) -> list[HostEntry]:
    """
    The hosts as (name, data) pairs.

    + hosts: names, or (name, data) pairs
    + where: the file or variable they come from, for the error
    + origins: host -> its table in that file, for the error

    Raises PlanError for no hosts, a host that is not a name, a bad or repeated name or address.
    """
    if not isinstance(hosts, list):
        then = 'write ["gpu-1"] for one host'
        raise PlanError("hosts", typed(hosts), "a list of hosts", then, where=where, reference="no-list")
    if not hosts:
        then = "name a host in the inventory"
        raise PlanError("", "no hosts", "at least one host", then, where=where, reference="no-hosts")
    entries = [_entry(number, host, where, origins or {}) for number, host in enumerate(hosts, start=1)]
    seen: dict[str, str] = {}
    for name, data in entries:
        # as text: a port that is no number is refused with the other settings
        address = f"{data.get('ssh_hostname', name)}:{data.get('ssh_port', 22)}"
        for identity in (name, address):
            if identity in seen and (identity == name or machine_of(seen[identity]) != machine_of(name)):
                other = "" if identity == name else f", which {seen[identity]} has too"
                raise PlanError(
                    _label(name, origins or {}),
                    f"duplicate host {identity}{other}",
                    "each host once",
                    where=where,
                    reference="duplicate-host",
                )
            seen[identity] = name
    return entries


def _label(name: str, origins: Mapping[str, Origin]) -> str:
    """A host in the words of its file."""
    return origins[name].table if name in origins else f"host {name}"


def _entry(number: int, host: object, where: str, origins: Mapping[str, Origin]) -> HostEntry:
    """One host of a list, checked."""
    name, data = host if isinstance(host, tuple) and len(host) == 2 else (host, {})
    if not isinstance(name, str) or not isinstance(data, dict):
        expected = "a name or (name, data)"
        raise PlanError(f"host #{number}", host, expected, where=where, reference="not-a-host")
    key = "address" if name in origins or where == VARIABLE else "ssh_hostname"
    place = f"{_label(name, origins)} {key}"
    # the entry of one of several services is HOST/SERVICE
    known = machine_of(name) if data.get("services") else name
    for at, value in ((f"host #{number} name", known), (place, data.get("ssh_hostname", known))):
        problem = ""
        if not isinstance(value, str) or not _HOST_NAME.match(value):
            problem = "a host name or an IPv4 address"
        elif re.fullmatch(r"[0-9.]+", value) and not _is_ipv4(value):
            problem = "a valid IPv4 address"
        if problem:
            then = f"write {VARIABLE}=NAME=ADDRESS,NAME=ADDRESS" if where == VARIABLE else ""
            raise PlanError(at, typed(value), problem, then, where=where, reference="not-an-address")
    return name, data


def check_lists(lists: Mapping[str, Sequence[object]], where: str) -> None:
    """
    Check that each list names a host once, and that all lists that give data for a host give the same data.

    + lists: the lists of an inventory by their names, as the file has them; other checks refuse an entry that is not a host
    + where: the file they come from, for the error

    A name alone in a further list is how a group is made. Raises PlanError, which names keys but no values of theirs.
    """
    seen: dict[str, tuple[str, dict[str, Any]]] = {}
    for group, entries in lists.items():
        in_this: dict[str, dict[str, Any]] = {}
        for entry in entries:
            name, data = entry if isinstance(entry, tuple) and len(entry) == 2 else (entry, {})
            if not isinstance(name, str) or not isinstance(data, dict):
                continue
            if name in in_this:
                raise _twice(where, name, (group, in_this[name]), (group, data))
            in_this[name] = data
            if not data:
                continue
            if name in seen and seen[name][1] != data:
                raise _twice(where, name, seen[name], (group, data))
            seen.setdefault(name, (group, data))


def _twice(
    where: str, name: str, first: tuple[str, dict[str, Any]], second: tuple[str, dict[str, Any]]
) -> PlanError:
    """Two entries of one name: both addresses, and the keys beside them in which they differ."""
    places = " and ".join(f"{data.get('ssh_hostname', name)} in {group}" for group, data in (first, second))
    one, other = first[1], second[1]
    differing = sorted(
        str(key)
        for key in {*one, *other} - {"ssh_hostname"}
        if key not in one or key not in other or one[key] != other[key]
    )
    keys = f", which differ in {', '.join(differing)}" if differing else ""
    return PlanError(
        f"host {name}",
        f"it twice, {places}{keys}",
        "each host once",
        "remove one entry, or give it a name of its own",
        where=where,
        reference="duplicate-host",
    )


def settings_of(
    hosts: Sequence[HostEntry],
    group: str,
    directory: Path,
    groups: Mapping[str, Sequence[str]] | None = None,
    origins: Mapping[str, Origin] | None = None,
) -> dict[str, Settings]:
    """
    Each entry's validated settings, from the same files pyinfra will read.

    + hosts: as given by `checked_hosts`, or by `with_services`
    + group, directory, groups, origins: as of `with_services`

    pyinfra merges group data after the inventory file has run and connects right after, so this is the only
    place where a bad key can still be refused before a connection is made.
    """
    result = {}
    for name, merged, written in _merged(hosts, group, directory, groups or {}, origins or {}):
        result[name] = from_host_data(merged, name, lambda key, at=written: at.get(key, NOWHERE))  # type: ignore[misc]
    together: dict[str, dict[str, Sequence[int] | str]] = {}
    for name, settings in result.items():
        if settings.services:
            machine, _, service = name.rpartition("/")
            together.setdefault(machine, {})[service] = settings.gpu_ids
    for machine, gpus in together.items():
        try:
            services.check_gpus(gpus)
        except PlanError as error:
            raise error.placed((origins or {}).get(machine, NOWHERE), machine) from None
    return result


def with_services(
    hosts: Sequence[HostEntry],
    group: str,
    directory: Path,
    groups: Mapping[str, Sequence[str]] | None = None,
    origins: Mapping[str, Origin] | None = None,
) -> tuple[list[HostEntry], dict[str, list[str]]]:
    """
    The hosts, and their groups, with an entry for each service where a host has several: `gpu-1/llama`, `gpu-1/clip`.

    + hosts: as given by `checked_hosts`
    + group: the inventory's own group, whose data wins over all.py
    + directory: the group_data directory
    + groups: further groups in the order of their definition, each with its hosts; pyinfra lets a later one win, and
      the inventory's own over them all
    + origins: host -> its table in the inventory's file, for the error

    Raises PlanError for services that cannot be.
    """
    made: list[HostEntry] = []
    several: dict[str, list[str]] = {}
    of_their_own: dict[str, list[str]] = {}
    for (name, data), (_, merged, written) in zip(
        hosts, _merged(hosts, group, directory, groups or {}, origins or {}), strict=True
    ):
        if kind := kind_of(merged):
            of_their_own.setdefault(GROUPS[kind], []).append(name)
        if "services" not in merged or kind:
            made.append((name, data))
            continue
        own = {key: value for key, value in data.items() if key not in ("services", "ssh_hostname")}
        address = str(data.get("ssh_hostname", name))
        found = services.entries(name, address, merged["services"], written.get("services", NOWHERE))
        several[name] = [entry for entry, _ in found]
        made += [(entry, {**own, **of_service}) for entry, of_service in found]
    members = {
        group: [entry for name in names for entry in several.get(name, [name])]
        for group, names in (groups or {}).items()
    }
    for name, data in made:
        if groups is not None and machine_of(name) in several and isinstance(data.get("model"), str):
            # a service's own model, in the place of the one that its host was found with
            model_group = f"model_{identifier(data['model'])}"
            for other, entries in members.items():
                if other.startswith("model_") and other != model_group and name in entries:
                    entries.remove(name)
            if name not in members.setdefault(model_group, []):
                members[model_group].append(name)
    # hosts without a model are a group too, with data of its own
    return made, {**members, **several, **of_their_own}


def _merged(
    hosts: Sequence[HostEntry],
    group: str,
    directory: Path,
    groups: Mapping[str, Sequence[str]],
    origins: Mapping[str, Origin],
) -> Iterator[tuple[str, dict[str, Any], dict[str, Origin]]]:
    """Each entry's name, its data as pyinfra will merge them, and where each key was written."""
    of_groups = {name: read_group_data(directory / f"{name}.py") for name in ("all", group, *groups)}
    for name, data in hosts:
        others = [other for other, members in groups.items() if name in members]
        # the later wins
        sources = [
            *((_file_of(directory, one), of_groups[one]) for one in ("all", *others, group)),
            (origins.get(name) or origins.get(machine_of(name), NOWHERE), data),
        ]
        merged: dict[str, Any] = {}
        written: dict[str, Origin] = {}
        for origin, found in sources:
            merged |= found
            written |= dict.fromkeys(found, origin)
        yield name, merged, written


def _file_of(directory: Path, group: str) -> Origin:
    """A group's file, as a person calls it."""
    return Origin(f"{directory.parent.name}/{directory.name}/{group}.py")


def unread_group_files(directory: Path, groups: Iterable[str], inventories: Iterable[str]) -> list[str]:
    """
    What to say of each group file that is read for no host, as when its name is misspelt.

    + directory: the group_data directory
    + groups: those of the inventory that have hosts
    + inventories: names of the inventories beside it, which have groups of their own
    """
    known = sorted({"all", *groups})
    lines = []
    for file in sorted(directory.glob("*.py")):
        if file.stem not in (*known, *inventories):
            near = nearest(file.stem, known)
            then = f"did you mean {near}.py? " if near else ""
            error = PlanError(
                "",
                f"a group {file.stem} without hosts",
                f"a group of this inventory: {', '.join(known)}",
                f"{then}nothing reads this file",
                where=_file_of(directory, file.stem).where,
                reference="unread-group-file",
            )
            lines.append(str(error))
    return lines


def read_group_data(path: Path) -> dict[str, Any]:
    """The data of one group_data file, chosen by the rules pyinfra uses: no imported names, no private ones."""
    if not path.exists():
        return {}
    where = f"{path.parent.name}/{path.name}"
    checked_source(path, where)
    try:
        values = runpy.run_path(str(path))
    except PlanError:
        raise
    except Exception as error:
        line = next(
            (f":{at.lineno}" for at in reversed(extract_tb(error.__traceback__)) if at.filename == str(path)),
            "",
        )
        found = f"{type(error).__name__}: {error}"
        raise PlanError(
            "", found, "Python that runs", where=f"{where}{line}", reference="python-error"
        ) from None
    if "__all__" in values:
        return {name: values[name] for name in values["__all__"]}
    imported = {
        alias.asname or alias.name.split(".")[0]
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    return {k: v for k, v in values.items() if not k.startswith("__") and k not in imported}


def checked_source(path: Path, where: str) -> None:
    """
    The file is Python in UTF-8, as pyinfra reads it.

    + where: its name, for the error

    Raises PlanError with line and column where it is not.
    """
    utf_8 = "Python in the encoding UTF-8"
    found, expected, then, place = "", "", "", where
    try:
        if path.exists() and not path.is_file():
            found, expected = "something else", "a regular file"
        elif path.stat().st_size > LARGEST_SOURCE:
            found, expected = "a larger file", f"Python of at most {LARGEST_SOURCE} bytes"
        else:
            text = path.read_bytes().decode("utf-8")
            compile(text, str(path), "exec")
    except OSError as error:
        found, expected = error.strerror or type(error).__name__, "a file that can be read"
    except UnicodeDecodeError as error:
        found, expected = f"byte {error.start} of another encoding", utf_8
    except SyntaxError as error:
        if text.startswith("\ufeff"):
            found, expected = "a byte order mark", f"{utf_8}, without one"
        else:
            place = f"{where}:{error.lineno or 0}:{error.offset or 0}"
            found, expected, then = error.msg, "Python", "see that line"
    except ValueError as error:
        found, expected = str(error), utf_8
    if found:
        raise PlanError("", found, expected, then, where=place, reference="not-python")


def _is_ipv4(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 4 and all(part.isdigit() and int(part) <= 255 for part in parts)
