"""What a deploy asks for the preflight: one fact, and the hub, which is asked from here and gets the token alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pyinfra.context import ctx_host

from operations import host_health
from operations.facts.host_health import HostHealth
from operations.plan.observed.health import Health, HubAnswer
from operations.plan.preflight import sources
from tests.operations.harness import Host
from tests.unit.builders import profile, settings

TOKEN = "hf_CANARYcanary0123456789"
GATED = profile(weights={"gated": True})


@contextmanager
def hub(status: int, **headers: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A hub that answers everything so; its address, and the path and token of each request."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append((self.path, self.headers.get("authorization", "")))
            self.send_response(status)
            for name, text in {"Content-Length": "0", **headers}.items():
                self.send_header(name.replace("_", "-"), text)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


def answer(endpoint: str) -> HubAnswer:
    found = host_health.hub_answer(settings(hub_endpoint=endpoint), GATED)
    assert found is not None
    assert "CANARY" not in f"{found}"
    return found


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)


@pytest.mark.slow
def test_token_with_access_is_sent_to_the_hub_and_accepted() -> None:
    with hub(200, ETag='"1"', X_Repo_Commit="c" * 40) as (address, asked):
        assert answer(address) == HubAnswer("ok", "accepted by the hub")
    assert asked == [(f"/owner/name/resolve/{'c' * 40}/config.json", f"Bearer {TOKEN}")]


@pytest.mark.parametrize(
    ("status", "headers", "verdict", "said"),
    [
        (401, {}, "failed", "the hub does not know the token"),
        (401, {"X_Error_Code": "RepoNotFound"}, "failed", "HTTP 401"),
        (403, {"X_Error_Code": "GatedRepo"}, "failed", "HTTP 403, the token has no access"),
        (404, {"X_Error_Code": "RevisionNotFound"}, "ok", "accepted"),
        (404, {"X_Error_Code": "EntryNotFound"}, "ok", "accepted"),
        (404, {}, "not checked", "HTTP 404"),
        (503, {}, "not checked", "HTTP 503"),
        (200, {"ETag": '"1"'}, "not checked", "is not from a hub"),
    ],
)
@pytest.mark.slow
def test_hub_answers_are_distinguished(status: int, headers: dict[str, str], verdict: str, said: str) -> None:
    with hub(status, **headers) as (address, _):
        found = answer(address)
    assert (found.verdict, said in found.found) == (verdict, True), found


@pytest.mark.slow
def test_a_redirect_to_another_host_gets_no_token() -> None:
    with (
        hub(200) as (elsewhere, asked_there),
        hub(302, Location=f"{elsewhere}/x", X_Linked_Etag='"1"', X_Repo_Commit="c" * 40) as (address, asked),
    ):
        assert answer(address).verdict == "ok"
    assert len(asked) == 1
    assert [token for _, token in asked_there if token] == []


@pytest.mark.slow
def test_unreachable_hub_is_not_checked() -> None:
    with hub(200) as (address, _):
        pass
    found = answer(address)
    assert found.verdict == "not checked"
    assert "not reached from this machine" in found.found


@pytest.mark.slow
def test_missing_token_fails_without_a_hub_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with hub(200) as (address, asked):
        found = host_health._ask_hub.__wrapped__(address, "owner/name", "c" * 40)
    assert found.verdict == "failed" and "HF_TOKEN: not set" in found.found
    assert asked == []


def test_open_model_needs_no_hub_query() -> None:
    assert host_health.hub_answer(settings(), profile()) is None


def test_health_query_has_a_timeout_and_ignores_errors() -> None:
    host = Host({HostHealth: None})
    with ctx_host.use(host):
        assert host_health.asked(settings(), profile(), "8") == Health()
    [(name, given)] = host.asked
    urls = list(sources.sources(settings(), profile(), "8").values())
    assert name == "HostHealth"
    assert given == {
        "data_root": "/var/lib/tritonhost",
        "docker_root": "/var/lib/docker",
        "names": sources.names(urls),
        "urls": urls,
        "_timeout": host_health.ASK_SECONDS,
        "_ignore_errors": True,
    }
