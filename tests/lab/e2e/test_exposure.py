"""Requests that are meant to crash a server, and a release that was tampered with."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.lab.e2e.one_host import DATA_ROOT, OneHost

PATH = "/v2/models/ensemble/generate"
MIB = 2**20


def over_64_mib(endpoint: str) -> None:
    """Numbers instead of a prompt: the server does not limit requests, and would tokenize such a long prompt for minutes."""
    _post(endpoint, b'{"text_input": [' + b"0," * (65 * MIB // 2) + b"0]}")


def gzip_bomb(endpoint: str) -> None:
    """256 MiB in 256 KiB."""
    body = gzip.compress(b'{"text_input": "' + b"\0" * 256 * MIB + b'"}')
    assert len(body) < MIB
    _post(endpoint, body, {"Content-Encoding": "gzip"})


def gzip_that_is_none(endpoint: str) -> None:
    _post(endpoint, b"x" * MIB, {"Content-Encoding": "gzip"})


def seventy_thousand_chunks(endpoint: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"text_input": "'
        for _ in range(70_000):
            yield b"x"
        yield b'", "max_tokens": 1}'

    connection = _connection(endpoint)
    connection.request("POST", PATH, chunks(), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    _answer(connection)


def deep_json(endpoint: str) -> None:
    _post(endpoint, b'{"text_input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def length_that_is_not_kept(endpoint: str) -> None:
    connection = _connection(endpoint)
    connection.request("POST", PATH, b"{", {"Content-Length": str(2**40)})
    connection.close()


HOSTILE: tuple[Callable[[str], None], ...] = (
    over_64_mib,
    gzip_bomb,
    gzip_that_is_none,
    seventy_thousand_chunks,
    deep_json,
    length_that_is_not_kept,
)


@pytest.mark.requirement("R50")
@pytest.mark.parametrize("request_of", HOSTILE, ids=lambda hostile: hostile.__name__)
def test_a_hostile_request_leaves_the_server_ready(
    converged: OneHost, request_of: Callable[[str], None]
) -> None:
    before = converged.container()
    with converged.http() as endpoint:
        request_of(endpoint)
        with urllib.request.urlopen(f"{endpoint}/v2/models/ensemble/ready", timeout=30) as ready:
            assert ready.status == 200
        body = {"text_input": "What is machine learning?", "max_tokens": 4}
        asked = urllib.request.Request(f"{endpoint}{PATH}", data=json.dumps(body).encode())
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert json.load(answer)["text_output"]
    after = converged.container()
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])


TAMPERED = {
    "a model that nobody planned": (
        "mkdir -p $release/model_repository/other/1 && "
        "echo 'name: \"other\"' >$release/model_repository/other/config.pbtxt",
        "model_repository/other/config.pbtxt",
    ),
    "an engine of another time": ("touch -d @1 $engine/rank0.engine", "rank0.engine"),
}


@pytest.mark.requirement("R43")
@pytest.mark.parametrize(("script", "named"), TAMPERED.values(), ids=TAMPERED.keys())
def test_tampered_release_is_not_started_and_is_repaired(converged: OneHost, script: str, named: str) -> None:
    engine = f"{DATA_ROOT}/engines/{converged.artifact('engine')}"
    since = converged.now()
    converged.root(f"release=$(readlink -f {DATA_ROOT}/current); engine={engine}; {script}")
    code, _ = converged.try_root("systemctl restart triton")
    assert code != 0
    said = converged.journal(since, "_SYSTEMD_UNIT=triton.service")
    [refused] = {line for line in said if line.startswith("tritonhost: release ")}
    assert f"{named} changed" in refused
    assert converged.try_root("docker inspect triton")[0] != 0, "nothing was started"
    converged.converge()
    converged.verified("test_release or test_service or test_artifacts")


def test_file_check_takes_under_300_ms_of_a_start(converged: OneHost) -> None:
    # the part of the serve script before its first docker command, three times
    script = f"sed '/^image=/,$d' {DATA_ROOT}/current/serve >/run/looked.sh"
    converged.root(
        f"{script}; sed -i 's|^release=.*|release=$(readlink -f {DATA_ROOT}/current)|' /run/looked.sh"
    )
    # CPU time, because other work on the machine makes the elapsed time longer
    said = converged.root(
        "for _ in 1 2 3; do sh /run/looked.sh || exit 1; done; rm /run/looked.sh; cat /proc/$$/stat"
    )
    # user and system time of the finished children, in hundredths of a second
    ticks = sum(map(int, said.rpartition(")")[2].split()[13:15]))
    assert 0 < ticks / 100 / 3 < 0.3


def _connection(endpoint: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=120)


def _post(endpoint: str, body: bytes, headers: dict[str, str] | None = None) -> None:
    connection = _connection(endpoint)
    # the server may close the connection in the middle of the request
    with contextlib.suppress(OSError):
        connection.request("POST", PATH, body, headers or {})
    _answer(connection)


def _answer(connection: http.client.HTTPConnection) -> None:
    """Read any answer, or the end of the connection: the server must not keep it open without an answer."""
    try:
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()
