"""A wave of driver and kernel: what differs, what is proven after the reboot, and what the host's scripts say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from operations.plan.difference_rows import Difference
from operations.plan.drain import interrupts
from operations.plan.errors import PlanError
from operations.plan.inventory.settings import from_host_data
from operations.plan.inventory.wave_settings import WaveSettings
from operations.plan.machine import wave
from operations.plan.machine.wave import Machine
from operations.scripts import host_script
from tests.unit.builders import DATA
from tests.unit.stubs import Stubs

OLD, NEW = "3:580.159.04-1.el9", "3:580.178.04-1.el9"
TABLE: dict[str, Any] = {"packages": {"nvidia-driver": "3:580.178.04-1.el{os_major}"}, "driver": "580.178.04"}
SETTINGS = WaveSettings.model_validate(TABLE)
BEFORE = Machine("a", "5.15", "/boot/vmlinuz-5.15", ("580.159.04",), "active", {"nvidia-driver": OLD})
AFTER = replace(BEFORE, boot="b", drivers=("580.178.04",), packages={"nvidia-driver": NEW})


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ({"packages": {}, "driver": "580.178.04"}, "at least one package with its version"),
        ({"packages": {"nvidia-driver": None}, "driver": "580.178.04"}, "a version and release"),
        ({"packages": {"nvidia-driver": NEW}}, "the driver, the kernel or both"),
        ({**TABLE, "driver": "latest"}, "as nvidia-smi prints it"),
        ({**TABLE, "kernel": "uek7"}, "as uname -r prints it"),
        ({**TABLE, "reboot_timeout_s": 5}, "60 to 7200"),
    ],
    ids=str,
)
def test_wave_without_a_pin_is_refused(table: dict[str, Any], found: str) -> None:
    with pytest.raises(PlanError) as error:
        from_host_data({**DATA, "wave": table}, "gpu-1")
    assert found in str(error.value)


@pytest.mark.parametrize(
    ("installed", "driver", "expected"),
    [
        ((), "580.159.04", ["nvidia-driver", "running driver"]),
        ((OLD,), "580.159.04", ["nvidia-driver", "running driver"]),
        # installed, and the reboot is still to come
        ((NEW,), "580.159.04", ["running driver"]),
        ((NEW,), "580.178.04", []),
        # of a host whose driver does not answer nothing is known
        ((NEW,), "", []),
    ],
)
def test_rows_are_packages_and_what_runs(
    installed: tuple[str, ...], driver: str, expected: list[str]
) -> None:
    rows = list(wave.rows(SETTINGS, "9", {"nvidia-driver": installed}, driver, "5.15"))
    assert [what for what, _, _ in rows] == expected
    assert interrupts([Difference(wave.STAGE, *row) for row in rows], beside=True) is bool(expected)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, ""),
        ({"boot": "a"}, "the same boot"),
        ({"drivers": ()}, "found 0 GPUs, expected 1"),
        ({"drivers": ("580.159.04",)}, "found driver 580.159.04, expected 580.178.04"),
        ({"fabric": "failed"}, "the fabric manager failed"),
        ({"fabric": ""}, "the fabric manager absent"),
    ],
)
def test_host_proves_what_the_wave_was_for(changed: dict[str, Any], found: str) -> None:
    assert found in wave.problem(SETTINGS, BEFORE, replace(AFTER, **changed))
    assert bool(wave.problem(SETTINGS, BEFORE, replace(AFTER, **changed))) is bool(found)


def test_fabric_manager_that_did_not_run_before_is_not_missed() -> None:
    before = replace(BEFORE, fabric="failed")
    assert wave.problem(SETTINGS, before, replace(AFTER, fabric="failed")) == ""
    assert wave.as_before(before, replace(before, boot="c")) == ""


def test_second_service_of_a_host_does_not_reboot_it_again() -> None:
    assert wave.is_there(SETTINGS, "9", AFTER)
    assert not wave.is_there(SETTINGS, "9", BEFORE)
    assert not wave.is_there(SETTINGS, "9", replace(AFTER, drivers=()))


def test_machine_is_kept_as_it_was_read() -> None:
    assert wave.machine(BEFORE.lines()) == BEFORE


def test_kernel_is_compared_too() -> None:
    settings = WaveSettings.model_validate({**TABLE, "kernel": "5.16.1"})
    assert "found kernel 5.15, expected 5.16.1" in wave.problem(settings, BEFORE, AFTER)
    assert wave.problem(settings, BEFORE, replace(AFTER, kernel="5.16.1")) == ""


def test_host_that_was_taken_back_is_what_it_was() -> None:
    assert wave.as_before(BEFORE, replace(BEFORE, boot="c")) == ""
    assert "found drivers none" in wave.as_before(BEFORE, replace(BEFORE, drivers=()))


def test_packages_go_forward_and_back_together() -> None:
    forward, backward = wave.forward(SETTINGS, "9", 60), wave.backward(BEFORE, 60)
    assert f"nvidia-driver-{NEW}" in forward.commands[0]
    assert f"nvidia-driver-{OLD}" in backward.commands[0]
    assert forward.unit != backward.unit
    # a teardown does not take the driver away
    assert not any("record_packages" in word for word in forward.commands[0])
    # of what a deploy otherwise does not touch
    assert not any(word.startswith("--exclude=") for word in forward.commands[0])


def test_machine_is_read_from_its_own_words(stubs: Stubs) -> None:
    stubs.add("grubby", "echo /boot/vmlinuz-5.15")
    stubs.add("nvidia-smi", "echo 580.178.04; echo 580.178.04")
    stubs.add("systemctl", '[ "$1" = cat ] || echo active')
    stubs.add("rpm", f'[ "$4" = nvidia-driver ] && echo "{OLD}" && echo "{NEW}"')
    done = stubs.run(host_script("machine.sh", {"PACKAGES": "nvidia-driver\nabsent"}))
    found = wave.machine(done.stdout.splitlines())
    assert found.default == "/boot/vmlinuz-5.15"
    assert found.drivers == ("580.178.04", "580.178.04")
    assert (found.fabric, found.packages) == ("active", {"nvidia-driver": NEW})
    with pytest.raises(ValueError, match="ends early"):
        wave.machine(done.stdout.splitlines()[:-1])


def test_kernel_that_is_not_there_is_not_booted(stubs: Stubs) -> None:
    stubs.add("grubby", "echo index=0")
    done = stubs.run(host_script("next_kernel.sh", {"ONCE": "9.9.9", "DEFAULT": ""}))
    assert done.returncode == 1 and "found no /boot/vmlinuz-9.9.9" in done.stderr
