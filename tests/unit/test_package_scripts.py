"""The scripts that run dnf and rpm, under sh on this machine, with locks held by processes of the test."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
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


def test_command_runs_at_once_without_a_lock(stubs: Stubs) -> None:
    began = time.monotonic()
    done = unlocked(stubs, 600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "installed\n", "")
    assert time.monotonic() - began < 2


def test_exit_code_of_the_command_is_kept(stubs: Stubs) -> None:
    stubs.add("dnf", "exit 1")
    assert unlocked(stubs, 600).returncode == 1


@pytest.mark.slow
def test_released_lock_is_waited_for_and_its_holder_named(stubs: Stubs) -> None:
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


@pytest.mark.slow
def test_held_lock_is_reported_and_its_holder_lives(stubs: Stubs) -> None:
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


def test_reused_pid_is_distinguished_from_a_running_dnf(stubs: Stubs) -> None:
    with dnf_lock(stubs, name="something-else") as (pid, file):
        os.utime(file, (time.time() - 3600, time.time() - 3600))
        done = unlocked(stubs, 600)
        assert file.exists()
    assert done.returncode == 75
    assert f"refused: {file}: found pid {pid}, which is " in done.stdout
    assert "and not the dnf that wrote the file" in done.stdout
    assert f"remove it: rm {file};" in done.stdout


@pytest.mark.slow
def test_dnf_that_seems_younger_than_its_lock_is_waited_for(stubs: Stubs) -> None:
    # a clock that was set after the boot
    with dnf_lock(stubs, seconds=1.5) as (_, file):
        os.utime(file, (time.time() - 3600, time.time() - 3600))
        assert unlocked(stubs, 60).returncode == 0


@pytest.mark.slow
def test_run_unlocked_ignores_a_process_that_just_ended(stubs: Stubs) -> None:
    with dnf_lock(stubs, name="something-else") as (pid, file):
        os.utime(file, (time.time() - 3600, time.time() - 3600))
        # asked for between the look at the process's age and the look at its name
        gone = f"kill -KILL {pid} 2>/dev/null; while [ -e /proc/{pid} ]; do sleep 0.05; done"
        stubs.add("getconf", f"{gone}; echo 100")
        done = unlocked(stubs, 600)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "installed")


def test_lock_file_of_a_dead_process_is_ignored(stubs: Stubs) -> None:
    (stubs.directory.parent / "rpmdb_lock.pid").write_text("4194304")
    assert unlocked(stubs, 0).returncode == 0


@contextmanager
def rpm_lock(stubs: Stubs) -> Iterator[None]:
    with open(stubs.directory.parent / "rpm.lock", "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def test_rpm_lock_is_detected_and_its_holder_named(stubs: Stubs) -> None:
    with rpm_lock(stubs):
        done = unlocked(stubs, 0)
    assert done.returncode == 75
    assert f"{stubs.directory.parent}/rpm.lock is held by pid {os.getpid()} (" in done.stdout
    assert unlocked(stubs, 0).returncode == 0


@pytest.mark.slow
def test_dnf_that_finds_a_lock_held_is_run_again(stubs: Stubs) -> None:
    marker = stubs.directory.parent / "again"
    stubs.add("dnf", f"[ -e {marker} ] && echo installed && exit 0; touch {marker}; exit 200")
    done = unlocked(stubs, 60)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "installed")
    assert len([call for call in stubs.calls if call.startswith("dnf")]) == 2
    stubs.add("dnf", "exit 200")
    done = unlocked(stubs, 2)
    assert done.returncode == 75
    assert "refused: dnf found one of its locks held" in done.stdout


@pytest.mark.slow
def test_waiting_rpm_of_ours_is_ended_and_no_other_process(stubs: Stubs, tmp_path: Path) -> None:
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


@pytest.mark.slow
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

# Packages of a host as rpm knows them, and what they require: what dnf removes with them is rpm's to say.
SPEC = """
Name: podman
Epoch: 5
Version: 5.2.2
Release: 1.el9
Summary: a stand-in
License: none
BuildArch: noarch
%description
A stand-in.
%files
"""
REQUIRES = {
    "podman-docker": "podman = 5:5.2.2-1.el9",
    "podman-tests": "podman-docker",
    "cockpit-podman": "podman",
    "buildah": "runc",
    "runc": "",
}


@pytest.fixture(scope="module")
def rpm_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a file NAME-….rpm of each."""
    place = tmp_path_factory.mktemp("rpm")
    text = SPEC
    for name, needs in REQUIRES.items():
        text += f"%package -n {name}\nSummary: x\n{f'Requires: {needs}' if needs else ''}\n%description -n {name}\nx\n%files -n {name}\n"
    (place / "all.spec").write_text(text, encoding="utf-8")
    define = ["--define", f"_topdir {place}/top", "--define", f"_rpmdir {place}"]
    subprocess.run(["rpmbuild", "-bb", "--quiet", *define, str(place / "all.spec")], check=True)
    return place / "noarch"


