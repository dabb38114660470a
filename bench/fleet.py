"""What a run without changes costs for many hosts, of which only the answers exist: time, memory, and lines that a person reads.

    python bench/fleet.py [--hosts 1 200 1000] [--runs 5] [--output FILE.json]

The hosts are those of pyinfra's @fake connector, with the answers of tests/deploy: no network, no SSH, so this is the tool's own
share. Each count is run in turn, so that other work on the machine affects all. Medians; the first run of each is not counted.
Exit code 0: within the bars; 1: above one; 2: a run failed, so nothing was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from tests.deploy.test_deploy import converged_host, variables  # noqa: E402
from tests.unit.builders import DATA  # noqa: E402

# of 200 hosts; 1000 may take as much for each host
SECONDS_OF_200, MIB_OF_200, LINES = 10.0, 300.0, 30


def measured(count: int, folder: Path) -> tuple[float, float, int]:
    """Seconds, MiB and lines of one run. Raises RuntimeError with its output."""
    hosts = {f"@fake/gpu-{number:04}": converged_host() for number in range(count)}
    scenario = folder / "scenario.json"
    told = {"log": str(folder / "log"), "data": {"_sudo": True, **DATA}, "hosts": hosts, "own": {}}
    scenario.write_text(json.dumps(told), encoding="utf-8")
    output = folder / "output"
    words = [sys.executable, "-m", "pyinfra", "tests/deploy/fake_inventory.py", "deploy.py", "-y"]
    began = time.monotonic()
    with output.open("wb") as file:
        child = os.posix_spawn(
            words[0],
            words,
            variables(SCENARIO=str(scenario)),
            file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), 1), (os.POSIX_SPAWN_DUP2, file.fileno(), 2)],
        )
        _, status, usage = os.wait4(child, 0)
    seconds = time.monotonic() - began
    text = output.read_text(encoding="utf-8")
    if status or "converged" not in text:
        raise RuntimeError(text[-2000:])
    return seconds, usage.ru_maxrss / 1024, len(text.splitlines())


def main() -> int:
    parser = argparse.ArgumentParser(
        description="time a run without changes for many hosts of which only the answers exist"
    )
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 200, 1000])
    parser.add_argument("--runs", type=int, default=5, help="of each (default 5)")
    parser.add_argument("--output", type=Path, help="write the figures there as JSON")
    given = parser.parse_args()
    os.chdir(PROJECT)
    found: dict[int, list[tuple[float, float, int]]] = {count: [] for count in given.hosts}
    with tempfile.TemporaryDirectory() as name:
        try:
            for turn in range(given.runs + 1):
                for count, runs in found.items():
                    run = measured(count, Path(name))
                    if turn:
                        runs.append(run)
        except RuntimeError as error:
            print(f"a run failed, nothing was measured: {error}", file=sys.stderr)
            return 2
    good = True
    print(
        f"{'hosts':>6}{'seconds':>9}{'bar':>7}{'MiB':>6}{'bar':>6}{'lines':>7}{'bar':>5}  medians of {given.runs} runs"
    )
    figures = []
    for count, runs in found.items():
        seconds, mib = statistics.median(run[0] for run in runs), statistics.median(run[1] for run in runs)
        lines = max(run[2] for run in runs)
        share = max(count, 200) / 200
        within = seconds <= SECONDS_OF_200 * share and mib <= MIB_OF_200 * share and lines <= LINES
        good = good and within
        bars = f"{SECONDS_OF_200 * share:7.0f}", f"{MIB_OF_200 * share:6.0f}"
        print(
            f"{count:6}{seconds:9.2f}{bars[0]}{mib:6.0f}{bars[1]}{lines:7}{LINES:5}  {'' if within else 'ABOVE'}"
        )
        figures.append({"hosts": count, "seconds": [run[0] for run in runs], "mib": mib, "lines": lines})
    if given.output:
        given.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
