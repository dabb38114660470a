"""The scripts that run dnf and rpm, under sh on this machine, with locks held by processes of the test."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from operations.scripts import HOST_SCRIPTS
from tests.unit.stubs import Stubs

RUN = HOST_SCRIPTS / "run_unlocked.sh"


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    """No cloud-init at work, no rpm lock but the test's own."""
    made = Stubs(tmp_path / "bin")
    (tmp_path / "rpm.lock").touch()
    made.add("rpm", f'[ "$1" = --eval ] && echo {tmp_path}/rpm.lock')
    made.add("cloud-init", "echo 'status: done'")
    made.add("dnf", "echo installed")
    return made


def _environment(stubs: Stubs) -> dict[str, str]:
    place = stubs.directory.parent
    return {
        "PATH": f"{stubs.directory}:{os.environ['PATH']}",
        "LOOK_EACH": "1",
        "DNF_LOCKS": f"{place}/metadata_lock.pid {place}/rpmdb_lock.pid",
    }


def unlocked(stubs: Stubs, limit: int, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(RUN), str(limit), *(command or ("dnf", "install"))],
        capture_output=True,
        text=True,
        timeout=60,
        env=_environment(stubs),
    )


@contextmanager
def dnf_lock(stubs: Stubs, seconds: float = 60, name: str = "dnf-stand-in") -> Iterator[tuple[int, Path]]:
    """A process that has dnf's lock as dnf has it: its number in a file, which is gone when it ends."""
    file = stubs.directory.parent / "rpmdb_lock.pid"
    program = stubs.directory.parent / name
    program.write_text(f"import time; time.sleep({seconds})\n")
    with subprocess.Popen(["python3", str(program), "http://user:pass@mirror/"]) as holder:
        file.write_text(str(holder.pid))

        def end() -> None:
            holder.wait()
            file.unlink()

        ended = threading.Thread(target=end)
        ended.start()
        yield holder.pid, file
        holder.kill()
        ended.join()


def test_a_command_runs_at_once_where_nobody_is_in_the_way(stubs: Stubs) -> None:
    began = time.monotonic()
    done = unlocked(stubs, 600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "installed\n", "")
    assert time.monotonic() - began < 2


def test_the_command_s_own_exit_code_is_kept(stubs: Stubs) -> None:
    stubs.add("dnf", "exit 1")
    assert unlocked(stubs, 600).returncode == 1


def test_a_lock_that_is_given_back_is_waited_for_and_its_holder_named(stubs: Stubs) -> None:
    with (
        dnf_lock(stubs) as (pid, file),
        subprocess.Popen(
            ["sh", str(RUN), "60", "dnf", "install"],
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(stubs),
        ) as ours,
    ):
        assert ours.stdout
        first = ours.stdout.readline().rstrip()
        os.kill(pid, signal.SIGKILL)
        assert ours.stdout.read() == "installed\n"
    assert ours.returncode == 0
    assert first.startswith(f"tritonhost: waiting for 0 s of 60 s at most: {file} is held by pid {pid} (")
    assert re.search(r"/dnf-stand-in http://mirror/, since \w+ \w+ +\d+ [\d:]+ \d+\)$", first), first


def test_a_lock_that_is_kept_is_reported_and_its_holder_lives(stubs: Stubs) -> None:
    with dnf_lock(stubs) as (pid, _):
        os.kill(pid, signal.SIGSTOP)
        done = unlocked(stubs, 2)
        assert Path(f"/proc/{pid}").exists()
    assert done.returncode == 75
    [line] = [line for line in done.stdout.splitlines() if "refused" in line]
    assert f"is held by pid {pid} (" in line
    assert ", stopped)" in line
    assert "expected it to end within 2 s (package_lock_wait_s)" in line
    assert [call for call in stubs.calls if call.startswith("dnf")] == []


def test_a_number_that_was_given_out_again_is_told_from_a_dnf_at_work(stubs: Stubs) -> None:
    with dnf_lock(stubs, name="something-else") as (pid, file):
        os.utime(file, (time.time() - 3600, time.time() - 3600))
        done = unlocked(stubs, 600)
        assert file.exists()
    assert done.returncode == 75
    assert f"refused: {file}: found pid {pid}, which is " in done.stdout
    assert "and not the dnf that wrote the file" in done.stdout
    assert f"remove it: rm {file};" in done.stdout


def test_a_dnf_that_only_looks_younger_than_its_file_is_waited_for(stubs: Stubs) -> None:
    # a clock that was set after the boot
    with dnf_lock(stubs, seconds=1.5) as (_, file):
        os.utime(file, (time.time() - 3600, time.time() - 3600))
        assert unlocked(stubs, 60).returncode == 0


def test_a_file_of_a_process_that_is_gone_is_dnf_s_own_business(stubs: Stubs) -> None:
    (stubs.directory.parent / "rpmdb_lock.pid").write_text("4194304")
    assert unlocked(stubs, 0).returncode == 0


@contextmanager
def rpm_lock(stubs: Stubs) -> Iterator[None]:
    with open(stubs.directory.parent / "rpm.lock", "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def test_rpm_s_lock_is_seen_and_its_holder_named(stubs: Stubs) -> None:
    with rpm_lock(stubs):
        done = unlocked(stubs, 0)
    assert done.returncode == 75
    assert f"{stubs.directory.parent}/rpm.lock is held by pid {os.getpid()} (" in done.stdout
    assert unlocked(stubs, 0).returncode == 0


def test_dnf_that_finds_its_lock_taken_in_between_is_run_again(stubs: Stubs) -> None:
    marker = stubs.directory.parent / "again"
    stubs.add("dnf", f"[ -e {marker} ] && echo installed && exit 0; touch {marker}; exit 200")
    done = unlocked(stubs, 60)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "installed")
    assert len([call for call in stubs.calls if call.startswith("dnf")]) == 2
    stubs.add("dnf", "exit 200")
    done = unlocked(stubs, 2)
    assert done.returncode == 75
    assert "refused: dnf found one of its locks held" in done.stdout


