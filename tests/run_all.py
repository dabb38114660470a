"""`make test` and `make test-all`: parts side by side, what they are doing while they do it, and what was not run.

    python -m tests.run_all           # the short selection: every kind of test, a third of the mutations
    python -m tests.run_all --all     # everything
    RESUME=1 make test-all            # what has not passed yet on these files

A part is one command. It is red when its command fails, when it runs no test, and when it skips a test for a reason that is not
in ALLOWED_SKIPS. Standard output ends with a table of parts and one line that counts tests.
"""

from __future__ import annotations

import argparse
import datetime
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests import report
from tests.kept_results import Kept, Results
from tests.lab import machine
from tests.lab.settings import REPOSITORY, from_environment
from tests.lab.shell import LabError
from tests.lab.standin_list import REAL, STAND_INS

PYTHON = sys.executable
PYTEST = [PYTHON, "-m", "pytest", "-v", "-p", "tests.report"]
E2E = REPOSITORY / "tests" / "lab" / "e2e"
FAULTS = REPOSITORY / "tests" / "lab" / "faults"
HARDWARE = "gpu or oracle_linux or pids_cgroup"
# A lab's hosts mostly wait, for a boot, a model that loads, a watch: more parts at once than cores.
WORKERS = int(os.environ.get("TEST_WORKERS", "3"))
HEARTBEAT_S = 30
# A skip that may be: the beginning of a test's name, and why. Any other skip makes its part red.
ALLOWED_SKIPS = {
    "tests/lab/fresh/test_fresh_machine.py::test_make_test_passes": "part of make test-all",
    "tests/lab/fresh/test_fresh_machine.py::test_readme_and_tutorial": "part of make test-all",
    "tests/unit/test_nvidia_parser.py": "NVIDIA's parser and builder: the extra trt, which no lock holds",
}


@dataclass(frozen=True)
class Part:
    """
    One command.

    + seconds: how long it takes about, on two idle cores: the longest part is begun first
    + environment: added to this process's own
    """

    title: str
    command: list[str]
    seconds: int = 60
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def is_tests(self) -> bool:
        return self.command[: len(PYTEST)] == PYTEST


@dataclass(frozen=True)
class Result:
    """
    How a part ended.

    + text: what it printed
    + kept: when it passed, where an earlier run's result counts
    """

    part: Part
    code: int
    seconds: float
    outcomes: list[report.Outcome]
    text: str = ""
    kept: str = ""

    def wrong(self) -> str:
        """Why this part is red; empty where it is not."""
        if self.code < 0:
            return f"ended by {signal.Signals(-self.code).name}"
        if self.code:
            return f"exit code {self.code}"
        if not self.part.is_tests:
            return ""
        if not any(one.outcome == "passed" for one in self.outcomes):
            return "no test was run"
        if skipped := [one for one in self.outcomes if one.outcome == "skipped" and not _allowed(one.test)]:
            return f"{len(skipped)} skipped, expected none: {skipped[0].test}: {skipped[0].reason}"
        return ""


def _allowed(test: str) -> bool:
    return any(test.startswith(name) for name in ALLOWED_SKIPS)


def third(day: datetime.date) -> str:
    """The third of the mutations that this day's short run takes: MUTATIONS as tests/lab/e2e reads it."""
    return f"{day.toordinal() % 3 + 1}/3"


def _e2e(title: str, seconds: int, net: int, *modules: str, smoke: bool = False, **environment: str) -> Part:
    files = [f"tests/lab/e2e/{name}.py" for name in modules]
    chosen = ["-m", "smoke"] if smoke else []
    return Part(title, [*PYTEST, *chosen, *files], seconds, {"LAB_E2E_NET": f"10.98.{net}", **environment})


