"""What a converged run costs, compared with Ansible: the same checks as a playbook, and an empty run of pyinfra as the floor.

    python bench/peer.py [--inventory inventories/lab.py] [--runs 5] [--ansible PATH] [--delay MS] [--output FILE.json]

In turn: `pyinfra exec -- true` as bench/noop.py makes it (a), `deploy.py` on converged hosts (c), and bench/peer/playbook.yml (d), with
pipelining, a fork for each host and no open connection. What the playbook expects is of the inventory's plan, and where only the host
knows it (ids, checksums, the models' configurations) read over SSH before. Medians; the first round is not counted. --delay adds a
round trip to the way to one host. Every counted c says of each host that it is converged, every counted d changes nothing.
Exit code 0: within the bars; 1: above one; 2: a host is not converged, or a run failed, so nothing was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from bench.noop import bare_inventory, commands, timed  # noqa: E402
from bench.peer_expected import NotMeasured, expected_of  # noqa: E402
from bench.relay import relay  # noqa: E402
from tests.verify.connection import InventoryError, Target, Unreachable, targets  # noqa: E402

PLAYBOOK = PROJECT / "bench" / "peer" / "playbook.yml"
# the least number of hosts -> the most that c may take of a, and of d
BARS = {1: (1.5, 1 / 12), 10: (2.0, 1 / 30)}
DELAYED_BARS = (1.5, 1 / 15)
NAMES = {
    "a": "pyinfra exec -- true",
    "c": "pyinfra deploy.py, converged",
    "d": "ansible-playbook, converged",
}
_RECAP = re.compile(r"^(\S+)\s+: (ok=\d+ .*)$", re.MULTILINE)
_CONVERGED = re.compile(r"^\s*\[([^\]]+)\] converged: ", re.MULTILINE)


@dataclass(frozen=True)
class Ratio:
    """A ratio of two medians, and its bar; none: it is only shown."""

    name: str
    value: float
    bar: float | None

    @property
    def within(self) -> bool:
        return self.bar is None or self.value <= self.bar


def bars(hosts: int, delayed: bool) -> tuple[float | None, float | None]:
    """The bars of c/a and c/d. None for 2 to 9 hosts, which no bar was set for."""
    if delayed:
        return DELAYED_BARS
    if hosts == 1:
        return BARS[1]
    return BARS[10] if hosts >= 10 else (None, None)


def ratios(seconds: dict[str, list[float]], hosts: int, delayed: bool) -> list[Ratio]:
    """Of the medians."""
    a, c, d = (statistics.median(seconds[name]) for name in NAMES)
    floor, peer = bars(hosts, delayed)
    return [Ratio("c/a", c / a, floor), Ratio("c/d", c / d, peer)]


def recap(output: str) -> dict[str, dict[str, int]]:
    """host -> what ansible-playbook counted: ok, changed, unreachable, failed, skipped …"""
    counts = {}
    for name, text in _RECAP.findall(output.rpartition("PLAY RECAP")[2]):
        counts[name] = {key: int(count) for key, _, count in (word.partition("=") for word in text.split())}
    return counts


def problem_of_peer(output: str, hosts: Sequence[str]) -> str:
    """Why a run of the playbook does not count; empty: it does."""
    found = recap(output)
    for host in hosts:
        counts = found.get(host, {})
        if not counts.get("ok"):
            return f"{host}: the playbook ran no task"
        if wrong := [f"{key}={counts[key]}" for key in ("changed", "failed", "unreachable") if counts[key]]:
            return f"{host}: the playbook says {' '.join(wrong)}, expected a converged host"
    return ""


def problem_of_deploy(output: str, hosts: Sequence[str]) -> str:
    """The same of a run of deploy.py."""
    if "Starting operation" in output:
        return "deploy.py changed something: deploy first, then measure"
    missing = sorted(set(hosts) - set(_CONVERGED.findall(output)))
    return f"{', '.join(missing)}: deploy.py did not print that it is converged" if missing else ""


def table(seconds: dict[str, list[float]], found: Sequence[Ratio], title: str) -> str:
    """The times, and the ratios beside their bars."""
    lines = [f"{title:32}{'median':>8}  each, in seconds"]
    for name, times in seconds.items():
        each = "  ".join(f"{value:.2f}" for value in times)
        lines.append(f"{name}  {NAMES[name]:29}{statistics.median(times):8.2f}  {each}")
    lines.append(f"{'ratio of the medians':32}{'found':>8}{'bar':>8}")
    for ratio in found:
        bar = "none" if ratio.bar is None else _shown(ratio.bar)
        verdict = "" if ratio.within else "  ABOVE"
        lines.append(f"{ratio.name:32}{_shown(ratio.value):>8}{bar:>8}{verdict}")
    return "\n".join(lines)


def _shown(ratio: float) -> str:
    """A ratio as a person reads it: 1.62, or 1/16.2."""
    return f"{ratio:.2f}" if ratio > 0.5 else f"1/{1 / ratio:.3g}"


@dataclass(frozen=True)
class Peer:
    """Ansible's side: its program, and a folder with the inventory, each host's variables and files, and the open connections."""

    program: str
    folder: Path

    def prepare(self, hosts: Sequence[Target]) -> None:
        """Writes what the playbook expects of each host. Raises NotMeasured and Unreachable."""
        (self.folder / "host_vars").mkdir(parents=True)
        (self.folder / "control").mkdir()
        for host in hosts:
            expected = expected_of(host)
            text = json.dumps(expected.variables, indent=1)
            # Ansible would fill it like a template
            if found := re.search(r"\{[{%#]", text):
                raise NotMeasured(f"{host.name}: found {found[0]} among what the playbook expects")
            (self.folder / "host_vars" / f"{host.name}.json").write_text(text, encoding="utf-8")
            for name, content in expected.files.items():
                path = self.folder / "files" / host.name / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    def reach(self, hosts: Sequence[Target]) -> None:
        """Writes the inventory: the hosts, with the options that ssh has for them."""
        found = {
            host.name: {
                "ansible_host": host.address,
                "ansible_become": bool(host.data.get("_sudo")),
                "ansible_ssh_common_args": shlex.join(host.ssh_options()),
            }
            for host in hosts
        }
        inventory = json.dumps({"all": {"hosts": found}}, indent=1)
        (self.folder / "hosts.json").write_text(inventory, encoding="utf-8")

    def command(self, forks: int) -> list[str]:
        return [self.program, "--inventory", "hosts.json", "--forks", str(forks), str(PLAYBOOK)]

    def environment(self) -> dict[str, str]:
        """The settings of bench/peer alone, and nothing written outside of the folder."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        return {
            **kept,
            "ANSIBLE_CONFIG": str(PLAYBOOK.parent / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "control"),
        }

    def close(self) -> None:
        """Ends the connections that ssh keeps open for the next run."""
        for control in (self.folder / "control").iterdir():
            command = ["ssh", "-o", f"ControlPath={control}", "-O", "exit", "host"]
            subprocess.run(command, capture_output=True, check=False)


