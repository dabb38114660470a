"""A lab of one host that a test deploys to, looks at and breaks: every command a person would type, and root on the host."""

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest

from tests.lab import machine
from tests.lab.settings import REPOSITORY, Settings, from_environment
from tests.verify.connection import Target, connected

INVENTORY = "inventories/lab.py"
PYINFRA = [sys.executable, "-m", "pyinfra"]
DEPLOY = [*PYINFRA, "-y", INVENTORY, "deploy.py"]
# systemd's MESSAGE_ID of "unit started": https://github.com/systemd/systemd/blob/main/catalog/systemd.catalog.in
STARTED = "39f53479d3a045ac8e11786248231fbf"
DATA_ROOT = "/var/lib/tritonhost"


def settings_of_lab(net: str, **variables: str) -> Settings:
    """
    The settings of a lab on a network of its own, whatever the environment says of another; fails the test without one.

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


class OneHost:
    """A host of a lab on a network of its own, h1 as a rule, and the repository's commands pointed at that lab."""

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

    def run(self, *command: str, environment: Mapping[str, str] | None = None) -> Done:
        """A command on this machine, in the repository: both of its outputs, as a person sees them."""
        began = time.monotonic()
        done = subprocess.run(
            command,
            env={**self.environment, **(environment or {})},
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, time.monotonic() - began)

    def lab(self, *arguments: str) -> Done:
        done = self.run(str(REPOSITORY / "tests" / "lab" / "lab"), *arguments)
        assert done.code == 0, f"lab {shlex.join(arguments)}: {done.output}"
        return done

    # What a person types

    def deploy(
        self,
        *options: str,
        overrides: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Done:
        """`pyinfra -y inventories/lab.py deploy.py`; `overrides` change the model's profile for this run."""
        data = ["--data", f"profile_overrides={json.dumps(overrides)}"] if overrides else []
        return self.run(*DEPLOY, *data, *options, environment=environment)

    def converge(self, overrides: Mapping[str, Any] | None = None) -> Done:
        """A deploy that must succeed."""
        done = self.deploy(overrides=overrides)
        assert done.code == 0, done.output
        return done

    def verify(self, keywords: str = "") -> Done:
        """`pytest tests/verify`, or the tests of it that `keywords` choose as pytest's -k does."""
        chosen = ["-k", keywords] if keywords else []
        return self.run(
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("tests/verify", "--inventory", INVENTORY, *chosen),
        )

    def verified(self, keywords: str = "") -> None:
        done = self.verify(keywords)
        assert done.code == 0, done.output

    def deploy_until_killed(self, unit: str) -> str:
        """A deploy, killed with its whole process group (kill -9) while `unit` runs on the host; what it said."""
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

    # What the host says

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
        """The host's clock, as `since` below wants it."""
        return self.root("date +%s.%6N")

    def journal(self, since: str, *matches: str) -> list[str]:
        """The messages since then. Not by cursor: with a match, journalctl --after-cursor leaves out the first."""
        words = shlex.join(["journalctl", "--quiet", "--output=cat", f"--since=@{since}", *matches])
        return self.root(words).splitlines()

    def starts(self, unit: str, since: str) -> int:
        """How often systemd started a unit since then."""
        return len(self.journal(since, f"MESSAGE_ID={STARTED}", f"UNIT={unit}"))

    def litter(self) -> list[str]:
        """What an interrupted run may leave and a finished one must not."""
        return self.root(
            f"find {DATA_ROOT} -maxdepth 2 \\( -name '*.partial*' -o -name '.*.new*' -o -name '*.replaced' \\); "
            "find /run/tritonhost -mindepth 1 ! -name 'lock*'; find /tmp /var/tmp -maxdepth 1 -name 'pyinfra-*'; "
            # one that docker is removing has no name any more
            "docker ps --all --format 'container {{.Names}}' | grep -v -x -e 'container triton' -e 'container '; "
            "docker image ls --format '{{.Repository}}:{{.Tag}}' | grep -e '-building$'; "
            "systemctl list-units --all --plain --no-legend 'tritonhost-*'"
        ).splitlines()

    # The mirror

    def faults(self, *rules: Mapping[str, Any]) -> None:
        """The hub's faults from now on are these; none: it behaves."""
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
