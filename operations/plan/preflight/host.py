"""The operating system of a host: versions, clock, ports, locks, and what else a site has set."""

from __future__ import annotations

import re

from operations.plan.catalog.version_floors import check_floors
from operations.plan.errors import PlanError, one_line
from operations.plan.exposure import door, exporters, gateway, network
from operations.plan.inventory.versions import components
from operations.plan.machine import docker_host
from operations.plan.machine.packages import check_os
from operations.plan.observed.health import Verdict
from operations.plan.preflight.check import Check, Checks, Subject, raised
from operations.plan.preflight.gpus import KNOWN
from operations.plan.serving.servers import BEHIND_FRONT
from operations.plan.units import gib

LEAST_TEMPORARY = 64 * 2**20  # what dnf, docker and pyinfra put there meanwhile is less


# Requests that are signed with the time, as OCI's are, are refused from here on, and so are fresh certificates.
CLOCK_FAILED_S, CLOCK_WARNING_S = 300, 10
# Ways from any user of a host to root, in kernels of spring 2026, and the modules that each goes through:
# https://linux.oracle.com/cve/CVE-2026-31431.html and its siblings. A container's user is one of the host's.
KERNEL_HOLES = {
    "CVE-2026-31431": ("algif_aead",),
    "CVE-2026-43284": ("esp4", "esp6"),
    "CVE-2026-43500": ("rxrpc",),
}


def of_host(subject: Subject) -> Checks:
    health, observed = subject.health, subject.observed
    if subject.sudo_problem:
        then = "allow the login user sudo without a password"
        yield Check("sudo", "failed", subject.sudo_problem, "sudo -n that works", then)
    elif health.user and health.user != "0":
        yield Check(
            "sudo", "failed", f"user {health.user}", "root, through sudo -n", "set _sudo in the inventory"
        )
    elif health.user:
        yield Check("sudo", "ok", "works without a password")
    else:
        yield Check("sudo", "not checked", "the host's answer does not say")
    if observed is None:
        yield Check("login shell", "not checked", "the host was not looked at")
    elif observed.noise:
        then = "let ~/.bashrc be silent where the shell is not interactive"
        yield Check("login shell", "failed", observed.noise[:80], "no output of its own", then)
    else:
        yield Check("login shell", "ok", "silent")
    release = health.os_release or (observed.os_release if observed else {})
    architecture = health.architecture or (observed.architecture if observed else "")
    if not release:
        yield Check("operating system", "not checked", "/etc/os-release was not read")
    else:
        found = f"{release.get('ID', '?')} {release.get('VERSION_ID', '?')}"
        yield raised("operating system", found, lambda: check_os(dict(release), "x86_64"))
    if not architecture:
        yield Check("processor", "not checked", "uname was not read")
    else:
        supported = {"ID": "ol", "VERSION_ID": "9"}
        yield raised("processor", architecture, lambda: check_os(supported, architecture))
    yield _floors(subject)
    if subject.release is not None:
        yield Check("release", "ok", subject.release.id)
    else:
        verdict: Verdict = "not checked" if subject.sudo_problem else "failed"
        found = str(subject.problem) or "not planned"
        reference = subject.problem.reference if isinstance(subject.problem, PlanError) else ""
        yield Check("release", verdict, found, "a release that can be planned", reference=reference)


def _floors(subject: Subject) -> Check:
    """Every component below the floor of a security bulletin, which convergence.py refuses as well."""
    name, today = "version floors", subject.today
    if today is None or not subject.health.driver or subject.profile.image.release not in KNOWN:
        return Check(name, "not checked", "the driver's version was not read")
    problems: list[PlanError] = []
    notes: list[str] = []
    for component in components(subject.settings, subject.profile, subject.driver):
        try:
            notes += check_floors("", [component], subject.settings.waivers, today)
        except PlanError as error:
            problems.append(error)
    if problems:
        expected = "versions at their floors, or waivers of the inventory"
        found = "; and ".join(map(str, problems))
        return Check(name, "failed", found, expected, reference=problems[0].reference)
    return Check(name, "warning" if notes else "ok", "; and ".join(notes) or "none is below its floor")


