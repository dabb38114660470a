"""A host of the group `front`: haproxy, through which clients reach the hosts that serve."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.facts.files import Sha256File
from pyinfra.facts.systemd import SystemdEnabled, SystemdStatus

from operations import (
    convergence,
    etc_files,
    host_record,
    lock,
    network,
    packages,
    rollout,
    selinux,
    shorter_output,
)
from operations.intake import load_balancer_secrets
from operations.plan import PlanError, Settings
from operations.plan.balancing import load_balancer as plan
from operations.plan.balancing.load_balancer import LoadBalancerPlan
from operations.plan.balancing.load_balancer_difference import difference, openings, record_of
from operations.plan.balancing.members import members
from operations.plan.difference_rows import Difference
from operations.plan.errors import one_line
from operations.plan.exposure import firewall
from operations.plan.exposure.host_program import unit_path
from operations.plan.inventory.settings import from_host_data
from operations.plan.machine.host_record import place
from operations.plan.machine.packages import check_os
from operations.plan.machine.selinux import FRONT_BOOLEAN
from operations.plan.observed.observed import Observed
from operations.pyinfra_patches import Unanswered, data_of
from operations.remote import host_files, load_balancer_files, repository_files
from operations.remote.detached import LOST
from operations.remote.tls_request import OTHER_CERTIFICATE, status_of
from operations.remote.tunnel import forwarded
from operations.scripts import archive, host_script
from operations.systemd_units import reloaded
from operations.watched_hosts import serving_of

READ_SECONDS = 120  # a start, or a reload and the one back


def converge() -> None:
    """The host is what the inventory says of it; where it is that already, no operation is run."""
    wanted = look()
    if wanted:
        prepare(wanted=wanted)
        run(wanted=wanted)


def look() -> LoadBalancerPlan | None:
    """
    What the host should be, or None where it is that already: then no operation is run.

    Reads the host in one round trip, plans, and prints what differs as a table. A host that cannot be deployed fails alone.
    """
    try:
        settings = from_host_data(data_of(host), host.name)
        observed = observe(settings)
        wanted = planned(settings, observed)
        files, read = load_balancer_files.expected(wanted), load_balancer_files.read(wanted)
        rows = difference(wanted, observed, files, read)
    except Unanswered:
        raise
    except (PlanError, PyinfraError, *LOST) as error:
        rollout.leave_out(convergence.of_host(error))
        return None
    shorter_output.tell(_report(wanted, rows), bool(rows or wanted.secrets.warnings))
    rollout.found(rows)
    if not rows:
        rollout.note(host, f"converged: load balancer of {_count(wanted)}")
        return None
    rollout.note(host, rollout.UNCHANGED)
    return wanted


def observe(settings: Settings) -> Observed:
    """One round trip."""
    own = settings.load_balancer
    assert own
    guard = f"{plan.NAME}-guard.service"
    return convergence.looked(
        data_root=plan.DIRECTORY,
        state_root=plan.DIRECTORY,
        service=plan.NAME,
        packages=list(plan.packages(settings, "")),
        files=[*plan.etc_paths(), repository_files.SYSTEM_REPOSITORIES],
        unit_files=[unit_path(plan.NAME), f"/etc/systemd/system/{guard}"],
        inside=[plan.RECORD],
        units=[f"{plan.NAME}.service", guard],
        urls=[],
        firewall=(firewall.mark(plan.NAME), True),
        programs=[],
    )


def planned(settings: Settings, observed: Observed) -> LoadBalancerPlan:
    """What a load balancer that was found like this should be. Raises PlanError."""
    convergence.check_silent(observed)
    os_major = check_os(dict(observed.os_release), observed.architecture)
    own = settings.load_balancer
    assert own
    secrets = load_balancer_secrets.load(own, host.name)
    confined = settings.selinux == "auto" and observed.selinux is not None
    return plan.planned(settings, os_major, confined, members(own, serving_of(host.inventory)), secrets)


def _count(wanted: LoadBalancerPlan) -> str:
    count = len(wanted.members)
    return f"{count} host{'s' if count > 1 else ''}"


def _report(wanted: LoadBalancerPlan, rows: list[Difference]) -> str:
    prefix = host.print_prefix
    count = f"{len(rows)} difference{'s' if len(rows) > 1 else ''}"
    said = f"load balancer: {count}" if rows else f"converged: load balancer of {_count(wanted)}"
    lines = [f"{prefix}{said}", *(f"{prefix}  warning: {warning}" for warning in wanted.secrets.warnings)]
    return "\n".join([*lines, *(convergence.table(prefix, rows) if rows else [])])


@deploy("Load balancer")
def prepare(wanted: LoadBalancerPlan) -> None:
    """haproxy is installed, and nobody reaches it but the declared networks."""
    settings, files = wanted.settings, load_balancer_files.files(wanted)
    lock.held(name="Hold the host's lock", purpose="deploy of a load balancer")
    host_record.begun(
        name="Record what the host was",
        places=[place(plan.NAME, plan.DIRECTORY)],
        ours=[path for path in plan.etc_paths() if path.startswith("/etc/systemd/")],
    )
    if repository_files.SYSTEM_REPOSITORIES in files:
        text = files[repository_files.SYSTEM_REPOSITORIES].text
        etc_files.written(
            name="The distribution's repositories", path=repository_files.SYSTEM_REPOSITORIES, text=text
        )
    packages.pinned(
        name="Install haproxy",
        versions=wanted.packages,
        locks=wanted.locks,
        lock_wait_s=settings.package_lock_wait_s,
        options=wanted.repositories,
    )
    if wanted.selinux:
        selinux.on(name="Let haproxy connect to any port", booleans=[FRONT_BOOLEAN])
    place_of_guard = f"/etc/systemd/system/{wanted.guard.unit}"
    etc_files.written(name="Install the guard's unit", path=place_of_guard, text=files[place_of_guard].text)
    reloaded(name="Let systemd read the guard's unit", unit=wanted.guard.unit)
    network.guarded(name="Load the guard", guard=wanted.guard)
    network.admitted(
        name="Open firewalld for clients", service=plan.NAME, wanted=partial(openings, wanted), ask=True
    )


@deploy("Load balancer")
def run(wanted: LoadBalancerPlan) -> None:
    """haproxy runs with the members of this inventory, and shows clients the inventory's certificate."""
    files, path = load_balancer_files.files(wanted), unit_path(plan.NAME)
    etc_files.written(name="Install haproxy's unit", path=path, text=files[path].text)
    reloaded(name="Let systemd read haproxy's unit", unit=f"{plan.NAME}.service")
    read(name="Check the configuration, and let haproxy read it", wanted=wanted)
    rollout.repaired(name="Note what became of the host")


