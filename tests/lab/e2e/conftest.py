"""The lab's end-to-end tests share one host, bare at first, on a network of their own.

    pytest tests/lab/e2e                       # boots a lab, tests, removes it
    LAB_E2E_KEEP=1 pytest tests/lab/e2e        # uses and leaves the lab as it is; for work on these tests

LAB_E2E_NET is the network (default 10.98.0), so that a lab in use is not touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.e2e.one_host import DATA_ROOT, OneHost, settings_of_lab
from tests.lab.settings import network_of

# The order is part of the tests: those that need a bare host come first, and each continues with the host that it finds.
ORDER = (
    "test_preflight",
    "test_disks",
    "test_bare_host",
    "test_verification",
    "test_second_run",
    "test_requests",
    "test_must_gather",
    "test_exposure",
    "test_mutations",
    "test_killed_client",
    "test_failing_upgrade",
    "test_new_profile",
    "test_gated_model",
    "test_canary_token",
    "test_network",
    "test_gateway",
    "test_monitoring",
    "test_reboot",
    "test_bundle",
    "test_earlier_version",
    "test_oracle_linux_8",
    "test_hardened_host",
    "test_unreached_hosts",
    "test_services",
    "test_door",
    "test_monitoring_server",
    "test_load_balancer",
    "test_wave",
    "test_teardown",
)
HERE = Path(__file__).parent
KEEP = bool(os.environ.get("LAB_E2E_KEEP"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if item.path.parent == HERE]
    for item in ours:
        item.add_marker(pytest.mark.lab)
    ours.sort(key=lambda item: ORDER.index(item.path.stem))
    items[:] = [item for item in items if item.path.parent != HERE] + ours


@pytest.fixture(scope="session")
def site() -> Iterator[OneHost]:
    """A lab of one host, as `lab up 1` makes it."""
    ours = OneHost(settings_of_lab(network_of("LAB_E2E_NET")))
    if not KEEP:
        ours.lab("down")
    ours.lab("up", "1")
    yield ours
    if not KEEP:
        ours.lab("down")


@pytest.fixture(scope="module")
def bare(site: OneHost) -> OneHost:
    """The host before any deploy; tests that use it run before those that deploy (ORDER)."""
    if site.try_root(f"test -e {DATA_ROOT}")[0] == 0:
        pytest.skip("the lab was kept: its host is not bare")
    return site


@pytest.fixture
def converged(site: OneHost) -> OneHost:
    """The converged host: costs a second if it already is, and lets each test run alone."""
    site.converge()
    return site