PACKAGE = Part("installed package", [*PYTEST, "tests/lab/package"], 40)
STATIC = (
    Part("format", [PYTHON, "-m", "ruff", "format", "--check", "."], 1),
    Part("lint", [PYTHON, "-m", "ruff", "check", "."], 1),
    Part("types", [PYTHON, "-m", "mypy", "."], 20),
)
OTHERS = (
    Part("operations, deploy, oci", [*PYTEST, "tests/operations", "tests/deploy", "tests/oci"], 110),
    Part("door", [*PYTEST, "tests/door"], 60),
    Part("mirror and stand-ins", [*PYTEST, "tests/lab/mirror", "tests/lab/standins"], 120),
)
# The lab's e2e modules that take their hosts for themselves; the others share one host, in the order of its conftest.
APART = (
    "test_bundle",
    "test_canary_token",
    "test_door",
    "test_hardened_host",
    "test_load_balancer",
    "test_monitoring_server",
    "test_oracle_linux_8",
    "test_services",
    "test_unreached_hosts",
    "test_teardown",
    "test_wave",
)
# How long they take about, where it is far from the others' time: what is begun last must not take long.
LONG = {
    "test_interruption": 1600,
    "test_upgrades": 900,
    "test_quiet": 530,
    "test_packages": 500,
    "test_artifacts": 400,
    "test_sharing": 300,
}
LONG |= {"test_canary_token": 580, "test_bundle": 160, "test_hardened_host": 100, "test_oracle_linux_8": 75}
LONG |= {
    "test_unreached_hosts": 35,
    "test_services": 460,
    "test_door": 600,
    "test_monitoring_server": 420,
    "test_load_balancer": 300,
    "test_teardown": 200,
    "test_wave": 150,
}
MUTATIONS = "test_mutations"
# from a bare host to a verified one, and a second run
WAY = ("test_bare_host", "test_verification", "test_second_run", "test_requests")
GATEWAY = "test_gateway"


def short(day: datetime.date) -> list[Part]:
    """What `make test` runs."""
    return [
        Part("fresh machine: make demo, make check", [*PYTEST, "-s", "tests/lab/fresh"], 330),
        _e2e("lab: bare host to verified", 170, 0, *WAY, smoke=True),
        _e2e(f"lab: mutations {third(day)}", 240, 2, MUTATIONS, MUTATIONS=third(day)),
        Part("lab: a profile of each kind", [*PYTEST, "-s", "-m", "smoke", "tests/lab/guides"], 120),
        Part("lab: a fault of each family", [*PYTEST, "-m", "smoke", "tests/lab/faults"], 240),
        _e2e("lab: behind a gateway", 120, 4, GATEWAY, smoke=True),
        Part("lab: disks, on a kernel with LVM and md", [*PYTEST, "-m", "smoke", "tests/lab/disks"], 60),
        PACKAGE,
        Part("unit", [*PYTEST, "tests/unit"], 180, {"MUTANTS": third(day)}),
        *OTHERS,
        *STATIC,
    ]


def everything() -> list[Part]:
    """What `make test-all` runs."""
    common = sorted({path.stem for path in E2E.glob("test_*.py")} - {*APART, GATEWAY, MUTATIONS})
    faults = sorted(path.stem.removeprefix("test_") for path in FAULTS.glob("test_*.py"))
    return [
        *(
            Part(
                f"faults: {name}",
                [*PYTEST, f"tests/lab/faults/test_{name}.py"],
                LONG.get(f"test_{name}", 600),
                {
                    "LAB_FAULTS_NET": f"10.94.{10 * number}",
                    "LAB_FLEET_NET": f"10.95.{10 * number}",
                    "FAULT_ROUNDS": os.environ.get("FAULT_ROUNDS", "100"),
                },
            )
            for number, name in enumerate(faults)
        ),
        _e2e("lab: mutations", 1350, 2, MUTATIONS),
        _e2e("lab: bare host to verified", 1700, 0, *common),
        *(
            _e2e(f"lab: {name.removeprefix('test_').replace('_', ' ')}", LONG[name], 10 + number, name)
            for number, name in enumerate(APART)
        ),
        _e2e("lab: behind a gateway", 780, 4, GATEWAY),
        Part("lab: every profile", [*PYTEST, "-s", "tests/lab/guides"], 800),
        Part("clients of the door", [*PYTEST, "tests/clients"], 260),
        Part("lab: its own commands", [*PYTEST, "tests/lab/test_lab.py"], 1000),
        Part("lab: disks, on a kernel with LVM and md", [*PYTEST, "tests/lab/disks"], 520),
        Part(
            "fresh machine: make demo, make check, make test",
            [*PYTEST, "-s", "tests/lab/fresh"],
            1700,
            {"FRESH_MACHINE": "test"},
        ),
        PACKAGE,
        Part("unit", [*PYTEST, "tests/unit"], 240),
        *OTHERS,
        *STATIC,
    ]


