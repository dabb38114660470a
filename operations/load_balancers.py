"""What the load balancers of a host say of it, in a run that reaches them."""

from __future__ import annotations

import time
from collections.abc import Iterable

import gevent
from pyinfra.api.host import Host

from operations.plan.balancing import load_balancer
from operations.plan.balancing.members import member_name
from operations.remote.detached import LOST, done
from operations.remote.refusal import Failed
from operations.scripts import host_script
from operations.watched_hosts import load_balancers_of

USED_SECONDS = 20  # two checks, and a start of haproxy


def connected(host: Host) -> list[Host]:
    """Those of a host that this run reaches."""
    return [front for front in load_balancers_of(host) if front.connected]


def members(front: Host) -> dict[str, tuple[bool, int]]:
    """Name -> whether it is up, and its weight; none where haproxy does not run. Raises Failed."""
    lines = done(front, host_script("members.sh", {"SOCKET": load_balancer.SOCKET}))
    words = [line.split() for line in lines]
    return {name: (status == "UP", int(weight)) for name, status, weight in (w for w in words if len(w) == 3)}


def takes_requests(found: Iterable[tuple[bool, int]]) -> bool:
    """Whether one of these hosts does."""
    return any(up and weight for up, weight in found)


def others_serve(front: Host, host: Host) -> bool:
    """Whether another host takes requests, or there is no other, or this one takes none. Raises Failed."""
    found = members(front)
    up, _ = found.pop(member_name(host.name), (False, 0))
    return not up or not found or takes_requests(found.values())


def used_again(host: Host) -> str:
    """Waits until each load balancer that this run reaches sends requests to the host. Why one does not; empty: all do."""
    end = time.monotonic() + USED_SECONDS
    waiting = connected(host)
    while waiting:
        try:
            # one that does not know the host yet is changed at the end of the run
            waiting = [
                front for front in waiting if not members(front).get(member_name(host.name), (True, 1))[0]
            ]
        except (Failed, *LOST) as problem:
            return f"found {problem} of a load balancer, expected which hosts it uses"
        if waiting and time.monotonic() > end:
            return (
                f"found that {waiting[0].name} does not use the host, expected it {USED_SECONDS} s after it came back; see there: "
                "journalctl --unit load-balancer"
            )
        gevent.sleep(1)
    return ""
