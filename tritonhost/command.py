"""The command `tritonhost`. Each of its words is a thin layer over a program of the checkout.

What is imported at the top is light: a completion starts this program at every press of a key.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
from click.shell_completion import CompletionItem, get_completion_class

import tritonhost
from tritonhost import completion, project
from tritonhost.passing import COMMANDS, INVENTORY, WRONG_USAGE, Passing, Refused, in_project

SHELLS = ("bash", "zsh", "fish")
INTERRUPTED = 130
# Options of pyinfra whose value may be a Python file
_TAKES_A_FILE = ("--group-data", "--config")
_OF_VERIFY = (
    "--inventory",
    "--group-data",
    "--collect-only",
    "--quiet",
    "--verbose",
    "--exitfirst",
    "-k",
    "-m",
)


# --- commands that run pyinfra and pytest


def _of_pyinfra(words: list[str], incomplete: str) -> list[CompletionItem]:
    if not incomplete.startswith("-"):
        return [completion.FILE] if words else completion.inventories(incomplete)
    from pyinfra_cli.cli import cli  # type: ignore[import-untyped]

    return completion.plain(
        [name for param in cli.params for name in param.opts if name[0] == "-"], incomplete
    )


def split(words: Sequence[str], command: str) -> tuple[str, list[str]]:
    """The inventory, which is the first word or the usual one, and pyinfra's options."""
    inventory, rest = (
        (words[0], list(words[1:])) if words and words[0][:1] != "-" else (INVENTORY, list(words))
    )
    for before, word in zip(["", *rest], rest, strict=False):
        # pyinfra would take it for a further file of operations
        if word.endswith(".py") and before not in _TAKES_A_FILE and not word.startswith("-"):
            raise Refused(
                f"tritonhost {command}: found {word} behind other words, expected the inventory first; "
                f"write tritonhost {command} {word} …"
            )
    return inventory, rest


def deploy(words: list[str]) -> int:
    inventory, rest = split(words, "deploy")
    in_project()
    if not Path("deploy.py").is_file():
        raise Refused(f"{Path.cwd()}: found no deploy.py, expected the one that tritonhost init writes")
    execute(["pyinfra", inventory, "deploy.py", *rest])


def releases(words: list[str]) -> int:
    as_json = "--json" in words  # pyinfra's own option of that name prints what its operations are
    inventory, rest = split([word for word in words if word != "--json"], "releases")
    in_project()
    command = ["pyinfra", "-y", inventory, "operations.release.status", *rest]
    if not as_json:
        execute(command)
    with tempfile.TemporaryDirectory(prefix="tritonhost-") as folder:
        answers = Path(folder, "answers")
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env={**os.environ, "TRITONHOST_STATUS": str(answers)},
            stdout=sys.stderr,
            check=False,
        )
        lines = answers.read_text(encoding="utf-8").splitlines() if answers.exists() else []
    if done.returncode in (0, 1):  # 1: a host did not answer, and is not in the list
        print(
            json.dumps(
                {"hosts": sorted(map(json.loads, lines), key=lambda host: str(host["host"]))}, indent=2
            )
        )
    return done.returncode


