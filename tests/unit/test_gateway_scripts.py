"""The gateway's two scripts, run under sh on this machine, with docker played by a stub."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from operations.plan.exposure import gateway
from operations.scripts import archive, host_script
from tests.unit.certificates import API_KEY
from tests.unit.stubs import Stubs

FILES = {
    "nginx.conf": "new configuration",
    "tls.pem": "new pair",
    "keys.map": "new keys",
    "limits.conf": "new limits",
    "gateway.sh": "new script",
}


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path / "bin")


def serve(
    stubs: Stubs, folder: Path, verb: str = "serve", **changed: str
) -> subprocess.CompletedProcess[str]:
    record = folder / "image"
    if not changed.pop("without_image", ""):
        record.write_text("sha256:made\n")
    variables = {
        "NAME": "triton-gateway",
        "DIRECTORY": str(folder),
        "FILES": "nginx.conf tls.pem keys.map limits.conf",
        "IMAGE_RECORD": str(record),
        "URL": "https://127.0.0.1:8443",
        "RECORD": str(folder / "loaded"),
    }
    text = host_script("gateway.sh", variables, 'run_it() {\n    exec docker run "$image"\n}\n')
    script = folder / "gateway.sh"
    script.write_text(text)
    return stubs.run(f"sh {script} {verb}", **changed)


def test_serve_runs_the_recorded_image(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("docker", '[ "$1" != inspect ]')
    assert serve(stubs, tmp_path).returncode == 0
    assert stubs.calls[-1] == "docker run sha256:made"
    assert not [call for call in stubs.calls if call.startswith("docker rm")]


def test_serve_removes_our_old_container(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("docker", 'if [ "$1" = inspect ]; then echo a-key; fi')
    assert serve(stubs, tmp_path).returncode == 0
    assert stubs.calls[-2:] == ["docker rm --force triton-gateway", "docker run sha256:made"]


@pytest.mark.parametrize("label", ["", "<no value>"])
def test_serve_refuses_a_foreign_container(stubs: Stubs, tmp_path: Path, label: str) -> None:
    stubs.add("docker", f'if [ "$1" = inspect ]; then echo "{label}"; fi')
    done = serve(stubs, tmp_path)
    assert done.returncode == 64
    assert "triton-gateway" in done.stderr and "not ours" in done.stderr
    assert not [call for call in stubs.calls if call.startswith(("docker rm", "docker run"))]


def test_serve_needs_the_recorded_image_id(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("docker", '[ "$1" != inspect ]')
    done = serve(stubs, tmp_path, without_image="yes")
    assert done.returncode == 65
    assert f"expected its id in {tmp_path}/image" in done.stderr
    assert "docker run" not in " ".join(stubs.calls)


def test_answers_waits_until_ready_or_gone(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("curl", "exit 0")
    assert serve(stubs, tmp_path, "answers").returncode == 0
    stubs.add("curl", "exit 7")
    for environment in ({"MAINPID": "999999999"}, {}):
        done = serve(stubs, tmp_path, "answers", **environment)
        assert done.returncode == 1
        assert done.stderr == "tritonhost: triton-gateway ended before it answered; see the lines above\n"


def test_loaded_records_key_and_file_digest(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("docker", "echo the-key")
    for name in gateway.FILES:
        (tmp_path / name).write_text(f"{name}\n")
    assert serve(stubs, tmp_path, "loaded").returncode == 0
    digest = hashlib.sha256(b"nginx.conf\ntls.pem\nkeys.map\nlimits.conf\n").hexdigest()
    assert (tmp_path / "loaded").read_text() == f"the-key {digest}\n"


def write(
    stubs: Stubs, folder: Path, refused: str = "", only_test: bool = False
) -> subprocess.CompletedProcess[str]:
    """The files are put in place by a user that is called as the container's is: this test's own."""
    (folder / "image").write_text("sha256:made\n")
    variables = {
        "TEST": "yes" if only_test else "",
        "DIRECTORY": str(folder / "gateway"),
        "FRESH": gateway.FRESH,
        "USER_ID": str(os.getgid()),
        "NGINX_FILES": "nginx.conf tls.pem keys.map limits.conf",
        "IMAGE_RECORD": str(folder / "image"),
        "RECORD": str(folder / "loaded"),
    }
    stubs.add("chown", ":")
    said = "\n".join(f'echo "{line}"' for line in refused.splitlines())
    function = f'test_it() {{\nls "$fresh" >{folder}/tried\n{said}\n{"false" if refused else ":"}\n}}\n'
    return stubs.run(host_script("write_gateway.sh", variables, function), archive(FILES))


def placed(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "gateway").iterdir()}


def test_write_tests_the_files_and_installs_them_private(stubs: Stubs, tmp_path: Path) -> None:
    done = write(stubs, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert placed(tmp_path) == FILES
    assert (tmp_path / "tried").read_text().split() == sorted(FILES)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "gateway").iterdir()}
    assert modes == {**dict.fromkeys(gateway.FILES, "0o400"), "gateway.sh": "0o600"}
    assert (tmp_path / "gateway").stat().st_mode & 0o777 == 0o750


def test_write_forgets_what_nginx_has_read(stubs: Stubs, tmp_path: Path) -> None:
    """Somebody may have changed a file, told nginx to read it, and left the record of before."""
    record = tmp_path / "loaded"
    record.write_text("the-key the-digest\n")
    assert write(stubs, tmp_path, only_test=True).returncode == 0
    assert record.read_text() == "the-key the-digest\n"
    assert write(stubs, tmp_path).returncode == 0
    assert record.read_text() == "the-key replaced\n"


def test_only_test_changes_no_file(stubs: Stubs, tmp_path: Path) -> None:
    assert write(stubs, tmp_path, only_test=True).returncode == 0
    assert placed(tmp_path) == {}
    assert (tmp_path / "tried").read_text().split() == sorted(FILES)


def test_refused_files_change_nothing_and_show_no_key(stubs: Stubs, tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "nginx.conf").write_text("old")
    refused = f"nginx: [emerg] in {API_KEY} of /etc/tritonhost/keys.map:1\nnginx: [emerg] unknown directive in nginx.conf:3"
    done = write(stubs, tmp_path, refused)
    assert done.returncode == 1
    assert (
        "gateway: nginx refuses its configuration: nginx: [emerg] unknown directive in nginx.conf:3"
        in done.stderr
    )
    assert API_KEY not in done.stderr
    assert placed(tmp_path) == {"nginx.conf": "old"}


def test_write_replaces_leftovers_of_a_killed_run(stubs: Stubs, tmp_path: Path) -> None:
    (tmp_path / "gateway" / gateway.FRESH).mkdir(parents=True)
    (tmp_path / "gateway" / gateway.FRESH / "half").write_text("half")
    assert write(stubs, tmp_path).returncode == 0
    assert placed(tmp_path) == FILES