def of_clock(subject: Subject) -> Checks:
    ahead, synchronized = subject.health.clock_ahead_s, subject.health.synchronized
    if ahead is None:
        yield Check("clock", "not checked", "the host's clock was not read")
        return
    found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine"
    expected, then = "this machine's time, within 10 s", "chronyc makestep; or set this machine's own clock"
    if abs(ahead) > CLOCK_FAILED_S:
        yield Check("clock", "failed", found, expected, then)
    elif abs(ahead) > CLOCK_WARNING_S:
        yield Check("clock", "warning", found, expected, then)
    elif synchronized == "no":
        then = "systemctl enable --now chronyd"
        yield Check("clock", "warning", "right, but not synchronized", "kept right by NTP", then)
    else:
        known = "synchronized" if synchronized == "yes" else "whether it is synchronized was not read"
        yield Check("clock", "ok", f"within 10 s of this machine; {known}")


def of_settings(subject: Subject) -> Checks:
    yield _ports(subject)
    yield _locks(subject)
    yield _cloud_init(subject)
    yield _firewalld(subject)
    yield _selinux(subject)
    yield from _hardening(subject)
    yield _kernel(subject)
    yield _kernel_fixes(subject)


def _ports(subject: Subject) -> Check:
    """What listens on a port that people are to use, and is not our own server or front."""
    listening, observed = subject.health.listening, subject.observed
    if listening is None:
        return Check("ports", "not checked", "ss was not run on the host")
    given = subject.settings
    ports = [*_ports_of_people(subject)]
    if subject.release:
        ports += subject.release.servers[0].ports
    if given.gateway:
        ports.append(given.gateway.port)
    if given.door:
        ports.append(given.door.port)
    ports += exporters.ports(given).values()
    front = observed.units.get(f"{given.service_name}-front.service", {}) if observed else {}
    before = observed.units.get(f"{gateway.service(given.service_name)}.service", {}) if observed else {}
    container = observed.container if observed else None
    published = container.ports if container and container.running else frozenset()
    # behind a front, the server's are that much higher than those that people use
    behind = {port - BEHIND_FRONT for port in published} if front.get("ActiveState") == "active" else set()
    # whichever port it has now
    before_us = set(listening) if before.get("ActiveState") == "active" else set()
    door_unit = observed.units.get(f"{door.service(given.service_name)}.service", {}) if observed else {}
    of_door = {given.door.port} if given.door and door_unit.get("ActiveState") == "active" else set()
    ours = {"docker-proxy": published, "haproxy": behind, "nginx": before_us, "python3": of_door}
    ours |= {program: set(listening) for program in _exporters(subject)}
    taken = {
        port: listening[port] or "a program"
        for port in dict.fromkeys(ports)
        if port in listening and port not in ours.get(listening[port], ())
    }
    if taken:
        found = ", ".join(f"{port} by {program}" for port, program in taken.items())
        if not published and set(taken.values()) == {"docker-proxy"} and _starts(subject):
            # a server that crashes and is started again had no container when the host was looked at, and has one now
            then = f"look whose container it is, if {given.service_name}.service does not start"
            expected = "ports of our own server, which is starting"
            return Check("ports", "warning", found, expected, then)
        then = "end it, or move http_port, grpc_port, metrics_port"
        return Check("ports", "failed", found, "ports that nothing else listens on", then)
    return Check("ports", "ok", ", ".join(map(str, dict.fromkeys(ports))))


def _exporters(subject: Subject) -> list[str]:
    """The programs of our exporters that run."""
    observed, name = subject.observed, subject.settings.service_name
    programs = {exporters.NODE: "node_exporter", exporters.DCGM: "dcgm-exporter"}
    return [
        program
        for kind, program in programs.items()
        if observed and observed.active(exporters.service(name, kind))
    ]


def _starts(subject: Subject) -> bool:
    """Whether a server of ours was about to start when the host was looked at."""
    name, observed = subject.settings.service_name, subject.observed
    return observed is not None and (observed.runs(name) or observed.runs(f"{name}-next"))


def _ports_of_people(subject: Subject) -> tuple[int, int, int]:
    """The server's, or those of a front before it."""
    given, server = subject.settings, subject.profile.server
    return (
        given.http_port or server.http_port,
        given.grpc_port or server.grpc_port,
        given.metrics_port or server.metrics_port,
    )


