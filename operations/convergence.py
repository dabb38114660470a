"""Look once, decide, then act: one round trip says whether anything has to be done, what, and why."""

from __future__ import annotations

from pyinfra import host, logger
from pyinfra.api.exceptions import PyinfraError

from operations import host_files
from operations.facts.host_state import HostState
from operations.plan import PlanError, Release, Settings, plan_release
from operations.plan.difference import Difference, difference
from operations.plan.observed import Observed
from operations.plan.packages import CONFLICTING_PACKAGES, check_os, wanted_packages
from operations.plan.profiles import PlanProfile, Profile, load_profile
from operations.plan.release import ready_urls
from operations.plan.settings import from_host_data
from operations.plan.shortages import shortages


def look() -> Release | None:
    """
    The release the host should become, or None where it is that already: then no operation is run.

    Reads the host in one round trip, plans, and prints what differs as a table, before anything is changed.
    Raises pyinfra's error with the plan's one line for whatever cannot be deployed.
    """
    release, observed = planned()
    rendered = host_files.rendered(release.settings, release.os_major, release.database)
    rows = difference(release, observed, host_files.digests(rendered))
    logger.info(_report(release, observed, rows))
    verdict = observed.verdicts.get(release.id, "")
    if rows and verdict.startswith(("failed", "withdrawn")) and not release.settings.retry_failed:
        raise PyinfraError(
            f"{host.name}: release {release.id}: found {verdict}; expected another release or a mended cause; change "
            "the inventory, or try it again with --data retry_failed=true; what serves was left as it is"
        )
    return release if rows else None


def planned() -> tuple[Release, Observed]:
    """
    The release the host should become, and the host as one round trip found it.

    Raises pyinfra's error with the plan's one line for whatever cannot be deployed.
    """
    try:
        settings = from_host_data(host.data.dict(), host.name)  # type: ignore[no-untyped-call]
        profile = load_profile(settings.model, settings.profile_overrides)
        observed = observe(settings, profile)
        os_major = check_os(dict(observed.os_release), observed.architecture)
        if observed.gpu_problem:
            raise PlanError("GPUs", observed.gpu_problem, "a working NVIDIA driver")
        return plan_release(settings, observed.gpus, os_major, profile), observed
    except PlanError as error:
        message = str(error)
        raise PyinfraError(
            message if message.startswith(f"{host.name}: ") else f"{host.name}: {message}"
        ) from None


def observe(settings: Settings, profile: Profile) -> Observed:
    """One round trip; of the release, only what is known before the host's GPUs are: names, not keys."""
    packages = [*wanted_packages(settings, ""), *CONFLICTING_PACKAGES]
    database = f"{settings.service_name}-database" if isinstance(profile, PlanProfile) else ""
    units = ["docker.service", f"{settings.service_name}.service"]
    state: Observed = host.get_fact(
        HostState,
        data_root=settings.data_root,
        service=settings.service_name,
        packages=packages,
        files=[
            host_files.DOCKER_REPOSITORY,
            host_files.TOOLKIT_REPOSITORY,
            host_files.unit_path(settings),
            host_files.database_unit_path(settings),
        ],
        units=[*units, f"{database}.service"] if database else units,
        database=database,
        urls=list(ready_urls(settings, profile).values()),
    )
    return state


def _report(release: Release, observed: Observed, rows: list[Difference]) -> str:
    """The table of differences, or the one line that there are none."""
    prefix = host.print_prefix
    if not rows:
        started = observed.container.started_at[:19] if observed.container else "?"
        return (
            f"{prefix}converged: release {release.id} ({release.settings.model}) serves since {started} UTC"
        )
    header = Difference("stage", "what", "found", "wanted")
    widths = [min(max(len(getattr(r, f)) for r in (header, *rows)), 58) for f in ("stage", "what", "found")]
    count = f"{len(rows)} difference{'s' if len(rows) > 1 else ''}"
    lines = [f"{prefix}release {release.id} ({release.settings.model}): {count}"]
    warnings = (*release.warnings, *shortages(release, observed))
    lines += [f"{prefix}  warning: {warning}" for warning in warnings]
    if observed.detached_units:
        lines.append(f"{prefix}  at work on the host: {', '.join(observed.detached_units)}")
    for row in (header, *rows):
        cells = [row.stage, row.what, row.found]
        padded = [_cut(cell, width).ljust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append(f"{prefix}  {'  '.join([*padded, _cut(row.wanted, 58)])}")
    return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
