"""Every test here runs once for each host of `--inventory`, reads only, and plans with the data the deploy plans with.

What is expected comes from operations.plan; what is found comes from testinfra and plain commands, never from the
deploy's own probe: a probe that overlooks something must not pass its own examination.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import testinfra

from operations.plan import Release, Settings, plan_release
from operations.plan.balancing.members import Serving
from operations.plan.capacity.gpu import QUERY, parse_query
from operations.plan.inventory.settings import from_host_data
from operations.plan.inventory.without_model import kind_of
from operations.plan.machine.packages import check_os
from operations.plan.monitoring.watched import Watched, watched, watched_load_balancer
from operations.plan.profile.profiles import load_profile
from operations.remote import host_files
from operations.remote.rendering import HostFile
from tests.verify.connection import Connection, InventoryError, Target, Unreachable, connected, targets

JOURNAL_LINES = 40
# files of tests for hosts that serve no model -> the key that makes a host one of them
OF_A_KIND = {"test_monitoring_server.py": "monitoring_server", "test_load_balancer.py": "load_balancer"}
_targets = pytest.StashKey[list[Target]]()
_unreachable = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--inventory", metavar="FILE", help="the pyinfra inventory whose hosts are verified")
    parser.addoption("--group-data", metavar="DIR", help="as pyinfra's own: further data that wins")


def pytest_configure(config: pytest.Config) -> None:
    """An inventory that cannot be read, or has no hosts, ends the run: nothing verified is no success."""
    inventory = config.getoption("--inventory", None)
    if not inventory:
        raise pytest.UsageError("tests/verify: which hosts? --inventory inventories/lab.py, for instance")
    try:
        config.stash[_unreachable] = {}
        config.stash[_targets] = targets(inventory, config.getoption("--group-data", None))
    except InventoryError as error:
        raise pytest.UsageError(str(error)) from None


def _of(path: Path, hosts: list[Target]) -> list[Target]:
    """The hosts that a file's tests are for: those without a model have files of their own."""
    return [host for host in hosts if kind_of(host.data) == OF_A_KIND.get(path.name, "")]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """No test of a kind of hosts that the inventory has none of: an empty one would be reported as skipped."""
    if not collection_path.name.startswith("test_") or collection_path.suffix != ".py":
        return None
    return None if _of(collection_path, config.stash[_targets]) else True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        hosts = _of(metafunc.definition.path, metafunc.config.stash[_targets])
        metafunc.parametrize("target", hosts, ids=[host.name for host in hosts], scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """The first test of a host that cannot be reached says why; the others would only repeat it."""
    target = item.callspec.params.get("target") if hasattr(item, "callspec") else None
    if target and (problem := item.config.stash[_unreachable].get(target.name)):
        pytest.skip(problem)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """A failed test that asks for `journal` shows the end of the unit's journal."""
    report = yield
    journal = getattr(item, "funcargs", {}).get("journal")
    if report.failed and journal:
        report.sections.append(journal())
    return report


@pytest.fixture(scope="session")
def settings(target: Target) -> Settings:
    return from_host_data(target.data, target.name)


@pytest.fixture(scope="session")
def watched_entries(pytestconfig: pytest.Config) -> list[Watched]:
    """What of the inventory a monitoring server watches."""
    found = []
    for each in pytestconfig.stash[_targets]:
        settings = from_host_data(each.data, each.name)
        if settings.load_balancer:
            found.append(watched_load_balancer(each.name, settings.load_balancer))
        if settings.monitoring:
            profile = load_profile(settings.model, settings.profile_overrides)
            found.append(watched(each.name, settings, profile, each.address))
    return found


@pytest.fixture(scope="session")
def serving(pytestconfig: pytest.Config) -> list[Serving]:
    """What of the inventory serves a model."""
    return [
        Serving(each.name, from_host_data(each.data, each.name), each.address)
        for each in pytestconfig.stash[_targets]
        if not kind_of(each.data)
    ]


@pytest.fixture(scope="session")
def connection(target: Target, pytestconfig: pytest.Config) -> Iterator[Connection]:
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(connected(target))
        except Unreachable as error:
            problem = pytestconfig.stash[_unreachable][target.name] = str(error)
        else:
            yield opened
            return
    pytest.fail(problem, pytrace=False)


@pytest.fixture(scope="session")
def host(connection: Connection) -> Any:
    """testinfra's host, over the one connection."""
    target = connection.target
    return testinfra.get_host(
        f"ssh://{target.address}",
        ssh_extra_args=" ".join(connection.options),
        controlpersist=0,
        sudo=bool(target.data.get("_sudo")),
    )


@pytest.fixture(scope="session")
def os_major(host: Any) -> str:
    """The host's Oracle Linux major version."""
    lines = (line for line in host.file("/etc/os-release").content_string.splitlines() if "=" in line)
    os_release = {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines)}
    return check_os(os_release, host.check_output("uname -m"))


@pytest.fixture(scope="session")
def release(settings: Settings, host: Any, os_major: str) -> Release:
    """What the host should be: the plan of the inventory's data and the GPUs the host reports."""
    selinux = host.file("/sys/fs/selinux/enforce").exists
    return plan_release(settings, parse_query(host.check_output(QUERY)), os_major, selinux=selinux)


@pytest.fixture(scope="session")
def etc_files(release: Release) -> dict[str, HostFile]:
    """Every file the deploy writes outside its data root, as it should be, by its path."""
    return host_files.rendered(release)


@pytest.fixture(scope="session")
def container(settings: Settings, host: Any) -> dict[str, Any]:
    """docker's own description of the serving container."""
    found: dict[str, Any] = host.docker(settings.service_name).inspect()
    return found


@pytest.fixture
def journal(settings: Settings, host: Any) -> Any:
    """For the report of a failed test: the last lines of the service's journal."""

    def last_lines() -> tuple[str, str]:
        unit = f"{settings.service_name}.service"
        text = host.run(f"journalctl --no-pager --unit {unit} --lines {JOURNAL_LINES}").stdout
        return f"journal of {unit}, its last {JOURNAL_LINES} lines", text

    return last_lines
