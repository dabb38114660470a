"""The preflight on its own: what does not fit on each host, read only, in seconds.

pyinfra -y inventories/oci.py operations.preflight.report                       # a table for each host
python -m operations.preflight inventories/oci.py [--json] [--limit gpu-1]      # the same, with exit codes

What a deploy refuses before it connects is refused here in the same words. Exit codes of the second command: 0 no
check failed (warnings are possible), 2 bad input, 3 a check failed, 4 a check could not be made and none failed, 5 a host
was not reached and no check failed. A deploy makes the same checks before it changes anything.
"""

from __future__ import annotations

if __name__ == "__main__":
    # before anything else is imported: pyinfra works on its hosts at the same time through it
    from gevent import monkey

    monkey.patch_all()

import argparse
import json
import sys
import time
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations import convergence, host_health, inputs, pyinfra_patches
from operations.intake import host_key
from operations.intake.refusing import refusing
from operations.plan import PlanError
from operations.plan.errors import one_line
from operations.plan.inventory.settings import Settings, from_host_data
from operations.plan.machine import docker_host
from operations.plan.observed.observed import Observed
from operations.plan.preflight import checks as preflight
from operations.plan.preflight.check import Check, Subject
from operations.plan.profile.profiles import Profile, load_profile
from operations.plan.release import Release
from operations.remote.detached import LOST
from operations.watched_hosts import serves_models

CONNECT_SECONDS = 10
GIVEN_UP_SECONDS = 90  # a host that says nothing any more


class Judged(NamedTuple):
    """One host's result. `problem`: why there are no checks; `error`: what it was made of, where the plan refused."""

    status: str
    checks: list[Check]
    seconds: float
    problem: str = ""
    error: PlanError | None = None


@operation()
def report() -> Generator[FunctionCommand, None, None]:
    """Changes nothing: prints every check of the host; fails it where one failed."""
    # as a command, because an operation itself is run twice: once to plan, once to act
    yield FunctionCommand(_report, (), {})


def _report(state: State, host: Host) -> bool:
    try:
        found = current_checks()
    except PlanError as error:
        logger.error(f"{host.print_prefix}{error.beside(host.name)}")
        return False
    logger.info("\n".join(f"{host.print_prefix}{row}" for row in preflight.table(found)))
    return preflight.status(found) != "failed"


def current_checks(sudo_problem: str = "") -> list[Check]:
    """
    Every check of the current host.

    + sudo_problem: why the host cannot be looked at as root; it is then asked what everybody may know

    Raises PlanError for an inventory that is not valid.
    """
    settings = from_host_data(pyinfra_patches.data_of(host), host.name)
    profile = load_profile(settings.model, settings.profile_overrides)
    observed = None if sudo_problem else convergence.observe(settings, profile)
    release, problem = _planned(settings, profile, observed)
    root = docker_host.root_of(observed.daemon_json if observed else "", settings.docker_daemon_settings)
    health = host_health.asked(
        settings, profile, observed.os_major if observed else "", root, as_root=not sudo_problem
    )
    hub = host_health.hub_answer(settings, profile)
    return preflight.checks(
        Subject(
            settings,
            profile,
            release,
            health,
            observed,
            hub,
            problem,
            sudo_problem,
            host_health.today(),
            host_health.beside(release, observed) if release and observed else (),
        )
    )


def _planned(
    settings: Settings, profile: Profile, observed: Observed | None
) -> tuple[Release | None, PlanError | str]:
    """The release, or why there is none."""
    if observed is None:
        return None, "the host was not looked at"
    try:
        return convergence.planned_for(settings, profile, observed), ""
    except PlanError as error:
        return None, error


# --- as a program


PROGRAM = "python -m operations.preflight"


