import subprocess
from pathlib import Path

import pytest

from operations.plan.serve import ID, serve_script, wait_ready_script
from tests.unit.builders import release
from tests.unit.stubs import Stubs

URLS = ["http://127.0.0.1:8000/v2/models/a/ready", "http://127.0.0.1:8000/v2/models/b/ready"]

# docker, whose containers are files: $STATE/<name> holds the label of the one called so
DOCKER = """
case $1 in
    inspect)
        for name in "$@"; do :; done
        [ -e "$STATE/$name" ] || { echo "No such object: $name" >&2; exit 1; }
        case "$*" in *State.Running*) echo true ;; *) cat "$STATE/$name" ;; esac ;;
    rm) rm "$STATE/$3" ;;
    network)
        case $2 in
            inspect) cat "$STATE/triton-network" 2>/dev/null || exit 1 ;;
            create) echo "triton0 triton-network" >"$STATE/triton-network" ;;
        esac ;;
esac
"""


@pytest.fixture
def docker(stubs: Stubs, tmp_path: Path) -> Stubs:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/triton-network").write_text("triton0 triton-network\n", encoding="utf-8")
    stubs.add("docker", DOCKER)
    return stubs


def container(tmp_path: Path, label: str) -> None:
    (tmp_path / "state/triton").write_text(f"{label}\n", encoding="utf-8")


def wait(
    stubs: Stubs, tmp_path: Path, timeout_s: int = 5, main_pid: int | None = None
) -> subprocess.CompletedProcess[str]:
    script = wait_ready_script("triton", URLS, timeout_s)
    return stubs.run(
        script, STATE=str(tmp_path / "state"), **({"MAINPID": str(main_pid)} if main_pid else {})
    )


