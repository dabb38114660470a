"""dnf's repositories: docker's, NVIDIA's, and those of the site."""

from __future__ import annotations

from collections.abc import Iterator

from operations.plan.inventory.settings import Settings
from operations.plan.machine.packages import (
    DOCKER_ID,
    DOCKER_KEY,
    TOOLKIT_ID,
    TOOLKIT_KEY,
    for_os,
    system_repository_id,
    toolkit_url,
)
from operations.remote.rendering import HostFile, rendered_text

DOCKER_REPOSITORY = "/etc/yum.repos.d/docker-ce.repo"
TOOLKIT_REPOSITORY = "/etc/yum.repos.d/nvidia-container-toolkit.repo"
SYSTEM_REPOSITORIES = "/etc/yum.repos.d/tritonhost.repo"
PATHS = (DOCKER_REPOSITORY, TOOLKIT_REPOSITORY, SYSTEM_REPOSITORIES)


def release_repositories(settings: Settings, os_major: str) -> Iterator[HostFile]:
    """Those of a host that serves."""
    yield from docker_repositories(settings, os_major)
    text = rendered_text(
        "dnf.repo.j2",
        id=TOOLKIT_ID,
        title="NVIDIA Container Toolkit",
        url=toolkit_url(settings, os_major),
        key=f"file://{TOOLKIT_KEY}",
        signed_packages=settings.nvidia_container_toolkit_gpgcheck,
        signed_metadata=True,
        beside_modules=False,
    )
    yield HostFile("packages", TOOLKIT_REPOSITORY, text)


def docker_repositories(settings: Settings, os_major: str) -> Iterator[HostFile]:
    """Docker's, and those of the site."""
    text = rendered_text(
        "dnf.repo.j2",
        id=DOCKER_ID,
        title="Docker CE Stable",
        url=for_os(settings.docker_repository_url, os_major),
        key=f"file://{DOCKER_KEY}",
        signed_packages=True,
        signed_metadata=False,
        beside_modules=True,
    )
    yield HostFile("packages", DOCKER_REPOSITORY, text)
    yield from system_repositories(settings, os_major)


def system_repositories(settings: Settings, os_major: str) -> Iterator[HostFile]:
    """Those of the site, for what is the distribution's own."""
    if settings.system_repositories:
        repositories = {
            system_repository_id(name): for_os(url, os_major)
            for name, url in sorted(settings.system_repositories.items())
        }
        yield HostFile(
            "packages", SYSTEM_REPOSITORIES, rendered_text("system.repo.j2", repositories=repositories)
        )
