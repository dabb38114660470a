import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from operations.plan.serving.serve import ID, IMAGE, serve_script, wait_ready_script
from tests.unit.builders import release
from tests.unit.stubs import Stubs, lay_out, make_artifact

URLS = ["http://127.0.0.1:8000/v2/models/a/ready", "http://127.0.0.1:8000/v2/models/b/ready"]

# docker, whose containers are files: $STATE/<name> holds the label of the one called so
DOCKER = """
case $1 in
    image) [ ! -e "$STATE/no image" ] ;;
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_model_that_never_gets_ready_ends_at_the_timeout(docker: Stubs, tmp_path: Path) -> None:
    container(tmp_path, "id")
    docker.add("curl", "printf 400")
    done = wait(docker, tmp_path, timeout_s=1)
    assert (done.returncode, done.stderr) == (1, "tritonhost: not ready after 1 s\n")


@pytest.mark.slow
@pytest.mark.requirement("R45")
def test_container_that_ended_stops_the_wait(docker: Stubs, tmp_path: Path) -> None:
    container(tmp_path, "id")
    # seen running after the first look at both models, gone after the second
    docker.add(
        "curl",
        f'printf 000; echo >>{tmp_path}/looks; [ "$(wc -l <{tmp_path}/looks)" -lt 3 ] || rm -f {tmp_path}/state/triton',
    )
    done = wait(docker, tmp_path, timeout_s=5)
    assert done.stderr == "tritonhost: the container ended before its models were ready\n"
    assert done.returncode == 1


def test_docker_client_that_ended_stops_the_wait(docker: Stubs, tmp_path: Path) -> None:
    docker.add("curl", "printf 000")
    ended = subprocess.Popen(["true"])
    ended.wait()
    done = wait(docker, tmp_path, timeout_s=20, main_pid=ended.pid)
    assert done.stderr == "tritonhost: the container ended before its models were ready\n"
    assert done.returncode == 1


@pytest.mark.slow
def test_docker_client_without_a_container_is_waited_for(docker: Stubs, tmp_path: Path) -> None:
    docker.add("curl", "printf 000")
    with subprocess.Popen(["sleep", "20"]) as client:
        done = wait(docker, tmp_path, timeout_s=1, main_pid=client.pid)
        client.kill()
    assert done.stderr == "tritonhost: not ready after 1 s\n"


@pytest.fixture
def laid_out(tmp_path: Path) -> Path:
    """A release's directory with its serve script, and the directories it serves from."""
    argv = ["docker", "run", "--name", "triton", "--label", f"tritonhost.release={ID}"]
    argv += ["--volume", "$release:/release:ro", IMAGE, "tritonserver", "--x=a b"]
    for name in ("an engine", "weights"):
        make_artifact(tmp_path / name)
    return made(tmp_path, argv, ["an engine", "weights"])


def made(tmp_path: Path, argv: list[str], mounted: list[str]) -> Path:
    """The directory of a release that runs this command, and what it lies beside."""
    directory = tmp_path / "releases/0123456789abcdef"
    record = tmp_path / "images/9f0"
    paths = [str(tmp_path / name) for name in mounted]
    script = serve_script(
        "triton", argv, paths, ("tritonhost/serving:9f0", str(record)), "triton-network", "triton0"
    )
    lay_out(directory, {"serve": script, "model_repository/a/config.pbtxt": "one: 1\n"})
    record.parent.mkdir()
    record.write_text("sha256:77\n", encoding="utf-8")
    (tmp_path / "current").symlink_to("releases/0123456789abcdef")
    return directory


