"""`make test`: everything, in three lanes, and at the end what was stood in for and what was not run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.lab.settings import REPOSITORY
from tests.lab.standin_list import REAL, STAND_INS

PYTHON = sys.executable
PYTEST = [PYTHON, "-m", "pytest", "-q"]

E2E = REPOSITORY / "tests" / "lab" / "e2e"
# those with hosts of their own
APART = (
    "test_bundle",
    "test_canary_token",
    "test_hardened_host",
    "test_oracle_linux_8",
    "test_unreached_hosts",
)


@dataclass(frozen=True)
class Part:
    """One command; `environment` is added to this process's own."""

    title: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


GATEWAY = ("test_gateway",)


def _e2e(modules: Sequence[str]) -> list[str]:
    return [*PYTEST, *(f"tests/lab/e2e/{name}.py" for name in modules)]


_COMMON = sorted({path.stem for path in E2E.glob("test_*.py")} - {*APART, *GATEWAY})
# Lanes beside each other: whatever boots a host mostly waits for it. Networks differ from lane to lane.
LANES: tuple[tuple[Part, ...], ...] = (
    (
        Part("lab: bare host to verified", _e2e(_COMMON)),
        Part("lab: its own commands", [*PYTEST, "tests/lab/test_lab.py"]),
    ),
    (
        Part("format", [PYTHON, "-m", "ruff", "format", "--check", "."]),
        Part("lint", [PYTHON, "-m", "ruff", "check", "."]),
        Part("types", [PYTHON, "-m", "mypy", "."]),
        Part("unit, operations, deploy, oci", PYTEST),
        Part("mirror and stand-ins", [*PYTEST, "tests/lab/mirror", "tests/lab/standins"]),
        Part("lab: hosts of their own kind", _e2e(APART), {"LAB_E2E_NET": "10.98.2"}),
        Part("lab: disks, on a kernel with LVM and md", [*PYTEST, "tests/lab/disks"]),
    ),
    (
        Part("lab: every profile", [*PYTEST, "-s", "tests/lab/guides"]),
        Part("lab: behind a gateway", _e2e(GATEWAY), {"LAB_E2E_NET": "10.98.4"}),
    ),
)
HARDWARE = "gpu or oracle_linux"


_printing = threading.Lock()


def run_lane(parts: Sequence[Part]) -> list[tuple[str, int, float]]:
    """Run one part after the other, and print each one's output when it has ended: title, exit code, seconds."""
    results = []
    for part in parts:
        start = time.monotonic()
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            code = subprocess.run(
                part.command,
                cwd=REPOSITORY,
                env={**os.environ, **part.environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
            output.seek(0)
            with _printing:
                print(f"\n== {part.title}\n{output.read()}", flush=True)
        results.append((part.title, code, time.monotonic() - start))
    return results


def main() -> int:
    """Run every part, also after one failed; 1 if any did."""
    with ThreadPoolExecutor(len(LANES)) as pool:
        results = [result for lane in pool.map(run_lane, LANES) for result in lane]
    print(
        "\n== Not run here: these need real hardware, and are run by `pytest tests/verify -m` on a host that has it"
    )
    for line in not_run():
        print(f"  {line}")
    print(f"\n== Real in the lab: {REAL}\n== Stood in for (docs/lab.md)")
    for name, what in STAND_INS:
        print(f"  {name}: {what}")
    print("\n== Parts")
    for title, code, seconds in results:
        print(f"  {'passed' if code == 0 else 'FAILED':7} {seconds:6.1f} s  {title}")
    failed = sum(1 for _, code, _ in results if code)
    print(f"\n{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


def not_run() -> list[str]:
    """The tests that need a GPU or a real Oracle Linux, with the marks that select them."""
    command = [*PYTEST, "tests/verify", "--collect-only", "-m", HARDWARE, "--inventory", "inventories/oci.py"]
    environment = {**os.environ, "OCI_HOSTS": "host"}  # collecting connects nowhere
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, env=environment
    )
    tests = [line for line in done.stdout.splitlines() if "::" in line]
    if not tests:
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
        return ["the list could not be made; see above"]
    return tests


if __name__ == "__main__":
    sys.exit(main())