def installed(stubs: Stubs, files: Path, *names: str) -> None:
    """A host with these packages: the real rpm, with a database of the test's own."""
    database = stubs.directory.parent / "rpmdb"
    paths = [str(path) for name in names for path in files.glob(f"{name}-5*.rpm")]
    assert len(paths) == len(names)
    real = shutil.which("rpm")
    command = [str(real), "--dbpath", str(database), "--install", "--justdb", "--nodeps", *paths]
    subprocess.run(command, check=True, capture_output=True)
    stubs.add("rpm", f'[ "$1" = --eval ] && echo /absent || exec {real} --dbpath {database} "$@"')


ALONG = "podman-docker,podman-tests"


def removed(
    stubs: Stubs, *names: str, along: str = ALONG, instead: str = ""
) -> subprocess.CompletedProcess[str]:
    asked = stubs.directory.parent / "instead"
    asked.write_text(instead)
    return subprocess.run(
        ["sh", str(HOST_SCRIPTS / "remove_packages.sh"), str(RUN), "5", along, str(asked), *names],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": f"{stubs.directory}:{os.environ['PATH']}", "DNF_LOCKS": "/absent"},
    )


def dnf_calls(stubs: Stubs) -> list[str]:
    return [call for call in stubs.calls if call.startswith("dnf")]


REMOVE = "dnf remove --assumeyes --noautoremove --setopt=exit_on_lock=True"


def test_removal_is_refused_while_a_podman_container_runs(stubs: Stubs) -> None:
    stubs.add("podman", 'case "$*" in "ps --format {{.Names}}") echo web; echo db ;; *) exit 125 ;; esac')
    done = removed(stubs, "podman")
    assert done.returncode == 65
    assert "refused: podman containers run on this host: db web; expected none" in done.stdout
    assert dnf_calls(stubs) == []


