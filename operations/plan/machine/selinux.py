"""SELinux stays enforcing: what docker's containers mount is labelled for them, and booleans allow what they need.

With docker's SELinux support on, a container is container_t and may read container_file_t. One rule labels the whole data
root: `:z` would relabel hundreds of GB at each start.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from operations.plan.inventory.settings import Settings

TYPE = "container_file_t"
# access of containers to a GPU's device files; newer container-selinux has a boolean for exactly that
# (https://github.com/containers/container-selinux/issues/306). The first one that the policy has is used.
GPU_BOOLEANS = ("container_use_xserver_devices", "container_use_devices")
# without it haproxy may use only a few well-known ports (selinux-policy, haproxy.te)
FRONT_BOOLEAN = "haproxy_connect_any"
BOOLEANS = (*GPU_BOOLEANS, FRONT_BOOLEAN)
# the transient units' own files, which their containers mount
UNIT_FILES = "/run/tritonhost"
# The two names of /run, by one of which a policy knows it: Enterprise Linux 8 and 9 by the first, newer policies by the second. semanage
# refuses a rule for the other one ("conflicts with equivalency rule").
NAMES_OF_RUN = ("/var/run", "/run")


def patterns(settings: Settings, run: str = NAMES_OF_RUN[0]) -> list[str]:
    """
    The patterns of semanage-fcontext(8) for what containers mount, and everything below.

    + run: the policy's name of /run
    """
    escaped = settings.data_root.replace(".", "\\.")
    return [f"{escaped}(/.*)?", f"{run}{UNIT_FILES.removeprefix('/run')}(/.*)?"]


def level(service: str) -> str:
    """
    One MCS level for the server and its database, which talk over a socket.

    docker would choose a different one for each container, and SELinux would then forbid the connection.
    """
    first, second = divmod(zlib.crc32(service.encode()) % (512 * 511), 511)
    return f"s0:c{first},c{513 + second}"


def booleans(settings: Settings, found: Mapping[str, bool]) -> list[str]:
    """Those that have to be on, of those that the host's policy has: name -> whether it is on."""
    gpu = [name for name in GPU_BOOLEANS if name in found][:1]
    front = [FRONT_BOOLEAN] if settings.front != "none" and FRONT_BOOLEAN in found else []
    return gpu + front


def type_of(context: str) -> str:
    """container_file_t of system_u:object_r:container_file_t:s0."""
    return context.split(":")[2] if context.count(":") >= 2 else ""


def missing_booleans(settings: Settings, found: Mapping[str, bool]) -> list[str]:
    """The booleans that are off and have to be on."""
    return [name for name in booleans(settings, found) if not found[name]]
