"""What differs between a load balancer as it should be and as it is: pure, and the reason for every change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from operations.plan.artifacts.keys import digest
from operations.plan.balancing.load_balancer import DIRECTORY, NAME, RECORD, LoadBalancerPlan
from operations.plan.difference_rows import (
    Difference,
    ExpectedFile,
    Rows,
    file_rows,
    guard_rows,
    opening_rows,
    package_rows,
    unit_rows,
)
from operations.plan.exposure import firewall
from operations.plan.machine.selinux import FRONT_BOOLEAN
from operations.plan.observed.firewall import Firewall, Rule
from operations.plan.observed.observed import Observed


def difference(
    wanted: LoadBalancerPlan, observed: Observed, files: Sequence[ExpectedFile], read: Mapping[str, str]
) -> list[Difference]:
    """
    Everything that differs, in the order of the steps.

    + files: the units and the guard's rules, as they should be
    + read: name -> text of the files that haproxy reads
    """
    locked = wanted.settings.version_lock
    return [
        *file_rows("packages", files, observed),
        *package_rows(wanted.packages, wanted.locks, locked, observed, conflicting=()),
        *_boolean(wanted, observed),
        *file_rows("network", files, observed),
        *file_rows("service", files, observed),
        *guard_rows(wanted.guard, files, observed),
        *opening_rows(openings(wanted, observed.firewall), firewall.with_mark(NAME, observed.firewall)),
        *_read(observed, read),
        *_unit(observed),
    ]


def openings(wanted: LoadBalancerPlan, found: Firewall) -> frozenset[Rule]:
    """firewalld's rules for clients, and for who reads the metrics."""
    own = wanted.own
    rules = [(own.bind, firewall.rules_for(NAME, own.sources, (own.port,)))]
    if own.metrics_port and own.metrics_sources:
        rules.append((own.bind, firewall.rules_for(NAME, own.metrics_sources, (own.metrics_port,))))
    return firewall.placed(rules, found)


def record_of(read: Mapping[str, str]) -> str:
    """What the unit writes down when haproxy has read its files."""
    return f"{digest(''.join(read.values()))}\n"


def _read(observed: Observed, read: Mapping[str, str]) -> Rows:
    for name, text in read.items():
        path = f"{DIRECTORY}/{name}"
        found = observed.file_digests.get(path)
        if found != digest(text):
            # what its digest is, is not said: one of them has a private key
            yield Difference(
                "load balancer", path, "another content" if found else "absent", "the inventory's"
            )
    if observed.file_digests.get(RECORD) != digest(record_of(read)):
        yield Difference("load balancer", "haproxy", "has not read its files", "run with its files")


def _boolean(wanted: LoadBalancerPlan, observed: Observed) -> Rows:
    if wanted.selinux and observed.selinux and observed.selinux.booleans.get(FRONT_BOOLEAN) is False:
        yield Difference("selinux", FRONT_BOOLEAN, "off", "on")


def _unit(observed: Observed) -> Rows:
    unit = f"{NAME}.service"
    yield from unit_rows("load balancer", unit, observed)
    if observed.units.get(unit, {}).get("NeedDaemonReload") == "yes":
        yield Difference("load balancer", unit, "changed on disk", "reloaded by systemd")
