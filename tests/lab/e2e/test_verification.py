"""A verification that skips necessary tests proves nothing: then `verified` fails, even if pytest's exit code is 0."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import skips
from tests.lab.e2e.one_host import WITHOUT, OneHost
from tests.lab.settings import REPOSITORY

# like a fixture that wrongly skips all tests
SKIPS_ALL = """
import pytest

@pytest.fixture(autouse=True)
def nothing_runs(request):
    if {which}:
        pytest.skip("nothing to see here")
"""
ENGINE = {"source", "weights", "engine", "checkpoint", "checkout"}


@pytest.mark.smoke
def test_expected_skips_depend_on_host_features() -> None:
    engine, plan = skips.expected(ENGINE), skips.expected({"plan", "plan-2", "weights", "weights-2"})
    runs_for_plan = {test for test in engine if test not in plan}
    assert "test_database.py::test_database_runs_and_is_enabled" in runs_for_plan
    assert "test_artifacts.py::test_every_file_has_its_checksum[plan-2]" in runs_for_plan
    assert "test_artifacts.py::test_every_file_has_its_checksum[engine]" in plan
    assert not [test for test in skips.expected({*ENGINE, "gateway"}) if test.startswith("test_gateway.py")]


@pytest.mark.smoke
def test_unexpected_skips_are_reported() -> None:
    right = {test: skip.reason.replace(".*", "") for test, skip in skips.expected(ENGINE).items()}
    # the reasons are regular expressions
    right = {test: reason.replace("[a-z]+", "engine") for test, reason in right.items()}
    assert list(skips.differences(right, ENGINE)) == []
    ready = "test_service.py::test_models_are_ready"
    [line] = skips.differences({**right, ready: "no"}, ENGINE)
    assert line.startswith(f"{ready} was skipped, expected it to run on a host with checkout, checkpoint, ")
    selinux = "test_hardware.py::test_selinux_is_enforcing"
    [line] = skips.differences({**right, selinux: "another reason"}, ENGINE)
    assert line.startswith(
        f"{selinux} was skipped, found 'another reason', expected 'this host is a container"
    )
    [line] = skips.differences({test: right[test] for test in right if test != selinux}, ENGINE)
    assert line.startswith(f"{selinux} ran, expected a skip")
    assert list(skips.differences({}, ENGINE, whole=False)) == []


@pytest.mark.smoke
def test_tests_that_no_lab_runs_are_selected_by_marks() -> None:
    """The tests that no lab can run are those that `-m` with these marks selects on a real host."""
    marks = "gpu or oracle_linux or pids_cgroup"
    command = ["pytest", "-q", *WITHOUT, "tests/verify", "--collect-only", "-m", marks]
    listed = subprocess.run(
        [sys.executable, "-m", *command, "--inventory", "inventories/oci.py"],
        env={**os.environ, "OCI_HOSTS": "host"},  # collecting connects nowhere
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    marked = {
        re.sub(r"\[host\]|(?<=\[)host-", "", line.removeprefix("tests/verify/"))
        for line in listed.splitlines()
        if "::" in line
    }
    assert marked == {skip.test for skip in skips.SKIPS if not skip.feature}


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("True", "nothing was proven"),
        (
            "'metrics' in request.node.name",
            "test_service.py::test_metrics_answer was skipped, expected it to run",
        ),
    ],
    ids=["all", "one"],
)
def test_verified_fails_where_a_fixture_skips(
    converged: OneHost, tmp_path: Path, which: str, said: str
) -> None:
    (tmp_path / "skips_all.py").write_text(SKIPS_ALL.format(which=which), encoding="utf-8")
    environment = {"PYTHONPATH": str(tmp_path), "PYTEST_ADDOPTS": "-p skips_all"}
    keywords = "test_metrics or test_models_are_ready"
    assert converged.verify(keywords, environment=environment).code == 0, "skipped is passed for pytest"
    with pytest.raises(AssertionError, match=said):
        converged.verified(keywords, environment=environment)
    converged.verified(keywords)


def test_verification_without_hosts_fails(site: OneHost, tmp_path: Path) -> None:
    empty = tmp_path / "empty.py"
    empty.write_text("hosts = []\n", encoding="utf-8")
    done = site.verify("", "--inventory", str(empty))
    assert done.code == 4, done.output
    assert "found no hosts, expected a list of hosts" in done.output
