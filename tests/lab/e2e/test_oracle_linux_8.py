"""Oracle Linux 8: a bare host converges, a second run finds nothing to do, and verification agrees.

On a lab of its own: the others' host says that it is Oracle Linux 9. LAB_E2E_NET_8 is its network (default 10.98.8).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.lab.e2e.one_host import OneHost, difference_rows, settings_of_lab

KEEP = bool(os.environ.get("LAB_E2E_KEEP"))


@pytest.fixture(scope="module")
def eight() -> Iterator[OneHost]:
    ours = OneHost(settings_of_lab(os.environ.get("LAB_E2E_NET_8", "10.98.8"), LAB_OS="8"))
    # `up` reads it; a deploy asks the host itself. The smallest model: what differs here is the host.
    ours.environment |= {"LAB_OS": "8", "LAB_MODEL": "gpt2-medium"}
    if not KEEP:
        ours.lab("down")
    ours.lab("up", "1")
    yield ours
    if not KEEP:
        ours.lab("down")


def test_a_bare_host_converges_and_stays_so(eight: OneHost) -> None:
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


def test_an_update_of_the_system_leaves_what_is_pinned(eight: OneHost) -> None:
    """The repositories hold newer versions of docker and the toolkit, and podman with its runc."""
    newer = eight.root("dnf --quiet --disableplugin=versionlock check-update docker-ce || [ $? = 100 ]")
    assert "docker-ce" in newer
    eight.root("dnf --quiet --assumeyes --refresh update && dnf --quiet check")
    assert "converged: release" in eight.converge().output
