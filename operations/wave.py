"""Driver and kernel: pinned versions, a reboot, proof; and back to what was there before where that fails."""

from __future__ import annotations

import time
from collections.abc import Generator

import gevent
from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations import lock, rollout
from operations.plan.errors import one_line
from operations.plan.inventory.services import machine_of
from operations.plan.inventory.wave_settings import WaveSettings
from operations.plan.machine import wave as plan
from operations.plan.machine.wave import Machine
from operations.plan.release import Release
from operations.pyinfra_patches import reconnected
from operations.remote.detached import LOST, done, run_and_follow, shell
from operations.remote.refusal import Failed
from operations.scripts import host_script
from operations.server.control import judged

POLL_SECONDS = 2
GONE_SECONDS = 120  # for the shutdown, in which services end what they have


@deploy("Driver and kernel")
def change(release: Release) -> None:
    """The driver and the kernel are those of the inventory, after a reboot of the host. Without `wave`, nothing is done."""
    if release.settings.wave:
        changed(name="Change driver and kernel, and reboot", release=release)


@operation()
def changed(release: Release) -> Generator[FunctionCommand, None, None]:
    """
    The packages are at their versions, and the host runs the driver and the kernel of the inventory.

    + release: whose host

    Clients have left the host before. A host that comes back with something else gets the packages and the kernel from before, and
    another reboot.
    """
    if not any(row.stage == plan.STAGE for row in rollout.rows()):
        host.noop("driver and kernel are the inventory's")
        return
    yield FunctionCommand(_change, (release,), {})


def _change(state: State, host: Host, release: Release) -> bool:
    settings = release.settings.wave
    assert settings
    try:
        before = _machine(host, settings)
        why = _forward(state, host, release, settings, before)
        if not why:
            logger.info(f"{host.print_prefix}driver and kernel: {_shown(_machine(host, settings))}")
            return True
        logger.error(f"{host.print_prefix}driver and kernel: {why}")
        _backward(state, host, release, settings, before, why)
    except (Failed, ValueError, *LOST) as problem:
        said = f"driver and kernel: {one_line(str(problem))}"
        logger.error(f"{host.print_prefix}{said}")
        rollout.failed(host, f"failed: {said}")
    return False


def _forward(state: State, host: Host, release: Release, settings: WaveSettings, before: Machine) -> str:
    """Why the host is not what the wave is for; empty: it is. Raises Failed where nothing was changed."""
    wait = release.settings.package_lock_wait_s
    if not run_and_follow(state, host, plan.forward(settings, release.os_major, wait)):
        why = "found that the packages were not installed, expected dnf to install all of them"
        if _machine(host, settings).packages == before.packages:
            raise Failed(f"{why}; nothing was changed")
        return why
    if settings.kernel and settings.kernel != before.kernel:
        # the default stays the one that is known to boot
        done(host, host_script("next_kernel.sh", {"ONCE": "", "DEFAULT": before.default}))
        done(host, host_script("next_kernel.sh", {"ONCE": settings.kernel, "DEFAULT": ""}))
    after = _rebooted(state, host, settings, before)
    if why := plan.problem(settings, before, after):
        return why
    if settings.kernel:
        done(host, host_script("next_kernel.sh", {"ONCE": "", "DEFAULT": f"/boot/vmlinuz-{settings.kernel}"}))
    return ""


def _backward(
    state: State, host: Host, release: Release, settings: WaveSettings, before: Machine, why: str
) -> None:
    """What was there before is there again. Raises Failed."""
    now = _machine(host, settings)
    if before.packages and now.packages != before.packages:
        wait = release.settings.package_lock_wait_s
        if not run_and_follow(state, host, plan.backward(before, wait)):
            raise Failed(f"{why}; the packages from before could not be installed; see the lines above")
    if before.default:
        done(host, host_script("next_kernel.sh", {"ONCE": "", "DEFAULT": before.default}))
    after = now
    if plan.as_before(before, now) or now.boot != before.boot:
        after = _rebooted(state, host, settings, now)
    if wrong := plan.as_before(before, after):
        raise Failed(f"{why}; and after going back: {wrong}; see docs/how-to/driver.md")
    logger.error(f"{host.print_prefix}driver and kernel: {_shown(after)} again, as before")
    judged(host, release.settings, plan.verdict(settings), "failed", why)
    rollout.failed(host, f"put back {_shown(after)}: {why}")


def _machine(host: Host, settings: WaveSettings) -> Machine:
    return plan.machine(done(host, host_script("machine.sh", {"PACKAGES": "\n".join(settings.packages)})))


def _rebooted(state: State, host: Host, settings: WaveSettings, before: Machine) -> Machine:
    """Reboots the host and connects again. Raises Failed where it does not come back in time."""
    logger.info(
        f"{host.print_prefix}driver and kernel: reboot; it may be away for {settings.reboot_timeout_s} s"
    )
    lock.let_go(host)
    began = time.monotonic()
    # detached, so that the connection ends before the host does
    shell(host, "systemd-run --quiet --on-active=1 systemctl reboot")
    while time.monotonic() - began < settings.reboot_timeout_s:
        gevent.sleep(POLL_SECONDS)
        try:
            reconnected(host)
            found = _machine(host, settings)
        except (Failed, ValueError, ConnectError, *LOST):
            continue
        if found.boot != before.boot:
            logger.info(f"{host.print_prefix}driver and kernel: back after {time.monotonic() - began:.0f} s")
            _held_again(state, host)
            return _settled(host, settings, before, found)
        if time.monotonic() - began > GONE_SECONDS:
            raise Failed(
                f"found the host in the same boot {GONE_SECONDS} s after it was told to reboot, expected it to end"
            )
    raise Failed(
        f"DOWN: found no answer {settings.reboot_timeout_s} s after the reboot, expected the host; see its console"
    )


def _held_again(state: State, host: Host) -> None:
    """This run holds the lock as before, for all services of the host. Raises Failed."""
    for each in host.inventory:
        if machine_of(each.name) == machine_of(host.name) and each.connected:
            if each.name != host.name:
                reconnected(each)
            if not lock.hold(state, each, "driver and kernel"):
                raise Failed("found the lock held by another run after the reboot, expected it free")


def _settled(host: Host, settings: WaveSettings, before: Machine, found: Machine) -> Machine:
    """The host once its driver answers: modules and the fabric manager take a while after a boot."""
    end = time.monotonic() + 120
    while plan.problem(settings, before, found) and time.monotonic() < end:
        if len(found.drivers) == len(before.drivers) and found.fabric in ("", "active"):
            break
        gevent.sleep(POLL_SECONDS)
        found = _machine(host, settings)
    return found


def _shown(found: Machine) -> str:
    drivers = ", ".join(sorted({*found.drivers})) or "no driver"
    return f"driver {drivers}, kernel {found.kernel}"
