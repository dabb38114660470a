"""The systemd unit that runs tritonserver in docker, and the proof that it answers."""

from __future__ import annotations

import io
from collections.abc import Generator

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.operations import files, systemd

from operations import convergence, documents, host_files
from operations.detached import LOST, log_lost, shell
from operations.facts.releases import ReleaseLinks
from operations.plan.difference import empty_encoders, running_problems
from operations.plan.release import Release
from operations.release import switch_script
from operations.server import answered, judged, soaked, start
from operations.systemd_units import reloaded
from operations.tunnel import forwarded


@deploy("Triton service")
def install(release: Release) -> None:
    """The unit, before `current` is switched: it names no release, so it is the same for all of them."""
    path = host_files.unit_path(release.settings)
    files.put(
        name="Install the systemd unit",
        src=io.StringIO(host_files.rendered(release.settings, release.os_major)[path]),
        dest=path,
        mode="644",
    )
    reloaded(name="Let systemd read the unit", unit=unit_of(release))
    systemd.service(name="Start the service at boot", service=unit_of(release), running=None, enabled=True)


@deploy("Triton service")
def run(release: Release) -> None:
    """The running server is the release, its models are ready, and its answer is the known one."""
    serving(name="Serve the release", release=release)


def unit_of(release: Release) -> str:
    """The unit's full name."""
    return f"{release.settings.service_name}.service"


@operation()
def serving(release: Release) -> Generator[FunctionCommand, None, None]:
    """
    The service's container runs this release, its models are ready and it gives the golden answer.

    + release: what must run; `current` points to it already

    Restarted because of what runs, never because of what this run changed: a run that was killed between a change
    and its restart would otherwise leave the old release serving for ever. If the new release does not come up
    or gives another answer, the previous one is put back and the run fails.
    """
    observed = convergence.observe(release.settings, release.profile)
    active = observed.units.get(unit_of(release), {}).get("ActiveState") == "active"
    problems = [f"{what}: {found}" for _, what, found, _ in running_problems(release, observed)]
    if not active:
        problems = problems or ["service: not active"]
    empty = [f"{what}: {found}" for _, what, found, _ in empty_encoders(release, observed)]
    if not problems and not empty and observed.verdicts.get(release.id):
        host.noop(f"release {release.id} serves")
        return
    yield FunctionCommand(_restart_and_prove, (release, problems, empty), {})


def _restart_and_prove(
    state: State, host: Host, release: Release, problems: list[str], empty: list[str]
) -> bool:
    try:
        problem = ""
        if problems:
            logger.info(f"{host.print_prefix}starting release {release.id}: {'; '.join(problems)}")
            problem = start(host, release.settings.service_name)
        problem = problem or _prove(host, release, bool(empty))
        if not problem:
            problem = soaked(host, release.settings.service_name, release.settings.soak_s)
        if not problem:
            judged(host, release.data_root, release.id, "proven")
            return True
        logger.error(f"{host.print_prefix}release {release.id}: {problem}")
        _put_previous_back(host, release, problem)
    except LOST as error:
        log_lost(host, f"release {release.id}", unit_of(release).removesuffix(".service"), error)
    return False


def _prove(host: Host, release: Release, empty: bool) -> str:
    """The golden requests, where need be after the first documents; what is wrong with an answer, or nothing."""
    seed, port = release.database.seed if release.database else "", release.ports[1]
    if empty:
        with forwarded(host, release.address, port) as endpoint:
            if problem := documents.stored(host, release, endpoint, seed):
                return f"documents: {problem}"
    return answered(host, release.address, port, release.profile.golden, seed)


def _put_previous_back(host: Host, release: Release, reason: str) -> None:
    previous = host.get_fact(ReleaseLinks, data_root=release.data_root).get("previous")
    if not previous or previous == release.id:
        logger.error(f"{host.print_prefix}no previous release to put back; the service is down")
        return
    ok, output = shell(host, switch_script(release.data_root, previous))
    problem = start(host, release.settings.service_name) if ok else " ".join(output[-3:])
    if problem:
        logger.error(f"{host.print_prefix}previous release {previous} could not be put back: {problem}")
        return
    logger.error(f"{host.print_prefix}previous release {previous} was put back and serves")
    # only what was taken back: without a release before it, the same command is the repair
    judged(host, release.data_root, release.id, "failed", reason)
