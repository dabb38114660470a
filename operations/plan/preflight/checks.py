"""The preflight: everything that does not fit, at once, before anything is changed. Pure: it judges what was observed.

A check is `failed` where a deployment cannot or must not go on, a `warning` where it can and somebody should know, and
`not checked`, with the reason, where what it needs could not be read: that is no pass. A failed check whose cause may pass
by itself does not keep a deploy from beginning: its own steps ask again, wait, and say what they miss.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from operations.plan.capacity.driver import check_driver, driver_warnings
from operations.plan.capacity.forecast import gib
from operations.plan.capacity.gpu import DRIVER_TOO_OLD, FIRST_DRIVER, Gpu
from operations.plan.catalog.shapes import SHAPES, Shape
from operations.plan.catalog.sources import BACKEND_URL
from operations.plan.catalog.support_matrix import PLAIN_RELEASES, RELEASES
from operations.plan.catalog.version_floors import check_floors, components
from operations.plan.errors import PlanError, derived_reference, one_line
from operations.plan.exposure import gateway, network
from operations.plan.inventory.settings import Settings
from operations.plan.machine import docker_settings
from operations.plan.machine.disks import root_growth
from operations.plan.machine.packages import (
    check_os,
    for_os,
    runtime_packages,
    same_version,
    toolkit_url,
)
from operations.plan.observed.health import CHECKS, GpuHealth, Health, HubAnswer, Verdict
from operations.plan.observed.observed import Observed
from operations.plan.preflight.shortages import data_space, needed, on_local_disks_to_come
from operations.plan.profile.profiles import PlanProfile, Profile
from operations.plan.profile.tables import Weights
from operations.plan.release import BEHIND_FRONT, Release

KNOWN = {**RELEASES, **PLAIN_RELEASES}
# in the place of a mount point, while there is none
LOCAL_DISKS = "the local disks to be mounted"
# What a root file system has, at the least, of its disk once it is grown: boot partitions and records take the rest.
GROWN_SHARE = 0.9
# Estimates of the forecast: less than this share of one is too little to begin with.
CLEARLY_TOO_LITTLE = 0.8
# Requests that are signed with the time, as OCI's are, are refused from here on, and so are fresh certificates.
CLOCK_FAILED_S, CLOCK_WARNING_S = 300, 10
LEAST_TEMPORARY = 64 * 2**20  # what dnf, docker and pyinfra put there meanwhile is less
INODES_FAILED, INODES_WARNING = 10_000, 200_000
# Errors that a reset of the GPU, a restart of the machine or its vendor fixes, and that another start of the program does not:
# https://docs.nvidia.com/deploy/xid-errors/ (48, 95, 140: uncorrected memory errors; 64: failed row remapping; 74: NVLink;
# 79: fallen off the bus; 119, 120: the GPU's own processor does not answer; 143: it did not start)
FATAL_XIDS = frozenset({48, 64, 74, 79, 95, 119, 120, 140, 143})
# Ways from any user of a host to root, in kernels of spring 2026, and the modules that each goes through:
# https://linux.oracle.com/cve/CVE-2026-31431.html and its siblings. A container's user is one of the host's.
KERNEL_HOLES = {
    "CVE-2026-31431": ("algif_aead",),
    "CVE-2026-43284": ("esp4", "esp6"),
    "CVE-2026-43500": ("rxrpc",),
}
NOT_TRUSTED = 60  # curl's exit code for a certificate
# May pass by itself, and the deploy's own steps ask again or wait for it
PASSING = frozenset(name for name in CHECKS if name.startswith("source ")) | {"name resolution"}


@dataclass(frozen=True)
class Check:
    """One check. `found` is never empty; `expected` and `then` say what to do about a verdict that is not ok."""

    name: str
    verdict: Verdict
    found: str
    expected: str = ""
    then: str = ""
    lasting: bool = False  # of those that may pass: not this time
    reference: str = ""  # of the error that it was made of; empty: of its name

    @classmethod
    def from_error(cls, name: str, error: PlanError, found: str = "", verdict: Verdict = "failed") -> Check:
        """What the plan refuses, as a check; `found`: in the place of the error's own."""
        return cls(name, verdict, found or error.found, error.expected, error.then, reference=error.reference)

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        fields = {name: value for name, value in asdict(self).items() if name != "lasting"}
        return {**fields, "reference": self.reference or derived_reference(self.name)}


@dataclass(frozen=True)
class Subject:
    """What is judged: what the host should be, as far as that is known, and what it was found to be."""

    settings: Settings
    profile: Profile
    release: Release | None
    health: Health
    observed: Observed | None = None
    hub: HubAnswer | None = None
    problem: PlanError | str = ""  # why there is no release
    sudo_problem: str = ""
    today: date | None = None  # that waivers are compared with

    @property
    def shape(self) -> Shape | None:
        """The shape, of the inventory or of the instance's own metadata, where it is one of those known."""
        return SHAPES.get(self.settings.shape or self.health.shape)

    @property
    def gpus(self) -> tuple[GpuHealth, ...]:
        """Those that the host uses."""
        chosen = self.settings.gpu_ids
        return tuple(gpu for gpu in self.health.gpus if chosen == "all" or gpu.index in chosen)

    @property
    def switched(self) -> bool:
        """
        Whether the host has NVSwitches, which a fabric manager on it has to set up.

        GPUs that are handed into a virtual machine tell of a fabric too, and its manager is outside: seen on H200.
        """
        return bool(self.health.switches or (self.shape and self.shape.nvswitch))


Checks = Iterator[Check]


