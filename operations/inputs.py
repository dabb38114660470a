"""What a run is given, checked before pyinfra opens a connection: inventory, hosts, --limit, --data, keys.

pyinfra 3.10 itself takes an inventory that is missing, empty or misspelt for a success, and Ctrl-C as well.
"""

from __future__ import annotations

import argparse
import ast
import logging
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from types import FrameType
from typing import Any

from pyinfra import logger
from pyinfra.api.exceptions import NoGroupError
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory

from operations import notifications, pyinfra_patches, rollout, shorter_output
from operations.intake import gateway_secrets
from operations.intake.refusing import refusing
from operations.intake.ssh_keys import is_encrypted, keys_of_agent, use_agent
from operations.plan.balancing.members import members
from operations.plan.deployable import check_deployable, check_services
from operations.plan.errors import NOWHERE, Origin, PlanError, suggestion, typed
from operations.plan.inventory.hosts import (
    LARGEST_SOURCE,
    VARIABLE,
    check_lists,
    checked_hosts,
    checked_source,
    origins_of,
    tables_from_toml,
    unread_group_files,
)
from operations.plan.inventory.services import machine_of
from operations.plan.inventory.settings import Settings, from_host_data
from operations.plan.profile.profiles import load_profile
from operations.watched_hosts import load_balancers_of, serves_models, serving_of

PREFLIGHT = "operations.preflight"  # by pyinfra, and as a program of its own
INTERRUPTED = 130  # what a shell says of a command that Ctrl-C ended


def add_data(parser: argparse.ArgumentParser) -> None:
    """The options of a program of ours that give the inventory further data, as pyinfra's own do."""
    parser.add_argument("--group-data", action="append", default=[], metavar="DIR", help="as pyinfra's")
    parser.add_argument(
        "--data", action="append", default=[], metavar="KEY=VALUE", help="as pyinfra's --data"
    )


def watch() -> None:
    """
    The run is refused with exit code 2 and one line where what it is given cannot be meant; called from config.py.

    The inventory's path and text are checked now, its hosts when pyinfra has read it: right before it connects.
    """
    signal.signal(signal.SIGINT, _interrupted)
    quieten()
    pyinfra_patches.ask_only_a_terminal("-y: found no terminal to ask, expected one, or -y to go on without")
    pyinfra_patches.fail_where_a_connection_closes()
    given = pyinfra_patches.command_line()
    with refusing():
        check_arguments(given)
        check_files(given)
    watch_lists(str(given.get("inventory", "inventory")))

    def checked(inventory: Inventory) -> None:
        with refusing():
            check(inventory, given)

    def begun() -> None:
        if _deploys(given):
            notifications.follow(given)
            rollout.watch()

    pyinfra_patches.before_connecting(checked, begun)


def watch_lists(where: str) -> None:
    """
    The lists of an inventory are checked before pyinfra merges them, where the last entry of a name wins without a word.

    + where: the inventory's path, for the error
    """

    def checked(lists: Mapping[str, Sequence[object]]) -> None:
        with refusing():
            check_lists(lists, where)

    pyinfra_patches.before_merging(checked)


def quieten() -> None:
    """A connection that fails is one line, pyinfra's own: paramiko prints a traceback as well, from another thread."""
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)


def check(inventory: Inventory, given: Mapping[str, Any]) -> list[Host]:
    """
    The hosts a run is for, as pyinfra has put them together from every file and option.

    + given: the options of the command line, by pyinfra's own names

    Returns the hosts that are selected; one whose key is encrypted is reached through ssh-agent. Raises PlanError for no
    hosts, patterns that match none, and whatever a host's name, address, settings, profile, key or gateway cannot be.
    """
    hosts = list(inventory)
    where = str(given.get("inventory", "inventory"))
    if not hosts:
        then = 'write hosts = ["gpu-1"], a list even for one'
        raise PlanError("", "no hosts", "a list of hosts", then, where=where, reference="no-hosts")
    for host in hosts:
        if host.name in inventory.groups:
            raise PlanError(
                f"host {host.name}",
                "the name of a group",
                "a host",
                "a group holds hosts, no other groups",
                where=where,
                reference="group-as-host",
            )
    names = set(_selected(inventory, given))
    selected = [host for host in hosts if host.name in names]
    if len(selected) > 1 and _deploys(given, ".py"):
        check_order(given, len(selected))
    over_ssh = [(host.name, pyinfra_patches.data_of(host)) for host in hosts if not host.name.startswith("@")]
    if over_ssh:
        checked_hosts(over_ssh, where)
    if not (Path(where).is_file() or _deploys(given)):
        return selected  # pyinfra's own uses, such as `pyinfra some-host exec -- uptime`
    agent: list[bytes] | None = None
    for host in selected:
        data = pyinfra_patches.data_of(host)
        _check_settings(inventory, host, data, given)
        if host.name.startswith("@"):
            continue
        if "ssh_strict_host_key_checking" not in data:
            raise PlanError(
                "ssh_strict_host_key_checking",
                "nothing",
                "yes",
                "pyinfra would accept any key",
                host=host.name,
                reference="host-key-not-checked",
            )
        if key := data.get("ssh_key"):
            path = Path(str(key)).expanduser()
            if is_encrypted(path, f"ssh_key {key}", host.name):
                agent = keys_of_agent() if agent is None else agent
                use_agent(host, path, agent)
    _check_together(hosts, selected, given)
    if Path(where).is_file():
        _say_unread(inventory, Path(where))
    return selected


