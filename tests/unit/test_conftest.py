"""tests/conftest.py, seen from a pytest of its own."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import PROJECT

OPEN_FILES = 100
TEST = """
from gevent import monkey, sleep


def test_that_runs_gevents_loop(tmp_path):
    monkey.patch_all()
    sleep(0)
"""


@pytest.mark.slow
def test_old_directories_are_removed_within_open_file_limit(tmp_path: Path) -> None:
    runs = [tmp_path / f"pytest-of-{getpass.getuser()}" / f"pytest-{n}" for n in range(5)]
    for number in range(2 * OPEN_FILES):
        (runs[0] / str(number) / "within").mkdir(parents=True)
    for run in runs[1:]:
        run.mkdir()
    (tmp_path / "test_one.py").write_text(TEST, encoding="utf-8")
    pytest = f"{sys.executable} -m pytest -q -p tests.conftest -p no:cacheprovider {tmp_path}/test_one.py"
    done = subprocess.run(
        ["sh", "-c", f"ulimit -n {OPEN_FILES} && exec {pytest}"],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "PYTEST_DEBUG_TEMPROOT": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not runs[0].exists()


@pytest.mark.slow
def test_no_test_writes_into_the_repository_of_a_hook(tmp_path: Path) -> None:
    """`git rebase --exec` and git's hooks name their repository in variables, and every git below obeys them."""
    (tmp_path / "test_one.py").write_text(
        "import os\n\n\ndef test_sees_none():\n    assert not [name for name in os.environ if name.startswith('GIT_')]\n",
        encoding="utf-8",
    )
    command = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        f"{tmp_path}/test_one.py",
    ]
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "GIT_DIR": str(tmp_path / "other"), "GIT_INDEX_FILE": "x"},
        check=False,
    )
    assert done.returncode == 0, done.stdout
