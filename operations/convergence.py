"""Look once, decide, then act: one round trip says whether anything has to be done, what, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pyinfra import host
from pyinfra.api.exceptions import PyinfraError

from operations import artifacts, golden_answers, host_health, rollout, shorter_output
from operations.facts.host_state import HostState
from operations.intake import gateway_secrets
from operations.plan import PlanError, Release, Settings, plan_release
from operations.plan.capacity import gpu
from operations.plan.catalog.package_names import CONFLICTING_PACKAGES
from operations.plan.catalog.version_floors import check_floors
from operations.plan.difference import difference
from operations.plan.difference_rows import Difference, ExpectedFile
from operations.plan.errors import one_line
from operations.plan.exposure import firewall, gateway
from operations.plan.inventory.settings import from_host_data
from operations.plan.inventory.versions import components
from operations.plan.machine import docker_host, wave
from operations.plan.machine.disks import root_growth
from operations.plan.machine.local_disks import check_data_root, local_plan
from operations.plan.machine.packages import check_os, wanted_packages
from operations.plan.observed.observed import LoadedGateway, Observed
from operations.plan.preflight.shortages import shortages
from operations.plan.profile.profiles import PlanProfile, Profile, load_profile
from operations.plan.serving.servers import ready_urls
from operations.plan.swap import swap
from operations.pyinfra_patches import Unanswered, data_of
from operations.remote import host_files
from operations.remote.detached import LOST
from operations.watched_hosts import serves_models

LOOK_SECONDS = 50  # for the one look; a host that is frozen or cut off is reported, not waited for


def look() -> Release | None:
    """
    The release the host should become, or None where it is that already: then no operation is run.

    Reads the host in one round trip, plans, and prints what differs as a table, before anything is changed. A host that
    cannot be deployed, for whatever reason, fails alone with one line. Of a monitoring server, which serves nothing, None too.
    """
    rollout.watch()
    if not serves_models(host):
        return None
    try:
        release, observed = planned()
        # the host itself: `host` is another one wherever another one's operations run
        artifacts.take_part(host.inventory.get_host(host.name), release.settings, observed)
        files, loaded = expected(release)
        rows = difference(release, observed, files, loaded)
    except Unanswered:
        raise
    except (PlanError, PyinfraError, *LOST) as error:
        if isinstance(error, PlanError):
            host_health.say_what_else(error)
        rollout.leave_out(of_host(error))
        return None
    shorter_output.tell(_report(release, observed, rows), bool(rows))
    rollout.found(rows)
    if not rows:
        rollout.note(host, f"converged: serves since {_since(observed)} UTC", release.id)
        return None
    verdict = observed.verdicts.get(release.id)
    retried = release.settings.retry_failed or golden_answers.accepted(
        release, verdict.text if verdict else ""
    )
    if verdict and verdict.rejected and not retried:
        rollout.leave_out(
            f"release {release.id}: found {verdict.text}; expected a different release or a fixed cause; change the inventory, "
            "or try it again with --data retry_failed=true; the running release was left as it is"
        )
        return None
    if release.settings.wave and any(row.stage == wave.STAGE for row in rows):
        tried = observed.verdicts.get(wave.verdict(release.settings.wave))
        if tried and tried.rejected and not release.settings.retry_failed:
            rollout.leave_out(
                f"wave: found {tried.text}; expected other versions or a fixed cause; change wave in the inventory, or try it again "
                "with --data retry_failed=true; the host was left as it is"
            )
            return None
    if not host_health.fits(release, observed):
        return None
    rollout.expect(release, observed)
    return release


def planned() -> tuple[Release, Observed]:
    """
    The release the host should become, and the host as one round trip found it.

    Raises PlanError with the plan's one line for whatever cannot be deployed.
    """
    settings = from_host_data(data_of(host), host.name)
    profile = load_profile(settings.model, settings.profile_overrides)
    observed = observe(settings, profile)
    check_silent(observed)
    release = planned_for(settings, profile, observed)
    driver = (settings.wave.driver if settings.wave else None) or release.gpus[0].driver
    running = components(settings, profile, driver)
    floors = check_floors(host.name, running, settings.waivers, datetime.now(UTC).date())
    known = gateway_secrets.load(settings.gateway, host.name).warnings if settings.gateway else ()
    said = tuple(f"GPUs: nvidia-smi also says: {one_line(remark)[:300]}" for remark in observed.gpu_remarks)
    return replace(release, warnings=(*release.warnings, *said, *floors, *known)), observed


def check_silent(observed: Observed) -> None:
    """Refuse a host whose login shell says something of its own. Raises PlanError."""
    if observed.noise:
        raise PlanError(
            "login shell",
            observed.noise,
            "no output of its own",
            "what it says would be taken for answers: let ~/.bashrc be silent where the shell is not interactive",
        )


def expected(release: Release) -> tuple[list[ExpectedFile], LoadedGateway]:
    """Every file that is written beside the release, and what the gateway's nginx has read, if there is one."""
    files = host_files.expected(release)
    if release.gateway is None or release.settings.gateway is None:
        return files, LoadedGateway()
    secrets = gateway_secrets.load(release.settings.gateway, host.name)
    own = host_files.gateway_files(release.gateway, secrets)
    placed = host_files.gateway_expected(release.gateway, own)
    return [*files, *placed], host_files.gateway_loaded(release.gateway, own)


