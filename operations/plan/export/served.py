"""What another engine needs of a release: its image, files, GPUs, and the command that serves it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from operations.plan.artifacts import commands
from operations.plan.errors import PlanError
from operations.plan.inventory.settings import Settings
from operations.plan.profile.field_types import mib_of
from operations.plan.release import CACHE, Release
from operations.plan.serving.serve import NEW_KEY, shell_word

# a name with its registry and a digest: a tag may be pointed elsewhere
IMAGE = re.compile(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+(:[A-Za-z0-9._-]+)?@sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Served:
    """
    One release as it is served on one host.

    + name: of the service, as DNS has it
    + shape: OCI's, or empty
    + command: a line of sh
    + mounts: path below data_root on a host -> path in the container, read-only
    + gpu: nvidia-smi's name
    + ports: HTTP, gRPC, metrics
    + cache: a path in the container that the server writes; empty: none
    + hosts: the hosts of the inventory that have it
    """

    name: str
    model: str
    release: str
    image: str
    shape: str
    command: str
    environment: Mapping[str, str]
    data_root: str
    mounts: Mapping[str, str]
    gpu: str
    gpus: int
    ports: tuple[int, int, int]
    shm_mib: int
    user: int
    group: int
    start_s: int
    stop_s: int
    cache: str = ""
    hosts: tuple[str, ...] = ()

    @property
    def without_cache(self) -> dict[str, str]:
        """The environment where there is no such path: what would be kept is made at each start."""
        return {
            name: value
            for name, value in self.environment.items()
            if not self.cache or not value.startswith(self.cache)
        }


def served(release: Release, image: str, hosts: tuple[str, ...]) -> Served:
    """
    A release in other words.

    + image: the serving image in a registry, with its digest; empty takes the published one that the release serves from

    Raises PlanError for an image that is made on the hosts and is in no registry, and for a model that needs a second container.
    """
    settings = release.settings
    if release.database:
        then = "keep such a service on its host"
        raise PlanError(
            "model", settings.model, "one without a database beside it", then, reference="no-export"
        )
    root = f"{release.data_root}/"
    mounts = {release.path: commands.RELEASE, **release.mounts}
    user, _, group = settings.server_user.partition(":")
    return Served(
        name=dns_name(settings),
        model=settings.model,
        release=release.id,
        image=image or _published(release),
        shape=settings.shape or "",
        command=_command(release),
        environment=release.server_environment,
        data_root=release.data_root,
        mounts={path.removeprefix(root): target for path, target in mounts.items()},
        gpu=release.gpus[0].name,
        gpus=release.profile.gpus_needed,
        ports=release.ports,
        shm_mib=mib_of(release.profile.server.shm_size),
        user=int(user),
        group=int(group or user),
        start_s=settings.start_timeout_s,
        stop_s=settings.stop_timeout_s,
        cache=CACHE if release.cache else "",
        hosts=hosts,
    )


def dns_name(settings: Settings) -> str:
    """A name that begins with a letter and has 40 characters at most, so that others may be made of it."""
    text = re.sub(r"[^a-z0-9]+", "-", f"{settings.service_name}-{settings.model}".lower()).strip("-")
    return re.sub(r"^[^a-z]+", "", text)[:40].strip("-") or "triton"


def _command(release: Release) -> str:
    return f"{NEW_KEY}; exec {' '.join(shell_word(word) for word in release.server_command)}"


def _published(release: Release) -> str:
    """The image that the hosts pull and serve from as it is."""
    if release.image.inputs.get("source") != "pull":
        raise PlanError(
            "--image",
            "nothing",
            "the serving image in a registry, as REGISTRY/NAME@sha256:DIGEST",
            f"the hosts make it: docker tag {release.image.tag} REGISTRY/NAME:TAG on one of them, and push it",
            reference="no-image",
        )
    return next(word for command in release.image.commands for word in command if "@sha256:" in word)
