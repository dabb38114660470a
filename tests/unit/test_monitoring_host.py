"""The host's own metrics in the plan: settings, rendered files, and the rows of what differs."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operations.plan.difference import difference
from operations.plan.errors import PlanError
from operations.plan.inventory.settings import from_host_data
from operations.plan.monitoring import textfile
from operations.plan.observed.observed import Observed
from operations.remote import host_files
from tests.unit.builders import DATA, UNIT, converged, release

WATCHED = release({"monitoring": {}})
PLAIN = release()
TIMER, SERVICE = (f"/etc/systemd/system/triton-metrics.{kind}" for kind in ("timer", "service"))


def rows(observed: Observed, wanted: Any = WATCHED) -> list[tuple[str, str, str]]:
    found = difference(wanted, observed, host_files.expected(wanted))
    return [(row.what, row.found, row.wanted) for row in found if row.stage == "monitoring"]


def watched_host(**changed: Any) -> Observed:
    host = converged(WATCHED)
    digests = {file.path: file.digest for file in host_files.expected(WATCHED)}
    units = {**host.units, "triton-metrics.timer": UNIT, "triton-metrics.service": {"LoadState": "loaded"}}
    return replace(host, **{"file_digests": {**host.file_digests, **digests}, "units": units, **changed})


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ({"textfile_directory": "/etc/node"}, "the directory that node_exporter reads"),
        ({"textfile_directory": "/var"}, "the directory that node_exporter reads"),
        ({"textfile_directory": "/var/lib/../../etc"}, "the directory that node_exporter reads"),
        ({"textfile_directory": "/var/lib/a b"}, "letters, digits"),
        ({"textfile_directory": "textfiles"}, "absolute"),
        ({"address": "gpu-1:9100"}, "without a port"),
        ({"address": "http://gpu-1"}, "without a port"),
        ({"node_port": 0}, "1 to 65535"),
        ({"dcgm_port": "9400"}, "1 to 65535"),
        ({"port": 9100}, "unknown key"),
        (True, "table"),
    ],
    ids=str,
)
def test_monitoring_that_cannot_be_meant_is_refused(table: Any, found: str) -> None:
    with pytest.raises(PlanError) as error:
        from_host_data({**DATA, "monitoring": table}, "gpu-1")
    assert found in str(error.value) and str(error.value).startswith("gpu-1: monitoring")


def test_host_without_monitoring_has_no_file_and_no_row() -> None:
    assert not [path for path in host_files.rendered(PLAIN) if "metrics" in path or "monitoring" in path]
    assert rows(converged(PLAIN), PLAIN) == []


def test_converged_host_with_monitoring_has_no_row() -> None:
    assert rows(watched_host()) == []


def test_what_differs_is_named() -> None:
    found = {what for what, _, _ in rows(converged(WATCHED))}
    state = "/var/lib/tritonhost/monitoring"
    assert found == {f"{state}/metrics.sh", f"{state}/expected", TIMER, SERVICE, "triton-metrics.timer"}
    host = watched_host()
    for name, unit, shown in (
        ("triton-metrics.timer", {**UNIT, "ActiveState": "inactive"}, "enabled inactive"),
        ("triton-metrics.timer", {**UNIT, "UnitFileState": "disabled"}, "disabled active"),
        ("triton-metrics.timer", {**UNIT, "NeedDaemonReload": "yes"}, "changed on disk"),
        ("triton-metrics.service", {"NeedDaemonReload": "yes"}, "changed on disk"),
    ):
        changed = replace(host, units={**host.units, name: unit})
        assert [(what, said) for what, said, _ in rows(changed)] == [(name, shown)]


def test_what_monitoring_left_is_removed() -> None:
    assert rows(watched_host(), PLAIN) == [
        (path, "left of the metrics", "absent")
        for path in (TIMER, SERVICE, *textfile.own_paths(PLAIN.settings)[1:])
    ]


def test_run_looks_at_the_files_that_root_runs() -> None:
    looked_at = host_files.watched(PLAIN.settings)
    assert {TIMER, SERVICE, *textfile.own_paths(PLAIN.settings)} <= set(looked_at)


def test_expected_digests_are_those_of_the_other_files() -> None:
    files = host_files.rendered(WATCHED)
    path = textfile.own_paths(WATCHED.settings)[2]
    lines = [line.split("  ", 1) for line in files[path].text.splitlines()]
    listed = {name: digest for digest, name in lines}
    others = host_files.rendered(PLAIN)
    assert listed == {name: host_files.digest(file.text) for name, file in others.items()}


def test_each_service_writes_a_file_of_its_own() -> None:
    own = {"service_name": "search", "services": {"search": {}, "llama": {}}, "monitoring": {}}
    wanted = release({**own, "gpu_ids": [0]})
    script = host_files.rendered(wanted)[textfile.script(wanted.settings.state_root)].text
    assert "OUTPUT=/var/lib/node_exporter/textfile_collector/tritonhost-search.prom\n" in script
    assert "STATE_ROOT=/var/lib/tritonhost/services/search\n" in script and "ALONE=''\n" in script


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_units_are_valid_for_systemd(tmp_path: Path) -> None:
    texts = {Path(path).name: host_files.rendered(WATCHED)[path].text for path in (TIMER, SERVICE)}
    assert "triton-metrics" not in complaints(tmp_path, texts)
    broken = {
        name: text.replace("=strict", "=banana").replace("=30", "=soon") for name, text in texts.items()
    }
    said = complaints(tmp_path, broken)
    assert "triton-metrics.service" in said and "triton-metrics.timer" in said


def complaints(folder: Path, texts: dict[str, str]) -> str:
    """What systemd says of units."""
    for name, text in texts.items():
        (folder / name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *(str(folder / name) for name in texts)]
    return subprocess.run(command, capture_output=True, text=True).stderr
