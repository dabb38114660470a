"""Every host of an inventory, stage by stage, while something changes it. Changes nothing, takes no lock.

python -m operations.watch                                        # until Ctrl-C
python -m operations.watch --until-serving --for 3600             # until all serve what the inventory says, or an hour

It reads the hosts over connections of its own: run it beside a deploy. Exit codes: 0 all serve, 1 not all, 2 bad input, 130 Ctrl-C.
"""

from __future__ import annotations

if __name__ == "__main__":
    # before anything else is imported, as for the preflight
    from gevent import monkey

    monkey.patch_all()

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

import gevent
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.host import Host

from operations import inputs, preflight, pyinfra_patches, status
from operations.facts import at_work
from operations.intake.refusing import refusing
from operations.plan.progress import Progress, Work, lines
from operations.plan.status import exit_code, unreachable
from operations.remote.detached import said

PROGRAM = "python -m operations.watch"
INTERRUPTED = 130
PROBE_SECONDS = 20  # between two probes of a host, while its work does not change
LOOK_SECONDS = 20  # for one look at its work
# another screen, so that the terminal is as before in the end; the cursor hidden; its first line; and to the end of line and screen
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """The program's options. + prog: the name that its messages use"""
    parser = argparse.ArgumentParser(
        prog=prog, description="every host, stage by stage, while something changes it; changes nothing"
    )
    status.add_hosts(parser)
    parser.add_argument(
        "--every", type=_seconds, default=5, metavar="SECONDS", help="between two looks at a host; default: 5"
    )
    parser.add_argument(
        "--for", dest="longest", type=_seconds, default=0, metavar="SECONDS", help="end then; default: Ctrl-C"
    )
    parser.add_argument(
        "--until-serving", action="store_true", help="end when every host serves what the inventory says"
    )
    return parser


def _seconds(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if not 1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number of seconds from 1 to 86400")
    return value


def main(arguments: Sequence[str] | None = None, prog: str = PROGRAM) -> int:
    """The command; see the exit codes at the top of this file."""
    given = parser(prog).parse_intermixed_args(arguments)
    inputs.quieten()
    pyinfra_patches.refuse_sudo_password()
    with refusing():
        _, chosen = preflight.state_and_hosts(given)
    watched = [_Watched(host) for host in chosen]
    interrupted: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        interrupted.append(number)

    signal.signal(signal.SIGINT, stop)
    readers = [gevent.spawn(each.follow, given.every) for each in watched]
    until = time.monotonic() + given.longest if given.longest else None
    screen = _Screen()
    try:
        while not interrupted and (until is None or time.monotonic() < until):
            now = [each.progress for each in watched]
            screen.show(now)
            if given.until_serving and all(each.read and not each.progress.waited_for for each in watched):
                break
            gevent.sleep(0.2 if not all(each.read for each in watched) else 1)
    finally:
        screen.close()
        gevent.killall(readers, timeout=5)
    found = [each.progress for each in watched]
    print("\n".join(lines(found, status.width())))
    return INTERRUPTED if interrupted else exit_code([each.status for each in found])


class _Watched:
    """One host, and its own connection, which is opened again when it is lost."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.read = False
        self.progress = Progress(unreachable(host.name, status.model_of(host), "not read yet", 0))
        self.probed = 0.0  # when
        self.units: tuple[str, ...] = ()

    def follow(self, every: int) -> None:
        """Look at the host again and again; a failure is what it shows."""
        try:
            while True:
                self._look()
                gevent.sleep(every)
        finally:
            if self.host.connected:
                self.host.disconnect()

    def _look(self) -> None:
        found, work = self.progress.status, self.progress.work
        problem = ""
        try:
            with pyinfra_patches.connected(self.host):
                work = self._work()
                units = tuple(each.unit for each in work)
                if units != self.units or time.monotonic() - self.probed > PROBE_SECONDS or not self.read:
                    self.units, self.probed = units, time.monotonic()
                    found = status.compared(self.host, time.monotonic())
        except status.FAILURES as error:
            problem = status.problem_of(self.host, error)
        if problem:
            found, work, self.units, self.probed = (
                unreachable(self.host.name, status.model_of(self.host), problem, 0),
                (),
                (),
                0.0,
            )
            if self.host.connected:
                self.host.disconnect()
        self.progress, self.read = Progress(found, work), True

    def _work(self) -> tuple[Work, ...]:
        ok, output = self.host.run_shell_command(
            StringCommand(at_work.command()), _sudo=bool(self.host.data.get("_sudo")), _timeout=LOOK_SECONDS
        )
        if not ok:
            raise FactProcessError(said([line.line for line in output], silent="no answer"))
        try:
            return at_work.at_work(output.stdout_lines)
        except ValueError as error:
            raise FactProcessError(str(error)) from error


class _Screen:
    """The terminal, if standard output is one; otherwise only the last picture is printed."""

    def __init__(self) -> None:
        self.there = sys.stdout.isatty()
        if self.there:
            sys.stdout.write(_ENTER)

    def show(self, hosts: Sequence[Progress]) -> None:
        if not self.there:
            return
        size = shutil.get_terminal_size()
        text = "".join(f"{line}{_LINE}\n" for line in lines(hosts, size.columns, size.lines))
        sys.stdout.write(f"{_HOME}{text}{_REST}")
        sys.stdout.flush()

    def close(self) -> None:
        if self.there:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