def checks(subject: Subject) -> list[Check]:
    """Every check of a host, in the order of `CHECKS`; what the inventory waives is a warning."""
    found = [check for judge in _JUDGES for check in judge(subject)]
    waived = set(subject.settings.preflight_waived)
    return [_waived(check) if check.name in waived else check for check in found]


def _waived(check: Check) -> Check:
    if check.verdict != "failed":
        return check
    return replace(
        check, verdict="warning", then=f"{check.then}; waived by preflight_waived".removeprefix("; ")
    )


def of_deploy(found: Sequence[Check]) -> list[Check]:
    """The same, as a deploy takes them: a fault that may pass by itself keeps it from nothing."""
    return [
        replace(check, verdict="warning")
        if check.name in PASSING and check.verdict == "failed" and not check.lasting
        else check
        for check in found
    ]


def status(found: Sequence[Check]) -> Verdict:
    """The worst of the verdicts; a check that was not made counts for more than a warning."""
    order: tuple[Verdict, ...] = ("failed", "not checked", "warning")
    return next((verdict for verdict in order if any(c.verdict == verdict for c in found)), "ok")


def exit_code(statuses: Sequence[str]) -> int:
    """0: no check failed; 3: a check failed; 5: a host was not reached; 4: a check was not made, and none failed."""
    for word, code in (("failed", 3), ("unreachable", 5), ("not checked", 4)):
        if word in statuses:
            return code
    return 0


def table(found: Sequence[Check], verdicts: Sequence[Verdict] = ()) -> list[str]:
    """The checks as aligned rows; `verdicts`: only those."""
    rows = [("verdict", "check", "found", "expected; what to do")]
    for check in found:
        if not verdicts or check.verdict in verdicts:
            advice = "; ".join(filter(None, (check.expected, check.then)))
            rows.append((check.verdict, check.name, check.found, advice))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    widths.append(min(max(len(row[2]) for row in rows), 60))
    return [
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3])).rstrip()
        for row in rows
    ]


# --- what is asked of the network


def sources(settings: Settings, profile: Profile, os_major: str) -> dict[str, str]:
    """Check name -> the URL that the host is asked to reach; only what a release of this profile comes from."""
    base = (for_os(settings.docker_repository_url, os_major), toolkit_url(settings, os_major))
    docker, toolkit = (
        f"{url.replace('$basearch', 'x86_64').rstrip('/')}/repodata/repomd.xml" for url in base
    )
    found = {"source docker": docker, "source toolkit": toolkit}
    if not isinstance(profile, PlanProfile):
        found["source git"] = mirrored(BACKEND_URL, settings.git_mirrors)
    found["source hub"] = settings.hub_endpoint
    found["source registry"] = registry_url(settings.image_registry, settings)
    if isinstance(profile, PlanProfile) or settings.gateway:
        found["source docker hub"] = registry_url(settings.docker_hub_registry, settings)
    # otherwise pip's own default, which is pip's to know
    if isinstance(profile, PlanProfile) and settings.python_index_url:
        found["source Python index"] = settings.python_index_url
    return found


def mirrored(url: str, mirrors: Mapping[str, str]) -> str:
    """A git URL as git fetches it: the longest prefix of `url.<base>.insteadOf` wins."""
    prefix = max((p for p in mirrors if url.startswith(p)), key=len, default="")
    return f"{mirrors[prefix]}{url[len(prefix) :]}" if prefix else url


def registry_url(registry: str, settings: Settings) -> str:
    """A registry's API, over HTTP where docker is told so."""
    insecure = settings.docker_daemon_settings.get("insecure-registries", ())
    plain = registry in [str(entry).removeprefix("http://") for entry in insecure]
    # docker.io, docker's own name for it, is not a host of the API: https://docs.docker.com/reference/api/registry/latest/
    host = "registry-1.docker.io" if registry == "docker.io" else registry
    return f"{'http' if plain else 'https'}://{host}/v2/"


def names(urls: Sequence[str]) -> list[str]:
    """The host names of URLs, which have to be resolved; addresses do not."""
    found = (urlsplit(url).hostname or "" for url in urls)
    return sorted({name for name in found if name and not re.fullmatch(r"[0-9.]+|.*:.*", name)})


def gated_weights(profile: Profile) -> list[Weights]:
    """What cannot be downloaded without a token."""
    if isinstance(profile, PlanProfile):
        return [encoder.weights for encoder in profile.encoders.values() if encoder.weights.gated]
    return [profile.weights] if profile.gated else []


# --- the judges: each yields the checks it is named after


def _host(subject: Subject) -> Checks:
    health, observed = subject.health, subject.observed
    if subject.sudo_problem:
        then = "allow the login user sudo without a password"
        yield Check("sudo", "failed", subject.sudo_problem, "sudo -n that works", then)
    elif health.user and health.user != "0":
        yield Check(
            "sudo", "failed", f"user {health.user}", "root, through sudo -n", "set _sudo in the inventory"
        )
    elif health.user:
        yield Check("sudo", "ok", "works without a password")
    else:
        yield Check("sudo", "not checked", "the host's answer does not say")
    if observed is None:
        yield Check("login shell", "not checked", "the host was not looked at")
    elif observed.noise:
        then = "let ~/.bashrc be silent where the shell is not interactive"
        yield Check("login shell", "failed", observed.noise[:80], "no output of its own", then)
    else:
        yield Check("login shell", "ok", "silent")
    release = health.os_release or (observed.os_release if observed else {})
    architecture = health.architecture or (observed.architecture if observed else "")
    if not release:
        yield Check("operating system", "not checked", "/etc/os-release was not read")
    else:
        found = f"{release.get('ID', '?')} {release.get('VERSION_ID', '?')}"
        yield _raised("operating system", found, lambda: check_os(dict(release), "x86_64"))
    if not architecture:
        yield Check("processor", "not checked", "uname was not read")
    else:
        supported = {"ID": "ol", "VERSION_ID": "9"}
        yield _raised("processor", architecture, lambda: check_os(supported, architecture))
    yield _floors(subject)
    if subject.release is not None:
        yield Check("release", "ok", subject.release.id)
    else:
        verdict: Verdict = "not checked" if subject.sudo_problem else "failed"
        found = str(subject.problem) or "not planned"
        reference = subject.problem.reference if isinstance(subject.problem, PlanError) else ""
        yield Check("release", verdict, found, "a release that can be planned", reference=reference)


