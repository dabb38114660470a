"""What the preflight reads in addition to the host's state: GPU health, disks, clock, sources, locks and settings.

operations/facts/host_health.py fills it, and plan/preflight checks it. What could not be read is empty, None or absent
here: its check is then reported as not made, never as passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["ok", "warning", "failed", "not checked"]


@dataclass(frozen=True)
class GpuHealth:
    """One GPU, as nvidia-smi reports it; empty: not reported. Counters are sums over its kinds of memory."""

    index: int
    name: str
    memory_mib: int
    ecc: str = ""  # Enabled, Disabled or N/A
    uncorrectable: int | None = None  # since the driver was loaded
    uncorrectable_ever: int | None = None
    repair_pending: tuple[str, ...] = ()  # which kinds wait for a reset
    repair_failed: tuple[str, ...] = ()
    mig: str = ""
    mig_pending: str = ""
    persistence: str = ""
    fabric_state: str = ""
    fabric_status: str = ""
    recovery_action: str = ""


@dataclass(frozen=True)
class Space:
    """A file system under a path, in bytes; `inodes` is 0 if it has no such limit."""

    mount: str
    size: int
    free: int
    inodes: int
    inodes_free: int


@dataclass(frozen=True)
class Answer:
    """What curl reports of a source: its exit code, the HTTP status (000: none) and its error."""

    exit_code: int
    status: str
    error: str


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock file; an empty command: the process is gone."""

    path: str
    pid: int
    command: str


@dataclass(frozen=True)
class Health:
    """A host, as the preflight's probe found it."""

    os_release: Mapping[str, str] = field(default_factory=dict)
    architecture: str = ""
    user: str = ""  # numeric; 0 where sudo works
    shape: str = ""  # from OCI's instance metadata
    metadata: str = "not asked"  # why there is no shape; empty if there is one
    gpus: tuple[GpuHealth, ...] = ()
    gpu_problem: str = ""
    driver: str = ""
    xids: tuple[str, ...] | None = (
        None  # kernel messages since boot; None: the kernel's log could not be read
    )
    nvlinks: int | None = None  # links in all; None: not read
    nvlinks_inactive: tuple[str, ...] = ()
    switches: int = 0  # NVSwitches that the driver knows, and InfiniBand devices that manage some
    fabric_manager: str = ""  # version
    units: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    docker_root: str = "/var/lib/docker"
    disks: Mapping[str, Space] = field(default_factory=dict)  # path -> the file system it is on
    memory: Mapping[str, int] = field(default_factory=dict)  # MemTotal, MemAvailable, SwapTotal, in bytes
    clock_ahead_s: float | None = None  # compared with this machine's clock
    synchronized: str = ""  # yes or no
    names: Mapping[str, str] = field(default_factory=dict)  # host name -> address; empty: it has none
    sources: Mapping[str, Answer] = field(default_factory=dict)  # URL -> what it answered
    proxies: tuple[str, ...] = ()  # files that configure one
    listening: Mapping[int, str] | None = None  # TCP port -> program; None: not read
    locks: tuple[Holder, ...] = ()
    cloud_init: str = ""
    selinux: str = ""
    container_selinux: str = ""
    temporary: Mapping[str, str] = field(default_factory=dict)  # mount -> its options
    umask: str = ""
    ip_forward: str = ""
    kernel: str = ""
    next_kernel: str = ""  # what the next boot starts
    next_driver: str | None = None  # its nvidia.ko; empty: it has none; None: not read
    kernel_fixed: frozenset[str] | None = (
        None  # CVEs that the running kernel names as fixed; None: its package was not read
    )
    kernel_blocked: frozenset[str] = frozenset()  # modules that are kept out


@dataclass(frozen=True)
class HubAnswer:
    """The hub's answer to the operator's token for gated weights; `then` is what to do if it is refused."""

    verdict: Verdict
    found: str
    then: str = ""
