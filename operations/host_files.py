"""The files the tool writes outside its own directory, rendered: one place for the operations and for the probe."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from operations.plan import commands, gateway, network, serve
from operations.plan.local_disks import SENTINEL
from operations.plan.packages import DOCKER_KEY, TOOLKIT_KEY, for_os, system_repository_id, toolkit_url
from operations.plan.release import LOOPBACK, Release, Server
from operations.plan.settings import Settings
from operations.scripts import host_script

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"

DOCKER_REPOSITORY = "/etc/yum.repos.d/docker-ce.repo"
TOOLKIT_REPOSITORY = "/etc/yum.repos.d/nvidia-container-toolkit.repo"
SYSTEM_REPOSITORIES = "/etc/yum.repos.d/tritonhost.repo"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # no HTML here
    )


def unit_path(settings: Settings) -> str:
    """Where the service's unit is."""
    return f"/etc/systemd/system/{settings.service_name}.service"


def database_unit_path(settings: Settings) -> str:
    """Where the database's unit is, for models that have one."""
    return f"/etc/systemd/system/{settings.service_name}-database.service"


def front_config_path(settings: Settings) -> str:
    """Where the front's configuration is, for sites that have one."""
    return f"/etc/{settings.service_name}-front.cfg"


def front_unit_path(settings: Settings) -> str:
    """Where the front's unit is."""
    return f"/etc/systemd/system/{settings.service_name}-front.service"


def next_unit_path(settings: Settings) -> str:
    """Where the unit is that runs a release beside the one that serves."""
    return f"/etc/systemd/system/{settings.service_name}-next.service"


def gateway_unit_path(settings: Settings) -> str:
    """Where the gateway's unit is, for sites that have one."""
    return f"/etc/systemd/system/{gateway.service(settings.service_name)}.service"


def gateway_paths(settings: Settings) -> list[str]:
    """Where the gateway's own files are, its certificate and keys among them: nothing there without a gateway."""
    return [f"{gateway.directory(settings.data_root)}/{name}" for name in (*gateway.FILES, gateway.SCRIPT)]


def mount_unit_text(settings: Settings) -> str:
    """The unit that mounts the local disks; `@UUID@` stands for that of the file system, which the host knows."""
    return _environment().get_template("data.mount.j2").render(data_root=settings.data_root)


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


def guard_path(settings: Settings) -> str:
    """Where the rules are that say who may reach the server, and whom it may reach."""
    return f"/etc/{settings.service_name}-guard.nft"


def guard_unit_path(settings: Settings) -> str:
    """Where the unit is that loads them."""
    return f"/etc/systemd/system/{network.unit(settings.service_name)}"


def rendered(release: Release) -> dict[str, str]:
    """Every such file as it should be: path -> text."""
    settings, os_major, database = release.settings, release.os_major, release.database
    repository = _environment().get_template("dnf.repo.j2")
    files = {
        DOCKER_REPOSITORY: repository.render(
            id="docker-ce-stable",
            title="Docker CE Stable",
            url=for_os(settings.docker_repository_url, os_major),
            key=f"file://{DOCKER_KEY}",
            signed_packages=True,
            signed_metadata=False,
            beside_modules=True,
        ),
        TOOLKIT_REPOSITORY: repository.render(
            id="nvidia-container-toolkit",
            title="NVIDIA Container Toolkit",
            url=toolkit_url(settings, os_major),
            key=f"file://{TOOLKIT_KEY}",
            signed_packages=settings.nvidia_container_toolkit_gpgcheck,
            signed_metadata=True,
            beside_modules=False,
        ),
    }
    if settings.system_repositories:
        files[SYSTEM_REPOSITORIES] = (
            _environment()
            .get_template("system.repo.j2")
            .render(
                repositories={
                    system_repository_id(name): for_os(url, os_major)
                    for name, url in sorted(settings.system_repositories.items())
                }
            )
        )
    if database:
        asked = shlex.join(commands.psql(database.service, "--list", host=LOOPBACK))
        template = _environment().get_template("database.service.j2")
        files[database_unit_path(settings)] = template.render(
            database=database, socket=commands.POSTGRES_SOCKET, asked=asked, guard=_mount_guard(settings)
        )
    for server in release.servers:
        path = unit_path(settings) if server.link == "current" else next_unit_path(settings)
        template = _environment().get_template("triton.service.j2")
        files[path] = template.render(settings=settings, server=server, guard=_mount_guard(settings))
    files[guard_path(settings)] = _environment().get_template("guard.nft.j2").render(guard=release.guard)
    files[guard_unit_path(settings)] = (
        _environment()
        .get_template("guard.service.j2")
        .render(guard=release.guard, file=guard_path(settings), remember=_remember(settings))
    )
    if release.fronted:
        files[front_config_path(settings)] = front_config(release, release.servers[0])
        files[front_unit_path(settings)] = (
            _environment()
            .get_template("front.service.j2")
            .render(settings=settings, configuration=front_config_path(settings))
        )
    if release.gateway:
        files[gateway_unit_path(settings)] = (
            _environment()
            .get_template("gateway.service.j2")
            .render(
                gateway=release.gateway,
                guard=_mount_guard(settings),
                guard_unit=release.guard.unit,
                script=f"{release.gateway.directory}/{gateway.SCRIPT}",
            )
        )
    return files


def gateway_files(wanted: gateway.Gateway, secrets: gateway.Secrets) -> dict[str, str]:
    """The gateway's own files: name -> text. Two of them hold secrets: never printed, and never in `rendered`."""
    configuration = _environment().get_template("gateway.conf.j2")
    files = {
        gateway.CONFIGURATION: configuration.render(
            gateway=wanted,
            mount=gateway.MOUNT,
            tls=gateway.TLS,
            keys=gateway.KEYS,
            methods=gateway.GRPC_METHODS,
        ),
        gateway.TLS: secrets.tls,
        gateway.KEYS: secrets.map,
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


def gateway_digests(wanted: gateway.Gateway, files: Mapping[str, str]) -> dict[str, str]:
    """Where its files are on the host: path -> sha256 of the text."""
    return digests({f"{wanted.directory}/{name}": text for name, text in files.items()})


def gateway_loaded(wanted: gateway.Gateway, files: Mapping[str, str]) -> str:
    """What gateway.sh writes down once nginx runs from the wanted image and has read the files."""
    read = "".join(files[name] for name in gateway.FILES)
    return f"{wanted.key} {hashlib.sha256(read.encode()).hexdigest()}"


def _remember(settings: Settings) -> str:
    """
    Shell words that write down what was loaded: the file's digest, then the table as the kernel lists it.

    The kernel's own list, because nft writes rules in other words than they were given. By way of a pipe: SELinux lets nft
    write to no file of /run.
    """
    service = settings.service_name
    listed = f"nft --stateless list table inet {network.table(service)}"
    return f"{{ sha256sum <{guard_path(settings)}; {listed}; }} | cat >{network.record(service)}"


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
    return (
        _environment()
        .get_template("front.cfg.j2")
        .render(
            settings=release.settings,
            os_major=release.os_major,
            listeners=listeners,
            servers=[first, *others],
            socket=f"/run/{release.settings.service_name}-front.sock",
        )
    )


def digests(files: dict[str, str]) -> dict[str, str]:
    """path -> sha256 of the text."""
    return {path: hashlib.sha256(text.encode()).hexdigest() for path, text in files.items()}
