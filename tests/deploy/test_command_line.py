"""Forked command lines against ordinary processes: the same arguments, the same exit code and output."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import PROJECT, PYINFRA, run, run_apart
from tests.deploy.test_deploy import PROBE, A, Answers, converged_host, variables
from tests.unit.builders import DATA

# The harness of these tests, which changes seldom
pytestmark = pytest.mark.slow
PREFLIGHT = [sys.executable, "-m", "operations.preflight"]

# What a process could have inherited or missed, printed by an inventory while pyinfra reads it
FACTS = """
import gc, json, logging, os, signal, sys, threading, warnings
import click
from gevent import monkey
from gevent.hub import Hub
import gevent
import pyinfra
from pyinfra.context import ctx_config, ctx_state

print(json.dumps({
    "argv": sys.argv,
    "path": [entry if entry == "." else os.path.realpath(entry) for entry in sys.path],  # .venv may be a link
    "byte code": sys.dont_write_bytecode,
    "flags": str(sys.flags),
    "cwd": os.getcwd(),
    "umask": oct(os.umask(0o22)),
    "variables": dict(os.environ),
    "signals": [str(signal.getsignal(n)).split(" at ")[0] for n in sorted(signal.valid_signals())],
    "blocked": [str(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    # a set: under gevent Python 3.13 lists the main thread of a fork twice
    "threads": sorted({(t.name, t.daemon, t is threading.main_thread()) for t in threading.enumerate()}),
    "logging": [(n, logging.getLogger(n).level, len(logging.getLogger(n).handlers)) for n in ("", "pyinfra", "paramiko", "oci")],
    "warnings": [str(f) for f in warnings.filters],
    "patched": sorted((m, sorted(names)) for m, names in monkey.saved.items()),
    "hub": type(gevent.get_hub()).__name__,
    "cli": (pyinfra.is_cli, ctx_state.isset(), ctx_config.isset(), type(click.get_current_context(silent=True)).__name__),
    "config": pyinfra.config.REQUIRE_PYINFRA_VERSION,
    "streams": [(s.encoding, s.errors, s.line_buffering, s.isatty(), s.fileno()) for s in (sys.stdin, sys.stdout, sys.stderr)],
    "open": sorted(int(n) for n in os.listdir("/proc/self/fd") if int(n) < 3),
    "main": (sys.modules["__main__"].__name__, sys.modules["__main__"].__file__),
    "recursion": sys.getrecursionlimit(),
    "gc": (gc.isenabled(), gc.get_threshold()),
}), file=sys.stderr)
hosts = ["@fake/one"]
"""


def compared(argv: list[str | Path], **environment: str) -> subprocess.CompletedProcess[str]:
    """The forked run, after it was found to be the same as an ordinary one."""
    forked, apart = (each(argv, PROJECT, variables(**environment)) for each in (run, run_apart))
    texts = [
        re.sub(r"\b\d+\.\d+(?= s\b)|\b\d\d:\d\d:\d\d|0x[0-9a-f]+", "…", done.stdout + done.stderr)
        for done in (forked, apart)
    ]
    assert texts[0] == texts[1]
    assert forked.returncode == apart.returncode
    assert (bool(forked.stdout), bool(forked.stderr)) == (bool(apart.stdout), bool(apart.stderr))
    return forked


def scenario(tmp_path: Path, answers: Answers) -> str:
    path = tmp_path / "scenario.json"
    said = {"log": str(tmp_path / "commands"), "data": {"_sudo": True, **DATA}, "hosts": {A: answers}}
    path.write_text(json.dumps(said), encoding="utf-8")
    return str(path)


def test_fork_starts_like_an_ordinary_process(tmp_path: Path) -> None:
    inventory = tmp_path / "facts.py"
    inventory.write_text(FACTS, encoding="utf-8")
    found: list[dict[str, Any]] = []
    for each in (run, run_apart):
        done = each([PYINFRA, inventory, "debug-inventory"], PROJECT, variables())
        [line] = [line for line in done.stderr.splitlines() if line.startswith("{")]
        found.append(json.loads(line))
    assert found[0] == found[1]


def test_fork_ends_a_good_run_like_a_process(tmp_path: Path) -> None:
    done = compared(
        [PYINFRA, "tests/deploy/fake_inventory.py", "deploy.py", "-y"],
        SCENARIO=scenario(tmp_path, converged_host()),
    )
    assert done.returncode == 0


def test_fork_ends_a_failed_run_like_a_process(tmp_path: Path) -> None:
    done = compared(
        [PYINFRA, "tests/deploy/fake_inventory.py", "deploy.py", "-y"],
        SCENARIO=scenario(tmp_path, [(PROBE, False, ["no such thing"])]),
    )
    assert done.returncode == 1


@pytest.mark.parametrize(
    "argv", [[PYINFRA, "inventories/none.py", "deploy.py"], [*PREFLIGHT, "inventories/none.py"]]
)
def test_fork_ends_a_refused_run_like_a_process(argv: list[str | Path]) -> None:
    assert compared(argv).returncode == 2


def test_fork_ends_on_wrong_usage_like_a_process() -> None:
    assert compared([PYINFRA, "--no-such-option"]).returncode == 2


def test_fork_ends_by_a_signal_like_a_process(tmp_path: Path) -> None:
    inventory = tmp_path / "ends.py"
    for number, code in (("SIGINT", 130), ("SIGTERM", -15)):
        inventory.write_text(f"import os, signal\nos.kill(os.getpid(), signal.{number})\n", encoding="utf-8")
        assert compared([PYINFRA, inventory, "deploy.py", "-y"]).returncode == code


def test_fork_that_does_not_end_is_killed(tmp_path: Path) -> None:
    inventory = tmp_path / "waits.py"
    inventory.write_text("import time\ntime.sleep(60)\n", encoding="utf-8")
    with pytest.raises(subprocess.TimeoutExpired):
        run([PYINFRA, inventory, "deploy.py", "-y"], PROJECT, variables(), limit_s=3)
    assert compared([PYINFRA, "inventories/none.py", "deploy.py"]).returncode == 2


def test_variable_read_at_import_selects_its_own_server(tmp_path: Path) -> None:
    inventory = tmp_path / "home.py"
    inventory.write_text(
        "import os, sys\nprint(os.environ['HOME'], file=sys.stderr)\nhosts = ['@fake/one']\n"
    )
    for home in ("/nonexistent", str(tmp_path)):
        done = run([PYINFRA, inventory, "debug-inventory"], PROJECT, variables(HOME=home))
        assert home in done.stderr.splitlines()


@pytest.mark.parametrize(("variable", "written"), [("", True), ("1", False)])
def test_run_leaves_byte_code_for_the_next_run(tmp_path: Path, variable: str, written: bool) -> None:
    """pyinfra itself writes none, so that every run would compile this project again."""
    ignored = shutil.ignore_patterns("__pycache__", "oci.toml")
    for name in ("operations", "inventories"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=ignored)
    for name in ("templates", "files", "tests", "config.py", "deploy.py"):
        (tmp_path / name).symlink_to(PROJECT / name)
    given = {**variables(OCI_HOSTS=""), "PYTHONDONTWRITEBYTECODE": variable}
    # a process of its own: another run's would have the modules imported already
    done = subprocess.run(
        [sys.executable, "-m", "pyinfra", "inventories/oci.py", "deploy.py", "-y"],
        cwd=tmp_path,
        env=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert bool(list((tmp_path / "operations").rglob("*.pyc"))) is written
