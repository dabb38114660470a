"""Driver and kernel: pinned versions, a reboot, proof; and back to what was there before where that fails."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Generator
from contextlib import suppress

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
from operations.remote.units import until_active
from operations.scripts import host_script
from operations.server.control import judged

POLL_SECONDS = 2
GONE_SECONDS = 300  # for the shutdown, in which services end what they have
SETTLED_SECONDS = 120  # for modules and the fabric manager
_LOST = (ConnectError, *LOST)


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


class _Gone(Failed):
    """The host does not answer any more, or is another run's: nothing can be taken back."""


def _change(state: State, host: Host, release: Release) -> bool:
    settings = release.settings.wave
    assert settings
    try:
        now = _machine(host, settings)
        if plan.is_there(settings, release.os_major, now):
            # another service of the host has done it for all
            _proven(host, release, settings)
            return True
        before = _recorded(host, now)
        why = _forward(state, host, release, settings, before)
        if not why:
            _proven(host, release, settings)
            logger.info(f"{host.print_prefix}driver and kernel: {_shown(_machine(host, settings))}")
            return True
        logger.error(f"{host.print_prefix}driver and kernel: {why}")
        _backward(state, host, release, settings, before, why)
    except (Failed, ValueError, *_LOST) as problem:
        said = f"driver and kernel: {one_line(str(problem)) or type(problem).__name__}"
        logger.error(f"{host.print_prefix}{said}")
        rollout.failed(host, f"{'DOWN' if isinstance(problem, _Gone) else 'failed'}: {said}")
    return False


def _forward(state: State, host: Host, release: Release, settings: WaveSettings, before: Machine) -> str:
    """Why the host is not what the wave is for; empty: it is. Raises Failed where nothing was changed, and _Gone."""
    wait = release.settings.package_lock_wait_s
    if not run_and_follow(state, host, plan.forward(settings, release.os_major, wait)):
        why = "found that the packages were not installed, expected dnf to install all of them"
        if _machine(host, settings).packages == before.packages:
            shell(host, f"rm -f {plan.RECORD}")
            raise Failed(f"{why}; nothing was changed")
        return why
    try:
        # the default is the one that is known to boot
        _next_kernel(host, default=before.kernel)
        if settings.kernel and settings.kernel != before.kernel:
            _next_kernel(host, once=settings.kernel)
        # a host that does not come back is not rebooted by each run
        judged(host, release.settings, plan.verdict(settings), "failed", "rebooted, and not proven since")
        after = _rebooted(state, host, settings, before, lambda found: plan.problem(settings, before, found))
    except _Gone:
        raise
    except (Failed, ValueError, *_LOST) as problem:
        return one_line(str(problem)) or type(problem).__name__
    return plan.problem(settings, before, after)


def _proven(host: Host, release: Release, settings: WaveSettings) -> None:
    """The new kernel is the default, and nothing is kept of the way there. Raises Failed."""
    if settings.kernel:
        _next_kernel(host, default=settings.kernel)
    data_root = release.settings.data_root
    shell(host, f"rm -f {plan.RECORD} {shlex.quote(f'{data_root}/verdicts/{plan.verdict(settings)}')}")


def _backward(
    state: State, host: Host, release: Release, settings: WaveSettings, before: Machine, why: str
) -> None:
    """What was there before is there again. Raises Failed."""
    judged(host, release.settings, plan.verdict(settings), "failed", why)
    now = _machine(host, settings)
    if before.packages and now.packages != before.packages:
        wait = release.settings.package_lock_wait_s
        if not run_and_follow(state, host, plan.backward(before, wait)):
            raise Failed(f"{why}; the packages from before could not be installed; see the lines above")
    _next_kernel(host, default=before.kernel)
    after = now
    if plan.as_before(before, now) or now.boot != before.boot:
        after = _rebooted(state, host, settings, now, lambda found: plan.as_before(before, found))
    if wrong := plan.as_before(before, after):
        raise Failed(f"{why}; and after going back: {wrong}; see docs/how-to/driver.md")
    shell(host, f"rm -f {plan.RECORD}")
    logger.error(f"{host.print_prefix}driver and kernel: {_shown(after)} again, as before")
    # load balancers use the host again only when its release answers
    own = release.settings
    until_active(host, [own.service_name], own.start_timeout_s)
    rollout.failed(host, f"put back {_shown(after)}: {why}")