def _check_together(hosts: Sequence[Host], selected: Sequence[Host], given: Mapping[str, Any]) -> None:
    """What hosts share: the length of the output, load balancers, the services of one machine. Raises PlanError."""
    if _deploys(given, ".py"):
        shorter_output.begin(len(selected), int(given.get("verbosity") or 0))
        _check_canary(selected)
    if _deploys(given, ".py", PREFLIGHT):
        _check_services(hosts, {machine_of(host.name) for host in selected})


def _check_canary(selected: Sequence[Host]) -> None:
    """Where requests decide about a release, the run reaches the load balancers that send them. Raises PlanError."""
    names = {host.name for host in selected}
    for host in selected:
        if pyinfra_patches.data_of(host).get("rollout") is None or not serves_models(host):
            continue
        fronts = [front.name for front in load_balancers_of(host)]
        if not fronts or not names.issuperset(fronts):
            expected = "all load balancers of it: they send a share of the requests, and say how those went"
            then = "take them into --limit" if fronts else "write one into the inventory, or take rollout out"
            raise PlanError("rollout", "some left out" if fronts else "none", expected, then, host=host.name)
        return  # the others are alike, and a thousand of them take their time


def _check_services(hosts: Sequence[Host], machines: set[str]) -> None:
    """Several services of one host, also those that --limit leaves out, share no GPU and no port. Raises PlanError."""
    together: dict[str, dict[str, Settings]] = {}
    for host in hosts:
        machine = machine_of(host.name)
        if machine != host.name and machine in machines:
            settings = from_host_data(pyinfra_patches.data_of(host), host.name)
            together.setdefault(machine, {})[host.name.rpartition("/")[2]] = settings
    for machine, services in together.items():
        check_services(machine, services)


