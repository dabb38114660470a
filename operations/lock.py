"""One operator at a time: a lock on the host that its kernel frees when the holder's connection ends."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import time
from collections.abc import Generator
from typing import Any

from pyinfra import logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations.detached import LOST
from operations.plan.release import Release
from operations.scripts import host_script

ANSWER_SECONDS = 30
_channels: list[Any] = []  # kept open until this process ends


@deploy("Lock")
def take(release: Release) -> None:
    """The first step of a run that changes something; looking needs no lock."""
    held(name="Hold the host's lock", purpose=f"deploy of release {release.id} ({release.settings.model})")


@operation()
def held(purpose: str) -> Generator[FunctionCommand, None, None]:
    """
    No other run changes this host until this one has ended, however it ends.

    + purpose: what the refusal tells another operator

    Detached work outlives the connection and its lock; another run of the same release re-attaches to it.
    """
    yield FunctionCommand(hold, (purpose,), {})


def hold(state: State, host: Host, purpose: str) -> bool:
    client: Any = getattr(host.connector, "client", None)
    transport: Any = client.get_transport() if client is not None else None
    if transport is None:
        return True  # pyinfra's @local and its test connectors have no connection that could hold it
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    who = f"{_user()}@{socket.gethostname()} (process {os.getpid()}) since {now}: {purpose}"
    variables = {"WHO": who, "DIRECTORY": "/run/tritonhost"}
    command = f"sh -c {shlex.quote(host_script('hold_lock.sh', variables))}"
    try:
        channel = transport.open_session(timeout=ANSWER_SECONDS)
        channel.settimeout(ANSWER_SECONDS)
        channel.exec_command(f"sudo -n {command}" if host.data.get("_sudo") else command)
        answer = _line(channel)
    except LOST as error:
        logger.error(
            f"{host.print_prefix}lock: {str(error) or 'no answer'}; expected the host to answer; run again"
        )
        return False
    if answer == "held":
        _channels.append(channel)
        return True
    if not answer.startswith("refused"):
        said = channel.recv_stderr(400).decode(errors="replace").strip().replace("\n", " ")
        logger.error(
            f"{host.print_prefix}lock: found {said or answer or 'no answer'}, expected /run/tritonhost/lock to be made"
        )
        return False
    holder = answer.removeprefix("refused").strip() or "another run"
    logger.error(
        f"{host.print_prefix}lock: held by {holder}; expected nobody else at work on this host; wait for that run, or end it; where its machine is gone, end that process"
    )
    return False


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _line(channel: Any) -> str:
    text = b""
    while b"\n" not in text and (part := channel.recv(4096)):
        text += part
    return text.decode(errors="replace").split("\n")[0].strip()