def main() -> int:
    parser = argparse.ArgumentParser(description="time a converged run against Ansible's and an empty one")
    parser.add_argument("--inventory", default="inventories/lab.py")
    parser.add_argument("--runs", type=int, default=5, help="of each; their medians are compared (default 5)")
    parser.add_argument("--ansible", default="ansible-playbook", help="the program (default: that of PATH)")
    parser.add_argument("--delay", type=float, default=0.0, metavar="MS", help="round trip to one host")
    parser.add_argument("--output", type=Path, help="write the figures there as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tritonhost-") as name:
        try:
            return measured(given, Path(name))
        except (InventoryError, NotMeasured, Unreachable) as error:
            print(f"nothing was measured: {error}", file=sys.stderr)
            return 2


def measured(given: argparse.Namespace, folder: Path) -> int:
    """The runs, and what is printed of them. + folder: an empty one"""
    if given.runs < 1:
        raise NotMeasured(f"--runs: found {given.runs}, expected at least 1")
    program = shutil.which(given.ansible)
    if program is None:
        raise NotMeasured(f"--ansible: found no program {given.ansible}, expected ansible-playbook")
    hosts = targets(given.inventory)
    # not resolved: a virtual environment's program knows its packages by its own place
    bare_folder, peer = folder / "bare", Peer(os.path.abspath(program), folder / "ansible")
    bare_folder.mkdir()
    bare = bare_inventory(given.inventory, bare_folder)
    peer.prepare(hosts)
    with closing(peer), reached(hosts, given.delay, folder) as (ways, options):
        peer.reach(ways)
        pyinfra = commands(given.inventory, bare, options)
        seconds = rounds(pyinfra, peer, [host.name for host in hosts], given.runs)
    found = ratios(seconds, len(hosts), given.delay > 0)
    title = f"{len(hosts)} host{'s' if len(hosts) > 1 else ''}"
    title += f", {given.delay:g} ms further away" if given.delay else ""
    print(table(seconds, found, title))
    if given.output:
        document = {
            "hosts": len(hosts),
            "delay_ms": given.delay,
            "seconds": seconds,
            "medians": {name: statistics.median(times) for name, times in seconds.items()},
            "ratios": [{**asdict(ratio), "within": ratio.within} for ratio in found],
            "versions": versions(program),
        }
        given.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if all(ratio.within for ratio in found) else 1


