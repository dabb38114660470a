"""The host's own metrics: which commands install them, note a run, and remove them again."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyinfra.facts.files import Sha256File
from pyinfra.facts.systemd import SystemdEnabled, SystemdStatus

from operations import monitoring, rollout
from operations.plan.inventory.monitoring_settings import TEXTFILES
from operations.plan.monitoring import textfile
from operations.plan.release import Release
from operations.remote import host_files
from tests.operations.harness import Host, commands_of, text_of
from tests.unit.builders import release as planned

TIMER = "triton-metrics.timer"


@pytest.fixture(scope="module")
def release() -> Release:
    return planned({"monitoring": {}})


def ran(operation: Any, facts: dict[type, object], **arguments: Any) -> list[str]:
    commands = commands_of(operation, Host(facts), **arguments)
    return [command if isinstance(command, str) else text_of(command) for command in commands]


def test_script_of_another_text_first_removes_what_it_wrote(release: Release) -> None:
    path = textfile.script(release.settings.state_root)
    text = host_files.rendered(release)[path].text
    known: dict[type, object] = {Sha256File: host_files.digest(text)}
    assert ran(monitoring.scripted, known, path=path, text=text) == []
    for found in (None, "0" * 64):
        removed, written = ran(monitoring.scripted, {Sha256File: found}, path=path, text=text)
        assert removed == f"[ ! -f {path} ] || sh {path} remove"
        assert f"mv -T /var/lib/tritonhost/monitoring/.metrics.sh.new {path}" in written


@pytest.mark.parametrize(("enabled", "active"), [(True, True), (True, False), (False, True)])
def test_timer_is_enabled_and_started(release: Release, enabled: bool, active: bool) -> None:
    facts: dict[type, object] = {SystemdEnabled: {TIMER: enabled}, SystemdStatus: {TIMER: active}}
    made, *rest = ran(monitoring.running, facts, settings=release.settings)
    assert made == f"[ -d {TEXTFILES} ] || install -d -m 755 {TEXTFILES}"
    assert rest == ([] if enabled and active else [f"systemctl enable --quiet --now {TIMER}"])


def test_run_is_noted_only_where_something_remembers_it(release: Release, tmp_path: Path) -> None:
    [begun] = ran(monitoring.begun, {}, settings=release.settings, differences=3)
    script = textfile.script(release.settings.state_root)
    assert begun == f"[ ! -f {script} ] || sh {script} begun 3"
    done = subprocess.run(["sh", "-c", begun.replace(script, str(tmp_path / "none"))])
    assert done.returncode == 0 and list(tmp_path.iterdir()) == []
    [ended] = ran(monitoring.converged, {}, settings=release.settings, differences=3)
    assert ended == f"sh {script} converged 3 && sh {script} write"


def test_removal_leaves_neither_units_nor_files(release: Release, tmp_path: Path) -> None:
    commands = ran(monitoring.gone, {}, settings=release.settings)
    for path in ("/etc/systemd/system/triton-metrics.service", f"/etc/systemd/system/{TIMER}"):
        assert any("rm -f" in command and path in command for command in commands)
    assert commands[-1] == "rm -rf /var/lib/tritonhost/monitoring"
    # run for real: the output is removed by the script, which alone knows where it is
    units, state, output = tmp_path / "system", tmp_path / "monitoring", tmp_path / "textfile/x.prom"
    for file in (units / TIMER, units / "triton-metrics.service", output):
        file.parent.mkdir(exist_ok=True)
        file.write_text("x")
    state.mkdir()
    (state / "metrics.sh").write_text(f'[ "$1" = remove ] && rm -f {output}\n')
    stubs = tmp_path / "bin"
    stubs.mkdir()
    (stubs / "systemctl").write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\n')
    (stubs / "systemctl").chmod(0o755)
    script = "\n".join(commands).replace("/etc/systemd/system", str(units))
    script = script.replace("/var/lib/tritonhost/monitoring", str(state))
    for _ in range(2):
        done = subprocess.run(["sh", "-ec", script], env={"PATH": f"{stubs}:/usr/bin:/bin"})
        assert done.returncode == 0
        assert not state.exists() and list(units.iterdir()) == [] and not output.exists()
    assert (tmp_path / "calls").read_text() == f"disable --quiet --now {TIMER}\n"


def test_stages_without_monitoring_ask_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def noting(word: str) -> Any:
        return lambda **_: called.append(word)

    for each in ("begun", "scripted", "running", "converged", "gone"):
        monkeypatch.setattr(monitoring, each, noting(each))
    rows = {"": 3, "monitoring": 0}
    monkeypatch.setattr(rollout, "differences", lambda stage="": rows[stage])
    plain = planned()
    monitoring.begin._inner(release=plain)
    monitoring.install._inner(release=plain)
    assert called == []
    rows["monitoring"] = 1
    monitoring.install._inner(release=plain)
    assert called == ["gone"]
