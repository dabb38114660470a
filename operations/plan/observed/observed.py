"""What a host is, as one look found it. operations/facts/host_state.py fills it; difference.py compares it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from operations.plan.capacity.gpu import Gpu
from operations.plan.observed.firewall import Firewall
from operations.plan.permissions import Permissions


class Outcome(Enum):
    """What became of a release, in the words of files/host/judge.sh."""

    PROVEN = "proven"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class ReleaseVerdict:
    """
    What the host remembers of a release.

    + outcome: None where this version does not know the word
    + text: the whole line: the outcome, when, why
    """

    outcome: Outcome | None
    text: str

    @property
    def rejected(self) -> bool:
        """Whether a run tries the release again only if the operator says so."""
        return self.outcome in (Outcome.FAILED, Outcome.WITHDRAWN)


@dataclass(frozen=True)
class Measurements:
    """
    What was measured of a release when it was proven; None where it was not.

    + bench_first_ms, bench_rate: through the door, by the requests that bench_of names
    """

    load_s: float | None = None
    answer_s: float | None = None
    gpu_mib: int | None = None
    bench_first_ms: float | None = None
    bench_rate: float | None = None
    bench_of: str = ""


@dataclass(frozen=True)
class StoredArtifact:
    """One directory with a manifest. `problem`: why it does not count as complete, or empty."""

    kind: str
    key: str
    inputs: Mapping[str, object]
    problem: str = ""


@dataclass(frozen=True)
class Container:
    """The serving container."""

    id: str
    running: bool
    started_at: str
    image_id: str
    labels: Mapping[str, str]
    sources: frozenset[str] = frozenset()  # the host's paths that are mounted into it
    networks: frozenset[str] = frozenset()  # docker's, by name
    ports: frozenset[int] = frozenset()  # of the host, which docker forwards to it


@dataclass(frozen=True)
class PhysicalVolume:
    """One of LVM's, in bytes."""

    name: str
    group: str
    size: int
    free: int
    device_size: int


@dataclass(frozen=True)
class RootFileSystem:
    """The root file system and what is under it, in bytes; 0 where it could not be read."""

    source: str
    type: str
    size: int
    disk_size: int
    device_size: int = 0  # of the device that holds the file system
    layers: tuple[str, ...] = ()  # lsblk's types, from that device down: lvm, part, disk
    disk: str = ""  # the kernel's name, such as sda
    partition: str = ""  # and of the partition; empty where the whole disk is used
    number: str = ""
    room: int = 0  # free on the disk right behind the partition
    volumes: tuple[PhysicalVolume, ...] = ()  # all of the host


@dataclass(frozen=True)
class Directory:
    """One directory of a path, its mode as a number, and the id of its user."""

    path: str
    mode: int
    user: str


@dataclass(frozen=True)
class DataRoot:
    """Where the data root is, or would be; empty where it could not be read."""

    kind: str = ""  # of the nearest path that is there: directory
    resolved: str = ""  # without symbolic links
    mount: str = ""  # the mount point of the file system that holds it
    source: str = ""
    type: str = ""
    options: tuple[str, ...] = ()
    entries: bool = False  # it holds something
    marked: bool = False  # it holds the sentinel of the local disks
    directories: tuple[Directory, ...] = ()  # from / to it, as far as they are there


@dataclass(frozen=True)
class Signature:
    """What wipefs finds on a device."""

    type: str
    label: str = ""
    uuid: str = ""


@dataclass(frozen=True)
class BlockDevice:
    """One of lsblk's."""

    name: str  # the kernel's
    type: str
    size: int = 0
    transport: str = ""  # of an NVMe disk: pcie, tcp, rdma; empty where the kernel does not say
    mounts: tuple[str, ...] = ()
    children: tuple[BlockDevice, ...] = ()


@dataclass(frozen=True)
class LocalDisks:
    """Block devices, and what is written on those that may be local disks; only read where the inventory wants them."""

    devices: tuple[BlockDevice, ...] = ()
    signatures: Mapping[str, tuple[Signature, ...]] = field(default_factory=dict)  # by device, where read
    unit: Mapping[str, str] = field(default_factory=dict)  # of the mount
    array_file: str = ""  # what mdadm is told of the array
    unfinished: str = ""  # the UUID of what a run began to make on them, until it is made
    # without a signature, and with something other than zeros where it was looked at
    written: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DatabaseContents:
    """What is in the database of documents: the schema's version, None where it is not known, and vectors by encoder."""

    version: int | None = None
    vectors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedGateway:
    """What the gateway's unit wrote down: the key of the container that runs, and the digest of what nginx has read."""

    key: str = ""
    digest: str = ""


