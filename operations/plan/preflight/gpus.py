"""The GPUs of a host against its shape, the driver, and what they report of their health."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from operations.plan.capacity.driver import check_driver, driver_warnings
from operations.plan.capacity.gpu import DRIVER_TOO_OLD, FIRST_DRIVER, Gpu
from operations.plan.catalog.support_matrix import PLAIN_RELEASES, RELEASES
from operations.plan.errors import PlanError, one_line
from operations.plan.observed.health import GpuHealth
from operations.plan.preflight.check import Check, Checks, Subject
from operations.plan.units import gib

KNOWN = {**RELEASES, **PLAIN_RELEASES}
# Errors that a reset of the GPU, a restart of the machine or its vendor fixes, and that another start of the program does not:
# https://docs.nvidia.com/deploy/xid-errors/ (48, 95, 140: uncorrected memory errors; 64: failed row remapping; 74: NVLink;
# 79: fallen off the bus; 119, 120: the GPU's own processor does not answer; 143: it did not start)
FATAL_XIDS = frozenset({48, 64, 74, 79, 95, 119, 120, 140, 143})


def of_shape(subject: Subject) -> Checks:
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


def of_driver(subject: Subject) -> Checks:
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
    gpu = Gpu(0, health.gpus[0].name, "", "", 0, 0, subject.driver)
    try:
        check_driver(subject.driver, stack.cuda)
    except PlanError as error:
        try:
            driver_warnings(gpu, stack.cuda)
        except PlanError:
            yield Check.from_error(name, error, subject.driver)
        else:
            # a GPU of a data centre may do with the image's compatibility libraries
            yield Check.from_error(name, error, subject.driver, "warning")
        return
    yield Check(name, "ok", f"{subject.driver}, for CUDA {stack.cuda}")


def of_gpus(subject: Subject) -> Checks:
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


def of_xids(subject: Subject) -> Checks:
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


def of_links(subject: Subject) -> Checks:
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
