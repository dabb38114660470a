"""Check an inventory before pyinfra opens a connection: pyinfra itself takes an empty or misspelt one for success."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from traceback import extract_tb
from typing import Any

from operations.plan.errors import PlanError, suggestion
from operations.plan.oci_inventory import refuse_secrets
from operations.plan.profiles import load_profile
from operations.plan.settings import Settings, from_host_data
from operations.plan.toml_file import read_toml
from operations.plan.version_floors import check_floors, components

HostEntry = tuple[str, dict[str, Any]]

# A DNS name or an IPv4 address: what may follow on an ssh command line without being taken for an option.
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9][A-Za-z0-9-]*(\.[A-Za-z0-9][A-Za-z0-9-]*)*\Z")


@contextmanager
def refusing() -> Iterator[None]:
    """End the program with a PlanError's one line and exit code 2, before pyinfra connects anywhere."""
    try:
        yield
    except PlanError as error:
        print(f"tritonhost: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def hosts_from_text(text: str) -> list[HostEntry]:
    """`gpu-1=10.0.0.11,gpu-2` -> entries; what stands before = is the name that is printed."""
    entries: list[HostEntry] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, equals, address = word.partition("=")
        entries.append((name, {"ssh_hostname": address if equals else name}))
    return entries


def tables_from_toml(path: Path) -> dict[str, Any]:
    """The tables of an inventory's TOML file: `hosts`, and `oci` for operations/plan/oci_inventory.py."""
    where = f"{path.parent.name}/{path.name}"
    if not path.exists():
        raise PlanError(where, "no such file", "one with hosts", "write it, or set OCI_HOSTS=name=address,…")
    data = read_toml(path, where, "an inventory")
    for key in data:
        if key not in ("hosts", "oci"):
            raise PlanError(
                f"{where}: {key}",
                f"unknown key {key}",
                "the table hosts or oci",
                suggestion(key, ["hosts", "oci"]),
            )
    refuse_secrets(data, where)
    return data


def hosts_from_toml(path: Path) -> list[HostEntry]:
    """The tables [hosts.NAME] of a TOML file, each with an optional address and any settings."""
    return static_hosts(tables_from_toml(path), f"{path.parent.name}/{path.name}")


def static_hosts(data: Mapping[str, Any], where: str) -> list[HostEntry]:
    """The hosts that the tables [hosts.NAME] name one by one."""
    hosts = data.get("hosts", {})
    if not isinstance(hosts, dict) or not all(isinstance(table, dict) for table in hosts.values()):
        raise PlanError(f"{where}: hosts", hosts, "a table [hosts.NAME] for each host")
    return [
        (name, {("ssh_hostname" if key == "address" else key): value for key, value in table.items()})
        for name, table in hosts.items()
    ]


def checked_hosts(hosts: object, where: str) -> list[HostEntry]:
    """
    The hosts as (name, data) pairs.

    + hosts: names, or (name, data) pairs
    + where: the file or variable they come from, for the error

    Raises PlanError for no hosts, a host that is not a name, a bad or repeated name or address.
    """
    if not isinstance(hosts, list):
        raise PlanError(f"{where}: hosts", hosts, "a list of hosts", 'write ["gpu-1"] for one host')
    if not hosts:
        raise PlanError(where, "no hosts", "at least one host", "name a host in the inventory")
    entries: list[HostEntry] = []
    for number, host in enumerate(hosts, start=1):
        name, data = host if isinstance(host, tuple) and len(host) == 2 else (host, {})
        if not isinstance(name, str) or not isinstance(data, dict):
            raise PlanError(f"{where}: host #{number}", host, "a name or (name, data)")
        for key, value in (("name", name), ("ssh_hostname", data.get("ssh_hostname", name))):
            if not isinstance(value, str) or not _HOST_NAME.match(value):
                raise PlanError(f"{where}: host #{number} {key}", value, "a host name or an IPv4 address")
            if re.fullmatch(r"[0-9.]+", value) and not _is_ipv4(value):
                raise PlanError(f"{where}: host #{number} {key}", value, "a valid IPv4 address")
        entries.append((name, data))
    seen: dict[str, str] = {}
    for name, data in entries:
        # as text: a port that is no number is refused with the other settings
        address = f"{data.get('ssh_hostname', name)}:{data.get('ssh_port', 22)}"
        for identity in (name, address):
            if identity in seen:
                raise PlanError(f"{where}: host {name}", f"duplicate host {identity}", "each host once")
            seen[identity] = name
    return entries


def settings_of(
    hosts: Sequence[HostEntry],
    group: str,
    directory: Path,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Settings]:
    """
    Each host's validated settings, from the same files pyinfra will read.

    + hosts: as given by `checked_hosts`
    + group: the inventory's own group, whose data wins over all.py
    + directory: the group_data directory
    + groups: further groups in the order of their definition, each with its hosts; pyinfra lets a later one win, and
      the inventory's own over them all

    pyinfra merges group data after the inventory file has run and connects right after, so this is the only
    place where a bad key can still be refused before a connection is made.
    """
    everyone, own = (read_group_data(directory / f"{name}.py") for name in ("all", group))
    of_groups = {name: read_group_data(directory / f"{name}.py") for name in groups or {}}
    result = {}
    for name, data in hosts:
        shared = dict(everyone)
        for other, members in (groups or {}).items():
            if name in members:
                shared.update(of_groups[other])
        result[name] = from_host_data({**shared, **own, **data}, name)
    return result


def check_deployable(name: str, settings: Settings, today: date) -> None:
    """
    Refuse what a deploy would refuse of a host before it has seen it: the profile, and versions below their floors.

    + name: the host's, for the error
    + today: the day that waivers are compared with

    Asked of deploys alone: a person who goes back to the previous release is not held up by a waiver that has ended.
    Raises PlanError.
    """
    profile = load_profile(settings.model, settings.profile_overrides)
    check_floors(name, components(settings, profile), settings.waivers, today)


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
        raise PlanError(f"{where}{line}", f"{type(error).__name__}: {error}", "Python that runs") from None
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
    try:
        text = path.read_bytes().decode("utf-8")
        compile(text, str(path), "exec")
    except OSError as error:
        raise PlanError(where, error.strerror, "a file that can be read") from None
    except UnicodeDecodeError as error:
        raise PlanError(
            where, f"byte {error.start} of another encoding", "Python in the encoding UTF-8"
        ) from None
    except SyntaxError as error:
        if text.startswith("\ufeff"):
            raise PlanError(where, "a byte order mark", "Python in the encoding UTF-8, without one") from None
        place = f"{where}:{error.lineno or 0}:{error.offset or 0}"
        raise PlanError(place, error.msg, "Python", "see that line") from None
    except ValueError as error:
        raise PlanError(where, str(error), "Python in the encoding UTF-8") from None


def _is_ipv4(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 4 and all(part.isdigit() and int(part) <= 255 for part in parts)