def test_ready_when_every_model_answers(docker: Stubs, tmp_path: Path) -> None:
    docker.add("curl", "printf 200")
    done = wait(docker, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [call.split()[-1] for call in docker.calls] == URLS


def test_one_model_that_is_not_ready_is_waited_for(docker: Stubs, tmp_path: Path) -> None:
    container(tmp_path, "id")
    # 400 at the first two looks at model b
    docker.add(
        "curl",
        f'case "$*" in */a/ready) printf 200 ;; *) echo >>{tmp_path}/looks; '
        f'if [ "$(wc -l <{tmp_path}/looks)" -lt 3 ]; then printf 400; else printf 200; fi ;; esac',
    )
    assert wait(docker, tmp_path).returncode == 0
    assert len((tmp_path / "looks").read_text("utf-8")) == 3


def test_a_model_that_never_gets_ready_ends_at_the_timeout(docker: Stubs, tmp_path: Path) -> None:
    container(tmp_path, "id")
    docker.add("curl", "printf 400")
    done = wait(docker, tmp_path, timeout_s=1)
    assert (done.returncode, done.stderr) == (1, "tritonhost: not ready after 1 s\n")


def test_a_container_that_is_gone_ends_the_wait_at_once(docker: Stubs, tmp_path: Path) -> None:
    container(tmp_path, "id")
    # seen running after the first look at both models, gone after the second
    docker.add(
        "curl",
        f'printf 000; echo >>{tmp_path}/looks; [ "$(wc -l <{tmp_path}/looks)" -lt 3 ] || rm -f {tmp_path}/state/triton',
    )
    done = wait(docker, tmp_path, timeout_s=5)
    assert done.stderr == "tritonhost: the container ended before its models were ready\n"
    assert done.returncode == 1


def test_a_docker_client_that_ended_before_its_container_was_seen_ends_the_wait(
    docker: Stubs, tmp_path: Path
) -> None:
    docker.add("curl", "printf 000")
    ended = subprocess.Popen(["true"])
    ended.wait()
    done = wait(docker, tmp_path, timeout_s=20, main_pid=ended.pid)
    assert done.stderr == "tritonhost: the container ended before its models were ready\n"
    assert done.returncode == 1


def test_a_docker_client_that_has_not_made_its_container_yet_is_waited_for(
    docker: Stubs, tmp_path: Path
) -> None:
    docker.add("curl", "printf 000")
    with subprocess.Popen(["sleep", "20"]) as client:
        done = wait(docker, tmp_path, timeout_s=1, main_pid=client.pid)
        client.kill()
    assert done.stderr == "tritonhost: not ready after 1 s\n"


@pytest.fixture
def laid_out(tmp_path: Path) -> Path:
    """A release's directory with its serve script, and the directories it serves from."""
    directory = tmp_path / "releases/0123456789abcdef"
    for path in (directory, tmp_path / "an engine", tmp_path / "weights"):
        path.mkdir(parents=True)
    argv = ["docker", "run", "--name", "triton", "--label", f"tritonhost.release={ID}"]
    argv += ["--volume", "$release:/release:ro", "image", "tritonserver", "--x=a b"]
    mounted = [str(tmp_path / "an engine"), str(tmp_path / "weights")]
    (directory / "serve").write_text(
        serve_script("triton", argv, mounted, "triton-network", "triton0"), encoding="utf-8"
    )
    (tmp_path / "current").symlink_to("releases/0123456789abcdef")
    return directory


def serve(stubs: Stubs, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return stubs.run(tmp_path / "current/serve", STATE=str(tmp_path / "state"))


def test_serve_runs_the_container_of_the_release_it_lies_in(
    docker: Stubs, laid_out: Path, tmp_path: Path
) -> None:
    assert serve(docker, tmp_path).returncode == 0
    inodes = " ".join(str(p.stat().st_ino) for p in (laid_out, tmp_path / "an engine", tmp_path / "weights"))
    assert docker.calls[-1] == (
        f"docker run --label tritonhost.mounts={inodes} --name triton --label tritonhost.release=0123456789abcdef "
        f"--volume {laid_out}:/release:ro image tritonserver --x=a b"
    )


def test_an_old_container_of_ours_is_removed_first(docker: Stubs, laid_out: Path, tmp_path: Path) -> None:
    container(tmp_path, "fedcba9876543210")
    assert serve(docker, tmp_path).returncode == 0
    assert [call.split()[1] for call in docker.calls] == ["inspect", "inspect", "rm", "network", "run"]


@pytest.mark.parametrize("label", ["", "<no value>"])
def test_a_foreign_container_of_that_name_is_refused_and_left(
    docker: Stubs, laid_out: Path, tmp_path: Path, label: str
) -> None:
    container(tmp_path, label)
    done = serve(docker, tmp_path)
    assert done.returncode == 64
    assert "a container called triton exists that is not ours" in done.stderr
    assert (tmp_path / "state/triton").exists()
    assert {call.split()[1] for call in docker.calls} == {"inspect"}


def test_the_network_is_made_once_with_the_name_that_the_guard_knows(
    docker: Stubs, laid_out: Path, tmp_path: Path
) -> None:
    (tmp_path / "state/triton-network").unlink()
    for _ in range(2):
        assert serve(docker, tmp_path).returncode == 0
    assert [call for call in docker.calls if call.startswith("docker network create")] == [
        "docker network create --driver bridge --opt com.docker.network.bridge.name=triton0 "
        "--label tritonhost.network=triton-network triton-network"
    ]


@pytest.mark.parametrize("found", [" ", "br-1234 ", "triton0 ", "triton1 triton-network"])
def test_a_network_of_that_name_that_is_not_ours_is_refused_and_left(
    docker: Stubs, laid_out: Path, tmp_path: Path, found: str
) -> None:
    # the guard would not know its interface
    (tmp_path / "state/triton-network").write_text(f"{found}\n", encoding="utf-8")
    done = serve(docker, tmp_path)
    assert done.returncode == 64
    assert "a docker network called triton-network exists that is not ours" in done.stderr
    assert not [call for call in docker.calls if " run " in call or " create " in call]


def test_a_served_directory_that_is_gone_is_not_made_by_docker(
    docker: Stubs, laid_out: Path, tmp_path: Path
) -> None:
    # docker run makes an absent host directory and serves it empty
    (tmp_path / "an engine").rmdir()
    done = serve(docker, tmp_path)
    assert done.returncode != 0
    assert not [call for call in docker.calls if call.startswith("docker run")]


@pytest.mark.parametrize("name", ["serve", "wait-ready"])
def test_a_planned_release_s_scripts_are_valid_shell(name: str) -> None:
    text = release({"tritonserver_arguments": ["--log-format='$(reboot)"]}).files[name]
    assert text.startswith("#!/bin/sh\n")
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_argument_is_not_run_by_the_shell(docker: Stubs, tmp_path: Path) -> None:
    argument = "--log-format=$(touch\t/nowhere)'\"`x`".replace("\t", "${IFS}")
    script = serve_script("triton", ["docker", "run", "image", argument], [], "triton-network", "triton0")
    (tmp_path / "state").mkdir(exist_ok=True)
    docker.run(script, STATE=str(tmp_path / "state"))
    assert docker.calls[-1].endswith(f"image {argument}")


def test_what_only_begins_like_a_variable_of_the_script_stays_as_it_is(docker: Stubs, tmp_path: Path) -> None:
    script = serve_script(
        "triton", ["docker", "run", "image", "--log-file=$identity"], [], "triton-network", "triton0"
    )
    docker.run(script, STATE=str(tmp_path / "state"))
    assert docker.calls[-1].endswith("image --log-file=$identity")
