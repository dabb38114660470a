"""The preflight on its own: what does not fit on each host, read only, in seconds.

pyinfra -y inventories/oci.py operations.preflight.report                       # a table for each host
python -m operations.preflight inventories/oci.py [--json] [--limit gpu-1]      # the same, with exit codes

What a deploy refuses before it connects is refused here in the same words. Exit codes of the second: 0 nothing to mend
(warnings among it), 2 bad input, 3 a check failed, 4 a check could not be made and none failed, 5 a host was not reached
and no check failed. A deploy makes the same checks before it changes anything.
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
from pathlib import Path
from typing import Any, NamedTuple

import gevent
from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.config import Config
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.context import ctx_host, ctx_state

from operations import convergence, host_health, host_key, inputs
from operations.detached import LOST
from operations.plan import PlanError, preflight
from operations.plan.errors import one_line
from operations.plan.inventory import refusing
from operations.plan.observed import Observed
from operations.plan.preflight import Check, Subject
from operations.plan.profiles import Profile, load_profile
from operations.plan.release import Release
from operations.plan.settings import Settings, from_host_data

CONNECT_SECONDS = 10
GIVEN_UP_SECONDS = 90  # a host that says nothing any more


class Judged(NamedTuple):
    """One host's result. `problem`: why there are no checks."""

    status: str
    checks: list[Check]
    seconds: float
    problem: str = ""


@operation()
def report() -> Generator[FunctionCommand, None, None]:
    """Changes nothing: prints every check of the host; fails it where one failed."""
    # as a command, because an operation itself is run twice: once to plan, once to act
    yield FunctionCommand(_report, (), {})


def _report(state: State, host: Host) -> bool:
    try:
        found = current_checks()
    except PlanError as error:
        logger.error(f"{host.print_prefix}{str(error).removeprefix(f'{host.name}: ')}")
        return False
    logger.info("\n".join(f"{host.print_prefix}{row}" for row in preflight.table(found)))
    return preflight.status(found) != "failed"


def current_checks(sudo_problem: str = "") -> list[Check]:
    """
    Every check of the current host.

    + sudo_problem: why the host cannot be looked at as root; it is then asked what everybody may know

    Raises PlanError for an inventory that is not valid.
    """
    settings = from_host_data(host.data.dict(), host.name)  # type: ignore[no-untyped-call]
    profile = load_profile(settings.model, settings.profile_overrides)
    observed = None if sudo_problem else convergence.observe(settings, profile)
    release, problem = _planned(settings, profile, observed)
    health = host_health.asked(
        settings, profile, observed.os_major if observed else "", as_root=not sudo_problem
    )
    hub = host_health.hub_answer(settings, profile)
    return preflight.checks(
        Subject(settings, profile, release, health, observed, hub, problem, sudo_problem, host_health.today())
    )


def _planned(settings: Settings, profile: Profile, observed: Observed | None) -> tuple[Release | None, str]:
    """The release, or why there is none."""
    if observed is None:
        return None, "the host was not looked at"
    try:
        return convergence.planned_for(settings, profile, observed), ""
    except PlanError as error:
        return None, str(error)


# --- as a program


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the exit codes at the top of this file."""
    parser = argparse.ArgumentParser(
        prog="python -m operations.preflight", description="check hosts before a deploy; changes nothing"
    )
    parser.add_argument("inventory", help="such as inventories/oci.py")
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
    given = parser.parse_args(arguments)
    inputs.quieten()
    with refusing():
        state, chosen = _state_and_hosts(given)
    hosts = _judge_all(state, chosen)
    if given.json:
        print(json.dumps(preflight.as_json(hosts), indent=2))
    else:
        for name, judged in hosts.items():
            print(f"{name}: {judged.status}, {judged.seconds:.1f} s")
            print(
                "\n".join(f"  {row}" for row in preflight.table(judged.checks))
                if judged.checks
                else f"  {judged.problem}"
            )
    return preflight.exit_code([judged.status for judged in hosts.values()])


def _state_and_hosts(given: argparse.Namespace) -> tuple[State, list[Host]]:
    """What pyinfra would make of the options, and the hosts they are for, checked as before a deploy."""
    # pyinfra's own reading of inventory and group data, so that both see the same hosts
    from pyinfra_cli.inventory import make_inventory  # type: ignore[import-untyped]
    from pyinfra_cli.util import parse_cli_arg  # type: ignore[import-untyped]

    if wrong := [pair for pair in given.data if "=" not in pair]:
        raise PlanError("--data", wrong[0], "KEY=VALUE")
    data: dict[str, Any] = {
        key: parse_cli_arg(text) for key, _, text in (pair.partition("=") for pair in given.data)
    }
    options = {
        "inventory": given.inventory,
        "operations": [f"{inputs.PREFLIGHT}.report"],
        "group_data": given.group_data,
        "limit": [word for part in given.limit for word in part.split(",")],
    }
    inputs.check_files(options)
    state = State()
    # an inventory file is run as pyinfra runs it
    try:
        with ctx_state.use(state):
            inventory: Inventory = make_inventory(
                given.inventory,
                override_data=data,
                cwd=str(Path.cwd()),
                group_data_directories=given.group_data,
            )
    except PlanError:
        raise
    except Exception as error:  # whatever a site's own Python raises
        cause = getattr(error, "exception", error)
        found = f"{type(cause).__name__}: {cause}"
        raise PlanError(
            given.inventory, found, "an inventory and group data that run without an error"
        ) from None
    chosen = inputs.check(inventory, options)
    config = Config()  # type: ignore[no-untyped-call]
    config.CONNECT_TIMEOUT = CONNECT_SECONDS
    state.init(inventory, config)
    return state, chosen


def _judge_all(state: State, hosts: Sequence[Host]) -> dict[str, Judged]:
    with ctx_state.use(state):
        workers = {each.name: state.pool.spawn(_judge, each) for each in hosts}
        gevent.joinall(list(workers.values()), timeout=GIVEN_UP_SECONDS)
    lost = Judged("unreachable", [], GIVEN_UP_SECONDS, f"no answer within {GIVEN_UP_SECONDS} s")
    return {name: worker.value or lost for name, worker in workers.items()}


def _judge(each: Host) -> Judged:
    began = time.monotonic()

    def since() -> float:
        return time.monotonic() - began

    try:
        with ctx_host.use(each):
            each.connect(show_errors=False, raise_exceptions=True)
            # what the facts need is active hosts, as after pyinfra's own connecting
            each.state.activate_host(each)
            found = current_checks(_sudo_problem(each))
    except ConnectError as error:
        return Judged("unreachable", [], since(), host_key.problem(each, error) or one_line(str(error)))
    except (PlanError, PyinfraError, *LOST) as error:
        said = one_line(str(error)) or type(error).__name__
        return Judged("unreachable", [], since(), f"the host was not looked at to the end: {said}")
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
