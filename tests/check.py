"""`make check`: format, lint, types and every quick test that needs no lab, side by side.

    python -m tests.check

Several processes share the cores: some tests compute, some wait for programs of their own. The output of a command is
printed whole when it has ended. Ends with 1 where a command failed, and a last line for each that did.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

BIN = Path(sys.executable).parent
# The slow ones wait for real programs and their limits: `make test` runs them
QUICK = ["pytest", "-q", "-m", "not slow"]
INTERRUPTED = 130

# Of tests/unit, the files whose tests mostly wait: for shells, servers, locks and their limits.
WAITING = tuple(
    ["host_health", "package_scripts", "bundle", "export_onnx", "gateway_scripts", "host_scripts", "serve"]
)


def unit_files() -> list[list[str]]:
    """The files of tests/unit in parts that take about as long: those that wait, and all others, every second one in a part."""
    waiting = [f"tests/unit/test_{name}.py" for name in WAITING]
    others = sorted(str(path) for path in Path("tests/unit").rglob("test_*.py") if str(path) not in waiting)
    return [waiting, others[::2], others[1::2]]


# The longest first. Few, because each start of pytest and pyinfra takes a second of a core.
COMMANDS = [
    *([*QUICK, *files] for files in unit_files()),
    [*QUICK, "tests/deploy", "tests/operations", "tests/oci"],
    # by itself: gRPC does not work in one process with gevent, which pyinfra brings
    [*QUICK, "tests/door"],
    ["mypy", "."],
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
]


class Ended(NamedTuple):
    command: list[str]
    code: int
    output: str
    seconds: float


def run_all(commands: list[list[str]]) -> list[Ended]:
    """Run commands at the same time, each of the virtual environment; print what each wrote when it has ended."""
    ended: list[Ended] = []
    processes: list[subprocess.Popen[bytes]] = []
    printing = threading.Lock()
    # without byte code every program that a test begins compiles all modules again
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def wait_for(command: list[str], process: subprocess.Popen[bytes], began: float, path: Path) -> None:
        code = process.wait()
        text = path.read_text("utf-8", errors="replace")
        with printing:
            ended.append(Ended(command, code, text, time.monotonic() - began))
            print(f"$ {shlex.join(command)}    {ended[-1].seconds:.0f} s\n{text.rstrip()}\n", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        waiting = []
        try:
            for number, command in enumerate(commands):
                path = Path(folder, str(number))
                with path.open("wb") as output:
                    process = subprocess.Popen(
                        [BIN / command[0], *command[1:]],
                        stdin=subprocess.DEVNULL,
                        env=environment,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                processes.append(process)
                thread = threading.Thread(target=wait_for, args=(command, process, time.monotonic(), path))
                thread.start()
                waiting.append(thread)
            for thread in waiting:
                thread.join()
        finally:
            for process in processes:
                if process.poll() is None:
                    process.terminate()
            for thread in waiting:
                thread.join()
    return ended


def main() -> int:
    try:
        ended = run_all(COMMANDS)
    except KeyboardInterrupt:
        print("make check: interrupted; run it again", file=sys.stderr)
        return INTERRUPTED
    failed = [each for each in ended if each.code]
    for each in failed:
        command = shlex.join([".venv/bin/" + each.command[0], *each.command[1:]])
        fix = "; make format fixes it" if each.command[:2] == ["ruff", "format"] else ""
        print(
            f"make check: found exit status {each.code} of {command}, expected 0; see its output above{fix}"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
