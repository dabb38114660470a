"""files/host/configure_docker.sh: a daemon.json is tried before it is put in place, and the old one comes back."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from operations.scripts import host_script
from tests.unit.stubs import Stubs

OLD, WANTED = '{"debug": true}\n', '{"debug": false}\n'
REFUSED = "the following directives don't match any configuration option: log-levels"
# dockerd's answers, by version
OK_23 = "echo 'configuration OK' >&2"
# seen with 20.10.24
UNKNOWN_20 = "printf \"Status: unknown flag: --validate\\nSee 'dockerd --help'., Code: 125\\n\" >&2; exit 1"
BAD_23 = (
    "for word; do case $word in --config-file=*) file=${word#*=} ;; esac; done; "
    'echo \'time="2026" level=warning msg="something else"\' >&2; '
    f'echo "unable to configure the Docker daemon with file $file: {REFUSED}" >&2; exit 1'
)
EXEC_START = (
    "{ path=/usr/bin/dockerd ; argv[]=dockerd -H fd:// --containerd=/run/containerd/containerd.sock ; "
    "ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }"
)


class Docker:
    """A host whose docker starts with what `starts` says: a command of the shell, with the file in $FILE."""

    def __init__(self, tmp_path: Path, stubs: Stubs) -> None:
        self.stubs = stubs
        self.file = tmp_path / "docker" / "daemon.json"
        self.unread, self.new, self.before = (
            self.file.with_name(f".daemon.json.{name}") for name in ("unread", "new", "before")
        )
        stubs.add("nvidia-ctk", ":")
        stubs.add("dockerd", OK_23)
        stubs.add("journalctl", ":")
        self.starts()

    def old(self, text: str = OLD) -> None:
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(text)

    def starts(self, how: str = "true", started: str = "true", exec_start: str = EXEC_START) -> None:
        self.stubs.add(
            "systemctl",
            f'''case $* in
    *ExecStart*) echo "{exec_start}" ;;
    *RequiredBy*) echo "triton.service triton-database.service left.service" ;;
    *ActiveState*left.service) echo inactive ;;
    *ActiveState*) echo active ;;
    "restart docker.service") {how} || {{ echo "Job for docker.service failed." >&2; exit 1; }} ;;
    "is-active --quiet triton"*) {started} ;;
esac''',
        )

    def run(self, text: str = WANTED, nvidia: bool = True) -> subprocess.CompletedProcess[str]:
        variables = {
            "FILE": str(self.file),
            "UNREAD": str(self.unread),
            "NEW": str(self.new),
            "BEFORE": str(self.before),
            "SHA256": hashlib.sha256(text.encode()).hexdigest(),
            "START_SECONDS": "5",
            "NVIDIA": "yes" if nvidia else "",
        }
        return self.stubs.run(host_script("configure_docker.sh", variables), stdin=text, FILE=str(self.file))

    @property
    def left(self) -> list[str]:
        """What is in the directory beside the file."""
        return sorted(path.name for path in self.file.parent.iterdir() if path != self.file)

    def called(self, start: str) -> list[str]:
        return [call for call in self.stubs.calls if call.startswith(start)]


@pytest.fixture
def docker(tmp_path: Path, stubs: Stubs) -> Docker:
    return Docker(tmp_path, stubs)


def test_new_file_is_validated_with_unit_options_before_restart(docker: Docker) -> None:
    docker.old()
    done = docker.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (docker.file.read_text(), docker.left) == (WANTED, [])
    tried = (
        f"dockerd -H fd:// --containerd=/run/containerd/containerd.sock --validate --config-file={docker.new}"
    )
    calls = docker.stubs.calls
    assert calls.index(tried) < calls.index("systemctl restart docker.service")
    assert docker.called("systemctl start") == []


def test_docker_without_gpus_is_configured_without_toolkit(docker: Docker) -> None:
    docker.stubs.add("nvidia-ctk", "exit 1")
    assert docker.run(nvidia=False).returncode == 0
    assert docker.called("nvidia-ctk") == []


@pytest.mark.parametrize("exec_start", ["", "{ path=/x ; argv[]=/x $OPTIONS ; ignore_errors=no }"])
def test_validation_ignores_unit_options_that_are_not_plain(docker: Docker, exec_start: str) -> None:
    docker.starts(exec_start=exec_start.replace("$", "\\$"))
    assert docker.run().returncode == 0
    assert docker.called("dockerd") == [f"dockerd --validate --config-file={docker.new}"]


def test_file_refused_by_docker_is_never_installed(docker: Docker) -> None:
    docker.old()
    docker.stubs.add("dockerd", BAD_23)
    done = docker.run()
    assert done.returncode == 65
    [line] = done.stderr.splitlines()
    assert line == (
        f"daemon.json: dockerd refuses it: {REFUSED}; docker and its file were left as they are; correct "
        f"docker_daemon_settings, or {docker.file} on the host"
    )
    assert (docker.file.read_text(), docker.left) == (OLD, [])
    assert docker.called("systemctl restart") == []


def test_unread_mark_survives_a_refused_file(docker: Docker) -> None:
    docker.old()
    docker.unread.touch()
    docker.stubs.add("dockerd", BAD_23)
    assert docker.run().returncode == 65
    assert docker.left == [docker.unread.name]


def test_docker_without_validate_is_restarted_anyway(docker: Docker) -> None:
    docker.stubs.add("dockerd", UNKNOWN_20)
    done = docker.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert docker.file.read_text() == WANTED


def test_broken_dockerd_refuses_the_file(docker: Docker) -> None:
    docker.old()
    docker.stubs.add("dockerd", "echo 'dockerd: error while loading shared libraries' >&2; exit 127")
    done = docker.run()
    assert done.returncode == 65
    assert "dockerd refuses it: dockerd: error while loading shared libraries" in done.stderr
    assert docker.file.read_text() == OLD


def test_toolkit_failure_is_one_line_and_changes_nothing(docker: Docker) -> None:
    docker.old()
    docker.stubs.add("nvidia-ctk", "echo 'level=info'; echo 'unable to load config' >&2; exit 1")
    done = docker.run()
    assert (done.returncode, len(done.stderr.splitlines())) == (65, 1)
    assert "nvidia-ctk does not enter its runtime: unable to load config" in done.stderr
    assert (docker.file.read_text(), docker.left) == (OLD, [])


def test_failed_start_restores_the_old_file_and_services(docker: Docker) -> None:
    docker.old()
    docker.starts("grep -q true $FILE")
    docker.stubs.add(
        "journalctl",
        "case $* in *--unit=docker.service*) "
        'echo \'time="2026" level=info msg="Starting up"\'; '
        "echo 'failed to start daemon: unknown option overlay2.nope, see http://me:secret@m.invalid/'; "
        'echo \'time="2026" level=info msg="stopping"\' ;; esac',
    )
    done = docker.run()
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line == (
        "daemon.json: docker did not start with the new file: failed to start daemon: unknown option overlay2.nope, see "
        "http://m.invalid/; the old file is back, and with it run: docker, triton.service, triton-database.service; correct "
        f"docker_daemon_settings, or {docker.file} on the host, before the next run"
    )
    assert (docker.file.read_text(), docker.left) == (OLD, [])
    assert docker.called("systemctl restart") == ["systemctl restart docker.service"] * 2
    # not what was stopped before
    assert docker.called("systemctl start") == ["systemctl start triton.service triton-database.service"]


def test_server_that_does_not_return_is_named(docker: Docker) -> None:
    docker.old()
    docker.starts("grep -q true $FILE", started="false")
    done = docker.run()
    assert (
        "with it run: docker; not yet: triton.service triton-database.service, see systemctl" in done.stderr
    )
    # of a docker that says nothing itself, what systemd says
    assert "did not start with the new file: Job for docker.service failed.;" in done.stderr


def test_failed_start_removes_a_file_that_was_new(docker: Docker) -> None:
    docker.starts('[ ! -e "$FILE" ]')
    done = docker.run()
    assert done.returncode == 1
    assert not docker.file.exists()
    assert docker.left == []


def test_failure_of_both_files_is_reported_and_remembered(
    docker: Docker,
) -> None:
    docker.old()
    docker.starts("false")
    done = docker.run()
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "and docker does not start with it either: Job for docker.service failed." in done.stderr
    assert (docker.file.read_text(), docker.left) == (OLD, [docker.unread.name])


def test_last_file_docker_read_survives_a_killed_run(docker: Docker) -> None:
    docker.old(json.dumps({"killed": "before docker read it"}))
    docker.unread.touch()
    docker.before.write_text(OLD)
    docker.starts("grep -q true $FILE")
    assert docker.run().returncode == 1
    assert (docker.file.read_text(), docker.left) == (OLD, [])


def test_truncated_text_is_never_installed(docker: Docker) -> None:
    docker.old()
    variables = {
        "FILE": str(docker.file),
        "UNREAD": str(docker.unread),
        "NEW": str(docker.new),
        "SHA256": "0" * 64,
    }
    done = docker.stubs.run(host_script("configure_docker.sh", variables), stdin=WANTED)
    assert done.returncode == 65
    assert (docker.file.read_text(), docker.left) == (OLD, [])