def execute(command: Sequence[str]) -> NoReturn:
    """This process becomes another program of the same environment: its signals and its exit code are its own."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", *command])


def _of_verify(words: list[str], incomplete: str) -> list[CompletionItem]:
    if incomplete.startswith("-"):
        return completion.plain(_OF_VERIFY, incomplete)
    return completion.inventories(incomplete) if not words or words[-1] == "--inventory" else []


class _Interrupted:
    """pytest ends with the same code for Ctrl-C and for tests that cannot be collected."""

    seen = False

    def pytest_keyboard_interrupt(self) -> None:
        self.seen = True


def verify(words: list[str]) -> int:
    inventory: list[str] = []
    if not any(word.partition("=")[0] == "--inventory" for word in words):
        first, words = split(words, "verify")
        inventory = ["--inventory", first]
    in_project()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest closes what is open
    sys.dont_write_bytecode = True  # the tests are in site-packages
    import pytest

    tree, watch = tritonhost.tree(), _Interrupted()
    settings = ["-c", str(tree / "pyproject.toml"), "--rootdir", str(tree), "-p", "no:cacheprovider"]
    code = int(pytest.main([*settings, str(tree / "tests" / "verify"), *inventory, *words], plugins=[watch]))
    if watch.seen:
        return INTERRUPTED
    return {int(pytest.ExitCode.INTERRUPTED): 1, int(pytest.ExitCode.USAGE_ERROR): WRONG_USAGE}.get(
        code, code
    )


# --- the command itself


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tritonhost.__version__, prog_name="tritonhost", message="%(prog)s %(version)s")
def command() -> None:
    """Bare Oracle Linux GPU hosts to NVIDIA Triton servers with a verified model.

    Begin with `tritonhost init DIR`. The other commands run in that directory.
    """


def _models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return completion.plain(project.shipped_models(), incomplete)


@command.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--model", default="gpt2-medium", show_default=True, metavar="NAME", shell_complete=_models,
    help="The profile that the project begins with.",
)  # fmt: skip
def init(directory: Path, model: str) -> int:
    """Write a project: inventories, settings, a model's profile."""
    try:
        written = project.write(directory, model)
    except project.NotWritten as error:
        raise Refused(f"tritonhost init: {error}") from None
    print(f"tritonhost: {len(written)} files in {directory}: {', '.join(written)}")
    print(f"next: cd {directory}, name the hosts in inventories/oci.toml, run tritonhost deploy --dry -y")
    return 0


@command.command(name="completion")
@click.argument("shell", type=click.Choice(SHELLS))
def print_completion(shell: str) -> int:
    """Print the shell's completion script: eval "$(tritonhost completion bash)"."""
    kind = get_completion_class(shell)
    assert kind is not None
    print(kind(command, {}, "tritonhost", "_TRITONHOST_COMPLETE").source())
    return 0


for _each in (
    *COMMANDS,
    Passing(
        "deploy", deploy, _of_pyinfra, metavar="[INVENTORY] [PYINFRA OPTIONS]",
        help=f"Converge the hosts: pyinfra INVENTORY deploy.py. INVENTORY is {INVENTORY} where none is named. "
        "--dry -y shows what would change, -y changes it. pyinfra --help lists the other options.",
    ),
    Passing(
        "releases", releases, _of_pyinfra, metavar="[INVENTORY] [--json] [PYINFRA OPTIONS]",
        help=f"Show the releases of each host. INVENTORY is {INVENTORY} where none is named. "
        "--json prints them for a program; a host that did not answer is missing there, and the exit code is 1.",
    ),
    Passing(
        "verify", verify, _of_verify, metavar="[INVENTORY] [PYTEST OPTIONS]",
        help=f"Compare the hosts with their plan. INVENTORY is {INVENTORY} where none is named. "
        "pytest --help lists the options.",
    ),
):  # fmt: skip
    command.add_command(_each)


def _interrupted(number: int, frame: FrameType | None) -> None:
    print("tritonhost: interrupted; run the same command again", file=sys.stderr)
    raise SystemExit(INTERRUPTED)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: its exit code; what is wrong is said in one line."""
    signal.signal(signal.SIGINT, _interrupted)
    try:
        code = command.main(args=arguments, prog_name="tritonhost", standalone_mode=False)
    except click.UsageError as error:
        name = error.ctx.command_path if error.ctx else "tritonhost"
        said = " ".join(error.format_message().split()).rstrip(".")
        print(f"{name}: {said[:1].lower()}{said[1:]}; see {name} --help", file=sys.stderr)
        return WRONG_USAGE
    except click.ClickException as error:
        said = error.format_message()
        print(said if said.startswith("tritonhost ") else f"tritonhost: {said}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(
            f"tritonhost: {error.filename or Path(sys.argv[0]).name}: {error.strerror or error}",
            file=sys.stderr,
        )
        return 1
    return int(code or 0)