class Runner:
    """Runs parts side by side, and says what they do."""

    def __init__(self, parts: Iterable[Part], folder: Path, kept: Results, resume: bool) -> None:
        self.waiting: queue.SimpleQueue[Part] = queue.SimpleQueue()
        self.folder = folder
        self.kept = kept
        self.began = time.monotonic()
        self.running: dict[str, tuple[float, Path]] = {}
        self.results: list[Result] = []
        self.lock = threading.Lock()
        for part in sorted(parts, key=lambda part: -part.seconds):
            if resume and (before := kept.find(part.command, part.environment)):
                self.results.append(
                    Result(part, 0, before.seconds, before.outcomes, kept=f" (on {before.ended})")
                )
            else:
                self.waiting.put(part)

    def say(self, line: str) -> None:
        with self.lock:
            print(f"{clock(time.monotonic() - self.began)} {line}", flush=True)

    def run(self) -> list[Result]:
        workers = [threading.Thread(target=self._work) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        last = time.monotonic()
        while any(worker.is_alive() for worker in workers):
            for worker in workers:
                worker.join(0.2)
            if time.monotonic() - last >= HEARTBEAT_S:
                last = time.monotonic()
                for title, (began, output) in list(self.running.items()):
                    self.say(f"   … {title}, {clock(last - began)}: {_doing(output)}")
        return self.results

    def _work(self) -> None:
        while True:
            try:
                part = self.waiting.get_nowait()
            except queue.Empty:
                return
            try:
                self._run(part)
            except Exception as error:  # a part that cannot be begun is a red part
                self.say(f"FAILED {part.title}: {error}")
                self.results.append(Result(part, 1, 0, []))

    def _run(self, part: Part) -> None:
        number = len(list(self.folder.iterdir()))
        output = Path(tempfile.mkstemp(prefix=f"{number:02}-", suffix=".log", dir=self.folder)[1])
        outcomes = output.with_suffix(".jsonl")
        self.say(f"begin  {part.title}")
        began = time.monotonic()
        self.running[part.title] = (began, output)
        # a library that aborts says nothing of where it was called
        said = {"PYTHONFAULTHANDLER": "1", report.VARIABLE: str(outcomes)}
        environment = {**os.environ, **part.environment, **said}
        # without byte code every deploy of a lab compiles all modules again, a third of its start
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with output.open("wb") as file:
            code = subprocess.run(
                part.command,
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        del self.running[part.title]
        text = output.read_text(encoding="utf-8", errors="replace")
        result = Result(part, code, time.monotonic() - began, report.read(outcomes), text)
        self.results.append(result)
        wrong = result.wrong()
        if not wrong:
            ended = f"{datetime.datetime.now():%Y-%m-%d %H:%M}"
            passed = Kept(ended, result.seconds, result.outcomes)
            if not self.kept.keep(part.command, part.environment, passed):
                self.say(
                    f"       {part.title}: files changed since this run began, or git keeps none: not kept"
                )
        shown = text if wrong else _without_passed(text)
        self.say(f"{'FAILED' if wrong else 'passed'} {part.title}, {clock(result.seconds)}\n{shown}")


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60:3}:{int(seconds) % 60:02}"


def _doing(output: Path) -> str:
    """The last line that a part printed: with pytest -v, the test that it is in."""
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - 2000))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip()[:140] for line in reversed(lines) if line.strip()), "")


