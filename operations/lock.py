"""One operator at a time: a lock on the host that its kernel frees when the holder's connection ends.

The same connection tells whether the host still answers: a command whose answer is lost would be waited for without end.
"""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import time
from collections.abc import Generator, Sequence
from typing import Any

import gevent
from paramiko import SSHException
from pyinfra import logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations.detached import LOST, guards, shell
from operations.plan.release import Release
from operations.scripts import host_script

ANSWER_SECONDS = 30
BEAT_SECONDS = 5
# What the host answers nothing for is a lost connection; the host itself waits a little longer before it frees the lock.
SILENCE_SECONDS, SILENCE_ON_HOST_SECONDS = 40, 60
_channels: dict[str, Any] = {}  # by host; kept open until this process ends
_lost: dict[str, str] = {}


@deploy("Lock")
def take(release: Release) -> None:
    """The first step of a run that changes something; looking needs no lock."""
    held(
        name="Hold the host's lock",
        purpose=f"deploy of release {release.id} ({release.settings.model})",
        units=release.units,
    )


@operation()
def held(purpose: str, units: Sequence[str] = ()) -> Generator[FunctionCommand, None, None]:
    """
    No other run changes this host until this one has ended, however it ends.

    + purpose: what the refusal tells another operator
    + units: detached work that this run would start itself: what is left of it on the host is taken up

    Other detached work on the host holds the lock like a run does: it was started for another release.
    """
    yield FunctionCommand(hold, (purpose, units), {})


def hold(state: State, host: Host, purpose: str, units: Sequence[str] = ()) -> bool:
    client: Any = getattr(host.connector, "client", None)
    transport: Any = client.get_transport() if client is not None else None
    if transport is None:
        return True  # pyinfra's @local and its test connectors have no connection that could hold it
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    who = f"{_user()}@{socket.gethostname()} (process {os.getpid()}) since {now}: {purpose}"
    variables = {
        "WHO": who,
        "DIRECTORY": "/run/tritonhost",
        "OWN": " ".join(units),
        "SILENCE": str(SILENCE_ON_HOST_SECONDS),
    }
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
        _channels[host.name] = channel
        guards[host.name] = host_script("own_lock.sh", {"WHO": who, "DIRECTORY": "/run/tritonhost"})
        gevent.spawn(_beat, host, transport, channel)
        return True
    if not answer.startswith("refused"):
        said = channel.recv_stderr(400).decode(errors="replace").strip().replace("\n", " ")
        logger.error(
            f"{host.print_prefix}lock: found {said or answer or 'no answer'}, expected /run/tritonhost/lock to be made"
        )
        return False
    holder = answer.removeprefix("refused").strip() or "another run"
    logger.error(
        f"{host.print_prefix}lock: held by {holder}; expected nobody else at work on this host; wait for that run, or end "
        "it; where its machine is gone, the lock is free a minute later"
    )
    return False


def lost(host: Host) -> str:
    """Why this run does not hold the host's lock any more, or nothing: the host is asked before a service is touched."""
    if host.name in _lost or host.name not in _channels:
        return _lost.get(host.name, "")
    try:
        ok, output = shell(host, ":")
    except LOST as error:
        return str(error) or "the host did not answer"
    return "" if ok else " ".join(output) or "the host did not answer"


def _beat(host: Host, transport: Any, channel: Any) -> None:
    """Give signs of life, and end the connection when they are not answered: whatever waits on it then ends too."""
    heard = time.monotonic()
    try:
        while not channel.closed and not channel.exit_status_ready():
            channel.sendall(b"alive\n")
            gevent.sleep(BEAT_SECONDS)
            while channel.recv_ready() and channel.recv(4096):
                heard = time.monotonic()
            silence = time.monotonic() - heard
            if silence > SILENCE_SECONDS:
                _lost[host.name] = f"connection lost, no answer for {silence:.0f} s"
                logger.error(
                    f"{host.print_prefix}connection lost: found no answer for {silence:.0f} s, expected one each "
                    f"{BEAT_SECONDS} s; what runs on the host as tritonhost-*.service goes on there (systemctl list-units "
                    "'tritonhost-*'; journalctl --follow --unit …), and what serves goes on serving; run the same command "
                    "again to take it up"
                )
                # pyinfra's facts expect this error, and not the EOFError of a connection that was closed
                transport.get_exception = lambda: SSHException("connection lost")
                transport.close()
                return
    except LOST:
        return


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
