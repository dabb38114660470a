"""What a host's record holds: what was there before the first change, and what has come and gone with this tool since.

A teardown removes what the record says that this tool brought, and nothing else. Without the record, nobody could tell docker from a
docker that was there before.
"""

from __future__ import annotations

from collections.abc import Iterable

from operations.plan.inventory.monitoring_settings import TEXTFILES
from operations.plan.inventory.settings import Settings
from operations.plan.machine import daemon_json
from operations.plan.machine.local_disks import ARRAY_FILE
from operations.plan.machine.packages import PACKAGE_KEYS, RECORD
from operations.plan.machine.version_locks import LOCK_LIST

DIRECTORY = RECORD
GROUP = "docker"  # made by docker-ce's package, which leaves it behind
# what docker and its clients leave behind when their packages go
DOCKER_STATE = (
    *("/var/lib/docker", "/var/lib/containerd", "/etc/docker", "/etc/containerd", "/opt/containerd"),
    *("/etc/nvidia-container-runtime", "/etc/cdi", "/root/.docker", "/etc/cni"),
    # docker tells firewalld of its own zone, which stays
    *("/etc/firewalld/zones/docker.xml", "/etc/firewalld/policies/docker-forwarding.xml"),
)
# what packages and exporters leave behind, and nobody needs once it is empty: the inner ones first
EMPTIED = ("/etc/gitconfig", LOCK_LIST, TEXTFILES, TEXTFILES.rpartition("/")[0])
# files of the vendors that a deploy overwrites
OVERWRITTEN = (
    "/etc/yum.repos.d/docker-ce.repo",
    "/etc/yum.repos.d/nvidia-container-toolkit.repo",
    daemon_json.PATH,
    *PACKAGE_KEYS,
)


def place(service: str, data_root: str) -> str:
    """The record's line of a service: its name, a tab, its data root."""
    return f"{service}\t{data_root}"


def places(settings: Settings) -> list[str]:
    """The record's lines of the host's services."""
    return [place(name, settings.data_root) for name in (settings.service_name, *settings.beside)]


def noted(data_roots: Iterable[str]) -> list[str]:
    """The paths of which the record says whether they were there before."""
    return [*DOCKER_STATE, *EMPTIED, ARRAY_FILE.rpartition("/")[0], *sorted(data_roots)]