def _check_settings(
    inventory: Inventory, host: Host, data: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """A host's settings, and what they mean for what is to be run. Raises PlanError."""

    def origin_of(key: str) -> Origin:
        return _origin(inventory, host, key, given)

    settings = from_host_data(data, host.name, origin_of)
    if settings.load_balancer:
        if _deploys(given, ".py"):
            from operations.intake import load_balancer_secrets

            load_balancer_secrets.load(settings.load_balancer, host.name)
            members(settings.load_balancer, serving_of(inventory))
        return
    if settings.monitoring_server:
        if _deploys(given, ".py"):
            # here, because no other host needs what it imports
            from operations.intake import monitoring_secrets

            monitoring_secrets.load(settings.monitoring_server, host.name)
        return
    try:
        if _deploys(given, ".py"):
            check_deployable(host.name, settings, datetime.now(UTC).date())
        elif _deploys(given, PREFLIGHT):
            # a version below its floor is left to the preflight's own rows, which name every one
            load_profile(settings.model, settings.profile_overrides)
    except PlanError as error:
        raise error.placed(origin_of(error.key), host.name) from None
    if settings.gateway and _deploys(given, ".py", PREFLIGHT):
        gateway_secrets.load(settings.gateway, host.name)


def _origin(inventory: Inventory, host: Host, key: str, given: Mapping[str, Any]) -> Origin:
    """Where a key of a host was written, as pyinfra lets one place win over another; asked for errors alone."""
    where = Path(str(given.get("inventory", "")))
    if key in inventory.get_override_data():  # type: ignore[no-untyped-call]
        options = [pair.partition("=")[0] for pair in given.get("data") or ()]
        return Origin(table="--data" if key in options or not options else "")
    if key in inventory.get_host_data(host.name):
        return _of_host(where, host.name)
    folders = [where.parent / "group_data", *(Path(folder) for folder in given.get("group_data") or ())]
    for group in [*reversed(host.groups), "all"]:
        for folder in reversed(folders):
            file = folder if folder.is_file() else folder / f"{group}.py"
            if file.is_file() and file.stem == group and key in _assigned(file):
                return Origin(str(file))
    return NOWHERE


def _of_host(inventory: Path, name: str) -> Origin:
    """The entry of one host: in the TOML file that the inventory reads, or in its own list."""
    file = inventory.with_suffix(".toml")
    if inventory.suffix == ".py" and file.is_file() and VARIABLE not in os.environ:
        tables = tables_from_toml(file)
        if machine_of(name) in tables.get("hosts", {}):
            return origins_of([machine_of(name)], str(file))[machine_of(name)]
        return Origin(str(file), f"[oci] {name}")
    return Origin(str(inventory), f"host {name}") if inventory.is_file() else NOWHERE


def _assigned(file: Path) -> set[str]:
    """The names that a Python file assigns, without running it."""
    nodes = ast.walk(ast.parse(file.read_text("utf-8")))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _say_unread(inventory: Inventory, where: Path) -> None:
    """Warn of group files that no group of the inventory reads: a misspelt one would be passed over in silence."""
    groups = [name for name, members in inventory.groups.items() if members]
    others = [path.stem for path in where.parent.glob("*.py")]
    for line in unread_group_files(where.parent / "group_data", groups, others):
        print(f"tritonhost: warning: {line}", file=sys.stderr)


def _deploys(given: Mapping[str, Any], *kinds: str) -> bool:
    """Whether a deploy file, or an operation of ours, is to be run; `kinds`: of these alone."""
    words = [str(word) for word in given.get("operations") or ()]
    return any(
        word.endswith(".py") if kind == ".py" else word.startswith(kind)
        for word in words
        for kind in kinds or (".py", "operations.")
    )


# The command line, the inventory's file, and those beside it


def check_arguments(given: Mapping[str, Any]) -> None:
    """
    The words of the command line, before pyinfra reads any of them as something else.

    + given: the options of the command line, by pyinfra's own names

    Raises PlanError for an inventory and a deploy file in the wrong order, and for --data without a value.
    """
    check_data(given.get("data") or ())
    inventory = str(given.get("inventory", ""))
    files = [str(word) for word in given.get("operations") or () if str(word).endswith(".py")]
    usage = "pyinfra inventories/oci.py deploy.py"
    first_is_none = Path(inventory).is_file() and not _is_inventory(inventory)
    if first_is_none and (swapped := next(filter(_is_inventory, files), "")):
        raise PlanError(
            f"arguments {inventory} {swapped}",
            f"the inventory {swapped} as a deploy file",
            "the inventory first, then deploy.py",
            f"such as: {usage}",
            reference="arguments-swapped",
        )
    if Path(inventory).name == "deploy.py":
        raise PlanError(
            f"argument {inventory}",
            "a deploy file as the inventory",
            "the inventory first, then deploy.py",
            f"such as: {usage}",
            reference="arguments-swapped",
        )
    if inventory.endswith(".toml"):
        reader = Path(inventory).with_suffix(".py")
        known = reader if reader.is_file() else "inventories/oci.py"
        raise PlanError(
            f"argument {inventory}",
            "a TOML file",
            "the Python file that reads it",
            f"such as: pyinfra {known} deploy.py",
            reference="toml-as-inventory",
        )


def check_data(pairs: Iterable[str]) -> None:
    """Values of --data. Raises PlanError, without the word itself where it may be a secret."""
    for pair in pairs:
        key, equals, _ = pair.partition("=")
        if not equals or not key.strip():
            then = "such as --data model=gpt2-medium, without spaces around ="
            raise PlanError("--data", typed(pair), "KEY=VALUE", then, reference="data-without-value")


def _is_inventory(word: str) -> bool:
    """Whether a Python file is an inventory and no deploy: it assigns its hosts."""
    path = Path(word)
    try:
        # reading from a pipe or a device may never end
        readable = path.is_file() and path.stat().st_size <= LARGEST_SOURCE
        return readable and "hosts" in _assigned(path)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return False


def check_files(given: Mapping[str, Any]) -> None:
    """
    The inventory's file and its group data, before pyinfra reads them.

    + given: the options of the command line, by pyinfra's own names

    Raises PlanError for an inventory or a --group-data that is not there, and for a file that is no Python.
    """
    further = [Path(folder) for folder in given.get("group_data") or ()]
    for folder in further:
        then = "correct the path: pyinfra would go on without its data"
        found = ("no such folder", "one with group data") if not folder.exists() else None
        if folder.exists() and (folder.suffix != ".py" if folder.is_file() else not any(folder.glob("*.py"))):
            found = "no Python file", "group data such as all.py"
        if found:
            raise PlanError(f"--group-data {folder}", *found, then, reference="no-group-data")
    text = str(given.get("inventory", ""))
    path = Path(text)
    if not path.exists() and "," not in text and ("/" in text or text.endswith(".py")):
        known = sorted(str(p) for p in Path("inventories").glob("*.py"))
        raise PlanError(
            f"inventory not found: {text}",
            "no such file",
            "an inventory",
            suggestion(text, known),
            reference="no-inventory",
        )
    if not path.exists():
        return
    if not path.is_file():
        then = "such as inventories/oci.py"
        raise PlanError("", "something else", "a file", then, where=text, reference="no-inventory")
    checked_source(path, text)
    names = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Name))
    if any(name.id == "all" and isinstance(name.ctx, ast.Store) for name in names):
        then = "pyinfra leaves out what a group names and `all` does not, without a word"
        expected = "none: all hosts of all lists are meant"
        raise PlanError("all", "a list of that name", expected, then, where=text, reference="list-named-all")
    for place in (path.parent / "group_data", *further):
        # pyinfra takes a single file as well
        for file in [place] if place.is_file() else sorted(place.glob("*.py")):
            checked_source(file, str(file))


