"""The files the tool writes outside its own directory, rendered: one place for the operations and for the probe."""

from __future__ import annotations

import hashlib
import shlex
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from operations.plan import commands
from operations.plan.packages import for_os
from operations.plan.release import Database
from operations.plan.settings import Settings

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"

DOCKER_REPOSITORY = "/etc/yum.repos.d/docker-ce.repo"
TOOLKIT_REPOSITORY = "/etc/yum.repos.d/nvidia-container-toolkit.repo"
DOCKER_KEY = "/etc/pki/rpm-gpg/RPM-GPG-KEY-docker-ce"
TOOLKIT_KEY = "/etc/pki/rpm-gpg/RPM-GPG-KEY-nvidia-container-toolkit"


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


def rendered(settings: Settings, os_major: str, database: Database | None = None) -> dict[str, str]:
    """Every such file as it should be: path -> text."""
    units = {}
    if database:
        asked = shlex.join(commands.psql(database.service, "--list"))
        units[database_unit_path(settings)] = (
            _environment()
            .get_template("database.service.j2")
            .render(database=database, socket=commands.POSTGRES_SOCKET, asked=asked)
        )
    repository = _environment().get_template("dnf.repo.j2")
    return {
        DOCKER_REPOSITORY: repository.render(
            id="docker-ce-stable",
            title="Docker CE Stable",
            url=for_os(settings.docker_repository_url, os_major),
            key=f"file://{DOCKER_KEY}",
            signed_metadata=False,
        ),
        TOOLKIT_REPOSITORY: repository.render(
            id="nvidia-container-toolkit",
            title="NVIDIA Container Toolkit",
            url=for_os(settings.nvidia_container_toolkit_repository_url, os_major),
            key=f"file://{TOOLKIT_KEY}",
            signed_metadata=True,
        ),
        **units,
        unit_path(settings): _environment().get_template("triton.service.j2").render(settings=settings),
    }


def digests(files: dict[str, str]) -> dict[str, str]:
    """path -> sha256 of the text."""
    return {path: hashlib.sha256(text.encode()).hexdigest() for path, text in files.items()}
