"""Write a profile for a model of a hub: pinned, planned for the GPUs, with a reason beside each choice.

tritonhost new meta-llama/Llama-3.1-8B-Instruct --shape BM.GPU4.8
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from operations.hub_repository import read_directory, read_hub
from operations.intake.secrets import SecretMissing
from operations.plan.errors import PlanError
from operations.plan.explain import planned
from operations.plan.inventory.hosts import read_group_data, static_hosts, tables_from_toml
from operations.plan.paths import PROJECT
from operations.plan.profile.profiles import MODELS_DIRECTORY, profile_in
from operations.plan.proposal.choice import Wanted
from operations.plan.proposal.propose import Proposal, propose
from operations.plan.proposal.repository import Repository
from operations.plan.proposal.text import check_name, name_for
from operations.whole_file import beside

GROUP_DATA = PROJECT / "inventories" / "group_data" / "all.py"
HOSTS = PROJECT / "inventories" / "oci.toml"
HUB = "https://huggingface.co"
LEAST_CONTEXT = 64  # tokens: a golden request and its answer


def run(given: argparse.Namespace) -> int:
    """The command `new`. Raises PlanError, and then has written nothing."""
    data = read_group_data(GROUP_DATA)
    try:
        found = _read(given, str(data.get("hub_endpoint", HUB)))
    except SecretMissing as error:
        print(f"tritonhost: {error}", file=sys.stderr)
        return 2
    name = check_name(given.name or name_for(found.name))
    path = MODELS_DIRECTORY / f"{name}.toml"
    if path.exists() and not given.force:
        then = "--name gives another name, --force replaces the file"
        raise PlanError(
            f"inventories/models/{path.name}", "a profile of that name", "none", then, reference="exists"
        )
    proposal = propose(found, _wanted(given), name, data)
    write(path, proposal, data, given.force)
    print(_as_json(path, proposal) if given.json else _as_text(path, name, found, proposal), end="")
    return 0


def _read(given: argparse.Namespace, endpoint: str) -> Repository:
    directory = Path(given.repository)
    # OWNER/NAME may be a directory's relative path too: a person who means one writes ./ or /
    if given.repository.startswith((".", "/", "~")):
        with suppress(RuntimeError):  # no such user
            directory = directory.expanduser()
        if not directory.is_dir():
            raise PlanError("REPOSITORY", given.repository, "OWNER/NAME, or a directory that exists")
        return read_directory(directory, given.known_as, given.revision)
    return read_hub(given.repository, given.hub or endpoint, given.revision)


def _wanted(given: argparse.Namespace) -> Wanted:
    named = [option for option in ("gpus", "shape", "host") if getattr(given, option)]
    if len(named) > 1:
        both = " and ".join(f"--{option}" for option in named)
        raise PlanError(
            both, "all of them", "one: they say on what GPUs the model runs", reference="wrong-usage"
        )
    for option, least in (("context", LEAST_CONTEXT), ("concurrency", 1)):
        value = getattr(given, option)
        if value is not None and not least <= value <= 2**27:
            expected = f"a whole number of at least {least}"
            raise PlanError(f"--{option}", value, expected, reference="wrong-usage")
    shape = _shape_of(given.host) if given.host else given.shape
    return Wanted(given.gpus, shape, given.kind, given.release, given.context, given.concurrency)


def _shape_of(host: str) -> str:
    """The shape that the inventory says of a host."""
    where = f"inventories/{HOSTS.name}"
    data = dict(static_hosts(tables_from_toml(HOSTS), where))
    shape = data.get(host, {}).get("shape")
    if not isinstance(shape, str):
        found = "a host without shape" if host in data else "no such host"
        raise PlanError(
            f"--host {host}", found, f"[hosts.{host}] with shape in {where}", "or use --shape or --gpus"
        )
    return shape


def write(path: Path, proposal: Proposal, data: dict[str, object], force: bool = False) -> None:
    """
    The file is there, whole, or not at all: it is checked under another name first.

    Raises PlanError where it cannot be written.
    """
    where = f"inventories/models/{path.name}"
    try:
        with beside(path, proposal.text, ".toml.part") as part:
            profile = profile_in(part, where)
            planned(path.stem, profile, data, f"{proposal.choice.gpus[0].name}:{len(proposal.choice.gpus)}")
            if force:
                part.replace(path)
            else:
                os.link(part, path)  # fails where somebody was quicker
    except OSError as error:
        raise PlanError(
            where, error.strerror or "an error", "a file that can be written", reference="not-written"
        ) from None


def _as_json(path: Path, proposal: Proposal) -> str:
    return json.dumps({"file": str(path), **proposal.as_dict()}, indent=2) + "\n"


def _as_text(path: Path, name: str, found: Repository, proposal: Proposal) -> str:
    choice = proposal.choice
    shape = f", {choice.shape.name}" if choice.shape else ""
    lines = [
        f"{found.name} at {found.revision[:12]}: kind {choice.kind}, release {choice.stack.release}, "
        f"{choice.tensor_parallel} x {choice.gpus[0].name}{shape}, {choice.batch} x {choice.context} tokens",
        *(f"warning: {warning}" for warning in proposal.warnings),
        "",
        *(f"  {line}" for line in proposal.forecast()),
        "",
        "What would be chosen on each shape:",
        *(f"  {line}" for line in proposal.shapes),
        "",
        f"written: {_shown(path)}",
        f'next: model = "{name}" for the hosts that serve it, and pyinfra INVENTORY deploy.py --dry -y',
    ]
    return "\n".join(lines) + "\n"


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
