"""When a host leaves its load balancers: pure."""

from __future__ import annotations

from collections.abc import Iterable

from operations.plan.difference_rows import Difference
from operations.plan.machine import wave

# Load balancers ask every 1 to 2 s: templates/load-balancer.cfg.j2
NOTICED_SECONDS = 4
# stages whose changes no client notices, and those that a swap side by side makes without
_UNNOTICED = frozenset({"storage", "ownership", "selinux", "network", "monitoring", "host record"})
_BESIDE = frozenset({"model repository", "release", "service", "front", "database"})
_ANSWER = "release for load balancers"
# of a gateway whose files alone have changed: nginx reads them without closing a connection
_READ_AGAIN = frozenset({"another content", "not what its files say"})


def interrupts(rows: Iterable[Difference], beside: bool) -> bool:
    """
    Whether clients of the host could notice what is done about these differences.

    + beside: the new release is started beside the running one
    """
    # an artifact's stage is its kind: making it interrupts nobody
    interrupting = frozenset({"packages", "container runtime", "gateway", "door", wave.STAGE, *_BESIDE})
    harmless = _UNNOTICED | (_BESIDE if beside else frozenset())
    return any(
        row.stage in interrupting - harmless
        and row.what != _ANSWER
        and not (row.stage == "gateway" and row.found in _READ_AGAIN)
        for row in rows
    )
