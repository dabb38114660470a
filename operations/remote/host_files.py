"""The files the tool writes outside its own directory, rendered: one place for the operations and for the probe."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from operations.plan.artifacts import commands
from operations.plan.difference_rows import ExpectedFile
from operations.plan.exposure import door, exporters, gateway, host_program, network
from operations.plan.exposure.host_program import HostProgram
from operations.plan.inventory.settings import Settings
from operations.plan.machine import daemon_json
from operations.plan.machine.local_disks import SENTINEL
from operations.plan.machine.packages import PACKAGE_KEYS
from operations.plan.monitoring import textfile
from operations.plan.observed.observed import LoadedGateway
from operations.plan.release import Release
from operations.plan.serving import serve
from operations.plan.serving.servers import Server
from operations.remote.rendering import HostFile, rendered_text, unit_text
from operations.remote.repository_files import PATHS as REPOSITORIES
from operations.remote.repository_files import release_repositories
from operations.scripts import host_script


class Paths(NamedTuple):
    """The files of one service outside of the data root: its units, the proxy's configuration, the guard's rules."""

    unit: str
    database_unit: str  # for models that have one
    front_unit: str
    next_unit: str  # runs a release beside the running one
    guard_unit: str
    gateway_unit: str
    door_unit: str
    door_script: str
    metrics_unit: str
    metrics_timer: str
    node_unit: str
    node_script: str
    dcgm_unit: str
    dcgm_script: str
    front_config: str
    guard_rules: str

    @property
    def units(self) -> list[str]:
        """Those that systemd reads."""
        return [
            self.unit,
            self.database_unit,
            self.front_unit,
            self.next_unit,
            self.guard_unit,
            self.gateway_unit,
            self.door_unit,
            self.metrics_unit,
            self.metrics_timer,
            self.node_unit,
            self.dcgm_unit,
        ]


def paths(settings: Settings) -> Paths:
    """Where the files are, whether this inventory wants them or not."""
    return paths_of(settings.service_name)


def paths_of(name: str) -> Paths:
    """The same of a service of that name."""
    unit = host_program.unit_path
    return Paths(
        unit=unit(name),
        database_unit=unit(f"{name}-database"),
        front_unit=unit(f"{name}-front"),
        next_unit=unit(f"{name}-next"),
        guard_unit=f"/etc/systemd/system/{network.unit(name)}",
        gateway_unit=unit(gateway.service(name)),
        door_unit=unit(door.service(name)),
        door_script=f"/etc/{door.service(name)}.sh",
        metrics_unit=unit(textfile.unit(name)),
        metrics_timer=f"/etc/systemd/system/{textfile.unit(name)}.timer",
        node_unit=unit(exporters.service(name, exporters.NODE)),
        node_script=host_program.script_path(exporters.service(name, exporters.NODE)),
        dcgm_unit=unit(exporters.service(name, exporters.DCGM)),
        dcgm_script=host_program.script_path(exporters.service(name, exporters.DCGM)),
        front_config=f"/etc/{name}-front.cfg",
        guard_rules=network.rules_path(name),
    )


def main_units(settings: Settings) -> list[str]:
    """The files of the servers' units, of all services of the host."""
    return [paths_of(name).unit for name in (settings.service_name, *settings.beside)]


def unit_files(settings: Settings) -> list[str]:
    """The files of all units, of all services of the host: a site may add directories of its own to each."""
    return [path for name in (settings.service_name, *settings.beside) for path in paths_of(name).units]


def watched(settings: Settings) -> list[str]:
    """
    Every file that may be ours, and that no manifest lists: what it holds, and whose it is, is looked at in each run.

    Those of the host's other services outside the data root are among them: one of the services repairs them for all.
    """
    return [
        *REPOSITORIES,
        *(path for name in (settings.service_name, *settings.beside) for path in paths_of(name)),
        *textfile.own_paths(settings),
        exporters.counters_path(settings.state_root),
        daemon_json.UNREAD,
        *PACKAGE_KEYS,
    ]


def gateway_paths(settings: Settings) -> list[str]:
    """Where the gateway's own files are, its certificate and keys among them: nothing there without a gateway."""
    return [f"{gateway.directory(settings.state_root)}/{name}" for name in (*gateway.FILES, gateway.SCRIPT)]


def mount_unit_text(settings: Settings) -> str:
    """The unit that mounts the local disks; `@UUID@` stands for that of the file system, which the host knows."""
    return rendered_text("data.mount.j2", data_root=settings.data_root)


