"""Environments of the clients, each made once from its lock below build/; and a door over a Triton that says what it is asked to."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.door.fake_triton import FakeTriton
from tests.door.running import Running, data_root, start

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build"


def environment(name: str) -> Path:
    """The programs of a virtual environment with the packages of a lock."""
    lock = HERE / f"{name}.lock"
    folder = BUILD / f"clients-{name}"
    done = folder / ".installed"
    key = hashlib.sha256(lock.read_bytes()).hexdigest()
    if not done.is_file() or done.read_text() != key:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [
            str(folder / "bin/pip"),
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
        ]
        subprocess.run([*install, "--requirement", str(lock)], check=True)
        done.write_text(key)
    return folder / "bin"


@pytest.fixture(scope="module")
def triton() -> Iterator[FakeTriton]:
    made = FakeTriton(seconds=0.002).start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_root(tmp_path_factory.mktemp("door"))


@pytest.fixture(scope="module")
def door(triton: FakeTriton, root: Path) -> Iterator[Running]:
    made = start(root, triton.port)
    yield made
    made.stop()
