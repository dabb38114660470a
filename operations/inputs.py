"""What a run is given, checked before pyinfra opens a connection: inventory, hosts, --limit, --data, keys.

pyinfra 3.10 itself takes an inventory that is missing, empty or misspelt for a success, and Ctrl-C as well.
"""

from __future__ import annotations

import ast
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from types import FrameType
from typing import Any

import click
from paramiko.agent import Agent
from paramiko.ssh_exception import SSHException
from pyinfra import logger
from pyinfra.api.exceptions import NoGroupError
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.connectors.ssh_util import load_key_with_certificate
from pyinfra.context import ctx_state

from operations import gateway_secrets, rollout
from operations.plan import ssh_key
from operations.plan.errors import PlanError, suggestion
from operations.plan.inventory import check_deployable, checked_hosts, checked_source, refusing
from operations.plan.profiles import load_profile
from operations.plan.settings import from_host_data

PREFLIGHT = "operations.preflight"  # by pyinfra, and as a program of its own
INTERRUPTED = 130  # what a shell says of a command that Ctrl-C ended


def watch() -> None:
    """
    The run is refused with exit code 2 and one line where what it is given cannot be meant; called from config.py.

    The inventory's path and text are checked now, its hosts when pyinfra has read it: right before it connects.
    """
    signal.signal(signal.SIGINT, _interrupted)
    quieten()
    context = click.get_current_context(silent=True)
    given: Mapping[str, Any] = context.params if context is not None else {}
    with refusing():
        check_files(given)
    state = ctx_state.get()  # type: ignore[no-untyped-call]
    begin = state.init

    # pyinfra 3.10 has no callback between reading an inventory and connecting to its hosts (_main of pyinfra_cli/cli.py);
    # state.init is what it calls in between. To be replaced as soon as there is one.
    def checked(inventory: Inventory, *arguments: Any, **keywords: Any) -> None:
        with refusing():
            check(inventory, given)
        begin(inventory, *arguments, **keywords)
        if _deploys(given):
            rollout.watch()

    state.init = checked


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
        raise PlanError(where, "no hosts", "a list of hosts", 'write hosts = ["gpu-1"], a list even for one')
    for host in hosts:
        if host.name in inventory.groups:
            then = "a group holds hosts, no other groups"
            raise PlanError(f"{where}: host {host.name}", "the name of a group", "a host", then)
    names = set(_selected(inventory, given))
    selected = [host for host in hosts if host.name in names]
    over_ssh = [(host.name, _data(host)) for host in hosts if not host.name.startswith("@")]
    if over_ssh:
        checked_hosts(over_ssh, where)
    if not (Path(where).is_file() or _deploys(given)):
        return selected  # pyinfra's own uses, such as `pyinfra some-host exec -- uptime`
    agent: list[bytes] | None = None
    for host in selected:
        data = _data(host)
        settings = from_host_data(data, host.name)
        if _deploys(given, ".py"):
            check_deployable(host.name, settings, datetime.now(UTC).date())
        elif _deploys(given, PREFLIGHT):
            # a version below its floor is left to the preflight's own rows, which name every one
            load_profile(settings.model, settings.profile_overrides)
        if settings.gateway and _deploys(given, ".py", PREFLIGHT):
            gateway_secrets.load(settings.gateway, host.name)
        if host.name.startswith("@"):
            continue
        if "ssh_strict_host_key_checking" not in data:
            raise PlanError(
                f"{host.name}: ssh_strict_host_key_checking", "nothing", "yes", "pyinfra would accept any key"
            )
        if key := data.get("ssh_key"):
            path = Path(str(key)).expanduser()
            if is_encrypted(path, f"{host.name}: ssh_key {key}"):
                agent = keys_of_agent() if agent is None else agent
                _use_agent(host, path, agent)
    return selected


def _data(host: Host) -> dict[str, Any]:
    data: dict[str, Any] = host.data.dict()  # type: ignore[no-untyped-call]
    return data


def _deploys(given: Mapping[str, Any], *kinds: str) -> bool:
    """Whether a deploy file, or an operation of ours, is to be run; `kinds`: of these alone."""
    words = [str(word) for word in given.get("operations") or ()]
    return any(
        word.endswith(".py") if kind == ".py" else word.startswith(kind)
        for word in words
        for kind in kinds or (".py", "operations.")
    )


# The inventory's file, and those beside it