def _recorded(host: Host, now: Machine) -> Machine:
    """What the host was before the wave: kept on it, since a run may end at any point, and the next one goes back to the same."""
    _, kept = shell(host, f"cat {plan.RECORD} 2>/dev/null || :")
    if kept:
        return plan.machine(kept)
    done(host, f"umask 077; cat >{plan.RECORD}", stdin="".join(f"{line}\n" for line in now.lines()))
    return now


def _machine(host: Host, settings: WaveSettings) -> Machine:
    return plan.machine(done(host, host_script("machine.sh", {"PACKAGES": "\n".join(settings.packages)})))


def _next_kernel(host: Host, once: str = "", default: str = "") -> None:
    """Which kernel boots next, where there is a choice. Raises Failed."""
    path = f"/boot/vmlinuz-{default}" if default else ""
    done(host, host_script("next_kernel.sh", {"ONCE": once, "DEFAULT": path}))


def _rebooted(
    state: State, host: Host, settings: WaveSettings, before: Machine, problem: Callable[[Machine], str]
) -> Machine:
    """
    Reboots the host and connects again.

    + before: of the boot that ends
    + problem: why the host is not what it should be; asked again for a while, since drivers and the fabric manager come late

    Raises Failed where the host was not rebooted, and _Gone where it does not come back in time.
    """
    logger.info(
        f"{host.print_prefix}driver and kernel: reboot; it may be away for {settings.reboot_timeout_s} s"
    )
    # by a timer, so that the connection ends before the host does
    done(host, "systemd-run --quiet --on-active=1 --timer-property=AccuracySec=100ms systemctl reboot")
    lock.let_go(host)
    began = time.monotonic()
    while time.monotonic() - began < settings.reboot_timeout_s:
        gevent.sleep(POLL_SECONDS)
        try:
            reconnected(host)
            found = _machine(host, settings)
        except (Failed, ValueError, *_LOST):
            continue
        if found.boot != before.boot:
            logger.info(f"{host.print_prefix}driver and kernel: back after {time.monotonic() - began:.0f} s")
            _held_again(state, host)
            return _settled(host, settings, found, problem)
        if time.monotonic() - began > GONE_SECONDS:
            _held_again(state, host)
            raise Failed(
                f"found the host in the same boot {GONE_SECONDS} s after it was told to reboot, expected it to end"
            )
    raise _Gone(
        f"found no answer {settings.reboot_timeout_s} s after the reboot, expected the host; see its console"
    )


def _held_again(state: State, host: Host) -> None:
    """This run holds the lock as before, for all services of the host. Raises _Gone."""
    for each in host.inventory:
        if machine_of(each.name) == machine_of(host.name) and each.connected:
            try:
                if each.name != host.name:
                    reconnected(each)
            except _LOST as problem:
                raise _Gone(f"found no connection for {each.name} after the reboot: {problem}") from None
            if not lock.hold(state, each, "driver and kernel"):
                raise _Gone("found the lock held by another run after the reboot, expected it free")


def _settled(
    host: Host, settings: WaveSettings, found: Machine, problem: Callable[[Machine], str]
) -> Machine:
    """The host once it is what it should be, or after a while."""
    end = time.monotonic() + SETTLED_SECONDS
    while problem(found) and time.monotonic() < end:
        gevent.sleep(POLL_SECONDS)
        with suppress(Failed, ValueError, *_LOST):
            found = _machine(host, settings)
    return found


def _shown(found: Machine) -> str:
    drivers = ", ".join(sorted({*found.drivers})) or "no driver"
    return f"driver {drivers}, kernel {found.kernel}"
