"""A new user's machine: the README's commands in a pristine Debian 12 root, and nothing else.

    pytest tests/lab/fresh                       # make demo and make check
    FRESH_MACHINE=test pytest tests/lab/fresh    # the tutorial and make test as well; as long as make test takes

The log is build/fresh-machine.log. The root has none of the project's packages, no virtual environment and no cache: the
test fails if a target needs something that it does not install.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

import pytest

from tests.lab import machine
from tests.lab.disk import mounts_under
from tests.lab.fresh import readme
from tests.lab.fresh.root import PristineRoot, clone
from tests.lab.settings import DEFAULT_NETWORK, LOWER, REPOSITORY, from_environment, network_of
from tests.run_all import ALLOWED_SKIPS

pytestmark = pytest.mark.lab
LOG = REPOSITORY / "build" / "fresh-machine.log"
# Its own network, next to other labs of this machine.
NET = network_of("LAB_FRESH_NET")
LOWERED = str(int(os.environ.get(LOWER, "0")) + 20)
WHOLE = os.environ.get("FRESH_MACHINE") == "test"
CHECKOUT = "/root/tritonhost"
MARK = "== ended with"


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


def _type(root: PristineRoot, command: str) -> str:
    """Run a command, which must succeed. Returns its output."""
    before = LOG.stat().st_size if LOG.exists() else 0
    began = time.monotonic()
    # in a root within this one: the network also identifies the lab's kernel devices and groups
    ended = root.run(command, LOG, LAB_NET=NET, **{LOWER: LOWERED})
    with LOG.open(encoding="utf-8", errors="replace") as file:
        file.seek(before)
        output = file.read()
    assert ended.code == 0, f"`{command}`: exit code {ended.code}; {LOG}:\n{output[-6000:]}"
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


# The exit code of the preflight where some checks need hardware
NOT_CHECKED = 4


def _session(root: PristineRoot, lines: Sequence[str]) -> list[tuple[str, int]]:
    """
    What a person types in one sitting in the checkout: of each line its output and its exit code.

    One command of the root, because the lab's hosts end with the command that booted them.
    """
    script = "\n".join(f'{line}\necho "{MARK} $?"' for line in lines)
    place = root.folder / "root" / "typed.sh"
    place.write_text(f"cd {CHECKOUT} || exit\n{script}\n", "utf-8")
    parts = _type(root, "sh typed.sh 2>&1").split(f"{MARK} ")
    codes = [int(part.split(maxsplit=1)[0]) for part in parts[1:]]
    return list(zip(parts, codes, strict=False))


@pytest.mark.skipif(not WHOLE, reason="part of make test-all: FRESH_MACHINE=test")
def test_readme_and_tutorial_work_as_typed(root: PristineRoot) -> None:
    typed = ["make demo", *readme.on_a_host(), *readme.tutorial()]
    # beside other labs of this machine, the lab has another network than a reader's
    typed = [line.replace(f"{DEFAULT_NETWORK}.", f"{NET}.") for line in typed]
    ended = _session(root, typed)
    assert len(ended) == len(typed)
    back = next(number for number, line in enumerate(typed) if "release.rollback" in line)
    for number, (line, (output, code)) in enumerate(zip(typed, ended, strict=True)):
        said = f"`{line}`: exit code {code}:\n{output[-3000:]}"
        if line.startswith(".venv/bin/python -m operations.preflight"):
            assert code == NOT_CHECKED and "not checked" in output, said
        elif number == back + 1:
            # a release that was rolled back is not deployed again by itself
            assert code == 1 and "retry_failed=true" in output, said
        else:
            assert code == 0, said


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