def test_removal_detects_containers_of_other_users(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("podman", ":")
    conmon = tmp_path / "conmon"
    conmon.write_text("#!/bin/sh\necho up\nread end\n", encoding="utf-8")
    conmon.chmod(0o755)
    options = ["--api-version", "1", "-c", "0f", "-n", "rootless", "--exit-dir", "/run/user/1000"]
    with subprocess.Popen(
        [str(conmon), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "up\n"
        done = removed(stubs, "podman")
        process.communicate("end\n")
    assert done.returncode == 65
    assert re.search(r"podman containers run on this host: .*\brootless\b", done.stdout)
    assert dnf_calls(stubs) == []


def test_packages_are_removed_by_full_name_only(stubs: Stubs, rpm_files: Path) -> None:
    stubs.add("podman", ":")
    installed(stubs, rpm_files, "runc", "cockpit-podman")
    stubs.add("dnf", "exit 5")
    assert removed(stubs, "podman", "runc").returncode == 5
    assert dnf_calls(stubs) == [f"{REMOVE} runc-5:5.2.2-1.el9.noarch"]


def test_removal_includes_and_names_dependent_packages(stubs: Stubs, rpm_files: Path) -> None:
    stubs.add("podman", ":")
    installed(stubs, rpm_files, "podman", "podman-docker", "podman-tests", "buildah", "runc")
    done = removed(stubs, "podman", "buildah", "runc")
    assert done.returncode == 0
    names = ("podman", "buildah", "runc", "podman-docker", "podman-tests")
    assert dnf_calls(stubs) == [f"{REMOVE} {' '.join(f'{name}-5:5.2.2-1.el9.noarch' for name in names)}"]
    assert "tritonhost: removed as well, because they require it: podman-docker" in done.stdout
    assert "tritonhost: removed as well, because they require it: podman-tests" in done.stdout


@pytest.mark.parametrize(
    ("there", "names", "along", "found"),
    [
        (("podman", "cockpit-podman"), ("podman",), ALONG, "cockpit-podman"),
        (("buildah", "runc"), ("runc",), ALONG, "buildah"),
        # what requires what may go along
        (("podman", "podman-docker", "podman-tests"), ("podman",), "podman-docker", "podman-tests"),
    ],
)
def test_removal_refuses_foreign_dependent_packages(
    stubs: Stubs, rpm_files: Path, there: tuple[str, ...], names: tuple[str, ...], along: str, found: str
) -> None:
    stubs.add("podman", ":")
    installed(stubs, rpm_files, *there)
    done = removed(stubs, *names, along=along)
    assert done.returncode == 65
    assert f"would take {found} along, which requires it; expected nothing that does but: " in done.stdout
    assert f"dnf remove {found} yourself if it may go, then run again; nothing was changed" in done.stdout
    assert dnf_calls(stubs) == []


def test_removal_without_rpm_s_answer_is_refused(stubs: Stubs, rpm_files: Path) -> None:
    stubs.add("podman", ":")
    stubs.add("rpm", '[ "$1" = -q ] && echo runc-1.2-1.x86_64 && exit 0; echo error: rpmdb >&2; exit 1')
    done = removed(stubs, "runc")
    assert done.returncode == 65
    assert (
        "found no answer of rpm to what requires runc: error: rpmdb exit code 1; nothing was" in done.stdout
    )
    assert dnf_calls(stubs) == []


def test_nothing_installed_means_nothing_removed(stubs: Stubs, rpm_files: Path) -> None:
    stubs.add("podman", "exit 1")
    installed(stubs, rpm_files, "cockpit-podman")
    stubs.add("dnf", "exit 5")
    assert removed(stubs, "runc").returncode == 0
    assert dnf_calls(stubs) == []


INSTEAD = "dnf\ninstall\n--assumeno\n--exclude=kernel*\ndocker-ce-3:29.9.0-1.el9\n"
UNABLE = (
    "Last metadata expiration check: 0:00:01 ago\\nNo match for argument: docker-ce-3:29.9.0-1.el9\\n"
    "Error: Unable to find a match: docker-ce-3:29.9.0-1.el9"
)
CONFLICT = "Error: \\n Problem: package docker-ce requires containerd.io >= 2\\n  - nothing provides it"


@pytest.mark.parametrize("said", ["Is this ok [y/N]: N\\nOperation aborted.", "Nothing to do.\\nComplete!"])
def test_packages_are_removed_once_replacements_are_available(
    stubs: Stubs, rpm_files: Path, said: str
) -> None:
    stubs.add("podman", ":")
    installed(stubs, rpm_files, "runc")
    stubs.add("dnf", f'[ "$1" = remove ] || {{ printf "{said}\\n"; exit 1; }}')
    assert removed(stubs, "runc", instead=INSTEAD).returncode == 0
    assert dnf_calls(stubs) == [
        "dnf install --assumeno --exclude=kernel* docker-ce-3:29.9.0-1.el9",
        f"{REMOVE} runc-5:5.2.2-1.el9.noarch",
    ]


@pytest.mark.parametrize(
    ("said", "code", "why"),
    [
        (UNABLE, 1, "Error: Unable to find a match: docker-ce-3:29.9.0-1.el9"),
        (CONFLICT, 1, "Error: Problem: package docker-ce requires containerd.io >= 2 - nothing provides it"),
        ("Error: Failed to download metadata", 1, "Error: Failed to download metadata"),
        # no word of dnf's that is known is no permission
        ("Killed", 137, "Killed"),
        ("", 1, "no word of dnf"),
    ],
)
def test_removal_is_refused_without_an_installable_replacement(
    stubs: Stubs, rpm_files: Path, said: str, code: int, why: str
) -> None:
    stubs.add("podman", ":")
    installed(stubs, rpm_files, "runc")
    stubs.add("dnf", f'printf "{said}\\n" >&2; exit {code}')
    done = removed(stubs, "runc", instead=INSTEAD)
    assert done.returncode == 65
    assert (
        f"refused: found nothing that dnf could install in the place of runc: {why}; expected" in done.stdout
    )
    assert "nothing was changed" in done.stdout
    assert len(dnf_calls(stubs)) == 1


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
def test_version_locks_change_only_with_the_packages(
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
