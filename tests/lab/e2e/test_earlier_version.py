"""A host that an earlier version of this project deployed is upgraded by this one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.lab.e2e.one_host import DATA_ROOT, INVENTORY, OneHost
from tests.lab.settings import REPOSITORY
from tests.lab.shell import run

# v0.1
EARLIER = "364dd6c"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the earlier version. A shallow clone has none: fetch the whole history."""
    folder = tmp_path_factory.mktemp("earlier") / "tritonhost"
    run("git", "clone", "--quiet", "--no-checkout", f"file://{REPOSITORY}", folder)
    run("git", "-C", folder, "checkout", "--quiet", "--detach", EARLIER)
    return folder


@pytest.mark.requirement("R60")
def test_upgrade_from_earlier_version(site: OneHost, earlier: Path) -> None:
    command = [sys.executable, "-m", "pyinfra", "-y", INVENTORY, "deploy.py"]
    done = site.run(*command, cwd=earlier)
    assert done.code == 0, done.output
    before = site.running_release()
    assert site.root(f"cat {DATA_ROOT}/verdicts/{before}").startswith("proven")

    site.converge()
    site.verified()
    if site.running_release() != before:
        assert site.root(f"readlink {DATA_ROOT}/previous").endswith(before)
    again = site.converge()
    assert "converged: release" in again.output