def rounds(
    pyinfra: dict[str, tuple[list[str], Path]], peer: Peer, hosts: Sequence[str], runs: int
) -> dict[str, list[float]]:
    """The seconds of each run. Alternating, so that other work on the machine affects all. Raises NotMeasured."""
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    # The first run of each does not count: compiled Python and file caches are cold.
    for turn in range(runs + 1):
        for name in NAMES:
            if name == "d":
                peer.close()
                took, done = timed(peer.command(len(hosts)), peer.folder, peer.environment())
            else:
                took, done = timed(*pyinfra["deploy.py" if name == "c" else "exec -- true"])
            output = done.stdout + done.stderr
            problem = f"exit code {done.returncode}" if done.returncode else ""
            if name == "d":
                problem = problem_of_peer(output, hosts) or problem
            elif name == "c":
                problem = problem or problem_of_deploy(output, hosts)
            if problem:
                raise NotMeasured(f"{NAMES[name]}: {problem}\n{output[-4000:]}")
            if turn:
                seconds[name].append(took)
    return seconds


@contextmanager
def reached(
    hosts: Sequence[Target], delay_ms: float, folder: Path
) -> Iterator[tuple[Sequence[Target], list[str]]]:
    """The hosts as ansible-playbook reaches them, and the options with which pyinfra does, while the block runs."""
    if not delay_ms:
        yield hosts, []
        return
    if len(hosts) != 1:
        raise NotMeasured(f"--delay: found {len(hosts)} hosts, expected 1: it is a relay to one host")
    [host] = hosts
    address, port = host.address, int(host.data.get("ssh_port") or 22)
    with relay(address, port, delay_ms / 1000) as near:
        known = folder / "known_hosts"
        known.write_text(_known_at(host, near), encoding="utf-8")
        data = {"ssh_hostname": "127.0.0.1", "ssh_port": near, "ssh_known_hosts_file": str(known)}
        options = [word for key, value in data.items() for word in ("--data", f"{key}={value}")]
        yield [Target(host.name, {**host.data, **data})], options


def _known_at(host: Target, port: int) -> str:
    """The host's keys, as those of a port of this machine."""
    file = os.path.expanduser(str(host.data.get("ssh_known_hosts_file") or "~/.ssh/known_hosts"))
    command = ["ssh-keygen", "-F", host.address, "-f", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    keys = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line and not line.startswith("#")]
    if not keys:
        raise NotMeasured(f"{host.name}: {file} has no key for {host.address}")
    return "".join(f"[127.0.0.1]:{port} {key}\n" for key in keys)


def versions(program: str) -> dict[str, str]:
    """What was compared."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return {
        "ansible": said.partition("\n")[0],
        "pyinfra": metadata.version("pyinfra"),
        "python": sys.version.split()[0],
    }


if __name__ == "__main__":
    sys.exit(main())
