"""The exporters: when a container is started again, and what is left of one that nobody wants."""

from __future__ import annotations

from typing import Any

import pytest

from operations.exporters import gone, kept, running
from operations.facts.units import KeptUnit, KeptUnitState
from operations.plan.exposure import exporters as plan
from operations.plan.release import Release
from tests.operations.harness import Host, commands_of, text_of
from tests.unit.test_exporters import BOTH, DIGESTS, WANTED, of, with_exporters

ONE = of(WANTED, "node")
PATHS = plan.own_paths("triton", "/var/lib/tritonhost", "node")


def ran(operation: Any, found: KeptUnit, **arguments: Any) -> list[str]:
    commands = commands_of(operation, Host({KeptUnitState: found}), **arguments)
    return [command if isinstance(command, str) else text_of(command) for command in commands]


def run(found: KeptUnit, release: Release = WANTED) -> list[str]:
    others = [plan.service(other, "node") for other in release.settings.beside]
    return ran(running, found, program=of(release, "node"), instead=others)


def as_wanted(**changed: Any) -> KeptUnit:
    return KeptUnit(**{"active": True, "enabled": True, "key": ONE.key, **changed})


def test_exporter_that_matches_its_plan_is_not_changed() -> None:
    assert run(as_wanted()) == []
    assert ran(kept, as_wanted(), program=ONE, paths=PATHS) == []


@pytest.mark.parametrize("changed", [{"key": "another"}, {"active": False, "key": ""}])
def test_other_or_stopped_exporter_is_started_and_read(changed: dict[str, Any]) -> None:
    restart, page = run(as_wanted(**changed))
    assert "UNIT=triton-node-exporter.service\nKEPT=/run/triton-node-exporter.service.kept\n" in restart
    assert page == "sh /etc/triton-node-exporter.sh shows"


def test_exporter_is_enabled_at_boot() -> None:
    assert run(as_wanted(enabled=False))[0] == "systemctl enable --quiet triton-node-exporter.service"


def test_files_of_a_running_exporter_are_kept() -> None:
    [keep] = ran(kept, as_wanted(key="another"), program=ONE, paths=PATHS)
    assert "/etc/systemd/system/triton-node-exporter.service\n/etc/triton-node-exporter.sh" in keep
    assert ran(kept, KeptUnit(), program=ONE, paths=PATHS) == []


def test_exporters_of_other_services_are_stopped_first() -> None:
    """The first of a host's services may be another one than before: both would listen on one port."""
    shared: dict[str, Any] = {"services": {"llama": {}, "search": {}}, "gpu_ids": [0]}
    first = with_exporters(BOTH, service_name="llama", **shared, image_digests=DIGESTS)
    stop, restart, _ = run(KeptUnit(enabled=True), first)
    assert "systemctl disable --quiet --now search-node-exporter.service" in stop
    assert "UNIT=llama-node-exporter.service" in restart


def test_removal_leaves_neither_unit_nor_files() -> None:
    stop, remove, forget = ran(gone, KeptUnit(), release=WANTED, kind="dcgm")
    name = "triton-dcgm-exporter"
    assert f"systemctl disable --quiet --now {name}.service" in stop
    assert forget == f"systemctl reset-failed {name}.service 2>/dev/null || :"
    assert remove == (
        f"rm -f /etc/systemd/system/{name}.service /etc/{name}.sh /var/lib/tritonhost/dcgm-counters.csv /run/{name}"
    )