def parser(prog: str = PROGRAM, inventory: str | None = None) -> argparse.ArgumentParser:
    """The program's options. + prog: the name that its messages use; + inventory: the one that need not be named"""
    parser = argparse.ArgumentParser(prog=prog, description="check hosts before a deploy; changes nothing")
    parser.add_argument(
        "inventory", nargs="?" if inventory else None, default=inventory, help="such as inventories/oci.py"
    )
    parser.add_argument(
        "--limit", action="append", default=[], help="only these hosts or this group; may be repeated"
    )
    parser.add_argument(
        "--group-data",
        action="append",
        default=[],
        metavar="DIR",
        help="as pyinfra's: further data that wins; may be repeated",
    )
    parser.add_argument(
        "--data", action="append", default=[], metavar="KEY=VALUE", help="as pyinfra's --data"
    )
    parser.add_argument("--json", action="store_true", help="for a program, on standard output")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = PROGRAM, inventory: str | None = None) -> int:
    """The command; see the exit codes at the top of this file."""
    given = parser(prog, inventory).parse_args(arguments)
    inputs.quieten()
    with refusing(as_json=given.json):
        state, chosen = state_and_hosts(given)
    hosts = _judge_all(state, chosen)
    if given.json:
        rows = {name: judged[:4] for name, judged in hosts.items()}
        errors = {name: judged.error for name, judged in hosts.items() if judged.error}
        print(json.dumps(preflight.as_json(rows, errors), indent=2))
    else:
        for name, judged in hosts.items():
            print(f"{name}: {judged.status}, {judged.seconds:.1f} s")
            print(
                "\n".join(f"  {row}" for row in preflight.table(judged.checks))
                if judged.checks
                else f"  {judged.problem}"
            )
    return preflight.exit_code([judged.status for judged in hosts.values()])


def state_and_hosts(given: argparse.Namespace) -> tuple[State, list[Host]]:
    """What pyinfra would make of the options, and the hosts they are for, checked as before a deploy."""
    state, inventory, options = inventory_of(given)
    chosen = [host for host in inputs.check(inventory, options) if serves_models(host)]
    if not chosen:
        then = "the deploy itself looks at monitoring servers"
        raise PlanError(
            "",
            "monitoring servers alone",
            "a host that serves",
            then,
            where=given.inventory,
            reference="no-hosts",
        )
    pyinfra_patches.initialise(state, inventory, CONNECT_SECONDS)
    return state, chosen


def inventory_of(given: argparse.Namespace) -> tuple[State, Inventory, dict[str, Any]]:
    """
    The inventory that the options name, as pyinfra reads it, and the options by pyinfra's names.

    + given: inventory, group_data, data and limit

    Raises PlanError for what cannot be read.
    """
    inputs.check_data(given.data)
    data: dict[str, Any] = {
        key: pyinfra_patches.value_of_option(text)
        for key, _, text in (pair.partition("=") for pair in given.data)
    }
    options = {
        "inventory": given.inventory,
        "operations": [f"{inputs.PREFLIGHT}.report"],
        "group_data": given.group_data,
        "limit": [word for part in given.limit for word in part.split(",")],
    }
    inputs.check_files(options)
    inputs.watch_lists(given.inventory)
    # pyinfra's own reading of inventory and group data, so that both see the same hosts
    try:
        state, inventory = pyinfra_patches.read_inventory(given.inventory, data, given.group_data)
    except PlanError:
        raise
    except Exception as error:  # whatever a site's own Python raises
        cause = getattr(error, "exception", error)
        found = f"{type(cause).__name__}: {cause}"
        expected = "an inventory and group data that run without an error"
        raise PlanError("", found, expected, where=given.inventory, reference="python-error") from None
    return state, inventory, options


def _judge_all(state: State, hosts: Sequence[Host]) -> dict[str, Judged]:
    judged = pyinfra_patches.on_all(state, hosts, _judge, GIVEN_UP_SECONDS)
    lost = Judged("unreachable", [], GIVEN_UP_SECONDS, f"no answer within {GIVEN_UP_SECONDS} s")
    return {name: result or lost for name, result in judged.items()}


def _judge(each: Host) -> Judged:
    began = time.monotonic()

    def since() -> float:
        return time.monotonic() - began

    try:
        with pyinfra_patches.connected(each):
            found = current_checks(_sudo_problem(each))
    except ConnectError as error:
        return Judged("unreachable", [], since(), host_key.problem(each, error) or one_line(str(error)))
    except (PlanError, PyinfraError, *LOST) as error:
        said = one_line(str(error)) or type(error).__name__
        refused = error if isinstance(error, PlanError) else None
        return Judged("unreachable", [], since(), f"the host was not looked at to the end: {said}", refused)
    finally:
        if each.connected:
            each.disconnect()
    return Judged(preflight.status(found), found, since())


def _sudo_problem(each: Host) -> str:
    if not each.data.get("_sudo"):
        return ""
    # without its words, at which pyinfra would ask this terminal for a password
    done, _ = each.run_shell_command(StringCommand("sudo -n true 2>/dev/null"), _timeout=CONNECT_SECONDS)
    return "" if done else "sudo -n true fails: it wants a password, or the login user may not use it"


if __name__ == "__main__":
    sys.exit(main())