def check_order(given: Mapping[str, Any], count: int) -> None:
    """
    Refuse the orders of pyinfra's own for a deploy of several hosts, before anything is built on them.

    With --serial pyinfra visits hosts in no order and goes on after a failure; with --no-wait it ends with 0 whatever happens.
    """
    for option in ("serial", "no_wait"):
        if given.get(option):
            raise PlanError(
                f"--{option.replace('_', '-')}",
                f"{count} hosts",
                "one host, or neither --serial nor --no-wait",
                "hosts are changed one after the other by themselves; max_unavailable says how many at a time",
                reference="order-of-pyinfra",
            )


# --limit and --exclude


def _selected(inventory: Inventory, given: Mapping[str, Any]) -> list[str]:
    """The names of the hosts the run is for; a pattern that matches nothing is a mistake, in --exclude most of all."""
    names = [host.name for host in inventory]
    groups = sorted(name for name, members in inventory.groups.items() if members)
    known = f"the hosts {', '.join(names)}; the groups {', '.join(groups)}"
    found: dict[str, list[str]] = {}
    for option in ("limit", "exclude"):
        found[option] = []
        for pattern in given.get(option) or ():
            matching = _matching(inventory, pattern)
            if not matching:
                raise PlanError(
                    f"--{option} {pattern}",
                    "no hosts selected",
                    "a host or a group",
                    f"known: {known}",
                    reference="no-hosts-selected",
                )
            found[option] += matching
    left = [n for n in names if n in (found["limit"] or names) and n not in found["exclude"]]
    if not left:
        options = " ".join(f"--{o} {p}" for o in found for p in given.get(o) or ())
        expected = "at least one host"
        then = f"known: {known}"
        raise PlanError(options, "no hosts selected", expected, then, reference="no-hosts-selected")
    return left


def _matching(inventory: Inventory, pattern: str) -> list[str]:
    """By pyinfra's own rules: a group of that name, or else the hosts whose names the pattern matches."""
    try:
        return [host.name for host in inventory.get_group(pattern)]
    except NoGroupError:
        return [host.name for host in inventory if fnmatch(host.name, pattern)]


# Ctrl-C


def _interrupted(number: int, frame: FrameType | None) -> None:
    """pyinfra ends with 0, as if the hosts were what they should be."""
    logger.error("interrupted; long work that was begun goes on on the hosts; run the same command again")
    sys.exit(INTERRUPTED)
