"""What every host of an inventory does now, against what the inventory says. Changes nothing, takes no lock.

python -m operations.status                                           # a table: a line for each host or service
python -m operations.status --inventory inventories/lab.py --limit gpu-1 --json

Each host is read with the probe of a deploy, in one round trip and all at the same time, and compared as a deploy compares it.
Exit codes: 0 all serve what the inventory says, 1 one differs, is not up or was not reached, 2 bad input.
"""

from __future__ import annotations

if __name__ == "__main__":
    # before anything else is imported, as for the preflight
    from gevent import monkey

    monkey.patch_all()

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import FrameType
from typing import NamedTuple, TypeVar

from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import ConnectError, FactProcessError, PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.state import State

from operations import convergence, inputs, preflight, pyinfra_patches
from operations.facts.host_state import HostState
from operations.intake import gateway_secrets, host_key
from operations.intake.refusing import refusing
from operations.plan import PlanError, Release
from operations.plan.difference import difference
from operations.plan.difference_rows import Difference
from operations.plan.errors import one_line
from operations.plan.inventory.settings import Settings, from_host_data
from operations.plan.observed.observed import Observed
from operations.plan.profile.profiles import Profile, load_profile
from operations.plan.serving.servers import ready_urls
from operations.plan.status import HostStatus, document, exit_code, lines, of_host, unreachable
from operations.remote.detached import LOST, said

T = TypeVar("T")

PROGRAM = "python -m operations.status"
INVENTORY = "inventories/oci.py"
# what ends the reading of one host
FAILURES = (ConnectError, PlanError, PyinfraError, FactProcessError, *LOST)
GIVEN_UP_SECONDS = 70  # a host that says nothing any more: connection and probe have limits of their own


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """The program's options. + prog: the name that its messages use"""
    parser = argparse.ArgumentParser(
        prog=prog, description="what every host does now, against what the inventory says; changes nothing"
    )
    add_hosts(parser)
    parser.add_argument("--json", action="store_true", help="for a program, on standard output")
    return parser


def add_hosts(parser: argparse.ArgumentParser) -> None:
    """The options that say which hosts are meant."""
    parser.add_argument(
        "inventory", nargs="?", default=argparse.SUPPRESS, metavar="INVENTORY", help="as --inventory"
    )
    parser.add_argument("--inventory", default=INVENTORY, metavar="FILE", help=f"default: {INVENTORY}")
    parser.add_argument(
        "--limit", action="append", default=[], help="only these hosts or this group; may be repeated"
    )
    inputs.add_data(parser)


def main(arguments: Sequence[str] | None = None, prog: str = PROGRAM) -> int:
    """The command; see the exit codes at the top of this file."""
    given = parser(prog).parse_intermixed_args(arguments)
    inputs.quieten()
    pyinfra_patches.refuse_sudo_password()
    with refusing(as_json=given.json):
        state, chosen = preflight.state_and_hosts(given)
    hosts = statuses(state, chosen)
    if given.json:
        print(document(hosts, given.inventory, datetime.now(UTC)).model_dump_json(indent=2))
    else:
        print("\n".join(lines(hosts, width())))
    return exit_code(hosts)


def width() -> int:
    """The cells of a line of the terminal; 0 where the output is a file or a pipe, and COLUMNS does not say otherwise."""
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS", "").isdecimal():
        return 0
    return shutil.get_terminal_size().columns


def statuses(state: State, hosts: Sequence[Host]) -> list[HostStatus]:
    """The status of each host, in the order of the inventory."""
    return answers(state, hosts, compared, lambda lost: lost)


def answers(
    state: State,
    hosts: Sequence[Host],
    read_one: Callable[[Host, float], T],
    without: Callable[[HostStatus], T],
    seconds: float = GIVEN_UP_SECONDS,
) -> list[T]:
    """
    What is made of each host, in the order of the inventory: all are read at the same time, and each fails alone.

    + read_one: of a connected host, and when its connection began
    + without: of a host that was not read
    + seconds: after which a host is given up
    """

    def answer(each: Host) -> T:
        began = time.monotonic()
        try:
            with pyinfra_patches.connected(each):
                return read_one(each, began)
        except FAILURES as error:
            problem = problem_of(each, error)
        finally:
            if each.connected:
                each.disconnect()
        return without(unreachable(each.name, model_of(each), problem, time.monotonic() - began))

    found = pyinfra_patches.on_all(state, hosts, answer, seconds)
    lost = f"no answer within {seconds:.0f} s"
    return [
        answered
        if (answered := found[each.name]) is not None
        else without(unreachable(each.name, model_of(each), lost, seconds))
        for each in hosts
    ]


def problem_of(each: Host, error: Exception) -> str:
    """Why a host was not read, in one line."""
    if isinstance(error, ConnectError):
        return host_key.problem(each, error) or one_line(str(error))
    if isinstance(error, PlanError):
        return error.beside(each.name)
    return f"not read to the end: {one_line(str(error)) or type(error).__name__}"


def compared(each: Host, began: float) -> HostStatus:
    """The status of a connected host; raises as `reading`."""
    return reading(each).status(began)


class Reading(NamedTuple):
    """
    A host that was read.

    + release: what the inventory says; None: there is no plan, and `problem` says why
    + rows: what differs; None: not known
    """

    name: str
    settings: Settings
    profile: Profile
    observed: Observed
    release: Release | None
    rows: list[Difference] | None
    certificate_ends: datetime | None
    problem: str

    def status(self, began: float) -> HostStatus:
        """The status of the host. + began: when its connection began"""
        urls = list(ready_urls(self.settings, self.profile).values())
        return of_host(
            self.name,
            self.settings,
            self.observed,
            urls,
            self.release,
            self.rows,
            self.certificate_ends,
            self.problem,
            time.monotonic() - began,
        )


def reading(each: Host) -> Reading:
    """
    A connected host, read and compared.

    Raises FactProcessError or what a lost connection raises where it was not read; a host that cannot be planned has a status.
    """
    settings = from_host_data(pyinfra_patches.data_of(each), each.name)
    profile = load_profile(settings.model, settings.profile_overrides)
    observed = read(each, settings, profile)
    release: Release | None = None
    rows: list[Difference] | None = None
    problem, ends = "", None
    try:
        convergence.check_silent(observed)
        release = convergence.planned_for(settings, profile, observed)
        rows = difference(release, observed, *convergence.expected(release))
        if settings.gateway:
            ends = gateway_secrets.load(settings.gateway, each.name).ends
    except PlanError as error:
        problem = error.beside(each.name)
    return Reading(each.name, settings, profile, observed, release, rows, ends, problem)


def read(each: Host, settings: Settings, profile: Profile) -> Observed:
    """
    The host as the probe finds it: the one command that is sent.

    Not by `get_fact`, which prints a failure and counts the host out of a run. Raises FactProcessError and what a lost
    connection raises.
    """
    ok, output = each.run_shell_command(
        StringCommand(HostState().command(**convergence.asked(settings, profile))),
        _sudo=bool(each.data.get("_sudo")),
        _timeout=convergence.LOOK_SECONDS,
    )
    if not ok:
        raise FactProcessError(said([line.line for line in output], silent="the probe gave no answer"))
    return HostState().process(output.stdout_lines)


def model_of(each: Host) -> str:
    """The inventory's model, also of a host that cannot be read."""
    return str(each.data.get("model") or "")


def _interrupted(number: int, frame: FrameType | None) -> None:
    print("tritonhost: interrupted; nothing was changed", file=sys.stderr)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _interrupted)
    sys.exit(main())