def test_our_own_rpm_that_is_kept_waiting_is_ended_and_nobody_else(stubs: Stubs, tmp_path: Path) -> None:
    taker = tmp_path / "taker.py"
    # takes the lock once the look is over, as an rpm does that begins in that moment
    taker.write_text(
        "import fcntl, subprocess, sys, time\n"
        f"file = open('{tmp_path}/rpm.lock', 'r+b')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('taken', flush=True)\n"
        "time.sleep(60)\n"
    )
    waiter = tmp_path / "waiter.py"
    waiter.write_text(
        "import fcntl, subprocess, sys\n"
        f"other = subprocess.Popen([sys.executable, '{taker}'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)\n"
        "other.stdout.readline()\n"
        f"open('{tmp_path}/taker.pid', 'w').write(str(other.pid))\n"
        f"fcntl.lockf(open('{tmp_path}/rpm.lock', 'r+b'), fcntl.LOCK_EX)\n"
    )
    done = unlocked(stubs, 2, "python3", str(waiter))
    other = int((tmp_path / "taker.pid").read_text())
    assert Path(f"/proc/{other}").exists()
    os.kill(other, signal.SIGKILL)
    assert done.returncode == 75, done.stdout + done.stderr
    assert f"waiting for 0 s of 2 s at most: {tmp_path}/rpm.lock is held by pid {other} (" in done.stdout
    assert f"refused: {tmp_path}/rpm.lock is held by pid {other} (" in done.stdout


def test_cloud_init_s_first_boot_is_waited_for_with_a_limit(stubs: Stubs) -> None:
    marker = stubs.directory.parent / "booted"
    stubs.add(
        "cloud-init",
        f"[ -e {marker} ] && echo 'status: done' && exit 0; touch {marker}; echo 'status: running'",
    )
    assert unlocked(stubs, 60).returncode == 0
    stubs.add("cloud-init", "echo 'status: running'")
    done = unlocked(stubs, 2)
    assert done.returncode == 75
    assert "refused: cloud-init is at work on the first boot" in done.stdout
    stubs.add("cloud-init", "echo 'status: error'; exit 1")
    assert unlocked(stubs, 2).returncode == 0


# --- removal


def removed(stubs: Stubs, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(HOST_SCRIPTS / "remove_packages.sh"), str(RUN), "5", *names],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": f"{stubs.directory}:{os.environ['PATH']}", "DNF_LOCKS": "/absent"},
    )


@pytest.mark.parametrize(
    ("podman", "conmon", "names"),
    [
        ("echo web; echo db", "", "db web"),
        # of another user than root
        ("", "/usr/bin/conmon --api-version 1 -c 0f -n rootless --exit-dir /run/user/1000", "rootless"),
    ],
)
def test_removal_is_refused_while_a_podman_container_runs(
    stubs: Stubs, podman: str, conmon: str, names: str
) -> None:
    stubs.add("podman", podman)
    stubs.add("ps", f"echo '{conmon}'" if conmon else "exit 1")
    done = removed(stubs, "podman")
    assert done.returncode == 65
    assert f"refused: podman containers run on this host: {names}; expected none" in done.stdout
    assert [call for call in stubs.calls if call.startswith("dnf")] == []


def test_packages_are_removed_by_their_full_names_and_nothing_else(stubs: Stubs) -> None:
    stubs.add("podman", ":")
    stubs.add(
        "rpm", "[ $1 = -q ] && echo runc-4:1.2.5-3.el9.x86_64; echo package podman is not installed; exit 1"
    )
    stubs.add("dnf", "exit 5")
    assert removed(stubs, "podman", "runc").returncode == 5
    assert [call for call in stubs.calls if call.startswith("dnf")] == [
        "dnf remove --assumeyes --noautoremove --setopt=exit_on_lock=True runc-4:1.2.5-3.el9.x86_64"
    ]


def test_nothing_installed_is_nothing_to_remove(stubs: Stubs) -> None:
    stubs.add("podman", "exit 1")
    stubs.add("rpm", "echo package runc is not installed; exit 1")
    stubs.add("dnf", "exit 5")
    assert removed(stubs, "runc").returncode == 0


# --- version locks


@pytest.mark.parametrize(
    ("before", "code", "after"),
    [
        (None, 0, "fresh\n"),
        (None, 3, None),
        ("before\n", 0, "fresh\n"),
        ("before\n", 3, "before\n"),
    ],
)
def test_locks_become_others_with_the_packages_or_not_at_all(
    tmp_path: Path, before: str | None, code: int, after: str | None
) -> None:
    place = tmp_path / "plugins"
    place.mkdir()
    target, fresh, seen = place / "versionlock.list", tmp_path / "fresh", tmp_path / "seen"
    fresh.write_text("fresh\n")
    if before:
        target.write_text(before)
    command = f"cat {target} >{seen} 2>/dev/null; exit {code}"
    done = subprocess.run(
        ["sh", str(HOST_SCRIPTS / "under_locks.sh"), str(fresh), "sh", "-c", command],
        env={**os.environ, "LOCK_LIST": str(target)},
        check=False,
    )
    assert done.returncode == code
    assert (target.read_text() if target.exists() else None) == after
    # dnf sees the list it is to install under
    assert seen.read_text() == ("fresh\n" if before else "")
    assert [path.name for path in place.iterdir()] == ([target.name] if after else [])