def planned_for(settings: Settings, profile: Profile, observed: Observed) -> Release:
    """The release that a host as it was found should become. Raises PlanError."""
    os_major = check_os(dict(observed.os_release), observed.architecture)
    deployed = [path for path in host_files.main_units(settings) if path in observed.file_digests]
    ours = bool(deployed) and not observed.exposed.keys() & set(deployed)
    check_data_root(settings.data_root, observed.data_root, ours)
    _check_at_data_root(settings, observed)
    if settings.grow_root_file_system:
        root_growth(observed.root)  # refuses here, before anything is changed
    local_plan(settings, observed.data_root, observed.local)
    if observed.gpu_problem:
        raise gpu.refusal(observed.gpu_problem)
    release = plan_release(settings, observed.gpus, os_major, profile, observed.selinux is not None)
    docker_host.check_host(
        observed.daemon_json, release.docker_settings, settings.data_root, bool(observed.serving)
    )
    return release


def _check_at_data_root(settings: Settings, observed: Observed) -> None:
    """Of a host that had one service: its links and its data stay the ones of that service. Raises PlanError."""
    if not settings.services:
        return
    known = any(table.get("at_data_root") for table in settings.services.values())
    if observed.alone and not observed.current and not known:
        raise PlanError(
            "at_data_root",
            f"release {observed.alone} at {settings.data_root}/current, from when the host had one service",
            "at_data_root = true in the table of that service, which has its unit's name",
            f"or, if nothing of it is wanted any more, rm {settings.data_root}/current {settings.data_root}/previous",
            reference="served-alone-before",
        )
    unit = host_files.paths(settings).unit
    if settings.at_data_root and observed.current and unit not in observed.file_digests:
        raise PlanError(
            "at_data_root",
            f"no {unit}, and release {observed.current} at {settings.data_root}/current",
            "the service that the host had: its table has the name of that unit",
            reference="at-data-root-of-another",
        )


def of_host(error: BaseException) -> str:
    """An error's one line, without the host's name, which is printed in front of it."""
    if not isinstance(error, PlanError):
        return "look: found no answer that could be read, expected the host's state; see the lines above, and run again"
    return error.beside(host.name)


def observe(settings: Settings, profile: Profile) -> Observed:
    """One round trip; of the release, only what is known before the host's GPUs are: names, not keys."""
    return looked(**asked(settings, profile))


def looked(**question: Any) -> Observed:
    """
    What HostState reads of the current host.

    Raises PyinfraError where it could not be read. pyinfra raises it only where no other host is left: beside others, a fact that
    failed, or an answer that is none, is None (`get_fact` of pyinfra/api/facts.py).
    """
    state: Observed | None = host.get_fact(HostState, **question, _timeout=LOOK_SECONDS)
    if state is None:
        raise PyinfraError("the host's state could not be read")
    return state


def asked(settings: Settings, profile: Profile) -> dict[str, Any]:
    """What the one look asks for: the arguments of HostState."""
    waved = settings.wave.packages if settings.wave else ()
    packages = [*wanted_packages(settings, ""), *CONFLICTING_PACKAGES, *waved]
    database = f"{settings.service_name}-database" if isinstance(profile, PlanProfile) else ""
    unit_files = host_files.unit_files(settings)
    return {
        "data_root": settings.data_root,
        "state_root": settings.state_root,
        "service": settings.service_name,
        "packages": packages,
        "files": host_files.watched(settings),
        "unit_files": unit_files,
        "inside": [*host_files.gateway_paths(settings), gateway.released(settings.state_root)],
        "units": ["docker.service", *(path.rpartition("/")[2] for path in unit_files)],
        "database": database,
        "local_disks": settings.local_disks != "none",
        "urls": list(ready_urls(settings, profile).values()),
        "firewall": (firewall.mark(settings.service_name), firewall.needed(settings)),
    }


def _report(release: Release, observed: Observed, rows: list[Difference]) -> str:
    """The table of differences, or the one line that there are none."""
    prefix = host.print_prefix
    if not rows:
        return (
            f"{prefix}converged: release {release.id} ({release.settings.model}) serves since "
            f"{_since(observed)} UTC"
        )
    count = f"{len(rows)} difference{'s' if len(rows) > 1 else ''}"
    lines = [f"{prefix}release {release.id} ({release.settings.model}): {count}"]
    warnings = (*release.warnings, *shortages(release, observed))
    lines += [f"{prefix}  warning: {warning}" for warning in warnings]
    if any(row.what in ("current", "running release", "container") for row in rows):
        lines.append(f"{prefix}  swap: {swap(release, observed)}")
    docker = [
        row
        for row in rows
        if row.stage == "container runtime" or row.what in release.settings.docker_packages
    ]
    if docker and observed.container and observed.container.running:
        lines.append(
            f"{prefix}  docker is changed, and restarted if it has to be: the server is down meanwhile"
        )
    if observed.detached_units:
        lines.append(f"{prefix}  at work on the host: {', '.join(observed.detached_units)}")
    return "\n".join([*lines, *table(prefix, rows)])


def table(prefix: str, rows: Sequence[Difference]) -> list[str]:
    """The lines of the table of differences. `prefix`: of each."""
    header = Difference("stage", "what", "found", "wanted")
    widths = [min(max(len(getattr(r, f)) for r in (header, *rows)), 58) for f in ("stage", "what", "found")]
    lines = []
    for row in (header, *rows):
        cells = [row.stage, row.what, row.found]
        padded = [_cut(cell, width).ljust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append(f"{prefix}  {'  '.join([*padded, _cut(row.wanted, 58)])}")
    return lines


def _since(observed: Observed) -> str:
    return observed.container.started_at[:19] if observed.container else "?"


def _cut(text: str, width: int) -> str:
    text = one_line(text)
    return text if len(text) <= width else f"{text[: width - 1]}…"