def _floors(subject: Subject) -> Check:
    """Every component below the floor of a security bulletin, which convergence.py refuses as well."""
    name, today = "version floors", subject.today
    if today is None or not subject.health.driver or subject.profile.image.release not in KNOWN:
        return Check(name, "not checked", "the driver's version was not read")
    problems: list[PlanError] = []
    notes: list[str] = []
    for component in components(subject.settings, subject.profile, subject.health.driver):
        try:
            notes += check_floors("", [component], subject.settings.waivers, today)
        except PlanError as error:
            problems.append(error)
    if problems:
        expected = "versions at their floors, or waivers of the inventory"
        found = "; and ".join(map(str, problems))
        return Check(name, "failed", found, expected, reference=problems[0].reference)
    return Check(name, "warning" if notes else "ok", "; and ".join(notes) or "none is below its floor")


def _raised(name: str, found: str, ask: Callable[[], object]) -> Check:
    """A check that a function of the plan makes: what it raises is the verdict."""
    try:
        ask()
    except PlanError as error:
        return Check.from_error(name, error, found)
    return Check(name, "ok", found)


def _shape(subject: Subject) -> Checks:
    said, seen = subject.settings.shape, subject.health.shape
    wanted, name = subject.shape, said or seen
    gpus = subject.health.gpus
    found = _kinds(gpus) or subject.health.gpu_problem or "no GPU"
    if said and seen and said != seen:
        expected = f"{said}, as the inventory says"
        text = f"{seen}, by the instance metadata, with {found}"
        yield Check(
            "shape", "failed", text, expected, "correct shape in the inventory, or the host's address"
        )
    elif not name:
        then = "set shape in the inventory"
        yield Check(
            "shape", "not checked", f"{subject.health.metadata}, and the inventory names no shape", "", then
        )
    elif wanted is None:
        yield Check("shape", "not checked", f"{name} with {found}: not a shape whose GPUs are known")
    elif len(gpus) != wanted.gpu_count or not all(wanted.has_gpu(gpu.name, gpu.memory_mib) for gpu in gpus):
        expected = f"{wanted.gpu_count} x {wanted.gpu} of {wanted.gpu_memory_gib} GB, as {name} has them"
        then = "correct shape in the inventory; where it is right, a GPU is missing: ask for another host"
        yield Check("shape", "failed", found, expected, then)
    else:
        yield Check("shape", "ok", f"{name}: {found}")


def _kinds(gpus: Sequence[GpuHealth]) -> str:
    kinds = [f"{gpu.name} of {gib(gpu.memory_mib * 2**20)}" for gpu in gpus]
    return ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))


def _driver(subject: Subject) -> Checks:
    health, name = subject.health, "GPU driver"
    if health.gpu_problem or not health.driver:
        found = health.gpu_problem or "not read"
        yield Check(name, "failed" if health.gpu_problem else "not checked", found, "a working NVIDIA driver")
        return
    # the deploy asks nvidia-smi for a field that these do not know
    if (major := health.driver.partition(".")[0]).isdecimal() and int(major) < FIRST_DRIVER:
        expected = f"a driver of about {FIRST_DRIVER} or later"
        yield Check(name, "failed", health.driver, expected, DRIVER_TOO_OLD)
        return
    stack = KNOWN.get(subject.profile.image.release)
    if stack is None:
        yield Check(
            name, "not checked", f"{health.driver}; image.release is no release of the support matrix"
        )
        return
    gpu = Gpu(0, health.gpus[0].name, "", "", 0, 0, health.driver)
    try:
        check_driver(health.driver, stack.cuda)
    except PlanError as error:
        try:
            driver_warnings(gpu, stack.cuda)
        except PlanError:
            yield Check.from_error(name, error, health.driver)
        else:
            # a GPU of a data centre may do with the image's compatibility libraries
            yield Check.from_error(name, error, health.driver, "warning")
        return
    yield Check(name, "ok", f"{health.driver}, for CUDA {stack.cuda}")


