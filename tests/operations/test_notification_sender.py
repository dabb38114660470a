"""The process that sends one message, against a real endpoint: what it sends, and what it says of one that is not taken."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from operations import notification_sender
from operations.notification_sender import webhook
from tests.operations.webhook import listening, silent
from tests.unit.certificates import pair

PROJECT = Path(__file__).resolve().parents[2]
BODY = '{"event": "success"}'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notification_sender, "ANSWER_SECONDS", 0.1)
    for name in ("http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TOKEN", "CANARY-token")


def sent(url: str, token_variable: str = "", loopback: bool = True) -> str:
    problem = webhook(url, token_variable, BODY, loopback)
    assert "CANARY" not in problem and "\n" not in problem and "/hook" not in problem
    return problem


def test_message_is_posted_as_json_with_the_token() -> None:
    with listening() as found:
        assert sent(f"{found.url}/hook", "TOKEN") == ""
    [(path, headers, body)] = found.got
    assert (path, body) == ("/hook", {"event": "success"})
    assert headers["authorization"] == "Bearer CANARY-token"
    assert headers["content-type"] == "application/json"


def test_message_without_a_token_variable_has_no_token() -> None:
    with listening(status=204) as found:
        assert sent(found.url) == ""
    assert "authorization" not in found.got[0][1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "TOKEN is not set, expected the token"),
        ("", "TOKEN is not set, expected the token"),
        ("CANARY\nX-Other: CANARY", "TOKEN holds characters that no token has (not shown)"),
        ("CANARY token", "TOKEN holds characters that no token has (not shown)"),
    ],
)
def test_message_is_not_sent_without_a_usable_token(
    monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str
) -> None:
    if value is None:
        monkeypatch.delenv("TOKEN")
    else:
        monkeypatch.setenv("TOKEN", value)
    with listening() as found:
        assert sent(found.url, "TOKEN") == expected
    assert found.got == []


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_another_status_is_said_without_the_answer(status: int) -> None:
    with listening(status=status) as found:
        assert sent(f"{found.url}/hook", "TOKEN") == f"found HTTP {status}, expected 2xx"
    assert len(found.got) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(status: int) -> None:
    with listening() as other, listening(status=status, headers={"Location": other.url}) as found:
        problem = sent(found.url, "TOKEN")
    assert problem == f"found HTTP {status}, a redirect, which is not followed, expected 2xx"
    assert (len(found.got), other.got) == (1, [])


@pytest.mark.slow
def test_endpoint_that_is_too_slow_is_given_up() -> None:
    with listening(seconds=0.5) as found:
        assert sent(found.url) == "no answer within 0.1 s"


def test_endpoint_that_says_nothing_is_given_up() -> None:
    with silent() as url:
        assert sent(url) == "no answer within 0.1 s"


def test_endpoint_that_is_not_there_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert sent(f"http://127.0.0.1:{port}/hook") == "connection refused"
    assert sent("https://hooks.invalid/hook", loopback=False) == "found a name that does not resolve"


def test_certificate_must_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pair(addresses=["127.0.0.1"])
    file = tmp_path / "pair.pem"
    file.write_bytes(made.pem + made.key_pem())
    with listening(certificate=file) as found:
        assert sent(found.url, "TOKEN").startswith("found a certificate that is not trusted")
        assert found.got == []
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert sent(found.url, "TOKEN") == ""
    assert len(found.got) == 1


def test_endpoint_without_tls_is_said() -> None:
    with listening() as found:
        assert sent(found.url.replace("http:", "https:"), "TOKEN") == "found no TLS, expected https"
    assert found.got == []


def test_proxy_is_for_other_machines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as proxy, listening() as found:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert sent(f"{found.url}/hook") == ""
        assert (len(found.got), proxy.got) == (1, [])
        # what the flag is for: urllib itself asks the proxy for a loopback address too
        assert sent(f"{found.url}/hook", loopback=False) == ""
    assert (len(found.got), len(proxy.got)) == (1, 1)


# --- the process


def process(given: dict[str, Any], **environment: str) -> tuple[subprocess.CompletedProcess[str], float]:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "operations.notification_sender"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env={**os.environ, **environment},
        timeout=30,
    )
    return done, time.monotonic() - began


@pytest.mark.slow
def test_process_sends_and_ends_with_0() -> None:
    with listening() as found:
        done, _ = process({"webhook": found.url, "token_variable": "", "loopback": True, "body": BODY})
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
    assert found.events == ["success"]


@pytest.mark.slow
def test_process_ends_in_time_whatever_hangs(tmp_path: Path) -> None:
    # a name server that does not answer: a call that no timeout of a socket ends
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, time\nsocket.getaddrinfo = lambda *a, **k: time.sleep(60)\n", encoding="utf-8"
    )
    given = {"webhook": "https://hooks.example/", "token_variable": "", "loopback": False, "body": BODY}
    done, seconds = process(given, PYTHONPATH=str(tmp_path))
    assert done.returncode < 0
    assert seconds < 6
