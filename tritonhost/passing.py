"""Commands that hand their words on to a program of the checkout, each with its parser and its function.

What is imported at the top is light: a completion starts this program at every press of a key.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

import tritonhost
from tritonhost import completion

INVENTORY = "inventories/oci.py"
WRONG_USAGE = 2


class Refused(click.ClickException):
    """What cannot be done, in one line."""

    exit_code = WRONG_USAGE


def here() -> Path | None:
    """The current directory, if it holds a project."""
    directory = Path.cwd()
    inventories = (directory / "inventories").is_dir()
    return directory if inventories and (directory / "config.py").is_file() else None


def in_project() -> None:
    """Use the project of the current directory, or refuse."""
    directory = here()
    if directory is None:
        raise Refused(
            f"{Path.cwd()}: found no project, expected config.py and inventories/; write one with "
            "tritonhost init DIR, and change to that directory"
        )
    tritonhost.use(directory)


def begin(words: Sequence[str], hosts: bool = False) -> None:
    """
    Use the project of the current directory, or refuse; only help needs none.

    + hosts: the command works on hosts by itself
    """
    if not {"-h", "--help"} & {*words}:
        in_project()
    tritonhost.use(here())
    if hosts:
        # before anything else is imported: pyinfra works on its hosts at the same time through it
        from gevent import monkey

        monkey.patch_all()


# --- commands whose further words go to another program

Program = Callable[[list[str]], int]
Candidates = Callable[[list[str], str], list[CompletionItem]]


class Passing(click.Command):
    """A command that hands its words on. `candidates`: what may follow them."""

    def __init__(self, name: str, program: Program, candidates: Candidates, **rest: Any) -> None:
        words = click.Argument(
            ["words"],
            nargs=-1,
            type=click.UNPROCESSED,
            metavar=rest.pop("metavar", "..."),
            shell_complete=lambda ctx, _, incomplete: self.shell_complete(ctx, incomplete),
        )
        super().__init__(
            name,
            params=[words],
            callback=lambda words: program(list(words)),
            # -h may be part of another program's short options, such as -khost
            context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
            **rest,
        )
        self.candidates = candidates

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return self.candidates(list(ctx.params.get("words") or ()), incomplete)


def of_argparse(
    name: str, text: str, parser: Callable[[], argparse.ArgumentParser], program: Program
) -> Passing:
    """A program of the checkout that has an argparse parser, with its own --help."""

    def candidates(words: list[str], incomplete: str) -> list[CompletionItem]:
        tritonhost.use(here())
        return completion.following(parser(), words, incomplete)

    return Passing(name, program, candidates, add_help_option=False, help=text)


def _plan_parser() -> argparse.ArgumentParser:
    from operations.plan.__main__ import parser

    return parser("tritonhost plan")


def plan(words: list[str]) -> int:
    tritonhost.use(here())
    from operations.plan.__main__ import main

    return main(words, prog="tritonhost plan")


def _of_plan(name: str) -> Passing:
    """A command of `tritonhost plan` that is one of its own too."""
    texts = {
        "new": "Write a profile for a model of a hub, planned for some GPUs.",
        "models": "Show which architectures are served, by which kind, from which release on.",
    }

    def candidates(words: list[str], incomplete: str) -> list[CompletionItem]:
        tritonhost.use(here())
        return completion.following(_plan_parser(), [name, *words], incomplete)

    def program(words: list[str]) -> int:
        if name == "new" and not {"-h", "--help"} & {*words}:
            in_project()
        tritonhost.use(here())
        from operations.plan.__main__ import main

        return main([name, *words], prog="tritonhost")

    return Passing(name, program, candidates, add_help_option=False, help=texts[name])


def _preflight_parser() -> argparse.ArgumentParser:
    from operations.preflight import parser

    return parser("tritonhost preflight", INVENTORY)


def preflight(words: list[str]) -> int:
    begin(words, hosts=True)
    from operations.preflight import main

    return main(words, prog="tritonhost preflight", inventory=INVENTORY)


def _bundle_parser() -> argparse.ArgumentParser:
    from operations.bundle.__main__ import parser

    return parser("tritonhost bundle")


def bundle(words: list[str]) -> int:
    tritonhost.use(here())
    from operations.bundle.__main__ import main

    return main(words, prog="tritonhost bundle")


def _currency_parser() -> argparse.ArgumentParser:
    from operations.currency import parser

    return parser("tritonhost currency")


def currency(words: list[str]) -> int:
    tritonhost.use(here())
    from operations.currency import main

    return main(words, prog="tritonhost currency")


def _golden_parser() -> argparse.ArgumentParser:
    from operations.golden_answers import parser

    return parser("tritonhost golden")


def golden(words: list[str]) -> int:
    begin(words)
    from operations.golden_answers import main

    return main(words, prog="tritonhost golden")


def _lock_parser() -> argparse.ArgumentParser:
    from operations.lock_inventory import parser

    return parser("tritonhost lock", INVENTORY)


def lock(words: list[str]) -> int:
    begin(words)
    from operations.lock_inventory import main

    return main(words, prog="tritonhost lock", inventory=INVENTORY)


def _of_hosts(name: str, text: str, module: str) -> Passing:
    """A program of the checkout that reads an inventory as pyinfra does, and works on hosts by itself."""

    def options() -> argparse.ArgumentParser:
        found: argparse.ArgumentParser = import_module(module).parser(f"tritonhost {name}")
        return found

    def program(words: list[str]) -> int:
        begin(words, hosts=True)
        return int(import_module(module).main(words, prog=f"tritonhost {name}"))

    return of_argparse(name, text, options, program)


def _provision_parser() -> argparse.ArgumentParser:
    from operations.provision import parser

    return parser("tritonhost provision")


def provision(words: list[str]) -> int:
    begin(words)
    from operations.provision import main

    return main(words, prog="tritonhost provision")


COMMANDS = (
    of_argparse("plan", "Show what a profile would do, without a host.", _plan_parser, plan),
    _of_plan("new"),
    _of_plan("models"),
    of_argparse("preflight", "Check the hosts before a deploy; change nothing.", _preflight_parser, preflight),
    _of_hosts("status", "Show what every host does now, against what the inventory says.", "operations.status"),
    _of_hosts("watch", "Show every host stage by stage while something changes it.", "operations.watch"),
    _of_hosts("report", "Write one HTML page of what every host does now, and what a run did.", "operations.report"),
    _of_hosts("replay", "Send the same prompts to two served models and compare them.", "operations.replay"),
    _of_hosts("bench", "Measure how fast a host's door answers, and compare two results.", "operations.bench"),
    _of_hosts("teardown", "Take tritonhost off a host, and nothing else.", "operations.teardown"),
    _of_hosts("must-gather", "Gather what a report of a fault needs of one host, without secrets.", "operations.must_gather"),
    _of_hosts("exposure", "Show which hosts have versions with known vulnerabilities.", "operations.exposure"),
    _of_hosts("export", "Print what Kubernetes, Slurm, llm-d, Dynamo or Prometheus need of a release or its hosts.", "operations.export"),
    _of_hosts("monitoring", "Write what Prometheus, Alertmanager and Grafana read.", "operations.site_monitoring"),
    of_argparse("provision", "Make the OCI instances that the inventory names, end those that it no longer names.", _provision_parser, provision),
    of_argparse("golden", "Show recorded golden answers, or accept other ones.", _golden_parser, golden),
    of_argparse("lock", "Pin the images, models and packages that an inventory needs.", _lock_parser, lock),
    of_argparse("bundle", "Make, verify or serve the files of a site without a network.", _bundle_parser, bundle),
    of_argparse("currency", "Show what has moved since the tables were written.", _currency_parser, currency),
)  # fmt: skip
