"""Look once, decide, then act: one round trip says whether anything has to be done, what, and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from pyinfra import host, logger
from pyinfra.api.exceptions import PyinfraError

from operations import gateway_secrets, host_files, host_health, rollout
from operations.detached import LOST
from operations.facts.host_state import HostState
from operations.plan import (
    PlanError,
    Release,
    Settings,
    daemon_json,
    firewall,
    plan_release,
    selinux,
)
from operations.plan.difference import Difference, difference
from operations.plan.disks import root_growth
from operations.plan.local_disks import check_data_root, local_plan
from operations.plan.observed import Observed
from operations.plan.packages import CONFLICTING_PACKAGES, PACKAGE_KEYS, check_os, wanted_packages
from operations.plan.profiles import PlanProfile, Profile, load_profile
from operations.plan.release import ready_urls
from operations.plan.settings import from_host_data
from operations.plan.shortages import shortages
from operations.plan.swap import swap
from operations.plan.version_floors import check_floors, components

LOOK_SECONDS = 50  # for the one look; a host that is frozen or cut off is reported, not waited for


def look() -> Release | None:
    """
    The release the host should become, or None where it is that already: then no operation is run.

    Reads the host in one round trip, plans, and prints what differs as a table, before anything is changed. A host that
    cannot be deployed, for whatever reason, fails alone with one line.
    """
    rollout.watch()
    try:
        release, observed = planned()
        digests, loaded = _digests(release)
        rows = difference(release, observed, digests, loaded)
    except (PlanError, PyinfraError, *LOST) as error:
        if isinstance(error, PlanError):
            host_health.say_what_else(error)
        rollout.leave_out(_of_host(error))
        return None
    logger.info(_report(release, observed, rows))
    if not rows:
        rollout.note(host, f"converged: serves since {_since(observed)} UTC", release.id)
        return None
    verdict = observed.verdicts.get(release.id, "")
    if verdict.startswith(("failed", "withdrawn")) and not release.settings.retry_failed:
        rollout.leave_out(
            f"release {release.id}: found {verdict}; expected another release or a mended cause; change the inventory, "
            "or try it again with --data retry_failed=true; what serves was left as it is"
        )
        return None
    if not host_health.fits(release, observed):
        return None
    rollout.expect(observed)
    return release


def planned() -> tuple[Release, Observed]:
    """
    The release the host should become, and the host as one round trip found it.

    Raises PlanError with the plan's one line for whatever cannot be deployed.
    """
    settings = from_host_data(host.data.dict(), host.name)  # type: ignore[no-untyped-call]
    profile = load_profile(settings.model, settings.profile_overrides)
    observed = observe(settings, profile)
    if observed.noise:
        raise PlanError(
            "login shell",
            observed.noise,
            "no output of its own",
            "what it says would be taken for answers: let ~/.bashrc be silent where the shell is not interactive",
        )
    release = planned_for(settings, profile, observed)
    running = components(settings, profile, release.gpus[0].driver)
    floors = check_floors(host.name, running, settings.waivers, datetime.now(UTC).date())
    known = gateway_secrets.load(settings.gateway, host.name).warnings if settings.gateway else ()
    return replace(release, warnings=(*release.warnings, *floors, *known)), observed


def _digests(release: Release) -> tuple[dict[str, str], str]:
    """Every file that is written beside the release: path -> SHA-256; and what the gateway's nginx has read, if there is one."""
    digests = host_files.digests(host_files.rendered(release))
    if release.gateway is None or release.settings.gateway is None:
        return digests, ""
    secrets = gateway_secrets.load(release.settings.gateway, host.name)
    own = host_files.gateway_files(release.gateway, secrets)
    placed = host_files.gateway_digests(release.gateway, own)
    return {**digests, **placed}, host_files.gateway_loaded(release.gateway, own)


def planned_for(settings: Settings, profile: Profile, observed: Observed) -> Release:
    """The release that a host as it was found should become. Raises PlanError."""
    os_major = check_os(dict(observed.os_release), observed.architecture)
    check_data_root(settings.data_root, observed.data_root)
    if settings.grow_root_file_system:
        root_growth(observed.root)  # refuses here, before anything is changed
    local_plan(settings, observed.data_root, observed.local)
    if observed.gpu_problem:
        raise PlanError("GPUs", observed.gpu_problem, "a working NVIDIA driver")
    return plan_release(settings, observed.gpus, os_major, profile, selinux.enabled(observed.selinux))


def _of_host(error: BaseException) -> str:
    """An error's one line, without the host's name, which is printed in front of it."""
    if not isinstance(error, PlanError):
        return "look: found no answer that could be read, expected the host's state; see the lines above, and run again"
    return str(error).removeprefix(f"{host.name}: ")


def observe(settings: Settings, profile: Profile) -> Observed:
    """One round trip; of the release, only what is known before the host's GPUs are: names, not keys."""
    packages = [*wanted_packages(settings, ""), *CONFLICTING_PACKAGES]
    database = f"{settings.service_name}-database" if isinstance(profile, PlanProfile) else ""
    name = settings.service_name
    units = [
        f"{unit}.service"
        for unit in (
            "docker",
            name,
            *(f"{name}-{part}" for part in ("front", "next", "database", "guard", "gateway")),
        )
    ]
    state: Observed = host.get_fact(
        HostState,
        data_root=settings.data_root,
        service=settings.service_name,
        packages=packages,
        files=[
            host_files.DOCKER_REPOSITORY,
            host_files.TOOLKIT_REPOSITORY,
            host_files.SYSTEM_REPOSITORIES,
            host_files.unit_path(settings),
            host_files.database_unit_path(settings),
            host_files.front_unit_path(settings),
            host_files.next_unit_path(settings),
            host_files.front_config_path(settings),
            host_files.guard_path(settings),
            host_files.guard_unit_path(settings),
            host_files.gateway_unit_path(settings),
            *host_files.gateway_paths(settings),
            daemon_json.UNREAD,
            *PACKAGE_KEYS,
        ],
        units=units,
        database=database,
        local_disks=settings.local_disks != "none",
        urls=list(ready_urls(settings, profile).values()),
        firewall=(firewall.mark(settings.service_name), firewall.needed(settings)),
        _timeout=LOOK_SECONDS,
    )
    return state


def _report(release: Release, observed: Observed, rows: list[Difference]) -> str:
    """The table of differences, or the one line that there are none."""
    prefix = host.print_prefix
    if not rows:
        return (
            f"{prefix}converged: release {release.id} ({release.settings.model}) serves since "
            f"{_since(observed)} UTC"
        )
    header = Difference("stage", "what", "found", "wanted")
    widths = [min(max(len(getattr(r, f)) for r in (header, *rows)), 58) for f in ("stage", "what", "found")]
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
    for row in (header, *rows):
        cells = [row.stage, row.what, row.found]
        padded = [_cut(cell, width).ljust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append(f"{prefix}  {'  '.join([*padded, _cut(row.wanted, 58)])}")
    return "\n".join(lines)


def _since(observed: Observed) -> str:
    return observed.container.started_at[:19] if observed.container else "?"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
