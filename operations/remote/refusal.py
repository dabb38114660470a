"""Refuse to go on on one host, with one line."""

from __future__ import annotations

from pyinfra import logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State


def refuse(message: str) -> FunctionCommand:
    """
    A command that fails on this host alone and says why.

    An exception raised inside an operation would end the run of all hosts with a traceback.
    """
    return FunctionCommand(_refuse, (message,), {})


def _refuse(state: State, host: Host, message: str) -> bool:
    logger.error(f"{host.print_prefix}{message}")
    return False
