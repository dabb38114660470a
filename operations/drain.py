"""A host that is changed leaves its load balancers first, and comes back when its release is proven."""

from __future__ import annotations

import shlex
from collections.abc import Generator

import gevent
from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations import convergence, front, load_balancers, rollout
from operations.plan import swap
from operations.plan.drain import NOTICED_SECONDS, interrupts
from operations.plan.exposure import gateway
from operations.plan.release import Release
from operations.remote.detached import LOST, done, printed
from operations.remote.load_balancers import released_script
from operations.remote.refusal import Failed
from operations.remote.units import until_active


@deploy("Load balancers")
def begin(release: Release) -> None:
    """No load balancer sends a new request to a host that is about to be interrupted; what it has is answered."""
    if release.gateway:
        left(name="Leave the load balancers", release=release)


@deploy("Load balancers")
def end(release: Release) -> None:
    """Load balancers send requests to the proven release again."""
    if release.gateway:
        back(name="Come back to the load balancers", release=release)


@operation()
def left(release: Release) -> Generator[FunctionCommand, None, None]:
    """
    Before an interruption, load balancers know that the host takes no requests, and it has answered those it had.

    + release: what the host is to become

    A swap side by side interrupts nobody: the host stays.
    """
    rows = rollout.rows()
    if not interrupts(rows, beside=False):
        host.noop("nobody is interrupted")
        return
    # a canary's share is told to load balancers before they use it
    first = release.settings.rollout is not None and rollout.is_first(host.name, release)
    beside = False
    if release.fronted and not first:
        observed = convergence.observe(release.settings, release.profile)
        beside = swap.swap(release, observed).way == "side by side"
    if not interrupts(rows, beside):
        host.noop("nobody is interrupted")
        return
    yield FunctionCommand(_leave, (release, first), {})


@operation()
def back(release: Release) -> Generator[FunctionCommand, None, None]:
    """
    The gateway tells load balancers that the release is proven and serves.

    + release: the running release
    """
    yield FunctionCommand(_come_back, (release,), {})


def _leave(state: State, host: Host, release: Release, undecided: bool) -> bool:
    settings = release.settings
    try:
        for front in load_balancers.connected(host):
            if not load_balancers.others_serve(front, host):
                raise Failed(
                    f"found that {front.name} uses no other host, expected one that takes the requests; bring another one back "
                    f"first, as with --limit HOST,{front.name}; the host was left as it is"
                )
        if undecided:
            path = shlex.quote(gateway.undecided(settings.state_root))
            # without a gateway so far, no load balancer knows the host
            done(host, f"! test -d $(dirname {path}) || printf '%s\\n' {release.id} >{path}")
        leave(host, release)
    except (Failed, *LOST) as problem:
        logger.error(f"{host.print_prefix}load balancers: {problem}")
        return False
    return True


def leave(host: Host, release: Release) -> None:
    """No load balancer sends a new request, and those that the host has are answered. Raises Failed."""
    output = done(host, _script(host, release, leave=True))
    assert release.gateway
    if not release.gateway.proxies or printed(output, "left") != "yes":
        return
    gevent.sleep(NOTICED_SECONDS)
    if still := front.drained(host, release, release.servers[0]):
        logger.info(
            f"{host.print_prefix}{still} connections are still open {release.settings.drain_s} s after the host has left its "
            "load balancers; they are ended"
        )


def _come_back(state: State, host: Host, release: Release) -> bool:
    try:
        released(host, release)
    except Failed as problem:
        logger.error(f"{host.print_prefix}load balancers: {problem}")
        rollout.failed(host, f"failed: not in service again: {problem}")
        return False
    assert release.gateway
    if release.gateway.proxies:
        # the next host must not leave before this one is used
        gevent.sleep(NOTICED_SECONDS)
        if unused := load_balancers.used_again(host):
            logger.error(f"{host.print_prefix}load balancers: {unused}")
            rollout.failed(host, f"failed: not in service again: {unused}")
            return False
    return True


def after_failure(host: Host, release: Release) -> None:
    """Load balancers use the host again, if the release from before was put back; otherwise they do not."""
    if not release.gateway:
        return
    settings = release.settings
    unit = f"{settings.service_name}.service"
    try:
        # it may be starting, as after docker's restart
        starting = f"systemctl show --property=ActiveState --value {unit} | grep -qx activating || exit 0\n"
        until_active(host, [settings.service_name], settings.start_timeout_s, starting)
        released(host, release)
    except LOST:
        return  # reported by what has failed before
    except Failed as problem:
        logger.error(f"{host.print_prefix}load balancers: {problem}")


def released(host: Host, release: Release) -> None:
    """The gateway names the release that runs, if it is proven; otherwise none. Raises Failed."""
    done(host, _script(host, release))


def _script(host: Host, release: Release, leave: bool = False) -> str:
    assert release.gateway
    url = f"http://127.0.0.1:{release.gateway.behind[0]}/v2/health/ready"
    canary = "" if rollout.canary_since(host.name) is None else " canary"
    return released_script(release.settings, url, leave, canary)