def _locks(subject: Subject) -> Check:
    if not subject.health.kernel:
        return Check("package locks", "not checked", "the host's answer does not say")
    held = [holder for holder in subject.health.locks if holder.command]
    if not held:
        return Check("package locks", "ok", "free")
    text = "; ".join(f"{h.path} by process {h.pid} ({one_line(h.command)[:80]})" for h in held)
    packaging = re.compile(r"\b(dnf|yum|rpm|microdnf|packagekitd)\b")
    if all(packaging.search(holder.command) for holder in held):
        return Check(
            "package locks", "warning", text, "free", "the installation waits for it; it is never ended"
        )
    then = "a lock file of a process that is gone, whose number another one has: remove the file if that is no dnf"
    return Check("package locks", "warning", text, "free, or held by dnf", then)


def _cloud_init(subject: Subject) -> Check:
    state = subject.health.cloud_init
    if not state:
        return Check("cloud-init", "not checked", "its status was not read")
    if state in ("done", "disabled", "not installed"):
        return Check("cloud-init", "ok", state)
    then = (
        "wait: cloud-init status --wait"
        if state in ("running", "not run", "not started")
        else "cloud-init status --long"
    )
    return Check("cloud-init", "warning", state, "done: the first boot installs and configures, too", then)


def _firewalld(subject: Subject) -> Check:
    unit = subject.health.units.get("firewalld.service")
    if unit is None:
        return Check("firewalld", "not checked", "systemd was not asked")
    state = unit.get("ActiveState", "")
    if state == "active":
        return Check("firewalld", "ok", "active")
    found = "not installed" if unit.get("LoadState") == "not-found" else state or "not known"
    steps = ["dnf install firewalld"]
    if serving := _served_on_the_host(subject):
        # those that it has now, which the inventory may be about to change
        program = "nginx" if "gateway" in serving else "haproxy"
        now = [port for port, name in sorted((subject.health.listening or {}).items()) if name == program]
        ports = now or list(network.open_ports(subject.settings, _ports_of_people(subject)))
        options = " ".join(f"--add-port={port}/tcp" for port in ports)
        steps += [
            f"in a maintenance window, or it shuts out whom {serving} serves: firewall-offline-cmd {options}",
            "systemctl enable --now firewalld",
            "at once the deploy, which adds its own rules; then take the ports out again (docs/how-to/network.md)",
        ]
    else:
        steps.append("systemctl enable --now firewalld")
    then = "; ".join((*steps, "or rely on security lists and say so"))
    return Check("firewalld", "warning", found, "active", then)


def _served_on_the_host(subject: Subject) -> str:
    """
    The unit through which people reach a socket of the host over the network now; empty: none.

    A deploy adds firewalld's rules for them while firewalld runs, and only then.
    """
    given = subject.settings
    if not network.published(given):
        return ""
    before, front = f"{gateway.service(given.service_name)}.service", f"{given.service_name}-front.service"
    if subject.observed is None:
        # it was not looked at, and what the inventory wants may serve already
        wanted = before if given.gateway else front
        return wanted if network.on_the_host(given) else ""
    units = subject.observed.units
    return next((unit for unit in (before, front) if units.get(unit, {}).get("ActiveState") == "active"), "")


def _selinux(subject: Subject) -> Check:
    mode, policy = subject.health.selinux, subject.health.container_selinux
    if not mode:
        return Check("SELinux", "not checked", "the host has no getenforce")
    if mode != "Enforcing":
        then = "setenforce 1, and SELINUX=enforcing in /etc/selinux/config"
        return Check("SELinux", "warning", mode, "Enforcing", then)
    if not policy:
        then = "it comes with docker's packages"
        return Check("SELinux", "warning", "Enforcing, without container-selinux", "container-selinux", then)
    return Check("SELinux", "ok", f"Enforcing, container-selinux {policy}")


