"""A new user's machine: the README's commands in a pristine Debian 12 root, and nothing else.

    pytest tests/lab/fresh                       # make demo and make check
    FRESH_MACHINE=test pytest tests/lab/fresh    # the tutorial and make test as well; as long as make test takes

The log is build/fresh-machine.log. The root has none of the project's packages, no virtual environment and no cache: the
test fails if a target needs something that it does not install.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.lab import machine
from tests.lab.disk import mounts_under
from tests.lab.fresh import readme
from tests.lab.fresh.root import PristineRoot, clone
from tests.lab.settings import LOWER, REPOSITORY, from_environment, network_of
from tests.run_all import ALLOWED_SKIPS

pytestmark = pytest.mark.lab
LOG = REPOSITORY / "build" / "fresh-machine.log"
# Its own network, next to other labs of this machine.
NET = network_of("LAB_FRESH_NET")
LOWERED = str(int(os.environ.get(LOWER, "0")) + 20)
WHOLE = os.environ.get("FRESH_MACHINE") == "test"
CHECKOUT = "/root/tritonhost"


@pytest.fixture(scope="module")
def root() -> Iterator[PristineRoot]:
    settings = from_environment()
    if lacking := machine.missing(settings):
        pytest.fail("; ".join(lacking))
    LOG.parent.mkdir(exist_ok=True)
    LOG.unlink(missing_ok=True)
    folder = settings.cache / "fresh-root"
    ours = PristineRoot(folder, settings.cache)
    clone(folder / "srv" / "tritonhost.git")
    yield ours
    # also after a failed test: processes of the root ended with its commands, but its disks are still attached
    ours.run(f"cd {CHECKOUT} && make lab-down", LOG, LAB_NET=NET)
    ours.close()


def _type(root: PristineRoot, command: str, code: int = 0) -> str:
    """
    Run a command. Returns its output.

    + code: the exit code that it must end with
    """
    before = LOG.stat().st_size if LOG.exists() else 0
    began = time.monotonic()
    # in a root within this one: the network also identifies the lab's kernel devices and groups
    ended = root.run(command, LOG, LAB_NET=NET, **{LOWER: LOWERED})
    with LOG.open(encoding="utf-8", errors="replace") as file:
        file.seek(before)
        output = file.read()
    assert ended.code == code, f"`{command}`: exit code {ended.code}; {LOG}:\n{output[-6000:]}"
    print(f"{time.monotonic() - began:7.1f} s  {command}")
    return output


def test_readme_quick_start_reaches_an_answer(root: PristineRoot) -> None:
    lines = readme.quick_start("/srv/tritonhost.git")
    assert "make demo" in lines
    for number, line in enumerate(lines):
        # all lines belong to one shell: an earlier `cd` still applies
        places = [earlier for earlier in lines[:number] if earlier.startswith("cd ")]
        output = _type(root, " && ".join([*places, line]))
        if line == "make demo":
            answer = output.partition("== Answer\n")[2].partition("\n==")[0].strip()
            assert answer.startswith("Machine learning is"), output[-3000:]
            assert "Deploy again: nothing to do" in output and "converged: release" in output


# What does not end with 0 among the commands of README and tutorial: its exit code, and what it says
ENDS = {
    # Some checks need hardware
    ".venv/bin/python -m operations.preflight inventories/lab.py": (4, "not checked"),
}
AFTER_A_ROLLBACK = (1, "retry_failed=true")


@pytest.mark.skipif(not WHOLE, reason="part of make test-all: FRESH_MACHINE=test")
def test_readme_commands_for_a_host_work(root: PristineRoot) -> None:
    for line in readme.on_a_host():
        code, says = ENDS.get(line, (0, ""))
        assert says in _type(root, f"cd {CHECKOUT} && {line}", code)


@pytest.mark.skipif(not WHOLE, reason="part of make test-all: FRESH_MACHINE=test")
def test_tutorial_works_as_typed(root: PristineRoot) -> None:
    lines = readme.tutorial()
    back = next(number for number, line in enumerate(lines) if "release.rollback" in line)
    for number, line in enumerate(lines):
        code, says = AFTER_A_ROLLBACK if number == back + 1 else (0, "")
        assert says in _type(root, f"cd {CHECKOUT} && {line}", code)


def test_make_check_skips_only_allowed_tests(root: PristineRoot) -> None:
    output = _type(root, f"cd {CHECKOUT} && make check")
    assert " passed" in output
    skipped = [line for line in output.splitlines() if line.startswith("SKIPPED")]
    assert [line for line in skipped if not any(name in line for name in ALLOWED_SKIPS)] == []


@pytest.mark.skipif(not WHOLE, reason="part of make test-all: FRESH_MACHINE=test")
def test_make_test_passes(root: PristineRoot) -> None:
    output = _type(root, f"cd {CHECKOUT} && make lab-down && make test")
    assert " 0 failed, " in output.rstrip().splitlines()[-1], output[-3000:]


def test_lab_down_leaves_nothing_mounted(root: PristineRoot) -> None:
    _type(root, f"cd {CHECKOUT} && make lab-down")
    assert root.processes() == []
    assert mounts_under(root.folder) == []
