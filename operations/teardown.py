"""Takes off a host what this tool has put there, and nothing else.

python -m operations.teardown gpu-1                    # shows what goes and what stays, asks, takes it off
python -m operations.teardown gpu-1 --plan             # only shows it
python -m operations.teardown gpu-1 --yes              # does not ask

All services of the host go. What has begun is answered to its end. A host behind a gateway leaves its load balancers first.
Exit codes: 0 nothing of tritonhost is left, 1 something is left or failed, 2 bad input or refused, 5 the host was not reached.
"""

from __future__ import annotations

if __name__ == "__main__":
    # before anything else is imported, as for the preflight
    from gevent import monkey

    monkey.patch_all()

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import gevent
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.state import State

from operations import inputs, preflight, pyinfra_patches
from operations.facts.parse import sections
from operations.intake import host_key
from operations.intake.asking import answer
from operations.intake.refusing import refusing
from operations.plan.artifacts.artifact import HostCommand
from operations.plan.balancing import load_balancer
from operations.plan.drain import NOTICED_SECONDS
from operations.plan.errors import PlanError, one_line
from operations.plan.inventory.services import machine_of
from operations.plan.inventory.settings import Settings, from_host_data
from operations.plan.machine.host_record import DIRECTORY, place
from operations.plan.machine.local_disks import ARRAY_FILE, LABEL, UNFINISHED
from operations.plan.machine.packages import (
    DOCKER_ID,
    SELINUX_POLICY,
    TOOLKIT_ID,
    VENDORS,
    only_repositories,
    runtime_packages,
    system_repository_id,
)
from operations.plan.machine.version_locks import LOCK_LIST
from operations.plan.monitoring import server as monitoring
from operations.plan.monitoring import textfile
from operations.plan.teardown import (
    HEADER,
    KNOWN,
    UNIT_TITLE,
    WITHOUT_MODEL,
    Place,
    Survey,
    Teardown,
    survey,
    teardown,
)
from operations.remote import host_files, repository_files
from operations.remote.detached import LOST, printed, run_and_follow, said, shell
from operations.remote.load_balancers import released_script
from operations.scripts import host_script

PROGRAM = "python -m operations.teardown"
INVENTORY = "inventories/oci.py"
LEFT, BAD_INPUT, UNREACHED = 1, 2, 5
LOOK_SECONDS = 300  # du over a data root of many files
# path of a repository's file -> what its cache is called in dnf
REPOSITORIES = {
    repository_files.DOCKER_REPOSITORY: DOCKER_ID,
    repository_files.TOOLKIT_REPOSITORY: TOOLKIT_ID,
    repository_files.SYSTEM_REPOSITORIES: system_repository_id(""),
}


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """The program's options. + prog: the name that its messages use"""
    parser = argparse.ArgumentParser(prog=prog, description="take tritonhost off a host, and nothing else")
    parser.add_argument("host", metavar="HOST", help="a host of the inventory; all of its services go")
    parser.add_argument("--inventory", default=INVENTORY, metavar="FILE", help=f"default: {INVENTORY}")
    parser.add_argument("--plan", action="store_true", help="show what would go, and change nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--documents-too",
        action="store_true",
        help="also the documents of a database, which only this host has",
    )
    parser.add_argument("--keep-packages", action="store_true", help="leave docker and all packages")
    inputs.add_data(parser)
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = PROGRAM) -> int:
    """The command; see the exit codes at the top of this file."""
    given = parser(prog).parse_args(arguments)
    given.limit = []
    inputs.quieten()
    pyinfra_patches.refuse_sudo_password()
    with refusing():
        state, services = _of_machine(given)
    host = services[0]
    try:
        with pyinfra_patches.connected(host):
            return _taken_off(state, host, _target(services), given)
    except ConnectError as error:
        problem = host_key.problem(host, error) or one_line(str(error))
    except (PyinfraError, *LOST) as error:
        problem = one_line(str(error)) or type(error).__name__
    finally:
        if host.connected:
            host.disconnect()
    print(f"tritonhost: {given.host}: not reached: {problem}", file=sys.stderr)
    return UNREACHED


def _of_machine(given: argparse.Namespace) -> tuple[State, list[Host]]:
    """The inventory's entries of the named host."""
    state, inventory, options = preflight.inventory_of(given)
    found = [each for each in inputs.check(inventory, options) if machine_of(each.name) == given.host]
    if not found:
        names = dict.fromkeys(machine_of(each.name) for each in inventory)
        then = "all services of a host go together" if "/" in given.host else ""
        raise PlanError(f"HOST {given.host}", "no host of that name", f"one of {', '.join(names)}", then)
    pyinfra_patches.initialise(state, inventory, preflight.CONNECT_SECONDS)
    return state, found


@dataclass(frozen=True)
class Target:
    """
    What the inventory says of the host.

    + files: paths that a deploy of it may have written
    + behind_gateways: the settings of services that load balancers may know
    """

    settings: Settings
    places: tuple[Place, ...]
    files: tuple[str, ...]
    behind_gateways: tuple[Settings, ...] = ()


def _target(services: Sequence[Host]) -> Target:
    places: list[Place] = []
    files: list[str] = []
    gateways: list[Settings] = []
    for each in services:
        settings = from_host_data(pyinfra_patches.data_of(each), each.name)
        if settings.load_balancer:
            places.append((load_balancer.NAME, load_balancer.DIRECTORY))
            files += [*load_balancer.etc_paths(), repository_files.SYSTEM_REPOSITORIES]
        elif own := settings.monitoring_server:
            places.append((monitoring.NAME, own.data_root))
            files += [*monitoring.etc_paths(), *host_files.watched(settings)]
        else:
            places.append((settings.service_name, settings.data_root))
            gateways += [settings] if settings.gateway else []
            files += [*host_files.watched(settings), *filter(None, [textfile.output(settings)])]
    return Target(settings, tuple(places), tuple(dict.fromkeys(files)), tuple(gateways))