def _gpus(subject: Subject) -> Checks:
    gpus, health = subject.gpus, subject.health
    if not gpus:
        why = health.gpu_problem or "no GPU was read"
        for name in ("ECC errors", "memory repairs", "MIG", "persistence mode", "GPU recovery"):
            yield Check(name, "not checked", why)
        return
    yield _ecc(gpus)
    failed = _listed(gpus, lambda gpu: f"{', '.join(gpu.repair_failed)} failed" if gpu.repair_failed else "")
    pending = _listed(
        gpus, lambda gpu: f"{', '.join(gpu.repair_pending)} pending" if gpu.repair_pending else ""
    )
    if failed:
        found = "; ".join(filter(None, (failed, pending)))
        yield Check("memory repairs", "failed", found, "none that failed", "have the GPU replaced")
    elif pending:
        yield Check(
            "memory repairs", "failed", pending, "none that waits", "reboot the host: it needs a reset"
        )
    else:
        yield Check("memory repairs", "ok", "none pending, none failed")
    mig = _listed(gpus, lambda gpu: "enabled" if gpu.mig == "Enabled" else "")
    soon = _listed(gpus, lambda gpu: "enabled at the next reset" if gpu.mig_pending == "Enabled" else "")
    then = "choose others with gpu_ids, or nvidia-smi -mig 0, and reboot"
    if mig:
        yield Check("MIG", "failed", mig, "GPUs that are not partitioned", then, reference="gpu-mig-enabled")
    elif soon:
        yield Check("MIG", "warning", soon, "GPUs that stay whole", then)
    else:
        yield Check("MIG", "ok", "disabled")
    if off := _listed(gpus, lambda gpu: "off" if gpu.persistence == "Disabled" else ""):
        then = "systemctl enable --now nvidia-persistenced"
        yield Check(
            "persistence mode", "warning", off, "on: the driver unloads without it, and starts slowly", then
        )
    elif not any(gpu.persistence for gpu in gpus):
        yield Check("persistence mode", "not checked", "nvidia-smi does not say")
    else:
        yield Check("persistence mode", "ok", "on")
    action = _listed(gpus, lambda gpu: gpu.recovery_action if gpu.recovery_action != "None" else "")
    if action:
        yield Check(
            "GPU recovery", "failed", action, "no action that the driver asks for", "do it, and run again"
        )
    else:
        said = any(gpu.recovery_action for gpu in gpus)
        yield Check("GPU recovery", "ok", "none asked for" if said else "not a field of this driver")


def _ecc(gpus: Sequence[GpuHealth]) -> Check:
    name = "ECC errors"
    now = _listed(gpus, lambda gpu: f"{gpu.uncorrectable} uncorrected" if gpu.uncorrectable else "")
    ever = _listed(
        gpus, lambda gpu: f"{gpu.uncorrectable_ever} uncorrected, ever" if gpu.uncorrectable_ever else ""
    )
    off = _listed(gpus, lambda gpu: "ECC off" if gpu.ecc == "Disabled" else "")
    if now:
        return Check(
            name,
            "failed",
            now,
            "none since the driver was loaded",
            "reboot; where they come back, replace it",
        )
    if off:
        then = "nvidia-smi -e 1, and reboot"
        return Check(name, "warning", off, "on: without it a flipped bit is a wrong answer", then)
    if ever:
        return Check(name, "warning", ever, "none", "watch it: a GPU with many is replaced")
    if all(gpu.ecc == "N/A" for gpu in gpus):
        return Check(name, "ok", "these GPUs have no ECC")
    if any(gpu.uncorrectable is None for gpu in gpus):
        return Check(name, "not checked", "nvidia-smi shows no counters")
    return Check(name, "ok", "none")


def _listed(gpus: Sequence[GpuHealth], say: Callable[[GpuHealth], str]) -> str:
    return "; ".join(f"GPU {gpu.index}: {text}" for gpu in gpus if (text := say(gpu)))


def _xids(subject: Subject) -> Checks:
    lines = subject.health.xids
    if lines is None:
        yield Check("Xid errors", "not checked", "the kernel's log of this boot could not be read")
        return
    codes = [int(found[1]) for line in lines if (found := re.search(r"NVRM: Xid \([^)]*\): (\d+)", line))]
    counted = ", ".join(f"{code} ({codes.count(code)} times)" for code in sorted(set(codes)))
    last = one_line(lines[-1])[:120] if lines else ""
    if fatal := FATAL_XIDS.intersection(codes):
        worst = next(one_line(li)[:120] for li in reversed(lines) if any(f"): {c}," in li for c in fatal))
        then = "reboot the host; where it comes back, have the GPU replaced"
        yield Check("Xid errors", "failed", f"{counted}: {worst}", "none that a reset is needed for", then)
    elif codes:
        yield Check("Xid errors", "warning", f"{counted}: {last}", "none", "mostly a program's own fault")
    else:
        yield Check("Xid errors", "ok", "none since the boot")


def _links(subject: Subject) -> Checks:
    health, name = subject.health, "NVLink"
    if health.nvlinks is None:
        yield Check(name, "not checked", health.gpu_problem or "nvidia-smi tells of no links")
    elif health.nvlinks_inactive:
        several = subject.profile.gpus_needed > 1
        first = ", ".join(health.nvlinks_inactive[:6])
        found = f"{len(health.nvlinks_inactive)} of {health.nvlinks} inactive: {first}"
        then = "see nvidia-smi nvlink --status and the fabric manager's log"
        yield Check(name, "failed" if several else "warning", found, "all of them active", then)
    else:
        yield Check(name, "ok", f"{health.nvlinks} active" if health.nvlinks else "these GPUs have none")
    yield _fabric(subject)


