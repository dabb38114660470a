"""The settings of a lab, read once from the environment."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tests.lab.shell import LabError

REPOSITORY = Path(__file__).resolve().parents[2]
MOST_HOSTS = 20
DEFAULT_NETWORK = "10.99.0"
# Each kind of test has a network of its own, so that all can run at once: variable -> default
NETWORKS = {
    "LAB_BUNDLE_NET": "10.98.1",
    "LAB_E2E_NET": "10.98.0",
    "LAB_E2E_NET_8": "10.98.8",
    "LAB_FAULTS_NET": "10.94.0",
    "LAB_FLEET_NET": "10.95.0",
    "LAB_FRESH_NET": "10.92.0",
    "LAB_GUIDES_NET": "10.93.0",
    "LAB_HARDENED_NET": "10.96.0",
    "LAB_OWN_NET": "10.97.0",
    "LAB_SERVICES_NET": "10.98.30",
    "LAB_THREE_NET": "10.98.90",
}
# Tests within a root of this machine share its network and its kernel's names: their networks are lower by this number.
LOWER = "LAB_NETS_LOWER"
OS_RELEASES = {8: "8.10", 9: "9.5"}

VARIABLES = """environment:
  LAB_CACHE   what is downloaded and built, kept by `down` (default /var/cache/tritonhost-lab)
  LAB_STATE   what belongs to the running lab, removed by `down` (default /var/lib/tritonhost-lab)
  LAB_OS      9 or 8: which Oracle Linux the hosts say they are (default 9)
  LAB_GPUS    GPU model and count of every host, NAME:COUNT (default "NVIDIA A10:1")
  LAB_DISK    size of a host's disk in MiB (default 12288)
  LAB_ROOT    size of its root partition before it is grown, in MiB (default 8192)
  LAB_MEMORY  memory limit of a host in MiB (default 6144)
  LAB_POOL    largest size of all hosts' disks together, in MiB (default 65536)
  LAB_NET     first three numbers of the lab's network (default 10.99.0); another value is another lab"""


@dataclass(frozen=True)
class Settings:
    """One lab: its folders and the form of its hosts. Sizes are in MiB."""

    cache: Path
    state: Path
    net: str
    os_major: int
    gpus: str
    disk: int
    root: int
    memory: int
    pool: int

    @property
    def tag(self) -> str:
        """The prefix of all names of this lab on the machine: cgroups, network namespaces, links."""
        if self.net == DEFAULT_NETWORK:
            return "lab"
        _, second, third = self.net.split(".")
        return f"lab{second}x{third}"

    @property
    def bridge(self) -> str:
        return f"{self.tag}br0"

    @property
    def gateway(self) -> str:
        return f"{self.net}.1"

    @property
    def mirror(self) -> str:
        return f"http://{self.gateway}:8000"

    @property
    def hub(self) -> str:
        return f"http://{self.gateway}:8001"

    @property
    def registry(self) -> str:
        return f"{self.gateway}:5000"

    @property
    def record(self) -> Path:
        """lab.json: what tests and inventories read about the running lab."""
        return self.state / "lab.json"

    @property
    def ssh_key(self) -> Path:
        return self.state / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.state / "known_hosts"

    @property
    def pool_image(self) -> Path:
        suffix = "" if self.net == DEFAULT_NETWORK else f"-{self.net}"
        return self.cache / f"pool{suffix}.img"

    @property
    def pool_mount(self) -> Path:
        return self.state / "pool"

    def address(self, number: int) -> str:
        return f"{self.net}.{10 + number}"


def network_of(variable: str) -> str:
    """The network of a kind of test: from its variable, otherwise the default; lowered within a root."""
    first, second, third = os.environ.get(variable, NETWORKS[variable]).split(".")
    return f"{first}.{int(second) - int(os.environ.get(LOWER, '0'))}.{third}"


def _mebibytes(name: str, default: int) -> int:
    given = os.environ.get(name, str(default))
    if not given.isdecimal() or int(given) == 0:
        raise LabError(f"{name} is {given!r}, expected a number of MiB such as {default}")
    return int(given)


def from_environment() -> Settings:
    """The settings of the LAB_* variables; LabError names an invalid variable."""
    net = os.environ.get("LAB_NET", DEFAULT_NETWORK)
    if not re.fullmatch(r"10\.\d{1,3}\.\d{1,3}", net) or any(int(part) > 255 for part in net.split(".")):
        raise LabError(f"LAB_NET is {net!r}, expected three numbers such as 10.98.0")
    os_major = os.environ.get("LAB_OS", "9")
    if os_major not in {str(major) for major in OS_RELEASES}:
        raise LabError(f"LAB_OS is {os_major!r}, expected 8 or 9")
    gpus = os.environ.get("LAB_GPUS", "NVIDIA A10:1")
    if not re.fullmatch(r"[^:\n]+:\d+", gpus):
        raise LabError(f"LAB_GPUS is {gpus!r}, expected NAME:COUNT such as 'NVIDIA A10:1'")
    suffix = "" if net == DEFAULT_NETWORK else f"-{net}"
    settings = Settings(
        cache=Path(os.environ.get("LAB_CACHE", "/var/cache/tritonhost-lab")).absolute(),
        state=Path(os.environ.get("LAB_STATE", f"/var/lib/tritonhost-lab{suffix}")).absolute(),
        net=net,
        os_major=int(os_major),
        gpus=gpus,
        disk=_mebibytes("LAB_DISK", 12288),
        root=_mebibytes("LAB_ROOT", 8192),
        memory=_mebibytes("LAB_MEMORY", 6144),
        pool=_mebibytes("LAB_POOL", 65536),
    )
    if settings.root + 128 > settings.disk:
        raise LabError(
            f"LAB_ROOT is {settings.root}, expected at most LAB_DISK - 128 = {settings.disk - 128}"
        )
    return settings