def _leave(host: Host, target: Target) -> None:
    """Load balancers send nothing more to the host; its gateways finish what they have when they are stopped."""
    wait = False
    for settings in target.behind_gateways:
        _, output = shell(host, released_script(settings, leave=True))
        wait = wait or (
            printed(output, "left") == "yes" and bool(settings.gateway and settings.gateway.proxies)
        )
    if wait:
        gevent.sleep(NOTICED_SECONDS)


def _taken_off(state: State, host: Host, target: Target, given: argparse.Namespace) -> int:
    found = look(host, target)
    if found.empty:
        print(f"{given.host}: nothing of tritonhost is on it")
        return 0
    wanted = planned(found, target, given.documents_too, given.keep_packages)
    print(f"{given.host}:")
    print("\n".join(shown(wanted)))
    if wanted.problem:
        print(f"tritonhost: {given.host}: {wanted.problem}", file=sys.stderr)
        return BAD_INPUT
    if given.plan:
        return 0
    if not given.yes and not found.at_it and not _agreed(given.host):
        print("tritonhost: nothing was changed", file=sys.stderr)
        return BAD_INPUT
    _leave(host, target)
    logging.getLogger("pyinfra").setLevel(logging.INFO)
    work = of(wanted, target.settings)
    if not run_and_follow(state, host, work):
        print(f"tritonhost: {given.host}: not taken off to the end; run it again", file=sys.stderr)
        return LEFT
    found = look(host, target)
    shell(host, "flock --nonblock /run/tritonhost/lock rm -rf /run/tritonhost")
    left = [path for path in found.files if path in wanted.variables["FILES"].splitlines()]
    if (found.began and wanted.variables["FORGET"]) or left:
        names = ", ".join(left[:5] or [DIRECTORY])
        print(
            f"tritonhost: {given.host}: found {names} left, expected nothing; run it again", file=sys.stderr
        )
        return LEFT
    print(
        f"{given.host}: {'nothing of tritonhost is left' if wanted.variables['FORGET'] else 'docker stays, and the record of what it came with'}; take the host out of {given.inventory}"
    )
    return 0


def look(host: Host, target: Target) -> Survey:
    """What is on a connected host, services of an earlier inventory among it. Raises PlanError, and what a lost connection raises."""
    found = _look(host, target)
    gone = [place for place in found.places if place not in target.places]
    if not gone:
        return found
    files = [path for service, _ in gone for path in host_files.paths_of(service)]
    return _look(host, replace(target, files=(*target.files, *files)))


def _look(host: Host, target: Target) -> Survey:
    script = host_script(
        "survey.sh",
        {
            "RECORD": DIRECTORY,
            "PLACES": "\n".join(place(*each) for each in target.places),
            "FILES": "\n".join(target.files),
            "HEADER": HEADER,
            "KNOWN": "\n".join(KNOWN),
            "WITHOUT_MODEL": "\n".join(f"{name}\t{' '.join(names)}" for name, names in WITHOUT_MODEL.items()),
            "LOCK_LIST": LOCK_LIST,
        },
    )
    ok, output = shell(host, script, timeout=LOOK_SECONDS)
    if not ok:
        raise PyinfraError(said(output))
    return survey(sections(output), target.places)


def planned(found: Survey, target: Target, documents_too: bool, keep_packages: bool) -> Teardown:
    """What is to be done on a host that was found like this."""
    runtime = runtime_packages(target.settings, "")
    vendors = VENDORS if target.settings.serves else monitoring.VENDORS
    return teardown(
        found,
        [*runtime, "containerd.io", "docker-ce-cli", SELINUX_POLICY],
        REPOSITORIES,
        only_repositories(target.settings, vendors),
        documents_too,
        keep_packages,
    )


def of(wanted: Teardown, settings: Settings) -> HostCommand:
    """The work on the host, which outlives this connection."""
    # docker that stays has the record of what it came with: then the host is only looked at again
    proof = f"! test -e {DIRECTORY}" if wanted.variables["FORGET"] else ""
    draft = HostCommand(UNIT_TITLE, (), "nothing of tritonhost left", {}, proof)
    directory = f"/run/tritonhost/{draft.unit}"
    variables = {
        **wanted.variables,
        "RECORD": DIRECTORY,
        "DIRECTORY": directory,
        "WAIT": str(settings.package_lock_wait_s),
        "ARRAY_FILE": ARRAY_FILE,
        "UNFINISHED": UNFINISHED,
        "LABEL": LABEL,
    }
    return HostCommand(
        UNIT_TITLE,
        (("sh", f"{directory}/teardown.sh"),),
        draft.result,
        {},
        draft.proof,
        files={
            "teardown.sh": host_script("teardown.sh", variables),
            "run_unlocked.sh": "@files/host/run_unlocked.sh",
            "versionlock.list": wanted.locks,
        },
    )


def shown(wanted: Teardown) -> list[str]:
    """The table that is shown before anything is changed."""
    return [f"  {row.fate:8}{row.what:18}{row.detail}" for row in wanted.rows]


def _agreed(name: str) -> bool:
    return answer(f"take tritonhost off {name}? type the host's name to go on: ") == name


if __name__ == "__main__":
    sys.exit(main())