def _fabric(subject: Subject) -> Check:
    """Its version has to be the driver's: https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/."""
    health, name = subject.health, "fabric manager"
    found, expected, then = [], [], []
    if subject.switched:
        unit = health.units.get("nvidia-fabricmanager.service", {})
        if (state := unit.get("ActiveState", "absent")) != "active":
            found.append(f"nvidia-fabricmanager.service {state}")
            expected.append("active")
            then.append("systemctl enable --now nvidia-fabricmanager")
        if health.fabric_manager != health.driver:
            found.append(f"version {health.fabric_manager or 'not known'}")
            expected.append(f"the driver's version, {health.driver}")
            then.append("install the one of the driver's version")
    states = _listed(
        health.gpus,
        lambda gpu: (
            f"{gpu.fabric_state}, {gpu.fabric_status or 'no status'}"
            if gpu.fabric_state and (gpu.fabric_state, gpu.fabric_status) != ("Completed", "Success")
            else ""
        ),
    )
    if states:
        found.append(states)
        expected.append("Completed, Success on each GPU")
        then.append(
            "journalctl --unit nvidia-fabricmanager" if subject.switched else "see the machine outside"
        )
    if found:
        return Check(name, "failed", "; ".join(found), ", ".join(expected), "; ".join(then))
    if subject.switched:
        return Check(name, "ok", f"{health.fabric_manager}, active")
    if any(gpu.fabric_state for gpu in health.gpus):
        # a machine whose shape has no row may have switches that are not seen
        if subject.shape is None and not (subject.settings.shape or health.shape).startswith("VM."):
            text = "the GPUs tell of a fabric, and neither a known shape nor an NVSwitch says who sets it up"
            look = "on bare metal: systemctl status nvidia-fabricmanager; set shape in the inventory"
            return Check(name, "not checked", text, "", look)
        return Check(
            name, "ok", "not needed here: the GPUs' fabric is set up from outside, Completed, Success"
        )
    return Check(name, "ok", "not needed: no NVSwitch")


def _space(subject: Subject) -> Checks:
    health, observed, release = subject.health, subject.observed, subject.release
    wanted = needed(release, observed) if release and observed else None
    data = health.disks.get(subject.settings.data_root)
    docker = health.disks.get(health.docker_root)
    if not data or not docker or observed is None:
        yield Check("disk space", "not checked", "the file systems were not read")
    elif release is None or wanted is None:
        yield Check(
            "disk space", "not checked", f"{gib(data.free)} free on {data.mount}; what it takes is not known"
        )
    else:
        places: dict[str, dict[str, int]] = {}
        free = {space.mount: space.free for space in (data, docker)}
        mount = data.mount
        if on_local_disks_to_come(release, observed):
            mount = LOCAL_DISKS
            free[mount] = data_space(release, observed, subject.shape)
        for kind, size in wanted[0].items():
            place = docker.mount if kind == "image" else mount
            # of an array that is there and not mounted, nobody knows what is free
            if place != LOCAL_DISKS or free[place]:
                places.setdefault(place, {})[kind] = size
        yield _disk(subject, observed, free, places)
    spaces = {space.mount: space for space in health.disks.values() if space.inodes}
    few = {mount: space.inodes_free for mount, space in spaces.items() if space.inodes_free < INODES_WARNING}
    if not health.disks:
        yield Check("inodes", "not checked", "the file systems were not read")
    elif few:
        found = ", ".join(f"{mount}: {number} free" for mount, number in few.items())
        # a repair that makes nothing large is not held up
        makes = wanted is None or any(wanted[0].values())
        verdict: Verdict = "failed" if makes and min(few.values()) < INODES_FAILED else "warning"
        then = "remove small files, or make room: xfs takes inodes from what is free"
        yield Check("inodes", verdict, found, f"{INODES_WARNING} or more", then)
    else:
        yield Check("inodes", "ok", "enough on each file system")
    total = sum(health.memory.get(part, 0) for part in ("MemTotal", "SwapTotal"))
    if not health.memory.get("MemTotal") or wanted is None:
        found = f"{gib(total)}; what a build takes is not known" if total else "/proc/meminfo was not read"
        yield Check("host memory", "not checked", found)
    elif total < wanted[1]:
        # an estimate of a peak, and the kernel makes room: said, and not refused
        then = "where the work ends with exit code 137, take a larger shape or add swap"
        expected = f"about {gib(wanted[1])} to convert and build"
        yield Check("host memory", "warning", f"{gib(total)} with swap", expected, then)
    else:
        yield Check("host memory", "ok", f"{gib(total)} with swap")


def _disk(
    subject: Subject, observed: Observed, free: dict[str, int], places: Mapping[str, Mapping[str, int]]
) -> Check:
    grown = 0
    if subject.settings.grow_root_file_system and observed.root.disk_size and root_growth(observed.root):
        # the run grows it before it needs it
        grown = max(0, int(observed.root.disk_size * GROWN_SHARE) - observed.root.size)
        if "/" in free:
            free = {**free, "/": free["/"] + grown}
    found, expected = [], []
    worst: Verdict = "ok"
    for mount, sizes in places.items():
        total = sum(sizes.values())
        after = " after growing" if mount == "/" and grown else ""
        found.append(f"{gib(free[mount])} free on {mount}{after}")
        parts = ", ".join(f"{kind} {gib(size)}" for kind, size in sizes.items())
        expected.append(f"about {gib(total)} on {mount} ({parts})")
        if free[mount] < total * CLEARLY_TOO_LITTLE:
            worst = "failed"
        elif free[mount] < total and worst == "ok":
            worst = "warning"
    then = "a larger boot volume, or data_root on a larger file system"
    if worst == "ok":
        return Check("disk space", worst, "; ".join(found) or "nothing is to be made")
    return Check("disk space", worst, "; ".join(found), "; ".join(expected), then)


