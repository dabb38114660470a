"""A lab of one host that a test deploys to, inspects and breaks: with the operator's commands, and root on the host."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.lab import machine, skips
from tests.lab.settings import REPOSITORY, Settings, from_environment
from tests.lab.timing import timed
from tests.verify.connection import Target, connected

INVENTORY = "inventories/lab.py"
PYINFRA = [sys.executable, "-m", "pyinfra"]
DEPLOY = [*PYINFRA, "-y", INVENTORY, "deploy.py"]
# systemd's MESSAGE_ID of "unit started": https://github.com/systemd/systemd/blob/main/catalog/systemd.catalog.in
STARTED = "39f53479d3a045ac8e11786248231fbf"
# its other messages about a unit: stopped, being stopped, reloaded, failed
TOUCHED = {
    STARTED: "started",
    "9d1aaa27d60140bd96365438aad20286": "stopped",
    "de5b426a63be47a7b6ac3eaac82e2f6f": "stopping",
    "7b05ebc668384222baa8881179cfda54": "reloaded",
    "be02cf6855d2428ba40df7e9d022f03d": "failed to start",
}
# units of a login, which every probe of a host is, and what D-Bus starts when somebody asks whether a user may do something
LOGINS = re.compile(
    r"session-.*\.scope|user@.*\.service|user-runtime-dir@.*\.service|user-.*\.slice|polkit\.service"
)
DATA_ROOT = "/var/lib/tritonhost"
# pytest's plugins that a verification does not need: importing them takes two of its six CPU seconds
WITHOUT = [
    word
    for name in ("cacheprovider", "hypothesispytest", "typeguard", "anyio")
    for word in ("-p", f"no:{name}")
]
# one entry for each deploy that ended with exit code 0 in this process: a table of tests may count them
ENDED_WELL: list[str] = []


def settings_of_lab(net: str, **variables: str) -> Settings:
    """
    The settings of a lab on a network of its own, independent of the environment. Fails the test if this machine lacks something.

    + net: the first three numbers of the network
    + variables: further LAB_ variables
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LAB_STATE", "LAB_OS"):
            patch.delenv(name, raising=False)
        for name, value in {"LAB_NET": net, **variables}.items():
            patch.setenv(name, value)
        settings = from_environment()
        lacking = machine.missing(settings)
    if lacking:
        pytest.fail("; ".join(lacking))
    return settings


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    output: str
    seconds: float


@dataclass(frozen=True)
class Verification(Done):
    """
    A run of tests/verify, test by test: file and name, with the parameter and without the host's name.

    + failed: those whose own assertion failed, or that could not run (`error`)
    + skipped: test -> reason
    """

    passed: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    error: frozenset[str] = frozenset()
    skipped: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, done: Done, report: Path) -> Verification:
        """Reads pytest's JUnit report; empty if the run ended before it wrote one."""
        outcomes: dict[str, set[str]] = {"": set(), "failure": set(), "error": set()}
        skipped: dict[str, str] = {}
        cases = ElementTree.parse(report).getroot().iter("testcase") if report.stat().st_size else ()
        for case in cases:
            name = re.sub(
                r"(?<=\[)h\d+(/[a-z]+)?-|-h\d+(/[a-z]+)?(?=\])|\[h\d+(/[a-z]+)?\]", "", case.attrib["name"]
            )
            test = f"{case.attrib['classname'].rpartition('.')[2]}.py::{name}"
            skip = case.find("skipped")
            if skip is not None:
                skipped[test] = skip.attrib["message"]
                continue
            found = [outcome for outcome in ("error", "failure") if case.find(outcome) is not None]
            outcomes[found[0] if found else ""].add(test)
        passed, failed, error = (frozenset(outcomes[outcome]) for outcome in ("", "failure", "error"))
        return cls(done.code, done.output, done.seconds, passed, failed, error, skipped)

    def names(self, test: str) -> bool:
        """Whether a test of that name failed by its own assertion; `name[parameter]` if it has a parameter."""
        return any(found.partition("::")[2] in (test, f"{test}]") for found in self.failed)


