"""What a run without changes costs: a deploy of converged hosts, compared with an empty run of pyinfra.

    python bench/noop.py [--inventory inventories/lab.py] [--runs 5] [--limit 2.5]

The empty run is that of an inventory of the same hosts alone, in a folder without anything of this project: one that reads the
project's own inventory pays for its checks already. Prints each time, the medians, and the ratio of the shortest runs: other work
on the machine can only make a run longer.
Exit code 0: at most the limit; 1: above it; 2: the hosts are not converged or a run failed, so nothing was measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from tests.verify.connection import InventoryError, targets  # noqa: E402


def bare_inventory(inventory: str, folder: Path) -> Path:
    """The hosts of an inventory with what pyinfra itself needs to reach them, and nothing else."""
    hosts = []
    for target in targets(inventory):
        data = {key: value for key, value in target.data.items() if key.startswith("ssh_") or key == "_sudo"}
        for key in ("ssh_key", "ssh_config_file", "ssh_known_hosts_file"):
            if data.get(key):
                data[key] = str(PROJECT / data[key])
        hosts.append((target.name, data))
    path = folder / "hosts.py"
    path.write_text(f"hosts = {hosts!r}\n", encoding="utf-8")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description="time a deploy that changes nothing against an empty run")
    parser.add_argument("--inventory", default="inventories/lab.py")
    parser.add_argument("--runs", type=int, default=5, help="of each; the shortest are compared (default 5)")
    parser.add_argument("--limit", type=float, default=2.5, help="greatest ratio (default 2.5)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        return measured(given, Path(name))


def commands(inventory: str, bare: Path, options: Sequence[str] = ()) -> dict[str, tuple[list[str], Path]]:
    """What is timed, each with the folder it runs in. + bare: see bare_inventory; options: further ones of pyinfra"""
    pyinfra = [sys.executable, "-m", "pyinfra", "-y", *options]
    return {
        "deploy.py": ([*pyinfra, inventory, "deploy.py"], PROJECT),
        "exec -- true": ([*pyinfra, bare.name, "exec", "--", "true"], bare.parent),
    }


def timed(
    command: list[str], place: Path, environment: Mapping[str, str] = os.environ
) -> tuple[float, subprocess.CompletedProcess[str]]:
    """One run: its seconds, and how it ended."""
    began = time.monotonic()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=place,
        env={**environment, "PYINFRA_PROGRESS": "off"},
        check=False,
    )
    return time.monotonic() - began, done


def measured(given: argparse.Namespace, folder: Path) -> int:
    """The runs, and what is printed of them. + folder: an empty one"""
    try:
        bare = bare_inventory(given.inventory, folder)
    except InventoryError as error:
        print(error, file=sys.stderr)
        return 2
    compared = commands(given.inventory, bare)

    seconds: dict[str, list[float]] = {name: [] for name in compared}
    # The first run of each does not count: compiled Python and file caches are cold.
    for turn in range(given.runs + 1):
        # Alternating, so that other work on the machine affects both.
        for name, (command, place) in compared.items():
            took, done = timed(command, place)
            if turn:
                seconds[name].append(took)
            output = done.stdout + done.stderr
            if done.returncode != 0:
                print(f"{name}: exit code {done.returncode}\n{output[-2000:]}", file=sys.stderr)
                return 2
            if name == "deploy.py" and "Starting operation" in output:
                print("deploy.py changed something: deploy first, then measure", file=sys.stderr)
                return 2

    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{'pyinfra -y INVENTORY …':24}{'median':>8}  each of {given.runs} runs, in seconds")
    for name, times in seconds.items():
        print(f"{name:24}{medians[name]:8.2f}  {'  '.join(f'{value:.2f}' for value in times)}")
    ratio = min(seconds["deploy.py"]) / min(seconds["exec -- true"])
    good = ratio <= given.limit
    print(f"{'ratio of the shortest':24}{ratio:8.2f}  {'at most' if good else 'ABOVE'} {given.limit:g}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