def _clock(subject: Subject) -> Checks:
    ahead, synchronized = subject.health.clock_ahead_s, subject.health.synchronized
    if ahead is None:
        yield Check("clock", "not checked", "the host's clock was not read")
        return
    found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine"
    expected, then = "this machine's time, within 10 s", "chronyc makestep; or set this machine's own clock"
    if abs(ahead) > CLOCK_FAILED_S:
        yield Check("clock", "failed", found, expected, then)
    elif abs(ahead) > CLOCK_WARNING_S:
        yield Check("clock", "warning", found, expected, then)
    elif synchronized == "no":
        then = "systemctl enable --now chronyd"
        yield Check("clock", "warning", "right, but not synchronized", "kept right by NTP", then)
    else:
        known = "synchronized" if synchronized == "yes" else "whether it is synchronized was not read"
        yield Check("clock", "ok", f"within 10 s of this machine; {known}")


def _network(subject: Subject) -> Checks:
    health = subject.health
    os_major = (health.os_release.get("VERSION_ID") or "9").split(".")[0]
    urls = sources(subject.settings, subject.profile, os_major)
    asked = names(list(urls.values()))
    if not asked:
        yield Check("name resolution", "ok", "every source is named by its address")
    elif not all(name in health.names for name in asked):
        yield Check("name resolution", "not checked", "no name was asked for on the host")
    elif unknown := [name for name in asked if not health.names[name]]:
        through = bool(health.proxies)
        then = "see /etc/resolv.conf on the host, and the VCN's resolver"
        found = f"no address for {', '.join(unknown)}"
        if through:
            then = f"a proxy may do without: {', '.join(health.proxies)}"
        yield Check("name resolution", "warning" if through else "failed", found, "an address for each", then)
    else:
        yield Check("name resolution", "ok", f"{len(asked)} names have addresses")
    wanted = _wanted_sources(subject)
    for name, url in urls.items():
        yield _source(subject, name, url, name in wanted)
    yield _token(subject)


def _source(subject: Subject, name: str, url: str, wanted: bool) -> Check:
    answer = subject.health.sources.get(url)
    shown = one_line(url)
    if answer is None:
        return Check(
            name, "not checked", f"{shown} was not asked for on the host: no curl, or no answer in time"
        )
    repository = url.endswith("repomd.xml")
    bad = answer.status[:1] == "5" or answer.status == "407" or (repository and answer.status[:1] == "4")
    if answer.exit_code == 0 and not bad:
        return Check(name, "ok", shown)
    said = f"HTTP {answer.status}" if bad else answer.error or f"curl's exit code {answer.exit_code}"
    if not wanted:
        return Check(
            name, "warning", f"{shown}: {said}", "an answer", "not needed now: what it gives is on the host"
        )
    if subject.health.proxies and not bad:
        why = f"{shown}: {said}; a proxy is configured in {', '.join(subject.health.proxies)}, which curl was not told of"
        return Check(name, "not checked", why)
    then = "open the way there, or use a mirror: docs/how-to/mirrors.md"
    # dnf asks for the very same file, with the very same certificates; other programs have some of their own
    lasting = repository and (
        answer.status in ("401", "403", "404", "410") or answer.exit_code == NOT_TRUSTED
    )
    if lasting and not subject.health.proxies:
        then = "it will not pass by itself: correct the repository's address, its certificate or the mirror"
        return Check(name, "failed", f"{shown}: {said}", "an answer", then, lasting=True)
    return Check(name, "failed", f"{shown}: {said}", "an answer", then)


def _wanted_sources(subject: Subject) -> set[str]:
    """The sources that something is missing from; all of them where that is not known."""
    release, observed = subject.release, subject.observed
    if release is None or observed is None:
        return set(CHECKS)
    wanted = set()
    versions = runtime_packages(subject.settings, observed.os_major)
    toolkit = subject.settings.nvidia_container_toolkit_packages
    for name, version in versions.items():
        if not any(
            version is None or same_version(version, found) for found in observed.packages.get(name, ())
        ):
            wanted.add("source toolkit" if name in toolkit else "source docker")

    def complete(kind: str, key: str) -> bool:
        stored = observed.artifacts.get((kind, key))
        return stored is not None and not stored.problem

    lacking = [image.name for image in release.images if image.tag not in observed.images]
    if "serving" in lacking:
        wanted |= {"source registry", "source Python index"}
    if any(name != "serving" for name in lacking):
        wanted |= {"source registry", "source docker hub", "source Python index"}
    if release.source and not complete("source", release.source.key):
        wanted.add("source git")
    for step in release.recipe.downloads:
        spared = step.unless and complete(step.unless.kind, step.unless.key)
        if not spared and not complete(step.artifact.kind, step.artifact.key):
            wanted.add("source hub")
    return wanted


def _token(subject: Subject) -> Check:
    name = "hub token"
    gated = gated_weights(subject.profile)
    if not gated:
        return Check(name, "ok", "not needed: the model is not gated")
    if "source hub" not in _wanted_sources(subject):
        return Check(name, "ok", "not needed: the weights are on the host")
    if subject.hub is None:
        return Check(name, "not checked", f"{gated[0].repository} is gated, and the hub was not asked")
    expected = "" if subject.hub.verdict == "ok" else f"a token with access to {gated[0].repository}"
    return Check(name, subject.hub.verdict, subject.hub.found, expected, subject.hub.then)


def _settings_of_host(subject: Subject) -> Checks:
    yield _ports(subject)
    yield _locks(subject)
    yield _cloud_init(subject)
    yield _firewalld(subject)
    yield _selinux(subject)
    yield from _hardening(subject)
    yield _kernel(subject)
    yield _kernel_fixes(subject)