def _mount_guard(settings: Settings) -> str:
    """The line of a unit that keeps it from an empty mount point; empty where nothing is mounted for it."""
    if settings.local_disks == "none":
        return ""
    said = (
        f"mount absent: {settings.data_root} is not the local disks; see: systemctl status "
        f"{settings.data_root}; then run the deploy"
    )
    test = f'test -e {settings.data_root}/{SENTINEL} || {{ echo "tritonhost: {said}" >&2; exit 66; }}'
    return f"ExecStartPre=/bin/sh -c '{test}'"


def rendered(release: Release) -> dict[str, HostFile]:
    """Every such file as it should be, by its path."""
    files = {file.path: file for file in _rendered(release)}
    return {**files, **{file.path: file for file in _metrics(release, files.values())}}


def _metrics(release: Release, others: Iterable[HostFile]) -> Iterator[HostFile]:
    """The host's own metrics. `others`: what their script compares with the disk."""
    settings = release.settings
    if settings.monitoring is None:
        return
    place, script = paths(settings), textfile.script(settings.state_root)
    directory, _, expected_path = textfile.own_paths(settings)
    listed = "".join(f"{digest(file.text)}  {file.path}\n" for file in others)
    yield HostFile("monitoring", expected_path, listed)
    variables = {
        "DATA_ROOT": settings.data_root,
        "STATE_ROOT": settings.state_root,
        "SERVICE": settings.service_name,
        "ALONE": "" if settings.services else "yes",
        "GPUS": str(len(release.gpus)),
        "URLS": "\n".join(f"{model}\t{url}" for model, url in release.ready_urls.items()),
        "CERTIFICATE": f"{release.gateway.directory}/{gateway.TLS}" if release.gateway else "",
        "EXPECTED": expected_path,
        "RUN": f"{directory}/{textfile.RUN}",
        "OUTPUT": textfile.output(settings),
    }
    yield HostFile("monitoring", script, host_script("metrics.sh", variables))
    values = {
        "name": textfile.unit(settings.service_name),
        "service": settings.service_name,
        "script": script,
        "directory": settings.monitoring.textfile_directory,
        "every_s": textfile.EVERY_S,
    }
    yield HostFile("monitoring", place.metrics_unit, unit_text("metrics", **values))
    timer = rendered_text("metrics.timer.j2", **values)
    yield HostFile("monitoring", place.metrics_timer, timer)


def _rendered(release: Release) -> Iterator[HostFile]:
    settings, database = release.settings, release.database
    place = paths(settings)
    yield from release_repositories(settings, release.os_major)
    if database:
        unit = unit_text(
            "database",
            hardening=shlex.join(commands.DATABASE_OPTIONS),
            database=database,
            socket=commands.POSTGRES_SOCKET,
            hba=commands.HBA,
            hba_file=commands.HBA_FILE,
            asked=shlex.join(commands.database_asked(database.service)),
            guard=_mount_guard(settings),
        )
        yield HostFile("service", place.database_unit, unit)
    for server in release.servers:
        path = place.unit if server.link == "current" else place.next_unit
        unit = unit_text("triton", settings=settings, server=server, guard=_mount_guard(settings))
        yield HostFile("service", path, unit)
    yield HostFile("network", place.guard_rules, guard_rules(release.guard))
    unit = unit_text(
        "guard", guard=release.guard, file=place.guard_rules, remember=remembered(settings.service_name)
    )
    yield HostFile("service", place.guard_unit, unit)
    if release.fronted:
        yield HostFile("front", place.front_config, front_config(release, release.servers[0]))
        unit = unit_text("front", settings=settings, configuration=place.front_config)
        yield HostFile("service", place.front_unit, unit)
    if release.door:
        yield HostFile("door", place.door_script, _door_script(release.door))
        unit = unit_text(
            "door",
            door=release.door,
            guard=_mount_guard(settings),
            guard_unit=release.guard.unit,
            script=place.door_script,
        )
        yield HostFile("door", place.door_unit, unit)
    yield from _exporter_files(release)
    if release.gateway:
        unit = unit_text(
            "gateway",
            gateway=release.gateway,
            guard=_mount_guard(settings),
            guard_unit=release.guard.unit,
            script=f"{release.gateway.directory}/{gateway.SCRIPT}",
        )
        yield HostFile("service", place.gateway_unit, unit)


def _door_script(wanted: door.Door) -> str:
    """What the door's unit runs."""
    variables = {
        "NAME": wanted.service,
        "USAGE": wanted.usage,
        "USER_ID": str(wanted.user),
        "IMAGE_RECORD": wanted.image_record,
        "URL": wanted.url,
        "RECORD": wanted.record,
    }
    return host_script("door.sh", variables, shell_function("run_it", wanted.run, "exec "))


def _exporter_files(release: Release) -> Iterator[HostFile]:
    """The exporters' units, what these run, and the list of a GPU's counters."""
    for exporter in release.exporters:
        yield from program_files(exporter, release.guard.unit, _mount_guard(release.settings))
        if exporter.counters:
            yield HostFile("monitoring", exporter.counters_path, exporter.counters)


