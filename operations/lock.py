"""One operator at a time: a lock on the host that its kernel frees when the holder's connection ends.

The same connection tells whether the host still answers: a command whose answer is lost would be waited for without end.
"""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import time
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from paramiko import SSHException
from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations import pyinfra_patches
from operations.plan.inventory.services import machine_of
from operations.plan.release import Release
from operations.remote.detached import LOST, said, shell
from operations.scripts import host_script

ANSWER_SECONDS = 30
BEAT_SECONDS = 5
# What the host answers nothing for is a lost connection; the host itself waits a little longer before it frees the lock.
SILENCE_SECONDS, SILENCE_ON_HOST_SECONDS = 40, 60
# By the name of the machine: the services of a host share its lock, and lose it together.
_channels: dict[str, Any] = {}  # kept open until this process ends
_lost: dict[str, str] = {}
# shell text in front of each command: it ends the command where this run does not hold the lock
_guards: dict[str, str] = {}
# the connections of its services, which end with the lock
_transports: dict[str, list[Any]] = {}
# detached work that this run would start itself
_units: dict[str, set[str]] = {}
_rebooting: set[str] = set()  # machines whose lock was let go, and is not held again
_let_go: list[Any] = []  # channels of hosts that reboot: their end is no loss
_taking: dict[str, BoundedSemaphore] = {}


@deploy("Lock")
def take(release: Release) -> None:
    """The first step of a run that changes something; looking needs no lock."""
    _units.setdefault(machine_of(host.name), set()).update(release.units)
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

    Other detached work on the host holds the lock like a run does: it was started for another release. The services of a
    host are one run: the first of them takes the lock for all.
    """
    yield FunctionCommand(hold, (purpose, units), {})


def hold(state: State, host: Host, purpose: str, units: Sequence[str] = ()) -> bool:
    transport = pyinfra_patches.transport_of(host)
    if transport is None:
        return True  # pyinfra's @local and its test connectors have no connection that could hold it
    machine = machine_of(host.name)
    with _taking.setdefault(machine, BoundedSemaphore(1)):
        if machine not in _channels and not _take(
            host, transport, purpose, {*units, *_units.get(machine, ())}
        ):
            return False
    _rebooting.discard(machine)
    _transports.setdefault(machine, []).append(transport)
    _guard(host)
    return True


def _take(host: Host, transport: Any, purpose: str, units: Iterable[str]) -> bool:
    """Whether the host has given this run its lock; says why not."""
    machine = machine_of(host.name)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    who = f"{_user()}@{socket.gethostname()} (process {os.getpid()}) since {now}: {purpose}"
    variables = {
        "WHO": who,
        "DIRECTORY": "/run/tritonhost",
        "OWN": " ".join(sorted(units)),
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
        _channels[machine] = channel
        _guards[machine] = host_script("own_lock.sh", {"WHO": who, "DIRECTORY": "/run/tritonhost"})
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


def _guard(host: Host) -> None:
    """From here on each command of the run asks the host itself whether the run still holds its lock, pyinfra's own among them."""

    machine = machine_of(host.name)

    def guarded(command: StringCommand) -> StringCommand:
        if problem := _lost.get(machine):
            raise SSHException(problem)
        guard = _guards.get(machine, "")
        if not guard or command.get_raw_value().startswith(guard):
            return command
        return StringCommand(guard, command, _separator="")

    pyinfra_patches.before_each_command(host, guarded)


def let_go(host: Host) -> None:
    """The host is about to reboot, which frees its lock: its connections end, and that is no loss. `hold` takes the lock again."""
    machine = machine_of(host.name)
    _let_go.append(_channels.get(machine))
    _rebooting.add(machine)
    for known in (_channels, _guards, _transports, _lost):
        known.pop(machine, None)


def lost(host: Host) -> str:
    """Why this run does not hold the host's lock any more, or nothing: the host is asked before a service is touched."""
    machine = machine_of(host.name)
    if machine in _rebooting:
        return "lock given up for a reboot"
    if machine in _lost or machine not in _channels:
        return _lost.get(machine, "")
    try:
        ok, output = shell(host, ":")
    except LOST as error:
        return str(error) or "the host did not answer"
    return "" if ok else said(output, len(output))


def _beat(host: Host, transport: Any, channel: Any) -> None:
    """
    Give signs of life, and end the connection when they are not answered, or the host has ended the lock.

    Whatever waits on the connection then ends too: nothing goes on beside the next run.
    """
    machine = machine_of(host.name)
    heard = before = _now()
    found = ""
    try:
        while not found and not channel.closed and not channel.exit_status_ready():
            channel.sendall(b"alive\n")
            gevent.sleep(BEAT_SECONDS)
            now = _now()
            if now - before > SILENCE_SECONDS:
                # answers that were received earlier may still be buffered: they do not show that the host answers now
                found = f"this machine asleep or stopped for {now - before:.0f} s"
            before = now
            while channel.recv_ready() and channel.recv(4096):
                heard = now
            if not found and now - heard > SILENCE_SECONDS:
                found = f"no answer for {now - heard:.0f} s"
    except LOST as error:
        found = str(error) or "the connection closed"
    if channel in _let_go:
        return
    if not transport.is_active():
        # closed by pyinfra at the end of the run, or lost: the connection itself reports that to the operation that waits on it
        _lost.setdefault(machine, "connection lost")
        return
    found = found or "the lock ended by the host"
    _lost[machine] = f"connection lost, {found}"
    logger.error(
        f"{host.print_prefix}connection lost: found {found}, expected an answer each "
        f"{BEAT_SECONDS} s; units tritonhost-*.service continue on the host (systemctl list-units "
        "'tritonhost-*'; journalctl --follow --unit …), and so does the running release; run the same command "
        "again to adopt that work"
    )
    for each in _transports.get(machine, [transport]):
        pyinfra_patches.end_connection(each, "connection lost")


def _now() -> float:
    """Seconds that also pass while this machine sleeps, where its kernel counts them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


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