def _without_passed(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if " PASSED" not in line)


def _reasons(result: Result) -> list[str]:
    """What failed, for the last lines: pytest's own short lines, and where a process was when it was ended."""
    if not result.wrong():
        return []
    lines = result.text.splitlines()
    failed = [line[:300] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    for number, line in enumerate(lines):
        if line.startswith("Fatal Python error"):
            failed += lines[number : number + 12]
            break
    return failed[:20] or [f"{result.part.title}: {line[:300]}" for line in lines[-5:]]


def not_run(results: Sequence[Result]) -> list[str]:
    """Every test that was not run and why: those that need hardware, then the skips."""
    command = [PYTHON, "-m", "pytest", "-q", "tests/verify", "--collect-only", "-m", HARDWARE]
    environment = {**os.environ, "OCI_HOSTS": "host"}  # collecting connects nowhere
    done = subprocess.run(
        [*command, "--inventory", "inventories/oci.py"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    tests = [f"{line}: needs real hardware" for line in done.stdout.splitlines() if "::" in line]
    if not tests:
        tests = [f"the list of tests that need hardware could not be made: {done.stdout[-500:]}"]
    skips = [one for result in results for one in result.outcomes if one.outcome == "skipped"]
    return [*tests, *(f"{one.test}: {one.reason}" for one in skips)]


def _refused() -> list[str]:
    try:
        return machine.missing(from_environment())
    except LabError as error:
        return [str(error)]


def main(arguments: Sequence[str]) -> int:
    """Run every part, also after one failed; 1 if any is red, 2 where this machine cannot carry the lab."""
    parser = argparse.ArgumentParser(prog="python -m tests.run_all", description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="everything, not only the short selection")
    parser.add_argument("--only", metavar="WORD", help="parts whose title has this word")
    given = parser.parse_args(arguments)
    if lacking := _refused():
        for line in lacking:
            print(f"make test: {line}", file=sys.stderr)
        print("make test: nothing was run; `make check` needs no lab", file=sys.stderr)
        return 2
    folder = REPOSITORY / "build" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    today = datetime.date.today()
    parts = everything() if given.all else short(today)
    if given.only:
        parts = [part for part in parts if given.only in part.title]
    kept = Results(from_environment().cache / "passed", REPOSITORY)
    runner = Runner(parts, folder, kept, resume=os.environ.get("RESUME") == "1")
    before = f", {len(runner.results)} passed before" if runner.results else ""
    print(
        f"{len(parts)} parts{before}, {WORKERS} at once; mutations of today's short run: {third(today)}",
        flush=True,
    )
    results = runner.run()
    return _closing(results, time.monotonic() - runner.began)


def _closing(results: Sequence[Result], seconds: float) -> int:
    print(f"\n== Real in the lab: {REAL}\n== Stood in for (docs/lab.md)")
    for name, what in STAND_INS:
        print(f"  {name}: {what}")
    print("\n== Not run here")
    for line in not_run(results):
        print(f"  {line}")
    print("\n== Parts")
    for result in sorted(results, key=lambda result: -result.seconds):
        wrong = result.wrong()
        print(
            f"  {'FAILED' if wrong else 'passed':7}{clock(result.seconds)}  "
            f"{result.part.title}{wrong and ': ' + wrong}{result.kept}"
        )
    if reasons := [line for result in results for line in _reasons(result)]:
        print("\n== Failed")
        for line in reasons:
            print(f"  {line}")
    print(f"\nin all {clock(seconds).strip()}; the log of each part: build/test/")
    red = sum(1 for result in results if result.wrong())
    counts = [one.outcome for result in results for one in result.outcomes]
    statics = sum(1 for result in results if not result.part.is_tests and not result.code)
    # a red part without a failed test (lint, no test run, a skip that is not allowed) counts as one failed
    failed = max(counts.count("failed"), red)
    print(f"{counts.count('passed') + statics} passed, {failed} failed, {counts.count('skipped')} skipped")
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