def check_files(given: Mapping[str, Any]) -> None:
    """
    The inventory's file and its group data, before pyinfra reads them.

    + given: the options of the command line, by pyinfra's own names

    Raises PlanError for an inventory or a --group-data that is not there, and for a file that is no Python.
    """
    further = [Path(folder) for folder in given.get("group_data") or ()]
    for folder in further:
        then = "correct the path: pyinfra would go on without its data"
        if not folder.exists():
            raise PlanError(f"--group-data {folder}", "no such folder", "one with group data", then)
        if folder.suffix != ".py" if folder.is_file() else not any(folder.glob("*.py")):
            raise PlanError(f"--group-data {folder}", "no Python file", "group data such as all.py", then)
    text = str(given.get("inventory", ""))
    path = Path(text)
    if not path.exists() and "," not in text and ("/" in text or text.endswith(".py")):
        known = sorted(str(p) for p in Path("inventories").glob("*.py"))
        raise PlanError(
            f"inventory not found: {text}", "no such file", "an inventory", suggestion(text, known)
        )
    if not path.exists():
        return
    if not path.is_file():
        raise PlanError(text, "something else", "a file", "such as inventories/oci.py")
    checked_source(path, text)
    names = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Name))
    if any(name.id == "all" and isinstance(name.ctx, ast.Store) for name in names):
        then = "pyinfra leaves out what a group names and `all` does not, without a word"
        raise PlanError(f"{text}: all", "a list of that name", "none: all hosts of all lists are meant", then)
    for place in (path.parent / "group_data", *further):
        # pyinfra takes a single file as well
        for file in [place] if place.is_file() else sorted(place.glob("*.py")):
            checked_source(file, str(file))


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
                    f"--{option} {pattern}", "no hosts selected", "a host or a group", f"known: {known}"
                )
            found[option] += matching
    left = [n for n in names if n in (found["limit"] or names) and n not in found["exclude"]]
    if not left:
        options = " ".join(f"--{o} {p}" for o in found for p in given.get(o) or ())
        raise PlanError(options, "no hosts selected", "at least one host", f"known: {known}")
    return left


def _matching(inventory: Inventory, pattern: str) -> list[str]:
    """By pyinfra's own rules: a group of that name, or else the hosts whose names the pattern matches."""
    try:
        return [host.name for host in inventory.get_group(pattern)]
    except NoGroupError:
        return [host.name for host in inventory if fnmatch(host.name, pattern)]


# SSH keys


def is_encrypted(path: Path, where: str) -> bool:
    """
    Whether a private key has a passphrase.

    + where: host and key, for the error

    Raises PlanError for a file that is no private key, or that others may read.
    """
    if not path.exists():
        raise PlanError(
            where, "no such file", "a private key", "correct the path, or leave it out for ssh-agent"
        )
    if not path.is_file():
        raise PlanError(where, "a directory" if path.is_dir() else "no file", "a private key")
    try:
        mode, content = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise PlanError(where, error.strerror, "a private key that can be read") from None
    if ssh_key.is_public(content):
        raise PlanError(where, "a public key", "the private key", "leave .pub off")
    if mode & 0o077:
        found = f"mode {mode & 0o777:04o}"
        raise PlanError(where, found, "a private key that only you can read, mode 0600", f"chmod 600 {path}")
    if ssh_key.is_encrypted(content):
        return True
    try:
        load_key_with_certificate(str(path), allow_prompt=False)
    except Exception:  # whatever the readers of four formats think of it
        raise PlanError(where, "no private key that can be read", "an Ed25519, ECDSA or RSA key") from None
    return False


def keys_of_agent() -> list[bytes]:
    """The public parts of the keys that ssh-agent holds; none where no agent runs."""
    try:
        return [bytes(key.asbytes()) for key in Agent().get_keys()]
    except (SSHException, OSError):
        return []


def _use_agent(host: Host, path: Path, held: Sequence[bytes]) -> None:
    """An encrypted key is used through ssh-agent, which pyinfra asks only where no key's file is named."""
    public = ssh_key.public_part(path.read_bytes(), _read_if_there(Path(f"{path}.pub")))
    if not held or (public and public not in held):
        raise PlanError(
            f"{host.name}: ssh_key {path}",
            "an encrypted key that ssh-agent does not hold",
            "its passphrase in no file",
            f"ssh-add {path}",
        )
    host.data.ssh_key = ""  # pyinfra wants text
    host.data.ssh_allow_agent = True
    host.data.ssh_look_for_keys = False


def _read_if_there(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


# Ctrl-C


def _interrupted(number: int, frame: FrameType | None) -> None:
    """pyinfra ends with 0, as if the hosts were what they should be."""
    logger.error("interrupted; long work that was begun goes on on the hosts; run the same command again")
    sys.exit(INTERRUPTED)
