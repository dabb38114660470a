"""Long work as a named transient systemd unit on the host, which a later run re-attaches to.

A lost connection or a killed client then costs nothing: the work goes on, and the next run follows the same unit
instead of starting a second one, because the unit is named after the key of what it makes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gevent.lock import BoundedSemaphore
from paramiko import SSHException
from pyinfra import logger
from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from operations.intake.secrets import SecretMissing, hub_token
from operations.plan.artifacts.artifact import Work
from operations.plan.causes import advice
from operations.plan.errors import one_line
from operations.plan.inventory.services import machine_of
from operations.plan.paths import TREE
from operations.remote.refusal import Failed
from operations.scripts import archive, host_script

ENDED = ("dead", "failed", "exited")  # the SubStates of a unit whose work is over
# What a dead transport raises: sockets, paramiko, gevent's timeout
LOST = (OSError, EOFError, SSHException, TimeoutError)
FOLLOW_SECONDS = 5  # how long one follow command waits on the host for news
ANSWER_SECONDS = 30  # how much longer the controller waits for its answer before it calls the connection lost
REFUSED = "tritonhost: refused: "  # what a script of ours says last, in one line, where it declines to begin
# Services of one host may need the same image or weights: one of them makes it, and the others wait. By machine and unit.
_working: dict[tuple[str, str], BoundedSemaphore] = {}
_made: set[tuple[str, str]] = set()
LINES_SHOWN = 6  # of the work's output, at each look; the whole is in the host's journal


def run_and_follow(state: State, host: Host, work: Work, log: Callable[[str], None] = logger.error) -> bool:
    """
    Start the unit or attach to it, show its output as it comes, and say whether it succeeded.

    + log: how a failure is said

    Returns False, having logged one line that says what failed and what to do; it never raises, because pyinfra
    prints a traceback for what a callback raises. What another service of the host has made in this run is not made again.
    """
    key = (machine_of(host.name), work.unit)
    with _working.setdefault(key, BoundedSemaphore(1)):
        if machine_of(host.name) != host.name and key in _made:
            logger.info(f"{host.print_prefix}{work.title}: made for another service of this host")
            return True
        made = _run_and_follow(host, work, log)
        if made:
            _made.add(key)
        return made


def _run_and_follow(host: Host, work: Work, log: Callable[[str], None]) -> bool:
    began = time.monotonic()
    try:
        ok, output = shell(
            host, host_script("start_work.sh", {"UNIT": work.unit}), stdin=archive(_files_of(work))
        )
        if not ok:
            return _failed(host, work, "the transient unit did not start", output, log)
        attached = "attached" in output
        if attached:
            logger.info(f"{host.print_prefix}{work.title}: already running on the host, re-attached to it")
        ended = follow(host, work.title, work.unit, printed(output, "cursor"), ENDED, began)
        if not ended.succeeded:
            # its journal stays; the failed unit itself would stay listed until the host is booted
            shell(host, f"systemctl reset-failed {work.unit}.service 2>/dev/null || :")
        # a failure that somebody reset between two looks reads as a success
        there = ended.succeeded and (not work.proof or shell(host, work.proof)[0])
    except SecretMissing as error:
        logger.error(f"{host.print_prefix}{work.title}: {error}")
        return False
    except LOST as error:
        log_lost(host, work.title, work.unit, error)
        return False
    if not ended.succeeded:
        if refusal := next((line for line in reversed(ended.recent) if line.startswith(REFUSED)), ""):
            log(f"{host.print_prefix}{work.title}: {refusal.removeprefix(REFUSED)}")
            return False
        code = ended.properties.get("ExecMainStatus", "")
        return _failed(
            host, work, f"{ended.properties.get('Result')}, exit code {code}", ended.recent, log, code
        )
    if not there:
        log(
            f"{host.print_prefix}{work.title}: {work.unit}.service ended, and what it makes is not there; expected "
            f"{work.result}; nothing that serves was touched; the whole output: journalctl --unit {work.unit}; run the "
            "same command again"
        )
    return there


@dataclass(frozen=True)
class Ended:
    """A unit that is no longer busy: systemd's properties of it, and the last lines it wrote."""

    properties: dict[str, str]
    recent: list[str]

    @property
    def succeeded(self) -> bool:
        return (
            self.properties.get("Result") == "success" and self.properties.get("ExecMainStatus", "0") == "0"
        )


