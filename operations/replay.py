"""Send the same prompts to two served models, and compare the answers and their times.

python -m operations.replay inventories/oci.py --from ensemble@gpu-1 --to tensorrt_llm@gpu-2 prompts.jsonl
python -m operations.replay --from ensemble@10.0.0.11:8001 --to tensorrt_llm@10.0.0.12:8001 prompts.jsonl --together

MODEL@HOST is a host of the inventory, reached through SSH; MODEL@ADDRESS:PORT is a gRPC port that this machine reaches. Exit codes: 0 every
prompt was answered by both, 1 some were not, 2 bad input, 5 a host was not reached.
"""

from __future__ import annotations

if __name__ == "__main__":
    # before anything else is imported: pyinfra works on its hosts at the same time through it
    from gevent import monkey

    monkey.patch_all()

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.host import Host

from operations import convergence, inputs, preflight, pyinfra_patches
from operations.intake import host_key
from operations.intake.refusing import refusing
from operations.plan import PlanError
from operations.plan.errors import one_line
from operations.plan.serving.replay_page import page
from operations.plan.serving.replayed import Prompt, Reply, lines, pairs_of, prompts_of, report
from operations.remote.detached import LOST
from operations.remote.tunnel import forwarded
from operations.server.golden import in_a_process

PROGRAM = "python -m operations.replay"
_LARGEST = 256 * 2**20  # bytes of a file of prompts
_TARGET = re.compile(
    r"(?P<model>[A-Za-z0-9_.-]{1,100})@(?P<host>[A-Za-z0-9.-]{1,253}(?:/[a-z][a-z0-9-]{0,31})?)(?::(?P<port>\d{1,5}))?\Z"
)


class Target(NamedTuple):
    """A served model. + port: of gRPC, where the host is an address; None: it is a host of the inventory"""

    model: str
    host: str
    port: int | None

    def __str__(self) -> str:
        return f"{self.model}@{self.host}" + (f":{self.port}" if self.port else "")


class Unreached(Exception):
    """A host that was not reached; the text says why."""


def target(text: str, option: str) -> Target:
    """MODEL@HOST or MODEL@ADDRESS:PORT. Raises PlanError."""
    found = _TARGET.match(text)
    port = int(found["port"]) if found and found["port"] else None
    if not found or (port is not None and not 1 <= port <= 65535):
        raise PlanError(
            option, text, "MODEL@HOST, or MODEL@ADDRESS:PORT of a gRPC port", reference="wrong-target"
        )
    return Target(found["model"], found["host"], port)


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """The command's options. + prog: the name that its messages use"""
    parser = argparse.ArgumentParser(
        prog=prog, description="Send the same prompts to two served models and compare the answers."
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="[INVENTORY] PROMPTS",
        help="an inventory for MODEL@HOST, and a file with one prompt a line",
    )
    parser.add_argument(
        "--from", dest="first", required=True, metavar="MODEL@HOST", help="the server that answers now"
    )
    parser.add_argument(
        "--to", dest="second", required=True, metavar="MODEL@HOST", help="the one to compare with it"
    )
    parser.add_argument(
        "--senders", type=int, default=4, metavar="N", help="prompts at a time to each server (default 4)"
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=64,
        metavar="N",
        help="of a prompt that does not say it (default 64)",
    )
    parser.add_argument(
        "--together", action="store_true", help="both servers at the same time; default: one after the other"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("build/replay"),
        metavar="DIR",
        help="for report.json and report.html (default build/replay)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the report, without the answers, for a program"
    )
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = PROGRAM) -> int:
    """The command; see the exit codes at the top of this file."""
    # an inventory and a file of prompts may stand before, between or behind the options
    given = parser(prog).parse_intermixed_args(arguments)
    inputs.quieten()
    with refusing(as_json=given.json):
        targets = target(given.first, "--from"), target(given.second, "--to")
        inventory, prompts = _words(given, targets)
        hosts = _hosts(inventory, targets)
    try:
        given.output.mkdir(parents=True, exist_ok=True)
        replies = _replay(targets, hosts, prompts, given.senders, given.together)
        pairs = pairs_of(prompts, *replies)
        found = report((str(targets[0]), str(targets[1])), pairs)
        for name, text in (
            ("report.json", json.dumps(found, indent=1) + "\n"),
            ("report.html", page(found, pairs)),
        ):
            # an answer may hold half a character
            (given.output / name).write_bytes(text.encode("utf-8", "replace"))
    except Unreached as error:
        print(f"tritonhost: {error}", file=sys.stderr)
        return 5
    except OSError as error:
        where = given.output if error.filename is None else error.filename
        print(
            f"tritonhost: {where}: {error.strerror}; expected a directory that can be written",
            file=sys.stderr,
        )
        return 2
    if given.json:
        print(json.dumps({key: value for key, value in found.items() if key != "pairs"}, indent=2))
    else:
        print("\n".join([*lines(found), f"written: {given.output}/report.json, {given.output}/report.html"]))
    return 1 if found["from"]["errors"] or found["to"]["errors"] else 0