def _hardening(subject: Subject) -> Checks:
    health = subject.health
    options = {mount: text.split(",") for mount, text in health.temporary.items()}
    noexec = [mount for mount, words in options.items() if "noexec" in words]
    read_only = [mount for mount, words in options.items() if "ro" in words]
    room = health.disks.get("/tmp")
    if not health.temporary:
        yield Check("temporary directories", "not checked", "findmnt was not run on the host")
    elif read_only:
        then = "see journalctl --dmesg: the kernel makes a file system with errors read-only; fix the file system"
        found = f"read-only: {', '.join(read_only)}"
        yield Check("temporary directories", "failed", found, "file systems that are written to", then)
    elif room and room.free < LEAST_TEMPORARY:
        found = f"{gib(room.free)} free in /tmp, on {room.mount}"
        yield Check(
            "temporary directories", "failed", found, f"{gib(LEAST_TEMPORARY)} or more", "make room there"
        )
    elif noexec:
        expected = "programs may run there"
        then = "nothing of tritonhost does; dnf's packages may, in their scripts"
        yield Check("temporary directories", "warning", f"noexec: {', '.join(noexec)}", expected, then)
    else:
        yield Check("temporary directories", "ok", "programs may run there")
    if not health.umask:
        yield Check("umask", "not checked", "the host's answer does not say")
    elif int(health.umask, 8) & 0o055:
        then = "what tritonhost writes has modes of its own; look at what you write beside it"
        yield Check("umask", "warning", health.umask, "0022: containers read as other users", then)
    else:
        yield Check("umask", "ok", health.umask)
    yield _docker_settings(subject)
    if not health.ip_forward:
        yield Check("IP forwarding", "not checked", "/proc/sys/net/ipv4/ip_forward was not read")
    elif health.ip_forward == "0" and _runs_docker(subject):
        then = "a sysctl file sets it after docker did: take it out, or published ports lead nowhere after a boot"
        yield Check("IP forwarding", "warning", "0, though docker runs", "1", then)
    else:
        note = "1" if health.ip_forward == "1" else "0; docker sets it when it starts"
        yield Check("IP forwarding", "ok", note)


def _docker_settings(subject: Subject) -> Check:
    """What its daemon.json says, with the inventory's settings in it; what is refused, the plan has refused."""
    name = "docker settings"
    if subject.observed is None:
        return Check(name, "not checked", "the host was not looked at")
    wanted = subject.release.docker_settings if subject.release else subject.settings.docker_daemon_settings
    found = docker_host.of_host(subject.observed.daemon_json, wanted)
    if not found:
        return Check(name, "ok", "none that a deploy has to know of")
    shown = "; ".join(f"{each.key} {one_line(str(each.found))[:60]}" for each in found)
    expected = "; ".join(each.expected for each in found)
    verdict: Verdict = "failed" if any(each.verdict == "refused" for each in found) else "warning"
    return Check(name, verdict, shown, expected, "; ".join(each.why for each in found))


def _runs_docker(subject: Subject) -> bool:
    units = subject.observed.units if subject.observed else {}
    return units.get("docker.service", {}).get("ActiveState") == "active"


def _kernel(subject: Subject) -> Check:
    health, name = subject.health, "kernel"
    if not health.kernel or not health.next_kernel:
        return Check(
            name, "not checked", f"{health.kernel or 'not read'}; which one the next boot starts is not known"
        )
    if health.next_kernel == health.kernel:
        return Check(name, "ok", health.kernel)
    found = f"{health.kernel} runs, the next boot starts {health.next_kernel}"
    if health.next_driver == "":
        found += ", which has no nvidia.ko"
        return Check(
            name,
            "warning",
            found,
            "a kernel with the NVIDIA driver",
            "install the driver for it before a reboot",
        )
    return Check(name, "warning", found, "the same", "reboot at a time of your own choice")


def _kernel_fixes(subject: Subject) -> Check:
    """Advice: a kernel is the site's to choose, together with the driver that is built for it."""
    health, name = subject.health, "kernel fixes"
    fixed = health.kernel_fixed or frozenset()
    open_ = [
        hole
        for hole, modules in KERNEL_HOLES.items()
        if hole not in fixed and not health.kernel_blocked.issuperset(modules)
    ]
    if not open_:
        text = f"{health.kernel or 'the running kernel'} names the fixes, or keeps their modules out"
        return Check(name, "ok", text)
    if health.kernel_fixed is None:
        return Check(name, "not checked", "the package of the running kernel was not read")
    found = f"{health.kernel or 'the running kernel'} names no fix of {', '.join(open_)}"
    expected = "a kernel that names them among its changes, or their modules kept out"
    then = "upgrade the kernel together with the driver for it, and reboot; or keep the modules out: docs/security.md#kernels"
    return Check(name, "warning", found, expected, then)