def follow(host: Host, title: str, unit: str, cursor: str, ended: Sequence[str], began: float) -> Ended:
    """
    Show a unit's output as it comes until its SubState is one of `ended`.

    + cursor: the journal's place to start from; empty shows the last lines of a unit that is running already
    + began: time.monotonic() of the start, for the seconds shown

    Raises one of LOST where the host does not answer.
    """
    recent: list[str] = []
    while True:
        variables = {
            "UNIT": unit,
            "CURSOR": cursor,
            "WAIT": str(FOLLOW_SECONDS),
            "ENDED": f" {' '.join(ended)} ",
        }
        ok, output = shell(host, host_script("follow.sh", variables), timeout=FOLLOW_SECONDS + ANSWER_SECONDS)
        if not ok:
            raise ConnectionError("the host did not answer")
        lines, cursor, properties = _read_follow(output, cursor)
        recent = [*recent, *lines][-40:]
        _show(host, title, unit, lines, time.monotonic() - began)
        # a job that waits is a restart between its stop and its start
        if properties.get("SubState") in ended and properties.get("Job", "0") in ("", "0"):
            return Ended(properties, recent)


def printed(output: Sequence[str], name: str) -> str:
    """What a script printed as `name: value`, or nothing."""
    return next((line.removeprefix(f"{name}: ") for line in output if line.startswith(f"{name}: ")), "")


def log_lost(host: Host, title: str, unit: str, error: BaseException) -> None:
    """Say that the connection is gone and what goes on without it."""
    logger.error(
        f"{host.print_prefix}{title}: connection lost ({str(error) or 'no answer'}); the work goes on on the "
        f"host as {unit}.service; follow it with: journalctl --follow --unit {unit}; run the same command again to "
        "re-attach"
    )


def shell(host: Host, script: str, stdin: str | None = None, timeout: int = 60) -> tuple[bool, list[str]]:
    """One script on the host, as root: whether it succeeded, and the lines it printed."""
    ok, output = host.run_shell_command(
        StringCommand(script),
        _sudo=bool(host.data.get("_sudo")),
        _stdin=stdin,
        _timeout=timeout,
    )
    return ok, [line.line for line in output]


def done(
    host: Host,
    script: str,
    stdin: str | None = None,
    timeout: int = 60,
    lines: int = 1,
    silent: str = "the host did not answer",
) -> list[str]:
    """
    One script on the host, as root; the lines it printed.

    + stdin: its standard input
    + timeout: seconds
    + lines, silent: as those of said()

    Raises Failed with the end of what it printed.
    """
    ok, output = shell(host, script, stdin=stdin, timeout=timeout)
    if not ok:
        raise Failed(said(output, lines, silent))
    return output


def said(output: Sequence[str], lines: int = 1, silent: str = "the host did not answer") -> str:
    """
    The end of what a failed script printed, as one line for a person: a host's own text may hold what a terminal obeys.

    + lines: how many
    + silent: what to say where it printed nothing
    """
    return one_line(" ".join(output[-lines:])) or silent


def _files_of(work: Work) -> dict[str, str]:
    files = {
        name: (TREE / content[1:]).read_text(encoding="utf-8") if content.startswith("@") else content
        for name, content in work.files.items()
    }
    if work.needs_token:
        files["token"] = hub_token()
    return {
        "work.sh": host_script("work.sh", work.variables(), work.body() + host_script("seal.sh", {})),
        **files,
    }


def _read_follow(output: list[str], cursor: str) -> tuple[list[str], str, dict[str, str]]:
    lines: list[str] = []
    properties: dict[str, str] = {}
    for line in output:
        if line.startswith("-- cursor: "):
            cursor = line.removeprefix("-- cursor: ").strip()
        elif line.startswith("state: "):
            properties = dict(p.split("=", 1) for p in line.removeprefix("state: ").split() if "=" in p)
        else:
            lines.append(line)
    return lines, cursor, properties


def _show(host: Host, title: str, unit: str, lines: list[str], seconds: float) -> None:
    left_out = len(lines) - LINES_SHOWN
    if left_out > 0:
        lines = [f"… {left_out} more lines: journalctl --unit {unit}", *lines[-LINES_SHOWN:]]
    for line in lines:
        logger.info(f"{host.print_prefix}{title} {seconds:4.0f} s | {one_line(line)[:200]}")


def _failed(
    host: Host, work: Work, reason: str, output: list[str], log: Callable[[str], None], code: str = ""
) -> bool:
    for line in output[-20:]:
        log(f"{host.print_prefix}    {one_line(line)[:300]}")
    log(
        f"{host.print_prefix}{work.title}: {reason}; expected {work.result}; nothing that serves was touched; "
        f"the whole output: journalctl --unit {work.unit}; {advice(output, code)}"
    )
    return False