def _words(given: argparse.Namespace, targets: Sequence[Target]) -> tuple[str | None, list[Prompt]]:
    """The inventory, if one is named, and the prompts. Raises PlanError."""
    *before, path = given.words
    if len(before) > 1:
        raise PlanError(
            "PROMPTS",
            f"{len(given.words)} words",
            "an inventory and a file of prompts",
            reference="wrong-usage",
        )
    if not before and any(each.port is None for each in targets):
        raise PlanError(
            "INVENTORY",
            "nothing",
            "the inventory that has the hosts",
            "such as inventories/oci.py",
            reference="wrong-usage",
        )
    for option, value, most in (
        ("--senders", given.senders, 256),
        ("--max-tokens", given.max_tokens, 131_072),
    ):
        if not 1 <= value <= most:
            raise PlanError(option, value, f"a whole number from 1 to {most}", reference="wrong-usage")
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise PlanError("", "a larger file", f"at most {_LARGEST // 2**20} MiB", where=path)
        return (before[0] if before else None), prompts_of(
            content.decode("utf-8-sig"), path, given.max_tokens
        )
    except OSError as error:
        raise PlanError(
            "", error.strerror, "a file of prompts", where=path, reference="file-not-readable"
        ) from None
    except UnicodeDecodeError:
        raise PlanError(
            "", "no text in UTF-8", "a file of prompts", where=path, reference="file-not-readable"
        ) from None


def _hosts(inventory: str | None, targets: Sequence[Target]) -> dict[str, Host]:
    """The hosts of the inventory that are named, by name. Raises PlanError."""
    names = sorted({each.host for each in targets if each.port is None})
    if not names or inventory is None:
        return {}
    words = argparse.Namespace(inventory=inventory, limit=names, group_data=[], data=[])
    _, chosen = preflight.state_and_hosts(words)
    found = {each.name: each for each in chosen}
    for name in names:
        if name not in found:
            raise PlanError(
                f"host {name}",
                f"several services: {', '.join(sorted(found))}",
                "one of them",
                f"such as MODEL@{min(found)}",
                reference="several-services",
            )
    return found


def _replay(
    targets: Sequence[Target],
    hosts: Mapping[str, Host],
    prompts: Sequence[Prompt],
    senders: int,
    together: bool,
) -> list[list[Reply]]:
    """The replies of each server. Raises Unreached."""
    text = "\n".join(json.dumps(vars(prompt)) for prompt in prompts)
    senders = min(senders, len(prompts))

    def answers(model: str, endpoint: str) -> list[Reply]:
        limit = 60 + 600 * len(prompts) / senders
        found, problem = in_a_process("replay", endpoint, text, limit, (model, str(senders)))
        replies = [Reply(**one) for one in found]
        there = {reply.number for reply in replies}
        return [
            *replies,
            *(Reply(p.number, error=problem or "no answer") for p in prompts if p.number not in there),
        ]

    with ExitStack() as stack:
        endpoints = _endpoints(targets, hosts, stack)
        work = [(each.model, endpoint) for each, endpoint in zip(targets, endpoints, strict=True)]
        if together:
            # threads, or what gevent has put in their place
            with ThreadPoolExecutor(len(work)) as pool:
                return list(pool.map(lambda one: answers(*one), work))
        return [answers(*one) for one in work]


def _endpoints(targets: Sequence[Target], hosts: Mapping[str, Host], stack: ExitStack) -> list[str]:
    """For each server ADDRESS:PORT on this machine that leads to it, until the stack ends. Raises Unreached."""
    known: dict[str, str] = {}
    for each in targets:
        if each.port is not None:
            known[str(each)] = f"{each.host}:{each.port}"
        elif each.host not in known:
            known[each.host] = _through_ssh(hosts[each.host], stack)
    return [known[str(each) if each.port is not None else each.host] for each in targets]


def _through_ssh(host: Host, stack: ExitStack) -> str:
    try:
        stack.callback(lambda: host.disconnect() if host.connected else None)
        with pyinfra_patches.connected(host):
            release, _ = convergence.planned()
        return stack.enter_context(forwarded(host, release.address, release.ports[1]))
    except ConnectError as error:
        raise Unreached(f"{host.name}: {host_key.problem(host, error) or one_line(str(error))}") from None
    except (PlanError, PyinfraError, *LOST) as error:
        raise Unreached(f"{host.name}: {one_line(str(error)) or type(error).__name__}") from None


if __name__ == "__main__":
    sys.exit(main())