@operation()
def read(wanted: LoadBalancerPlan) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    haproxy runs, and has read these files.

    + wanted: whose

    haproxy checks them before they replace the others, and reads them without closing a connection. If it does not run with
    them, those from before come back.
    """
    files = load_balancer_files.read(wanted)
    unit = f"{plan.NAME}.service"
    found = {name: host.get_fact(Sha256File, path=f"{plan.DIRECTORY}/{name}") for name in files}
    record = host.get_fact(Sha256File, path=plan.RECORD)
    enabled = host.get_fact(SystemdEnabled, services=[unit]).get(unit)
    active = host.get_fact(SystemdStatus, services=[unit]).get(unit)
    right = found == {name: host_files.digest(text) for name, text in files.items()}
    if right and record == host_files.digest(record_of(files)) and enabled and active:
        host.noop("haproxy has read its files")
        return
    script = host_script(
        "load_balancer.sh",
        {
            "DIRECTORY": plan.DIRECTORY,
            "FRESH": plan.FRESH,
            "CONFIGURATION": plan.CONFIGURATION,
            "UNIT": unit,
            "PORT": str(wanted.own.port),
            "RECORD": plan.RECORD,
            "SOCKET": plan.SOCKET,
        },
    )
    yield StringCommand(script, _stdin=archive(files), _timeout=READ_SECONDS)
    yield FunctionCommand(_asked, (wanted,), {})


def _asked(state: State, host: Host, wanted: LoadBalancerPlan) -> bool:
    """Whether clients are shown the certificate; whether hosts are ready does not matter here."""
    own = wanted.own
    try:
        with forwarded(host, own.bind, own.port) as endpoint:
            problem = asked(endpoint, wanted.secrets.certificate)
    except LOST as error:
        problem = f"no answer: {error}"
    if problem:
        said = f"load balancer: {one_line(problem)}; see: journalctl --unit {plan.NAME}"
        logger.error(f"{host.print_prefix}{said}")
        rollout.failed(host, f"failed: {said}")
    return not problem


def asked(endpoint: str, certificate: bytes) -> str:
    """Ask the load balancer at host:port as a client would. Returns the problem, or an empty string."""
    status = status_of(endpoint, certificate, "/v2/health/live")
    if not status:
        return OTHER_CERTIFICATE
    # no host may be ready yet: then haproxy itself answers
    return "" if status in (200, 503) else f"found HTTP {status} of /v2/health/live, expected 200 or 503"
