"""Driver waves on one host: packages, reboot, proof, and back where the new driver does not load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.e2e.conftest import KEEP
from tests.lab.e2e.one_host import OneHost, settings_of_lab
from tests.lab.settings import network_of

PACKAGE = "nvidia-driver"


class Waved:
    """A host, and the group data of the next run."""

    def __init__(self, host: OneHost, folder: Path) -> None:
        self.host, self.folder = host, folder

    def deploy(self, version: str = "", code: int = 0, **further: Any) -> str:
        wave = {"packages": {PACKAGE: f"{version}-1.el{{os_major}}"}, "driver": version, **further}
        group = self.folder / "group_data"
        group.mkdir(exist_ok=True)
        (group / "all.py").write_text(f"wave = {wave!r}\n" if version else "", encoding="utf-8")
        done = self.host.deploy("--group-data", str(group))
        assert done.code == code, done.output
        return done.output

    @property
    def driver(self) -> str:
        return self.host.root("nvidia-smi --query-gpu=driver_version --format=csv,noheader").strip()

    @property
    def boots(self) -> str:
        return self.host.root("cat /proc/sys/kernel/random/boot_id")


@pytest.fixture(scope="module")
def waved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Waved]:
    ours = OneHost(settings_of_lab(network_of("LAB_E2E_NET")))
    if not KEEP:
        ours.lab("down")
    ours.lab("up", "1")
    made = Waved(ours, tmp_path_factory.mktemp("wave"))
    made.deploy()
    yield made
    if not KEEP:
        ours.lab("down")


def test_driver_changes_with_a_reboot(waved: Waved) -> None:
    release, boot = waved.host.running_release(), waved.boots
    output = waved.deploy("580.178.04")
    assert "driver and kernel  nvidia-driver" in output
    assert "driver and kernel: back after" in output
    assert (waved.driver, waved.host.running_release()) == ("580.178.04", release)
    assert waved.boots != boot
    assert "converged: release" in waved.deploy("580.178.04")


def test_driver_that_does_not_load_is_taken_back(waved: Waved) -> None:
    release = waved.host.running_release()
    output = waved.deploy("580.178.05", code=1)
    assert "put back driver 580.178.04" in output
    assert "found 0 GPUs, expected 1" in output
    assert waved.driver == "580.178.04"
    waved.host.root("until curl -sf http://127.0.0.1:8000/v2/health/ready; do sleep 0.5; done")
    assert waved.host.running_release() == release
    # nothing is left of it: the same host converges with the driver that it has
    assert "converged: release" in waved.deploy("580.178.04")


def test_packages_that_are_not_there_change_nothing(waved: Waved) -> None:
    boot = waved.boots
    output = waved.deploy("999.99.99", code=1)
    assert "expected dnf to install all of them" in output
    assert (waved.boots, waved.driver) == (boot, "580.178.04")
    assert "converged: release" in waved.deploy("580.178.04")
