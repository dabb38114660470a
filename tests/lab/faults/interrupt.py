"""A deploy that a test reads while it runs, and kills, stops or waits for; and checks of a host that was interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from tests.lab.e2e.one_host import DATA_ROOT, DEPLOY, ENDED_WELL, STARTED, Done, OneHost
from tests.lab.settings import REPOSITORY

# systemd's MESSAGE_ID of "unit is being stopped":
# https://github.com/systemd/systemd/blob/main/catalog/systemd.catalog.in
STOPPING = "de5b426a63be47a7b6ac3eaac82e2f6f"
OPERATION = re.compile(r"Starting (?:nested )?operation: (.*?)\s*$")
READY = "http://127.0.0.1:8000/v2/models/ensemble/ready"
MADE = ("source", "image", "weights", "checkpoint", "engine")
PATIENCE_SECONDS = 180
GPUS_OF_THE_LAB = "/etc/lab/gpus"


def delay(microseconds: int) -> dict[str, Any]:
    """Another release of the same engine."""
    return {"repository": {"parameters": {"max_queue_delay_microseconds": microseconds}}}


class Client:
    """`pyinfra … deploy.py` in a process group of its own, while the block runs: it is killed if the block ends first."""

    def __init__(self, site: OneHost, *options: str, overrides: Mapping[str, Any] | None = None) -> None:
        data = ["--data", f"profile_overrides={json.dumps(overrides)}"] if overrides else []
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._over = False
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [*DEPLOY, "--limit", f"h{site.number}", *data, *options],
            env=site.environment,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()

    @property
    def output(self) -> str:
        with self._news:
            return "\n".join(self._lines)

    @property
    def operations(self) -> list[str]:
        """The operations that have begun, including nested ones, in order."""
        found = (OPERATION.search(line) for line in self.output.splitlines())
        return [match[1] for match in found if match]

    def _reached(self, met: Callable[[], bool]) -> bool:
        with self._news:
            self._news.wait_for(lambda: met() or self._over, PATIENCE_SECONDS)
        assert met() or self._over, f"neither reached nor over after {PATIENCE_SECONDS} s: {self.output}"
        return met()

    def begins(self, number: int) -> bool:
        """Wait until so many operations have begun; false if the run ended before."""
        return self._reached(lambda: len(self.operations) >= number)

    def says(self, text: str) -> bool:
        """Wait until it has printed this; false if the run ended before."""
        return self._reached(lambda: text in self.output)

    def kill(self) -> None:
        """kill -9 of the whole process group, so that none of it can clean up."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._reader.join()

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def ended(self, seconds: float = PATIENCE_SECONDS) -> Done:
        """Wait, at most so many seconds, until it has ended by itself."""
        code = self._process.wait(seconds)
        self._reader.join()
        if code == 0:
            ENDED_WELL.append("client")
        return Done(code, self.output, time.monotonic() - self._began)


def until(met: Callable[[], bool], seconds: float, what: str) -> float:
    """Poll until the condition is met, at most that long; the seconds that it took."""
    began = time.monotonic()
    while not met():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - began


def answers(site: OneHost) -> bool:
    """Whether the model on the host answers that it is ready; false if the host does not answer."""
    return site.try_root(f"curl --silent --fail --max-time 3 --output /dev/null {READY}")[0] == 0


def link(site: OneHost, name: str = "current") -> str:
    """The release that a link names; empty if there is no link."""
    return site.try_root(f"readlink {DATA_ROOT}/{name}")[1].rpartition("/")[2]


def converges(site: OneHost, overrides: Mapping[str, Any] | None = None, *options: str) -> Done:
    """The next run succeeds, and the one after it has nothing to do; returns the first of them."""
    done = site.deploy("--limit", f"h{site.number}", *options, overrides=overrides)
    assert done.code == 0, done.output
    again = site.deploy("--limit", f"h{site.number}", *options, overrides=overrides)
    assert again.code == 0, again.output
    assert f"converged: release {site.running_release()}" in again.output, again.output
    assert "Starting operation" not in again.output
    return done


def events(site: OneHost, since: str, message: str, unit: str) -> list[float]:
    """When systemd wrote that message about a unit, in seconds since 1970."""
    written = site.root(
        f"journalctl --quiet --output=json --since=@{since} MESSAGE_ID={message} UNIT={unit}"
    ).splitlines()
    return [int(json.loads(line)["__REALTIME_TIMESTAMP"]) / 1e6 for line in written]


def started_work(site: OneHost, since: str, made: Sequence[str] = MADE) -> Counter[str]:
    """How often each unit of detached work was started since then, by name; `made` are the kinds that it makes."""
    written = site.root(
        f"journalctl --quiet --output=json --output-fields=UNIT --since=@{since} MESSAGE_ID={STARTED}"
    ).splitlines()
    units = (str(json.loads(line).get("UNIT", "")) for line in written)
    return Counter(unit for unit in units if re.match(rf"tritonhost-({'|'.join(made)})-", unit))


def manifests(site: OneHost) -> dict[str, str]:
    """Every complete artifact's directory, and when it was completed."""
    listed = site.root(f"find {DATA_ROOT} -mindepth 3 -maxdepth 3 -name manifest.json -printf '%h %T@\\n'")
    return dict(line.split(" ") for line in listed.splitlines() if "/." not in line)


@contextmanager
def slow_builds(site: OneHost, seconds: int) -> Iterator[None]:
    """The stand-in's builds take this long while the block runs."""
    site.root(f"echo build_seconds={seconds} >>{GPUS_OF_THE_LAB}")
    try:
        yield
    finally:
        site.root(f"sed -i /^build_seconds=/d {GPUS_OF_THE_LAB}")