@dataclass(frozen=True)
class GuardRules:
    """The guard's rules in the kernel: the digest of the file they were loaded from, or that they were changed since."""

    digest: str = ""
    changed: bool = False


@dataclass(frozen=True)
class SELinux:
    """
    SELinux, where the kernel has it.

    + enforcing: or permissive
    + booleans: name -> whether it is on, of those we know that the policy has
    + rule, label: the data root's context, by the policy and its own; None where it could not be read
    """

    enforcing: bool = True
    booleans: Mapping[str, bool] = field(default_factory=dict)
    rule: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Observed:
    """A host, as it was seen in one round trip."""

    noise: str = ""  # what the login shell says of itself, before anything it is asked
    os_release: Mapping[str, str] = field(default_factory=dict)
    architecture: str = ""
    kernel: str = ""  # as uname -r prints it
    packages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name -> epoch:version-release
    file_digests: Mapping[str, str] = field(default_factory=dict)  # path -> sha256
    version_locks: tuple[str, ...] = ()  # the lines of dnf's list
    daemon_json: str = ""
    units: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    detached_units: tuple[str, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)  # tag -> image id
    image_records: Mapping[str, str] = field(default_factory=dict)  # image key -> the id it was made with
    container: Container | None = None
    artifacts: Mapping[tuple[str, str], StoredArtifact] = field(default_factory=dict)
    current: str = ""  # release id
    previous: str = ""
    alone: str = ""  # of a host with several services: the release that it served when it had one
    verdicts: Mapping[str, ReleaseVerdict] = field(default_factory=dict)  # by release id
    release_digests: Mapping[str, str] = field(default_factory=dict)  # of `current`: relative path -> sha256
    release_manifest: Mapping[str, str] = field(default_factory=dict)  # the same, as its manifest records it
    inodes: Mapping[str, str] = field(default_factory=dict)
    root: RootFileSystem = RootFileSystem("", "", 0, 0)
    data_root: DataRoot = DataRoot()
    local: LocalDisks = field(default_factory=LocalDisks)
    memory: int = 0  # of the host, in bytes; 0 where it could not be read, as for the next
    data_free: int = 0  # of the file system that holds the data root
    measurements: Mapping[str, Measurements] = field(default_factory=dict)  # by release id
    listening: frozenset[int] = frozenset()  # TCP ports
    gpus: tuple[Gpu, ...] = ()
    gpu_problem: str = ""
    gpu_remarks: tuple[str, ...] = ()  # what nvidia-smi said beside its GPUs
    database: DatabaseContents = field(default_factory=DatabaseContents)
    ready: Mapping[str, str] = field(default_factory=dict)  # url -> HTTP status
    gateway: LoadedGateway = LoadedGateway()
    door: str = ""  # the key of the door's container that its unit wrote down
    exporters: Mapping[str, str] = field(default_factory=dict)  # by unit, as their units wrote down
    # of the gateway's directory and what is in it, by path
    gateway_modes: Mapping[str, Permissions] = field(default_factory=dict)
    # by path, of what root runs or the server reads, and is not root's alone or not to be read
    exposed: Mapping[str, Permissions] = field(default_factory=dict)
    guard: GuardRules = GuardRules()
    firewall: Firewall = field(default_factory=Firewall)
    selinux: SELinux | None = None  # None: the kernel has none

    @property
    def serving(self) -> str:
        """The id of the release whose server runs; empty where none does, or it is not ours."""
        running = self.container is not None and self.container.running
        return self.container.labels.get("tritonhost.release", "") if self.container and running else ""

    def active(self, unit: str) -> bool:
        """Whether a service's unit is active: its models answered when it started. `unit`: without .service."""
        return self.units.get(f"{unit}.service", {}).get("ActiveState") == "active"

    def runs(self, unit: str) -> bool:
        """Whether a service's unit is active, or was about to be. `unit`: without .service."""
        return self.units.get(f"{unit}.service", {}).get("ActiveState") in ("active", "activating")

    @property
    def os_major(self) -> str:
        """Oracle Linux's major version, such as 9; empty where it is not known."""
        return self.os_release.get("VERSION_ID", "").split(".")[0]