def program_files(program: HostProgram, guard_unit: str, guard: str = "") -> Iterator[HostFile]:
    """A program's unit, and what that runs. `guard`: a line of the unit, see _mount_guard."""
    script = host_program.script_path(program.service)
    unit = unit_text("exporter", exporter=program, guard=guard, guard_unit=guard_unit, script=script)
    yield HostFile("monitoring", host_program.unit_path(program.service), unit)
    variables = {
        "NAME": program.service,
        "IMAGE_RECORD": program.image_record,
        "URL": program.url,
        "RECORD": program.record,
        "SHOWS": "\n".join(f"{metric} {least}" for metric, least in program.shows.items()),
        "SECONDS_AT_MOST": "60",
    }
    run = shell_function("run_it", program.run, "exec ")
    yield HostFile("monitoring", script, host_script("exporter.sh", variables, run))


def expected(release: Release) -> list[ExpectedFile]:
    """The same files, by their digests."""
    return [ExpectedFile(file.stage, file.path, digest(file.text)) for file in rendered(release).values()]


def guard_rules(guard: network.Guard) -> str:
    """Who may reach the server and whom it may reach, in nft's words."""
    return rendered_text("guard.nft.j2", guard=guard, led=network.LED)


def gateway_files(wanted: gateway.Gateway, secrets: gateway.Secrets) -> dict[str, str]:
    """The gateway's own files: name -> text. Two of them hold secrets: never printed, and never in `rendered`."""
    files = {
        gateway.CONFIGURATION: rendered_text(
            "gateway.conf.j2",
            gateway=wanted,
            mount=gateway.MOUNT,
            tls=gateway.TLS,
            keys=gateway.KEYS,
            methods=gateway.GRPC_METHODS,
            limits=gateway.LIMITS,
            limited=secrets.limited,
            next_header=door.NEXT[0],
            released=gateway.RELEASED,
        ),
        gateway.TLS: secrets.tls,
        gateway.KEYS: secrets.map,
        gateway.LIMITS: rendered_text("limits.conf.j2", limited=secrets.limited),
    }
    variables = {
        "NAME": wanted.service,
        "DIRECTORY": wanted.directory,
        "FILES": " ".join(gateway.FILES),
        "IMAGE_RECORD": wanted.image_record,
        "URL": wanted.local_url,
        "RECORD": wanted.record,
    }
    script = host_script("gateway.sh", variables, shell_function("run_it", wanted.run, "exec "))
    return {**files, gateway.SCRIPT: script}


def shell_function(name: str, argv: Sequence[str], prefix: str = "") -> str:
    """A shell function of one command, in which the script's own variables keep their meaning."""
    return f"{name}() {{\n    {prefix}{' '.join(map(serve.shell_word, argv))}\n}}\n"


def gateway_expected(wanted: gateway.Gateway, files: Mapping[str, str]) -> list[ExpectedFile]:
    """Its files on the host, by their digests alone."""
    return [
        ExpectedFile("gateway", f"{wanted.directory}/{name}", digest(text)) for name, text in files.items()
    ]


def gateway_loaded(wanted: gateway.Gateway, files: Mapping[str, str]) -> LoadedGateway:
    """What gateway.sh writes down once nginx runs from the wanted image and has read the files."""
    read = "".join(files[name] for name in gateway.FILES)
    return LoadedGateway(wanted.key, digest(read))


def remembered(service: str) -> str:
    """
    Shell words that write down what was loaded: the file's digest, then the table as the kernel lists it.

    The kernel's own list, because nft writes rules in other words than they were given. By way of a pipe: SELinux lets nft
    write to no file of /run.
    """
    listed = f"nft --stateless list table inet {network.table(service)}"
    remembered = f"{{ sha256sum <{network.rules_path(service)}; {listed}; }} | cat >{network.record(service)}"
    # the pipe has the exit code of its last command: a table that is not there is asked for before
    return f"{listed} >/dev/null && {remembered}"


def front_config(release: Release, first: Server) -> str:
    """
    haproxy's configuration.

    + first: the server that people are taken to; the other one is, where that one does not answer
    """
    others = [server for server in release.servers if server != first]
    listeners = [
        {"name": name, "port": port, "mode": mode, "number": number}
        for number, (name, port, mode) in enumerate(
            zip(("http", "grpc", "metrics"), release.ports, ("http", "tcp", "http"), strict=True)
        )
    ]
    return rendered_text(
        "front.cfg.j2",
        settings=release.settings,
        os_major=release.os_major,
        listeners=listeners,
        servers=[first, *others],
        socket=f"/run/{release.settings.service_name}-front.sock",
    )


def digest(text: str) -> str:
    """The SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
