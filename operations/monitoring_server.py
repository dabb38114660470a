"""A host of the group `monitoring`: Prometheus, Alertmanager and Grafana for the others, from what the inventory says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from datetime import UTC, datetime
from functools import partial

from pyinfra import host
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.operation import operation
from pyinfra.facts.files import Link, Sha256File
from pyinfra.operations import systemd

from operations import (
    container_runtime,
    convergence,
    etc_files,
    exporters,
    host_record,
    lock,
    network,
    packages,
    rollout,
    serving_image,
    shorter_output,
)
from operations.intake import monitoring_secrets
from operations.plan import PlanError, Settings
from operations.plan.catalog.package_names import CONFLICTING_PACKAGES, OTHER_ENGINES
from operations.plan.catalog.version_floors import check_floors, package_components
from operations.plan.difference_rows import Difference
from operations.plan.exposure import firewall, host_program
from operations.plan.inventory.settings import from_host_data
from operations.plan.machine import daemon_json
from operations.plan.machine.host_record import place
from operations.plan.machine.packages import DOCKER_KEY, check_os
from operations.plan.monitoring import server as plan
from operations.plan.monitoring.server import MonitoringPlan
from operations.plan.monitoring.server_difference import difference, openings
from operations.plan.observed.observed import Observed
from operations.pyinfra_patches import Unanswered, data_of
from operations.remote import host_files, monitoring_files, repository_files
from operations.remote.detached import LOST
from operations.scripts import host_script
from operations.systemd_units import reloaded
from operations.watched_hosts import entries_of

CHECK_SECONDS = 600  # promtool and amtool, each in a container, and four waits for a program's word


def converge() -> None:
    """The host is what the inventory says of it; where it is that already, no operation is run."""
    server = look()
    if server:
        prepare(server=server)
        guard(server=server)
        run(server=server)


def look() -> MonitoringPlan | None:
    """
    What the host should be, or None where it is that already: then no operation is run.

    Reads the host in one round trip, plans, and prints what differs as a table. A host that cannot be deployed fails alone.
    """
    try:
        settings = from_host_data(data_of(host), host.name)
        observed = observe(settings)
        server = planned(settings, observed)
        rows = difference(server, observed, monitoring_files.expected(server))
    except Unanswered:
        raise
    except (PlanError, PyinfraError, *LOST) as error:
        rollout.leave_out(convergence.of_host(error))
        return None
    shorter_output.tell(_report(server, rows), bool(rows or server.warnings))
    rollout.found(rows)
    if not rows:
        rollout.note(host, "converged: Prometheus, Alertmanager and Grafana run")
        return None
    rollout.note(host, rollout.UNCHANGED)
    return server


def observe(settings: Settings) -> Observed:
    """One round trip."""
    own = settings.monitoring_server
    assert own
    units = [f"{name}.service" for name in plan.SERVICES]
    unit_files = [path for path in plan.etc_paths() if path.startswith("/etc/systemd/")]
    inside = [f"{own.data_root}/config/current/{name}" for name in plan.read_names()]
    inside.append(plan.administered(own.data_root))
    return convergence.looked(
        data_root=own.data_root,
        state_root=f"{own.data_root}/config",
        service=plan.NAME,
        packages=[*plan.packages(settings, ""), *CONFLICTING_PACKAGES],
        files=[
            *plan.etc_paths(),
            *(
                repository_files.DOCKER_REPOSITORY,
                repository_files.SYSTEM_REPOSITORIES,
                DOCKER_KEY,
                daemon_json.UNREAD,
            ),
        ],
        unit_files=unit_files,
        inside=inside,
        units=["docker.service", *units, f"{plan.NAME}-guard.service"],
        urls=[],
        firewall=(firewall.mark(plan.NAME), own.published),
        programs=list(plan.SERVICES),
    )


def planned(settings: Settings, observed: Observed) -> MonitoringPlan:
    """What a monitoring server that was found like this should be. Raises PlanError."""
    convergence.check_silent(observed)
    os_major = check_os(dict(observed.os_release), observed.architecture)
    own = settings.monitoring_server
    assert own
    check_floors(
        host.name, package_components(settings.docker_packages), settings.waivers, datetime.now(UTC).date()
    )
    secrets = monitoring_secrets.load(own, host.name)
    confined = settings.selinux == "auto" and observed.selinux is not None
    return plan.planned(settings, os_major, confined, entries_of(host.inventory), secrets)


def _report(server: MonitoringPlan, rows: list[Difference]) -> str:
    prefix = host.print_prefix
    count = f"{len(rows)} difference{'s' if len(rows) > 1 else ''}"
    said = f"monitoring server: {count}" if rows else "converged: Prometheus, Alertmanager and Grafana run"
    lines = [f"{prefix}{said}", *(f"{prefix}  warning: {warning}" for warning in server.warnings)]
    return "\n".join([*lines, *(convergence.table(prefix, rows) if rows else [])])


@deploy("Monitoring server")
def prepare(server: MonitoringPlan) -> None:
    """Docker at its versions, which runs and starts at boot. No driver, and nothing of NVIDIA."""
    settings = server.settings
    wait = settings.package_lock_wait_s
    files = monitoring_files.files(server)
    lock.held(name="Hold the host's lock", purpose="deploy of a monitoring server")
    host_record.begun(
        name="Record what the host was",
        places=[place(plan.NAME, server.data_root)],
        ours=[path for path in plan.etc_paths() if path.startswith("/etc/systemd/")],
    )
    packages.trusted_key(
        name="Trust Docker's package key",
        url=settings.docker_gpg_key_url,
        fingerprint=settings.docker_gpg_fingerprint,
        path=DOCKER_KEY,
        lock_wait_s=wait,
    )
    for path in (repository_files.DOCKER_REPOSITORY, repository_files.SYSTEM_REPOSITORIES):
        if path in files:
            etc_files.written(name=f"Write {path}", path=path, text=files[path].text)
    # before docker-ce: containerd.io conflicts with the distribution's runc
    packages.absent(
        name="Remove runc, podman and buildah",
        packages=CONFLICTING_PACKAGES,
        lock_wait_s=wait,
        instead=server.packages,
        options=server.repositories,
        refused=OTHER_ENGINES,
    )
    packages.pinned(
        name="Install docker at its version",
        versions=server.packages,
        locks=server.locks,
        lock_wait_s=wait,
        options=server.repositories,
    )
    container_runtime.configured(
        name="Configure docker",
        settings=server.docker_settings,
        start_timeout_s=settings.start_timeout_s,
        nvidia=False,
    )
    systemd.service(name="Enable and start docker", service="docker.service", running=True, enabled=True)
    for program in server.programs:
        serving_image.made(server.data_root, program.image, f"Pull the image of {program.title}")


@deploy("Monitoring server")
def guard(server: MonitoringPlan) -> None:
    """Nobody reaches Grafana but the declared networks."""
    files = monitoring_files.files(server)
    path = f"/etc/systemd/system/{server.guard.unit}"
    etc_files.written(name="Install the guard's unit", path=path, text=files[path].text)
    reloaded(name="Let systemd read the guard's unit", unit=server.guard.unit)
    network.guarded(name="Load the guard", guard=server.guard)
    network.admitted(
        name="Open firewalld for Grafana",
        service=plan.NAME,
        wanted=partial(openings, server),
        ask=server.own.published,
    )


@deploy("Monitoring server")
def run(server: MonitoringPlan) -> None:
    """The programs run with the configuration of this inventory, which promtool and amtool have checked."""
    files = monitoring_files.files(server)
    directories(name="Keep a directory for what each program writes", server=server)
    configured(name="Check the configuration, and let the programs read it", server=server)
    for program in server.programs:
        paths = (host_program.unit_path(program.service), host_program.script_path(program.service))
        exporters.kept(name=f"Keep what {program.title} runs with", program=program, paths=paths)
        for path in paths:
            etc_files.written(name=f"Install {path.rpartition('/')[2]}", path=path, text=files[path].text)
        reloaded(name=f"Let systemd read the unit of {program.title}", unit=f"{program.service}.service")
        exporters.running(name=f"Run {program.title}", program=program)
    administered(name="Let Grafana know its administrator's password", server=server)
    rollout.repaired(name="Note what became of the host")


@operation()
def directories(server: MonitoringPlan) -> Generator[StringCommand, None, None]:
    """
    Each program has a directory of its own, which docker would make for root where it is absent.

    + server: whose
    """
    for name, user in plan.users().items():
        path = f"{server.data_root}/{name}"
        yield StringCommand("install", "-d", "-m", "700", "-o", str(user), "-g", str(user), QuoteString(path))


@operation()
def configured(server: MonitoringPlan) -> Generator[StringCommand, None, None]:
    """
    The programs read this configuration.

    + server: whose

    The whole of it is checked, by the programs' own tools, before anything reads it. Programs that run are told to read it, and
    if one of them does not take it, all read the one before again.
    """
    found = {name: host.get_fact(Sha256File, path=f"{server.current}/{name}") for name in server.read}
    wanted = {name: host_files.digest(file.text) for name, file in server.read.items()}
    # one that has a file too many has another name
    link = host.get_fact(Link, path=server.current)
    if link and link["link_target"] == server.key and found == wanted:
        host.noop("the programs have this configuration")
        return
    archive = server.archive()
    records = {program.service: program.image_record for program in server.programs}
    ports = {program.service: program.url for program in server.programs}
    keys = {program.service: program.key for program in server.programs}
    script = host_script(
        "monitoring_config.sh",
        {
            "ROOT": server.data_root,
            "KEY": server.key,
            "SHA256": hashlib.sha256(archive.encode()).hexdigest(),
            "MOUNT": plan.MOUNT,
            "PROMETHEUS": plan.PROMETHEUS,
            "PROMETHEUS_IMAGE": records[plan.PROMETHEUS],
            "PROMETHEUS_USER": str(plan.PROMETHEUS_USER),
            "PROMETHEUS_URL": ports[plan.PROMETHEUS],
            "PROMETHEUS_KEY": keys[plan.PROMETHEUS],
            "ALERTMANAGER": plan.ALERTMANAGER,
            "ALERTMANAGER_IMAGE": records[plan.ALERTMANAGER],
            "ALERTMANAGER_USER": str(plan.ALERTMANAGER_USER),
            "ALERTMANAGER_URL": ports[plan.ALERTMANAGER],
            "ALERTMANAGER_KEY": keys[plan.ALERTMANAGER],
            "ALERTS_FILE": plan.ALERTS_FILE,
            "LABEL": ",z" if server.selinux else "",
        },
    )
    yield StringCommand(script, _stdin=archive, _timeout=CHECK_SECONDS)


@operation()
def administered(server: MonitoringPlan) -> Generator[StringCommand, None, None]:
    """
    Grafana's user `admin` has the inventory's password. Grafana itself takes it from its environment at its first start alone.

    + server: whose
    """
    grafana = next(program for program in server.programs if program.service == plan.GRAFANA)
    script = host_script(
        "grafana_password.sh",
        {
            "NAME": plan.GRAFANA,
            "USER_NAME": plan.ADMINISTRATOR,
            "PASSWORD_FILE": f"{server.current}/{plan.PASSWORD_FILE}",
            "URL": grafana.url.removesuffix(grafana.page),
            "RECORD": plan.administered(server.data_root),
        },
    )
    yield StringCommand(script, _timeout=120)
