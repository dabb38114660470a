"""A wave: driver and kernel at the inventory's versions, and what a host was before. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from operations.plan.artifacts.artifact import HostCommand
from operations.plan.artifacts.keys import key_of
from operations.plan.inventory.wave_settings import WaveSettings
from operations.plan.machine.packages import exact, for_os, same_version

STAGE = "driver and kernel"
# what the host was, while a wave is under way
RECORD = "/var/lib/tritonhost-wave"
PREFIX = "wave-"  # of its verdict, beside those of releases


@dataclass(frozen=True)
class Machine:
    """
    What a host says of itself.

    + boot: the id of its boot
    + kernel: as uname -r prints it
    + default: the kernel of the next boot, as grubby prints its path; empty: not known
    + drivers: of each GPU
    + fabric: whether the fabric manager runs; empty: there is none
    + packages: name -> version, of those asked for that are installed
    """

    boot: str
    kernel: str
    default: str
    drivers: tuple[str, ...]
    fabric: str
    packages: Mapping[str, str]

    def lines(self) -> list[str]:
        """As files/host/machine.sh prints it."""
        return [
            f"boot: {self.boot}",
            f"kernel: {self.kernel}",
            f"default: {self.default}",
            *(f"driver: {driver}" for driver in self.drivers),
            *([f"fabric: {self.fabric}"] if self.fabric else []),
            *(f"package: {name} {version}" for name, version in self.packages.items()),
            "end: yes",
        ]


def verdict(settings: WaveSettings) -> str:
    """The name under which the host keeps what became of it."""
    return f"{PREFIX}{key_of({'packages': dict(settings.packages), 'driver': settings.driver, 'kernel': settings.kernel})}"


def pins(settings: WaveSettings, os_major: str) -> dict[str, str]:
    """The packages at their versions."""
    return {name: for_os(version, os_major) for name, version in settings.packages.items()}


def rows(
    settings: WaveSettings,
    os_major: str,
    installed: Mapping[str, tuple[str, ...]],
    driver: str,
    kernel: str,
) -> Iterator[tuple[str, str, str]]:
    """
    What differs: what, found, wanted.

    + installed: name -> versions
    + driver, kernel: that run; empty: not known
    """
    for name, version in pins(settings, os_major).items():
        found = installed.get(name, ())
        if not any(same_version(version, each) for each in found):
            yield name, ", ".join(found) or "not installed", version
    for what, found_version, wanted in (
        ("running driver", driver, settings.driver),
        ("running kernel", kernel, settings.kernel),
    ):
        if wanted and found_version and found_version != wanted:
            yield what, found_version, f"{wanted}, after a reboot"


def is_there(settings: WaveSettings, os_major: str, found: Machine) -> bool:
    """Whether the host is what the wave is for."""
    installed = {name: (version,) for name, version in found.packages.items()}
    drivers = {*found.drivers}
    driver = drivers.pop() if len(drivers) == 1 else ""
    known = bool(driver) or settings.driver is None
    return known and not any(rows(settings, os_major, installed, driver, found.kernel))


def problem(settings: WaveSettings, before: Machine, after: Machine) -> str:
    """Why a host that came back is not what the wave was for; empty: it is."""
    if after.boot == before.boot:
        return "found the same boot, expected a new one"
    if settings.kernel and after.kernel != settings.kernel:
        return f"found kernel {after.kernel}, expected {settings.kernel}"
    if len(after.drivers) != len(before.drivers):
        return f"found {len(after.drivers)} GPUs, expected {len(before.drivers)}"
    wrong = sorted({driver for driver in after.drivers if settings.driver and driver != settings.driver})
    if wrong:
        return f"found driver {', '.join(wrong)}, expected {settings.driver}"
    return _fabric(before, after)


def as_before(before: Machine, after: Machine) -> str:
    """Why a host that was taken back is not what it was; empty: it is."""
    if after.kernel != before.kernel:
        return f"found kernel {after.kernel}, expected {before.kernel}"
    if after.drivers != before.drivers:
        return f"found drivers {', '.join(after.drivers) or 'none'}, expected {', '.join(before.drivers)}"
    return _fabric(before, after)


def _fabric(before: Machine, after: Machine) -> str:
    # of a host without NVSwitch it is inactive, or has failed, and that is right
    if before.fabric == "active" and after.fabric != "active":
        return f"found the fabric manager {after.fabric or 'absent'}, expected it active"
    return ""


def forward(settings: WaveSettings, os_major: str, wait_s: int) -> HostCommand:
    """dnf's installation of all of them together, as detached work."""
    return exact("wave", pins(settings, os_major), wait_s)


def backward(before: Machine, wait_s: int) -> HostCommand:
    """The same of the versions from before."""
    return exact("wave-back", before.packages, wait_s)


def machine(output: list[str]) -> Machine:
    """What files/host/machine.sh printed. Raises ValueError for something else."""
    found: dict[str, list[str]] = {}
    for line in output:
        name, colon, value = line.partition(": ")
        if colon:
            found.setdefault(name, []).append(value.strip())
    if not found.get("boot") or not found.get("kernel") or "end" not in found:
        raise ValueError("the host's answer ends early")
    packages = (line.rsplit(" ", 1) for line in found.get("package", []))
    return Machine(
        boot=found["boot"][0],
        kernel=found["kernel"][0],
        default=found.get("default", [""])[0],
        drivers=tuple(found.get("driver", [])),
        fabric=found.get("fabric", [""])[0],
        packages={name: version for name, version in packages},
    )
