"""Oracle Linux 8: a bare host converges, a second run finds nothing to do, and verification passes.

It has its own lab, because the other tests' host is Oracle Linux 9. LAB_E2E_NET_8 is its network (default 10.98.8).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.lab.e2e.one_host import OneHost, difference_rows, settings_of_lab
from tests.lab.settings import network_of

KEEP = bool(os.environ.get("LAB_E2E_KEEP"))


@pytest.fixture(scope="module")
def eight() -> Iterator[OneHost]:
    ours = OneHost(settings_of_lab(network_of("LAB_E2E_NET_8"), LAB_OS="8"))
    # `up` reads LAB_OS; a deploy asks the host itself. The smallest model is enough: only the host differs here.
    ours.environment |= {"LAB_OS": "8", "LAB_MODEL": "gpt2-medium"}
    if not KEEP:
        ours.lab("down")
    ours.lab("up", "1")
    yield ours
    if not KEEP:
        ours.lab("down")


@pytest.mark.requirement("R60")
def test_oracle_linux_8_host_converges_and_stays_converged(eight: OneHost) -> None:
    assert "8.10" in eight.root("cat /etc/oracle-release")
    eight.converge()
    eight.verified()
    assert eight.litter() == []
    installed = eight.root("rpm -q docker-ce containerd.io")
    assert installed.count(".el8.") == 2
    before = eight.container()
    again = eight.converge()
    assert "converged: release" in again.output
    assert difference_rows(again.output) == []
    assert "Starting operation" not in again.output
    after = eight.container()
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])


@pytest.mark.requirement("R11")
def test_system_update_keeps_pinned_packages(eight: OneHost) -> None:
    """The repositories hold newer versions of docker and the toolkit, and podman with its runc."""
    newer = eight.root("dnf --quiet --disableplugin=versionlock check-update docker-ce || [ $? = 100 ]")
    assert "docker-ce" in newer
    eight.root("dnf --quiet --assumeyes --refresh update && dnf --quiet check")
    assert "converged: release" in eight.converge().output