def serve(stubs: Stubs, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return stubs.run(tmp_path / "current/serve", STATE=str(tmp_path / "state"))


def test_serve_runs_the_container_of_its_own_release(docker: Stubs, laid_out: Path, tmp_path: Path) -> None:
    assert serve(docker, tmp_path).returncode == 0
    inodes = " ".join(str(p.stat().st_ino) for p in (laid_out, tmp_path / "an engine", tmp_path / "weights"))
    assert docker.calls[-1] == (
        f"docker run --label tritonhost.mounts={inodes} --name triton --label tritonhost.release=0123456789abcdef "
        f"--volume {laid_out}:/release:ro sha256:77 tritonserver --x=a b"
    )


def test_an_old_container_of_ours_is_removed_first(docker: Stubs, laid_out: Path, tmp_path: Path) -> None:
    container(tmp_path, "fedcba9876543210")
    assert serve(docker, tmp_path).returncode == 0
    assert [call.split()[1] for call in docker.calls] == [
        *("image", "inspect", "inspect", "rm", "network", "run")
    ]


@pytest.mark.parametrize("label", ["", "<no value>"])
def test_foreign_container_is_refused_and_kept(
    docker: Stubs, laid_out: Path, tmp_path: Path, label: str
) -> None:
    container(tmp_path, label)
    done = serve(docker, tmp_path)
    assert done.returncode == 64
    assert (
        "container triton: found one that is not ours, expected none of that name; remove or rename it, or"
        in done.stderr
    )
    assert (tmp_path / "state/triton").exists()
    assert {call.split()[1] for call in docker.calls} == {"image", "inspect"}


def test_network_is_created_once_with_the_guard_s_bridge(
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
def test_foreign_network_is_refused_and_kept(
    docker: Stubs, laid_out: Path, tmp_path: Path, found: str
) -> None:
    # the guard would not know its interface
    (tmp_path / "state/triton-network").write_text(f"{found}\n", encoding="utf-8")
    done = serve(docker, tmp_path)
    assert done.returncode == 64
    assert (
        "docker network triton-network: found one that is not ours, expected ours or none; remove it, or"
        in done.stderr
    )
    assert not [call for call in docker.calls if " run " in call or " create " in call]


def test_missing_directory_is_not_created_by_docker(docker: Stubs, laid_out: Path, tmp_path: Path) -> None:
    # docker run makes an absent host directory and serves it empty
    shutil.rmtree(tmp_path / "an engine")
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
    made(tmp_path, ["docker", "run", "image", argument], [])
    assert serve(docker, tmp_path).returncode == 0
    assert docker.calls[-1].endswith(f"image {argument}")


def test_text_similar_to_a_script_variable_is_unchanged(docker: Stubs, tmp_path: Path) -> None:
    made(tmp_path, ["docker", "run", "image", "--log-file=$identity"], [])
    assert serve(docker, tmp_path).returncode == 0
    assert docker.calls[-1].endswith("image --log-file=$identity")


def test_restricted_api_key_is_new_at_each_start_and_unstored(docker: Stubs, tmp_path: Path) -> None:
    made(tmp_path, ["docker", "run", "image", "--http-restricted-api=trace:a=$key"], [])
    keys = set()
    for _ in range(2):
        assert serve(docker, tmp_path).returncode == 0
        keys |= set(re.findall(r"=trace:a=([0-9a-f]{64})$", docker.calls[-1]))
    assert len(keys) == 2
    files = [path.read_text("utf-8") for path in tmp_path.rglob("*") if path.is_file() and path != docker.log]
    assert not [key for key in keys for text in files if key in text]


def write(name: str, text: str = "x") -> Callable[[Path], object]:
    """A change of a release: another text in a file of it, which may be a new one."""

    def change(release: Path) -> None:
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        (release / name).write_text(text, encoding="utf-8")

    return change


def keeping_time(name: str) -> Callable[[Path], object]:
    def change(release: Path) -> None:
        path = release / name
        before = path.stat()
        path.write_text(path.read_text("utf-8") + "#", encoding="utf-8")
        subprocess.run(["touch", "--date", f"@{before.st_mtime}", str(path)], check=True)

    return change


CONFIG = "model_repository/a/config.pbtxt"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (write(CONFIG, "one: 2\n"), CONFIG),
        (lambda release: (release / CONFIG).unlink(), CONFIG),
        # Triton loads each model that it finds
        (write("model_repository/b/config.pbtxt"), "model_repository/b/config.pbtxt"),
        (write("a name"), "a name"),
        (lambda release: (release / "linked").symlink_to("serve"), "linked"),
        (keeping_time("serve"), "serve"),
        (write("../../an engine/a file", "y file"), "an engine/a file"),
        (keeping_time("../../an engine/a file"), "an engine/a file"),
        (lambda release: (release / "../../weights/b/rank0.engine").unlink(), "weights/b/rank0.engine"),
        (lambda release: (release / "../../weights/manifest.json").unlink(), "weights/manifest.json"),
        (write("../../weights/manifest.json", ""), "weights/manifest.json"),
        (write("../../weights/manifest.json", '{"kind": "weights", "files": {}}'), "weights/manifest.json"),
        (lambda release: (release / "SHA256SUMS").unlink(), "SHA256SUMS"),
        (write("SHA256SUMS", ""), "model_repository/a/config.pbtxt"),
    ],
)
def test_changed_files_are_not_served(
    docker: Stubs, laid_out: Path, tmp_path: Path, change: Callable[[Path], object], named: str
) -> None:
    # times are compared in seconds
    for path in (tmp_path / "an engine/a file", tmp_path / "weights/b/rank0.engine"):
        assert time.time() - path.stat().st_mtime < 60
    if "an engine" in named:
        subprocess.run(["touch", "--date", "@1700000000", str(tmp_path / "an engine/a file")], check=True)
        manifest = (tmp_path / "an engine/manifest.json").read_text("utf-8")
        first = re.sub(r'"mtime": [0-9]+', '"mtime": 1700000000', manifest, count=1)
        (tmp_path / "an engine/manifest.json").write_text(first, encoding="utf-8")
        assert serve(docker, tmp_path).returncode == 0
    docker.log.write_text("", encoding="utf-8")
    change(laid_out)
    done = serve(docker, tmp_path)
    assert done.returncode == 65
    [line] = done.stderr.splitlines()
    assert line.startswith("tritonhost: release 0123456789abcdef: found ")
    assert f"{named} changed" in line
    assert line.endswith("; run the deploy again, which repairs it")
    assert docker.calls == []


def test_missing_or_unrecorded_image_is_named(docker: Stubs, laid_out: Path, tmp_path: Path) -> None:
    (tmp_path / "state/no image").touch()
    done = serve(docker, tmp_path)
    assert "found no image sha256:77, expected the one that was tritonhost/serving:9f0" in done.stderr
    (tmp_path / "images/9f0").unlink()
    assert "found no record of its image" in serve(docker, tmp_path).stderr
    assert not [call for call in docker.calls if call.startswith("docker run")]


def test_server_runs_its_image_by_id_and_not_by_tag(tmp_path: Path) -> None:
    wanted = release()
    command = wanted.files["serve"].partition("exec docker run")[2]
    assert f'{IMAGE}" \\\n    tritonserver' in command.replace('"$image', IMAGE)
    assert wanted.image.tag not in command