def _ports(subject: Subject) -> Check:
    """What listens on a port that people are to use, and is not our own server or front."""
    listening, observed = subject.health.listening, subject.observed
    if listening is None:
        return Check("ports", "not checked", "ss was not run on the host")
    given = subject.settings
    ports = [*_ports_of_people(subject)]
    if subject.release:
        ports += subject.release.servers[0].ports
    if given.gateway:
        ports.append(given.gateway.port)
    front = observed.units.get(f"{given.service_name}-front.service", {}) if observed else {}
    before = observed.units.get(f"{gateway.service(given.service_name)}.service", {}) if observed else {}
    container = observed.container if observed else None
    published = container.ports if container and container.running else frozenset()
    # behind a front, the server's are that much higher than those that people use
    behind = {port - BEHIND_FRONT for port in published} if front.get("ActiveState") == "active" else set()
    # whichever port it has now
    before_us = set(listening) if before.get("ActiveState") == "active" else set()
    ours = {"docker-proxy": published, "haproxy": behind, "nginx": before_us}
    taken = {
        port: listening[port] or "a program"
        for port in dict.fromkeys(ports)
        if port in listening and port not in ours.get(listening[port], ())
    }
    if taken:
        found = ", ".join(f"{port} by {program}" for port, program in taken.items())
        then = "end it, or move http_port, grpc_port, metrics_port"
        return Check("ports", "failed", found, "ports that nothing else listens on", then)
    return Check("ports", "ok", ", ".join(map(str, dict.fromkeys(ports))))


def _ports_of_people(subject: Subject) -> tuple[int, int, int]:
    """The server's, or those of a front before it."""
    given, server = subject.settings, subject.profile.server
    return (
        given.http_port or server.http_port,
        given.grpc_port or server.grpc_port,
        given.metrics_port or server.metrics_port,
    )


def _locks(subject: Subject) -> Check:
    if not subject.health.kernel:
        return Check("package locks", "not checked", "the host's answer does not say")
    held = [holder for holder in subject.health.locks if holder.command]
    if not held:
        return Check("package locks", "ok", "free")
    text = "; ".join(f"{h.path} by process {h.pid} ({one_line(h.command)[:80]})" for h in held)
    packaging = re.compile(r"\b(dnf|yum|rpm|microdnf|packagekitd)\b")
    if all(packaging.search(holder.command) for holder in held):
        return Check(
            "package locks", "warning", text, "free", "the installation waits for it; it is never ended"
        )
    then = "a lock file of a process that is gone, whose number another one has: remove the file if that is no dnf"
    return Check("package locks", "warning", text, "free, or held by dnf", then)


def _cloud_init(subject: Subject) -> Check:
    state = subject.health.cloud_init
    if not state:
        return Check("cloud-init", "not checked", "its status was not read")
    if state in ("done", "disabled", "not installed"):
        return Check("cloud-init", "ok", state)
    then = (
        "wait: cloud-init status --wait"
        if state in ("running", "not run", "not started")
        else "cloud-init status --long"
    )
    return Check("cloud-init", "warning", state, "done: the first boot installs and configures, too", then)


def _firewalld(subject: Subject) -> Check:
    unit = subject.health.units.get("firewalld.service")
    if unit is None:
        return Check("firewalld", "not checked", "systemd was not asked")
    state = unit.get("ActiveState", "")
    if state == "active":
        return Check("firewalld", "ok", "active")
    found = "not installed" if unit.get("LoadState") == "not-found" else state or "not known"
    steps = ["dnf install firewalld"]
    if serving := _served_on_the_host(subject):
        # those that it has now, which the inventory may be about to change
        program = "nginx" if "gateway" in serving else "haproxy"
        now = [port for port, name in sorted((subject.health.listening or {}).items()) if name == program]
        ports = now or list(network.open_ports(subject.settings, _ports_of_people(subject)))
        options = " ".join(f"--add-port={port}/tcp" for port in ports)
        steps += [
            f"in a maintenance window, or it shuts out whom {serving} serves: firewall-offline-cmd {options}",
            "systemctl enable --now firewalld",
            "at once the deploy, which adds its own rules; then take the ports out again (docs/how-to/network.md)",
        ]
    else:
        steps.append("systemctl enable --now firewalld")
    then = "; ".join((*steps, "or rely on security lists and say so"))
    return Check("firewalld", "warning", found, "active", then)


def _served_on_the_host(subject: Subject) -> str:
    """
    The unit through which people reach a socket of the host over the network now; empty: none.

    A deploy adds firewalld's rules for them while firewalld runs, and only then.
    """
    given = subject.settings
    if not network.published(given):
        return ""
    before, front = f"{gateway.service(given.service_name)}.service", f"{given.service_name}-front.service"
    if subject.observed is None:
        # it was not looked at, and what the inventory wants may serve already
        wanted = before if given.gateway else front
        return wanted if network.on_the_host(given) else ""
    units = subject.observed.units
    return next((unit for unit in (before, front) if units.get(unit, {}).get("ActiveState") == "active"), "")


def _selinux(subject: Subject) -> Check:
    mode, policy = subject.health.selinux, subject.health.container_selinux
    if not mode:
        return Check("SELinux", "not checked", "the host has no getenforce")
    if mode != "Enforcing":
        then = "setenforce 1, and SELINUX=enforcing in /etc/selinux/config"
        return Check("SELinux", "warning", mode, "Enforcing", then)
    if not policy:
        then = "it comes with docker's packages"
        return Check("SELinux", "warning", "Enforcing, without container-selinux", "container-selinux", then)
    return Check("SELinux", "ok", f"Enforcing, container-selinux {policy}")