class OneHost:
    """A host of a lab on a network of its own, usually h1, and the repository's commands for that lab."""

    def __init__(self, settings: Settings, number: int = 1) -> None:
        self.settings = settings
        self.number = number
        ours = {"LAB_NET": settings.net, "LAB_STATE": str(settings.state)}
        kept = {
            k: v
            for k, v in os.environ.items()
            if k not in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_TOKEN_SECRET_OCID", "LAB_OS")
        }
        self.environment = {**kept, **ours, "PYINFRA_PROGRESS": "off"}

    def run(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        cwd: Path = REPOSITORY,
        kind: str = "command",
    ) -> Done:
        """A command on this machine, in the repository, with both of its outputs as the operator sees them."""
        began = time.monotonic()
        with timed(kind):
            done = subprocess.run(
                command,
                env={**self.environment, **(environment or {})},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        return Done(done.returncode, done.stdout, time.monotonic() - began)

    def lab(self, *arguments: str) -> Done:
        done = self.run(str(REPOSITORY / "tests" / "lab" / "lab"), *arguments, kind=f"lab {arguments[0]}")
        assert done.code == 0, f"lab {shlex.join(arguments)}: {done.output}"
        return done

    # The operator's commands

    def deploy(
        self,
        *options: str,
        overrides: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Done:
        """`pyinfra -y inventories/lab.py deploy.py`; `overrides` change the model's profile for this run."""
        data = ["--data", f"profile_overrides={json.dumps(overrides)}"] if overrides else []
        kind = "look" if "--dry" in options else "deploy"
        done = self.run(*DEPLOY, *data, *options, environment=environment, kind=kind)
        if done.code == 0 and kind == "deploy":
            ENDED_WELL.append(f"h{self.number}")
        return done

    def converge(self, overrides: Mapping[str, Any] | None = None) -> Done:
        """A deploy that must succeed."""
        done = self.deploy(overrides=overrides)
        assert done.code == 0, done.output
        return done

    def verify(
        self, keywords: str = "", *options: str, environment: Mapping[str, str] | None = None
    ) -> Verification:
        """
        `pytest tests/verify`, or the tests of it that `keywords` choose as pytest's -k does.

        + options: further options of pytest
        """
        chosen = ["-k", keywords] if keywords else []
        with tempfile.NamedTemporaryFile(suffix=".xml") as report:
            done = self.run(
                *(sys.executable, "-m", "pytest", "-q", *WITHOUT),
                *("tests/verify", "--inventory", INVENTORY, f"--junitxml={report.name}", *chosen, *options),
                environment=environment,
                kind="verify",
            )
            return Verification.of(done, Path(report.name))

    def verified(
        self,
        keywords: str = "",
        *options: str,
        features: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """
        Every test passes, except those that tests/lab/skips.py names, which are skipped.

        + features: what the host has in addition to what its release.json shows
        """
        done = self.verify(keywords, *options, environment=environment)
        assert done.code == 0, done.output
        assert done.passed, f"nothing was proven: {done.output}"
        has = skips.features(self.current(), *features)
        wrong = list(skips.differences(done.skipped, has, whole=not keywords))
        assert wrong == [], "\n".join(wrong)

    def deploy_until_killed(self, unit: str) -> str:
        """A deploy, killed with its whole process group (kill -9) while `unit` runs on the host; its output."""
        with tempfile.TemporaryFile("w+") as output:
            client = subprocess.Popen(
                DEPLOY,
                env=self.environment,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._kill_while_running(client, unit)
            output.seek(0)
            return output.read()

    def _kill_while_running(self, client: subprocess.Popen[bytes], unit: str) -> None:
        try:
            self.root(
                f"n=0; until systemctl is-active --quiet {unit}; do "
                "n=$((n + 1)); [ $n -lt 2400 ] || exit 1; sleep 0.05; done"
            )
            time.sleep(0.3)  # the client follows the unit now
        finally:
            os.killpg(client.pid, signal.SIGKILL)
            client.wait()

    # The host, as root

    def try_root(self, script: str, stdin: str = "") -> tuple[int, str]:
        """A script on the host: its exit code, and what it printed."""
        target = self.target
        with timed("root"):
            done = subprocess.run(
                ["ssh", *target.ssh_options(), target.address, f"sudo sh -c {shlex.quote(script)}"],
                input=stdin,
                capture_output=True,
                text=True,
                cwd=REPOSITORY,
                check=False,
            )
        return done.returncode, (done.stdout + done.stderr).strip()

    def root(self, script: str, stdin: str = "") -> str:
        code, output = self.try_root(script, stdin)
        assert code == 0, f"on the host: {script}: exit code {code}: {output}"
        return output

    @cached_property
    def target(self) -> Target:
        record = json.loads(self.settings.record.read_text(encoding="utf-8"))
        data = {
            "ssh_hostname": record["hosts"][self.number - 1]["address"],
            "ssh_user": record["ssh_user"],
            "ssh_key": record["ssh_key"],
            "ssh_known_hosts_file": record["known_hosts"],
            "ssh_config_file": "/dev/null",
        }
        return Target(f"h{self.number}", data)

    @contextmanager
    def http(self, port: int = 8000) -> Iterator[str]:
        """Triton's HTTP endpoint through an SSH tunnel, while the block runs."""
        with connected(self.target) as connection, connection.tunnel("127.0.0.1", port) as endpoint:
            yield f"http://{endpoint}"

    # The state of the host

    def container(self) -> dict[str, Any]:
        """docker's description of the serving container."""
        found: dict[str, Any] = json.loads(self.root("docker container inspect triton"))[0]
        return found

    def running_release(self) -> str:
        return str(self.container()["Config"]["Labels"]["tritonhost.release"])

    def current(self) -> dict[str, Any]:
        """release.json of the current release."""
        found: dict[str, Any] = json.loads(self.root(f"cat {DATA_ROOT}/current/release.json"))
        return found

    def artifact(self, kind: str) -> str:
        """The key of the current release's artifact of that kind."""
        return str(self.current()["artifacts"][kind]["key"])

    def now(self) -> str:
        """The host's clock, in the form of `since` below."""
        return self.root("date +%s.%6N")

    def journal(self, since: str, *matches: str) -> list[str]:
        """The messages since then. Not by cursor: with a match, journalctl --after-cursor omits the first."""
        words = shlex.join(["journalctl", "--quiet", "--output=cat", f"--since=@{since}", *matches])
        return self.root(words).splitlines()

    def starts(self, unit: str, since: str) -> int:
        """How often systemd started a unit since then."""
        return len(self.journal(since, f"MESSAGE_ID={STARTED}", f"UNIT={unit}"))

    def units_touched(self, since: str) -> list[str]:
        """Reloads of systemd since then, and the units that were started, stopped or reloaded, except by a timer."""
        listed = self.root("systemctl list-timers --all --no-legend --plain | awk '{ print $NF }'")
        own = set(listed.split())
        # the second message is that of systemd 254 and later
        said = ("Reloading.", "Reloading requested")
        found = ["reload of systemd" for line in self.journal(since, "_PID=1") if line.startswith(said)]
        words = shlex.join(["journalctl", "--quiet", "--output=json", f"--since=@{since}", "_PID=1"])
        for entry in map(json.loads, self.root(words).splitlines()):
            unit, what = str(entry.get("UNIT", "")), TOUCHED.get(str(entry.get("MESSAGE_ID", "")))
            if what and unit not in own and not LOGINS.fullmatch(unit):
                found.append(f"{unit} {what}")
        return found

    def litter(self) -> list[str]:
        """What an interrupted run may leave behind, but a finished one must not."""
        return self.root(
            f"find {DATA_ROOT} -maxdepth 2 \\( -name '*.partial*' -o -name '.*.new*' -o -name '*.replaced' \\); "
            "find /run/tritonhost -mindepth 1 ! -name 'lock*'; find /tmp /var/tmp -maxdepth 1 -name 'pyinfra-*'; "
            # a container that docker is removing has no name any more
            "docker ps --all --format 'container {{.Names}}' | grep -v -x -e 'container triton' -e 'container '; "
            "docker image ls --format '{{.Repository}}:{{.Tag}}' | grep -e '-building$'; "
            "systemctl list-units --all --plain --no-legend 'tritonhost-*'"
        ).splitlines()

    # The mirror

    def faults(self, *rules: Mapping[str, Any]) -> None:
        """Set the hub's faults from now on; none: it works normally."""
        request = urllib.request.Request(
            f"{self.settings.hub}/_faults", data=json.dumps(rules).encode(), method="PUT"
        )
        with urllib.request.urlopen(request, timeout=10):
            pass


def difference_rows(output: str) -> list[str]:
    """The lines of a deploy's table of differences, below its heading."""
    lines = [re.sub(r"^(\s*\[h\d+\])?\s*", "", line) for line in output.splitlines()]
    first = next(
        (n for n, line in enumerate(lines) if re.match(r"stage\s+what\s+found\s+wanted", line)), None
    )
    if first is None:
        return []
    rows = []
    for line in lines[first + 1 :]:
        if not line or line.startswith(("Ready:", "preflight:")):
            break
        rows.append(line)
    return rows
