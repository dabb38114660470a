"""What ends the work on one host, with one line: a refusal before it, and a step that failed."""

from __future__ import annotations

from pyinfra import logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State


class Failed(Exception):
    """A step on a host failed; the text says what was found and expected. Never raised past the command of an operation."""


def refuse(message: str) -> FunctionCommand:
    """
    A command that fails on this host alone and says why.

    An exception raised inside an operation would end the run of all hosts with a traceback.
    """
    return FunctionCommand(_refuse, (message,), {})


def _refuse(state: State, host: Host, message: str) -> bool:
    logger.error(f"{host.print_prefix}{message}")
    return False
