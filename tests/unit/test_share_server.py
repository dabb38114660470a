"""One host hands files to another over TLS: files/host/share.py and receive_files.sh, on this machine."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from operations.intake import one_run
from operations.scripts import HOST_SCRIPTS

KEY = "0123456789abcdef"
TOKEN = "aa" * 32
BIG = b"x" * 3_000_000 + b"the end"
FILES = {"config.json": b"{}", "deep/er/model 1.safetensors": BIG, "empty": b""}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Giver:
    place: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/files/weights/{KEY}"

    @property
    def artifact(self) -> Path:
        return self.place / "data" / "weights" / KEY

    def lines(self) -> str:
        return "".join(
            f"{hashlib.sha256(content).hexdigest()}\t{len(content)}\t{name}\t{quote(name)}\n"
            for name, content in FILES.items()
        )

    def receive(
        self, into: Path, lines: str = "", token: str = TOKEN, limit: str = "0"
    ) -> subprocess.CompletedProcess[str]:
        work = self.place / "work"
        work.mkdir(exist_ok=True)
        into.mkdir(exist_ok=True)
        (work / "receive_files.sh").write_text((HOST_SCRIPTS / "receive_files.sh").read_text())
        (work / "list").write_text(lines or self.lines())
        (work / "token").write_text(f"Authorization: {token}\n")
        (work / "peer.pem").write_bytes((self.place / "certificate.pem").read_bytes())
        return subprocess.run(
            ["sh", str(work / "receive_files.sh"), str(into), self.url, "gpu-1", limit],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def curl(self, path: str, *options: str) -> subprocess.CompletedProcess[str]:
        words = ["curl", "--silent", "--noproxy", "*", "--cacert", str(self.place / "certificate.pem")]
        words += ["--header", f"Authorization: {TOKEN}", "--path-as-is", *options]
        return subprocess.run(
            [*words, f"https://127.0.0.1:{self.port}{path}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def get(self, path: str) -> tuple[int, str]:
        done = self.curl(path, "--write-out", "\n%{http_code}")
        body, _, code = done.stdout.rpartition("\n")
        assert done.returncode == 0 or code == "000", done.returncode
        return int(code), body


@pytest.fixture(scope="module")
def giver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Giver]:
    place = tmp_path_factory.mktemp("giver")
    certificate, key = one_run.certificate("127.0.0.1")
    (place / "share.py").write_text((HOST_SCRIPTS / "share.py").read_text())
    (place / "certificate.pem").write_text(certificate)
    (place / "key.pem").write_text(key)
    (place / "token").write_text(TOKEN)
    (place / "data/secret").mkdir(parents=True)
    (place / "data/secret/key").write_text("secret")
    port = free_port()
    made = Giver(
        place,
        port,
        subprocess.Popen(
            [
                sys.executable,
                str(place / "share.py"),
                str(place / "data"),
                "127.0.0.1",
                str(port),
                "600",
                "weights",
            ],
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PATH": f"{place}:{os.environ['PATH']}"},
        ),
    )
    for name, content in FILES.items():
        path = made.artifact / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (made.artifact / "link").symlink_to(place / "data/secret/key")
    docker = place / "docker"
    docker.write_text('#!/bin/sh\n[ "$1 $2" = "save tritonhost/serving:0123456789abcdef" ] && echo layers\n')
    docker.chmod(0o755)
    until = time.monotonic() + 20
    while made.get("/")[0] == 0 and time.monotonic() < until:
        time.sleep(0.1)
    yield made
    made.process.kill()
    made.process.wait()


def received(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()
    }


def test_receiver_has_every_file(giver: Giver, tmp_path: Path) -> None:
    done = giver.receive(tmp_path / "new")
    assert (done.returncode, done.stderr) == (0, "")
    assert received(tmp_path / "new") == FILES
    assert done.stdout.endswith("received from gpu-1: 2 MiB\n")


def test_half_a_file_is_continued(giver: Giver, tmp_path: Path) -> None:
    into = tmp_path / "half"
    (into / "deep/er").mkdir(parents=True)
    (into / "deep/er/model 1.safetensors").write_bytes(BIG[:2_000_000])
    (into / "of another run").write_bytes(b"y")
    assert giver.receive(into).returncode == 0
    assert received(into) == FILES


def test_beginning_of_another_file_is_received_anew(giver: Giver, tmp_path: Path) -> None:
    into = tmp_path / "other"
    (into / "deep/er").mkdir(parents=True)
    (into / "deep/er/model 1.safetensors").write_bytes(b"y" * 1000)
    (into / "config.json").write_bytes(b"[]")
    assert giver.receive(into).returncode == 0
    assert received(into) == FILES


def test_flipped_byte_is_found_and_the_giver_named(giver: Giver, tmp_path: Path) -> None:
    path = giver.artifact / "config.json"
    path.write_bytes(b"{!")
    try:
        done = giver.receive(tmp_path / "flipped")
    finally:
        path.write_bytes(b"{}")
    assert done.returncode == 65
    expected = hashlib.sha256(b"{}").hexdigest()
    assert done.stdout == (
        "tritonhost: refused: gpu-1: config.json: found another content than its manifest says, "
        f"expected SHA-256 {expected}\n"
    )
    assert not (tmp_path / "flipped/config.json").exists()


def test_wrong_token_gets_nothing(giver: Giver, tmp_path: Path) -> None:
    done = giver.receive(tmp_path / "wrong", token="bb" * 32)
    assert done.returncode == 69
    assert received(tmp_path / "wrong") == {}


def test_certificate_of_another_is_not_trusted(giver: Giver, tmp_path: Path) -> None:
    own = giver.place / "certificate.pem"
    text = own.read_text()
    own.write_text(one_run.certificate("127.0.0.1")[0])
    try:
        done = giver.receive(tmp_path / "untrusted")
    finally:
        own.write_text(text)
    assert done.returncode == 69
    assert "exit code 60" in done.stdout


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/../../x", "a//b"])
def test_path_out_of_the_artifact_is_refused(giver: Giver, tmp_path: Path, name: str) -> None:
    done = giver.receive(tmp_path / "in", f"{'0' * 64}\t2\t{name}\tconfig.json\n")
    assert done.returncode == 65
    assert "expected a path inside the artifact" in done.stdout
    assert not (tmp_path / "out").exists()


def test_image_that_breaks_off_is_no_image(giver: Giver) -> None:
    docker = giver.place / "docker"
    text = docker.read_text()
    docker.write_text("#!/bin/sh\necho half; exit 1\n")
    try:
        done = giver.curl(f"/images/serving/{KEY}")
    finally:
        docker.write_text(text)
    assert done.returncode == 18


def test_limit_is_kept(giver: Giver, tmp_path: Path) -> None:
    began = time.monotonic()
    assert giver.receive(tmp_path / "slow", limit="1000000").returncode == 0
    assert time.monotonic() - began > 1.5  # 3 MB, and curl lets the first second go


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (f"/files/weights/{KEY}/config.json", 200),
        (f"/files/weights/{KEY}/link", 404),
        (f"/files/weights/{KEY}/../../secret/key", 404),
        (f"/files/weights/{KEY}/%2e%2e/%2e%2e/secret/key", 404),
        (f"/files/weights/{KEY}//etc/passwd", 404),
        ("/files/weights/../secret/key", 404),
        (f"/files/secret/{KEY}/key", 404),
        (f"/files/weights/{KEY}/deep", 404),
        (f"/files/weights/{KEY}/", 404),
        ("/images/serving/0123456789abcdef", 200),
        ("/images/serving/0123456789abcdef;reboot", 404),
        ("/", 404),
    ],
)
def test_nothing_but_artifacts_is_given(giver: Giver, path: str, code: int) -> None:
    found, body = giver.get(path)
    assert found == code
    assert "secret" not in body
    if path.startswith("/images") and code == 200:
        assert body == "layers\n"


def test_it_ends_when_nobody_asks(giver: Giver) -> None:
    place = giver.place
    process = subprocess.Popen(
        [
            sys.executable,
            str(place / "share.py"),
            str(place / "data"),
            "127.0.0.1",
            str(free_port()),
            "1",
            "weights",
        ],
    )
    assert process.wait(timeout=20) == 0
