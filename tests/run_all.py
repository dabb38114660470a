"""`make test`: everything, one part after the other, and at the end what was stood in for and what was not run."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.lab.settings import REPOSITORY
from tests.lab.standin_list import REAL, STAND_INS

PYTHON = sys.executable
PYTEST = [PYTHON, "-m", "pytest", "-q"]

PARTS: tuple[tuple[str, list[str]], ...] = (
    ("format", [PYTHON, "-m", "ruff", "format", "--check", "."]),
    ("lint", [PYTHON, "-m", "ruff", "check", "."]),
    ("types", [PYTHON, "-m", "mypy", "."]),
    ("unit, operations, deploy, oci", PYTEST),
    ("mirror and stand-ins", [*PYTEST, "tests/lab/mirror", "tests/lab/standins"]),
    ("lab: bare host to verified", [*PYTEST, "tests/lab/e2e"]),
    ("lab: disks, on a kernel with LVM and md", [*PYTEST, "tests/lab/disks"]),
    ("lab: every profile", [*PYTEST, "-s", "tests/lab/guides"]),
    ("lab: its own commands", [*PYTEST, "tests/lab/test_lab.py"]),
)
HARDWARE = "gpu or oracle_linux"


def main() -> int:
    """Run every part, also after one failed; 1 if any did."""
    results: list[tuple[str, int, float]] = []
    for title, command in PARTS:
        print(f"\n== {title}", flush=True)
        start = time.monotonic()
        code = subprocess.run(command, cwd=REPOSITORY, check=False).returncode
        results.append((title, code, time.monotonic() - start))
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
