"""The systemd unit that runs tritonserver in docker, and the proof that it answers."""

from __future__ import annotations

import io
import time
from collections.abc import Generator

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.operations import files, systemd

from operations import convergence, documents, host_files
from operations.detached import LOST, follow, log_lost, printed, shell
from operations.facts.releases import ReleaseLinks
from operations.golden import proven
from operations.plan.difference import empty_encoders, running_problems
from operations.plan.release import Release
from operations.release import switch_script
from operations.systemd_units import reloaded
from operations.tunnel import forwarded

# A start is over when it succeeded, or failed once: systemd would try again three times, a quarter of a minute apart,
# which is right at boot and only a delay where someone watches.
STARTED = ("running", "dead", "failed", "exited", "auto-restart")


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
    if not problems and not empty:
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
            problem = _start(host, release)
        problem = problem or _prove(host, release, bool(empty))
        if not problem:
            return True
        logger.error(f"{host.print_prefix}release {release.id}: {problem}")
        _put_previous_back(host, release)
    except LOST as error:
        log_lost(host, f"release {release.id}", unit_of(release).removesuffix(".service"), error)
    return False


def _start(host: Host, release: Release) -> str:
    """Restart the unit and wait for it; what went wrong, or nothing."""
    unit = unit_of(release)
    began = time.monotonic()
    ok, output = shell(
        host,
        f"systemctl reset-failed {unit} 2>/dev/null; "
        "echo started: $(date +%s); "
        "journalctl --quiet --no-pager --lines=1 --output=cat --show-cursor | sed -n 's/^-- cursor: /cursor: /p'; "
        f"systemctl restart --no-block {unit}",
    )
    if not ok:
        return f"{unit} did not start: {' '.join(output[-3:])}"
    started = printed(output, "started")
    ended = follow(host, unit, unit.removesuffix(".service"), printed(output, "cursor"), STARTED, began)
    if ended.properties.get("SubState") == "running":
        return ""
    shell(host, f"systemctl stop {unit}")
    # The reason is among the first lines: a refused option is followed by pages of usage text.
    _, written = shell(
        host,
        f"journalctl --quiet --no-pager --output=cat --unit={unit} --since=@{started} "
        "| grep -i -E -m 12 '^E[0-9]{4} |error|unrecognized|invalid|failed|expected|found' || :",
    )
    for line in written:
        logger.error(f"{host.print_prefix}    {line[:300]}")
    return f"{unit} did not get ready, expected its models to answer; see: journalctl --unit {unit}"


def _prove(host: Host, release: Release, empty: bool) -> str:
    """The golden requests, where need be after the first documents; what is wrong with an answer, or nothing."""
    seed = release.database.seed if release.database else ""
    with forwarded(host, release.address, release.ports[1]) as endpoint:
        if empty and (problem := documents.stored(host, release, endpoint, seed)):
            return f"documents: {problem}"
        for golden in release.profile.golden:
            answer, problem = proven(endpoint, golden, seed)
            if problem:
                return problem
            answered = " ".join(answer.split())[:90]
            logger.info(f"{host.print_prefix}{golden.model} gives the golden answer: {answered}")
    return ""


def _put_previous_back(host: Host, release: Release) -> None:
    previous = host.get_fact(ReleaseLinks, data_root=release.data_root).get("previous")
    if not previous or previous == release.id:
        logger.error(f"{host.print_prefix}no previous release to put back; the service is down")
        return
    ok, output = shell(host, switch_script(release.data_root, previous))
    problem = _start(host, release) if ok else " ".join(output[-3:])
    if problem:
        logger.error(f"{host.print_prefix}previous release {previous} could not be put back: {problem}")
    else:
        logger.error(f"{host.print_prefix}previous release {previous} was put back and serves")
