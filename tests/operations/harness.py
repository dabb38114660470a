"""An operation's commands, without a host: its facts are given, by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.context import ctx_host


class Host:
    """What an operation sees of a host."""

    name = "gpu-1"
    print_prefix = ""

    def __init__(self, facts: Mapping[type, object]) -> None:
        self.facts = facts
        self.asked: list[tuple[str, dict[str, object]]] = []
        self.noop_description = ""

    def get_fact(self, fact: type, **arguments: object) -> object:
        self.asked.append((fact.__name__, arguments))
        return self.facts[fact]

    def noop(self, description: str) -> None:
        self.noop_description = description


def commands_of(operation: Any, host: Host, **arguments: object) -> list[Any]:
    """The commands an operation yields on a host, in order."""
    with ctx_host.use(host):
        return list(operation._inner(**arguments))


def text_of(command: StringCommand) -> str:
    """The shell text of a command."""
    return str(command.get_raw_value())


def refusal_of(commands: list[Any]) -> str:
    """The message of the one command that refuses to go on."""
    assert len(commands) == 1, commands
    command = commands[0]
    assert isinstance(command, FunctionCommand)
    assert command.function.__name__ == "_refuse"
    return str(command.args[0])