def _hardening(subject: Subject) -> Checks:
    health = subject.health
    options = {mount: text.split(",") for mount, text in health.temporary.items()}
    noexec = [mount for mount, words in options.items() if "noexec" in words]
    read_only = [mount for mount, words in options.items() if "ro" in words]
    room = health.disks.get("/tmp")
    if not health.temporary:
        yield Check("temporary directories", "not checked", "findmnt was not run on the host")
    elif read_only:
        then = "see journalctl --dmesg: the kernel makes a file system with errors read-only; fix the file system"
        found = f"read-only: {', '.join(read_only)}"
        yield Check("temporary directories", "failed", found, "file systems that are written to", then)
    elif room and room.free < LEAST_TEMPORARY:
        found = f"{gib(room.free)} free in /tmp, on {room.mount}"
        yield Check(
            "temporary directories", "failed", found, f"{gib(LEAST_TEMPORARY)} or more", "make room there"
        )
    elif noexec:
        expected = "programs may run there"
        then = "nothing of tritonhost does; dnf's packages may, in their scripts"
        yield Check("temporary directories", "warning", f"noexec: {', '.join(noexec)}", expected, then)
    else:
        yield Check("temporary directories", "ok", "programs may run there")
    if not health.umask:
        yield Check("umask", "not checked", "the host's answer does not say")
    elif int(health.umask, 8) & 0o055:
        then = "what tritonhost writes has modes of its own; look at what you write beside it"
        yield Check("umask", "warning", health.umask, "0022: containers read as other users", then)
    else:
        yield Check("umask", "ok", health.umask)
    yield _docker_settings(subject)
    if not health.ip_forward:
        yield Check("IP forwarding", "not checked", "/proc/sys/net/ipv4/ip_forward was not read")
    elif health.ip_forward == "0" and _runs_docker(subject):
        then = "a sysctl file sets it after docker did: take it out, or published ports lead nowhere after a boot"
        yield Check("IP forwarding", "warning", "0, though docker runs", "1", then)
    else:
        note = "1" if health.ip_forward == "1" else "0; docker sets it when it starts"
        yield Check("IP forwarding", "ok", note)


def _docker_settings(subject: Subject) -> Check:
    """What its daemon.json says, with the inventory's settings in it; what is refused, the plan has refused."""
    name = "docker settings"
    if subject.observed is None:
        return Check(name, "not checked", "the host was not looked at")
    wanted = subject.release.docker_settings if subject.release else subject.settings.docker_daemon_settings
    found = docker_settings.of_host(subject.observed.daemon_json, wanted)
    if not found:
        return Check(name, "ok", "none that a deploy has to know of")
    shown = "; ".join(f"{each.key} {one_line(str(each.found))[:60]}" for each in found)
    expected = "; ".join(each.expected for each in found)
    verdict: Verdict = "failed" if any(each.verdict == "refused" for each in found) else "warning"
    return Check(name, verdict, shown, expected, "; ".join(each.why for each in found))


def _runs_docker(subject: Subject) -> bool:
    units = subject.observed.units if subject.observed else {}
    return units.get("docker.service", {}).get("ActiveState") == "active"


def _kernel(subject: Subject) -> Check:
    health, name = subject.health, "kernel"
    if not health.kernel or not health.next_kernel:
        return Check(
            name, "not checked", f"{health.kernel or 'not read'}; which one the next boot starts is not known"
        )
    if health.next_kernel == health.kernel:
        return Check(name, "ok", health.kernel)
    found = f"{health.kernel} runs, the next boot starts {health.next_kernel}"
    if health.next_driver == "":
        found += ", which has no nvidia.ko"
        return Check(
            name,
            "warning",
            found,
            "a kernel with the NVIDIA driver",
            "install the driver for it before a reboot",
        )
    return Check(name, "warning", found, "the same", "reboot at a time of your own choice")


def _kernel_fixes(subject: Subject) -> Check:
    """Advice: a kernel is the site's to choose, together with the driver that is built for it."""
    health, name = subject.health, "kernel fixes"
    fixed = health.kernel_fixed or frozenset()
    open_ = [
        hole
        for hole, modules in KERNEL_HOLES.items()
        if hole not in fixed and not health.kernel_blocked.issuperset(modules)
    ]
    if not open_:
        text = f"{health.kernel or 'the running kernel'} names the fixes, or keeps their modules out"
        return Check(name, "ok", text)
    if health.kernel_fixed is None:
        return Check(name, "not checked", "the package of the running kernel was not read")
    found = f"{health.kernel or 'the running kernel'} names no fix of {', '.join(open_)}"
    expected = "a kernel that names them among its changes, or their modules kept out"
    then = "upgrade the kernel together with the driver for it, and reboot; or keep the modules out: docs/security.md#kernels"
    return Check(name, "warning", found, expected, then)


_JUDGES: tuple[Callable[[Subject], Checks], ...] = (
    *(_host, _shape, _driver),
    *(_gpus, _xids, _links),
    *(_space, _clock, _network, _settings_of_host),
)


def as_json(
    hosts: Mapping[str, tuple[str, Sequence[Check], float, str]],
    errors: Mapping[str, PlanError] | None = None,
) -> dict[str, Any]:
    """
    The report for a program; its keys stay.

    + hosts: name -> status, checks, seconds, and what is wrong where there are no checks
    + errors: name -> the error that the last of these was made of, where it was one of the plan
    """
    known = errors or {}
    return {
        "hosts": {
            name: {
                "status": state,
                "problem": problem,
                "error": known[name].as_dict() if name in known else None,
                "checks": [check.as_dict() for check in found],
                "seconds": round(seconds, 2),
            }
            for name, (state, found, seconds, problem) in hosts.items()
        }
    }
