"""The host's lock: what a run still does once it does not hold it any more."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from paramiko import SSHException
from pyinfra.api.command import StringCommand

from operations import lock
from operations.scripts import host_script


class Channel:
    """The lock's channel: `ended` when the host's process is gone."""

    closed = False
    ended = False
    answers: list[bytes]

    def __init__(self) -> None:
        self.answers = []

    def exit_status_ready(self) -> bool:
        return self.ended

    def sendall(self, _: bytes) -> None:
        self.answers.append(b"alive\n")

    def recv_ready(self) -> bool:
        return bool(self.answers)

    def recv(self, _: int) -> bytes:
        return self.answers.pop()


class Transport:
    active = True

    def is_active(self) -> bool:
        return self.active

    def close(self) -> None:
        self.active = False


class Host:
    """One whose commands are run here."""

    name = "gpu-1"
    print_prefix = ""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def run_shell_command(self, command: Any, **_: object) -> Any:
        text = command.get_raw_value() if isinstance(command, StringCommand) else command
        done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=False)
        self.ran.append(text)
        return done.returncode == 0, done.stdout


@pytest.fixture
def host() -> Iterator[Any]:
    yield Host()
    lock._lost.clear()
    lock._guards.clear()


def holder(directory: Path, who: str) -> subprocess.Popen[str]:
    script = host_script(
        "hold_lock.sh", {"WHO": who, "DIRECTORY": str(directory), "OWN": "", "SILENCE": "60"}
    )
    process = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_every_command_requires_the_lock(host: Any, tmp_path: Path) -> None:
    process = holder(tmp_path, "ann")
    lock._guards[host.name] = host_script("own_lock.sh", {"WHO": "ann", "DIRECTORY": str(tmp_path)})
    lock._guard(host)
    made = tmp_path / "made"
    for command in (f"touch {made}", StringCommand("touch", str(made))):
        assert host.run_shell_command(command, _sudo=True)[0]
        assert made.exists()
        made.unlink()
    assert process.stdin
    process.kill()
    process.wait()
    process.stdin.close()
    for command in (f"touch {made}", StringCommand("touch", str(made))):
        assert not host.run_shell_command(command, _sudo=True)[0]
        assert not made.exists()
    other = holder(tmp_path, "bob")
    assert not host.run_shell_command(f"touch {made}", _sudo=True)[0]
    assert not made.exists()
    other.kill()
    other.wait()


def beat(host: Any, monkeypatch: pytest.MonkeyPatch, end: Any) -> tuple[Channel, Transport]:
    channel, transport = Channel(), Transport()
    monkeypatch.setattr(gevent, "sleep", lambda _: end(channel, transport))
    lock._beat(host, transport, channel)
    return channel, transport


def test_a_lock_that_the_host_ended_ends_the_run(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, transport = beat(host, monkeypatch, lambda channel, _: setattr(channel, "ended", True))
    assert not transport.active
    lock._guard(host)
    with pytest.raises(SSHException, match="ended by the host"):
        host.run_shell_command("true")
    assert host.ran == []


def test_a_machine_that_slept_ends_the_run(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter((0.0, 300.0, 305.0))
    monkeypatch.setattr(lock, "_now", lambda: next(now))
    _, transport = beat(host, monkeypatch, lambda *_: None)
    assert not transport.active
    assert "asleep or stopped for 300 s" in lock._lost[host.name]


def test_disconnect_logs_nothing(
    host: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def disconnect(channel: Channel, transport: Transport) -> None:
        channel.closed, transport.active = True, False

    beat(host, monkeypatch, disconnect)
    assert caplog.text == ""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has that clock")
def test_lock_clock_counts_sleep() -> None:
    import time

    assert abs(lock._now() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1
