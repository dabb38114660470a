"""Clients that go away, that read slowly, that ask much, and that send what nobody expects."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.door.fake_triton import FakeTriton
from tests.door.running import Running
from tests.door.test_answers import until

STREAMS = 200
LONG = "x" * 40


def request(door: Running, body: bytes, path: str = "/v1/chat/completions", **headers: str) -> socket.socket:
    """A connection over which a request was sent, and nothing read yet."""
    made = socket.create_connection(("127.0.0.1", door.port), timeout=20)
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    made.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return made


def question(text: str, **further: Any) -> bytes:
    messages = [{"role": "user", "content": f"say:{text}"}]
    return json.dumps({"model": "tiny", "messages": messages, **further}).encode()


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
def test_work_of_a_client_that_left_is_cancelled(door: Running, triton: FakeTriton, stream: bool) -> None:
    triton.seconds, triton.end = 0.05, None
    connection = request(door, question("abc", stream=stream, stop=["never"]))
    until(lambda: triton.seen and triton.seen[0].parts > 3)
    connection.close()
    began = time.monotonic()
    until(lambda: triton.seen[0].cancelled)
    assert time.monotonic() - began < 2
    until(lambda: "tritonhost_door_streams 0.0" in door.get("/metrics"))
    assert 'code="499"' in door.get("/metrics")


@pytest.mark.slow
def test_client_that_reads_nothing_is_given_up(door: Running, triton: FakeTriton) -> None:
    triton.seconds, triton.end = 0.0, None
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", door.port))
    body = question("x" * 100, stream=True, n=16)
    connection.sendall(
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    before = door.memory_mib()
    until(lambda: len(triton.seen) == 16)
    # its answers are a few hundred KiB; what waits for it is bounded
    until(lambda: triton.running == 0, 15)
    until(lambda: "tritonhost_door_streams 0.0" in door.get("/metrics"), 15)
    assert door.memory_mib() - before < 20
    connection.close()


async def _ask(client: openai.AsyncOpenAI, number: int) -> tuple[str, Any, float]:
    began = time.monotonic()
    text, first, usage = "", 0.0, None
    stream = await client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": f"say:{number:04} {LONG} {number:04}"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    async for part in stream:
        first = first or time.monotonic() - began
        if part.choices:
            text += part.choices[0].delta.content or ""
        usage = part.usage or usage
    return text, usage, first


@pytest.mark.slow
def test_many_streams_at_once_are_neither_mixed_nor_cut(door: Running, triton: FakeTriton) -> None:
    # none waits in the door: Triton has them all, and its queue is what fills; else no answer ends
    triton.seconds, triton.together = 0.02, STREAMS

    async def all_of_them() -> list[tuple[str, Any, float]]:
        client = openai.AsyncOpenAI(base_url=door.url, api_key="x", max_retries=0, timeout=120)
        async with client:
            return await asyncio.gather(*(_ask(client, number) for number in range(STREAMS)))

    before = door.memory_mib()
    answers = asyncio.run(all_of_them())
    assert [text for text, _, _ in answers] == [f"{n:04} {LONG} {n:04}" for n in range(STREAMS)]
    assert {usage.completion_tokens for _, usage, _ in answers} == {50}
    assert triton.most == STREAMS
    assert door.memory_mib() - before < 120
    until(lambda: "tritonhost_door_streams 0.0" in door.get("/metrics"))


@pytest.fixture(scope="module")
def connection(door: Running) -> Iterator[http.client.HTTPConnection]:
    made = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
    yield made
    made.close()


def status_of(connection: http.client.HTTPConnection, path: str, body: bytes) -> int:
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status >= 400:
        error = json.loads(content)["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return answer.status


PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "messages",
        "prompt",
        "input",
        "model",
        "max_tokens",
        "temperature",
        "top_p",
        "n",
        "stop",
        "seed",
        "stream",
        "logprobs",
        "top_logprobs",
        "echo",
        "response_format",
        "stream_options",
        "tools",
        "user",
        "best_of",
    ]
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={"role": st.sampled_from(["user", "system", "robot"]) | VALUES, "content": st.text() | VALUES},
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), body=st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused(
    connection: http.client.HTTPConnection, path: str, body: bytes
) -> None:
    assert status_of(connection, path, body) in (400, 404)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(PATHS),
    body=st.dictionaries(KEYS, VALUES, max_size=6),
    messages=st.lists(MESSAGE, max_size=3),
    sound=st.booleans(),
)
def test_bodies_of_any_kind_get_an_answer(
    connection: http.client.HTTPConnection, path: str, body: dict[str, Any], messages: Any, sound: bool
) -> None:
    if sound:
        body = {**body, "model": "tiny", "messages": messages, "prompt": "say:a"}
        if path == PATHS[0]:
            del body["prompt"]
        else:
            del body["messages"]
    # NaN and the like are no JSON, and some clients send them
    text = json.dumps(body).encode()
    assert status_of(connection, path, text) in (200, 400, 404)


@pytest.mark.slow
@pytest.mark.parametrize(
    "body", [b"[" * 100000, b'{"a":' * 100000, b'{"model": "' + b"x" * 1000000 + b'"}', b"\xff\xfe", b""]
)
def test_hostile_bodies_are_refused(connection: http.client.HTTPConnection, body: bytes) -> None:
    for path in PATHS:
        assert status_of(connection, path, body) in (400, 404)


def test_unknown_paths_and_methods_have_an_error_document(door: Running) -> None:
    made = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
    for method, path, status in (("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405)):
        made.request(method, path)
        answer = made.getresponse()
        assert (answer.status, set(json.loads(answer.read()))) == (status, {"error"})


def test_log_has_no_traceback(door: Running) -> None:
    assert "Traceback" not in Path(door.log).read_text()


@pytest.mark.slow
def test_streams_go_on_while_a_long_text_is_read(door: Running, triton: FakeTriton) -> None:
    """A text of 30 MB that cannot fit is refused without its tokens, and no part of another's stream is late."""
    triton.seconds, triton.end = 0.02, None
    client = openai.OpenAI(base_url=door.url, api_key="x", max_retries=0, timeout=60)
    stream = client.completions.create(model="tiny", prompt="say:ab", max_tokens=100, stream=True)
    longest, last = 0.0, time.monotonic()
    sent = False
    for number, _ in enumerate(stream):
        longest, last = max(longest, time.monotonic() - last) if number > 3 else 0.0, time.monotonic()
        if number == 10 and not sent:
            sent = True
            other = request(door, question("x" * 30_000_000))
    answer = other.recv(4096).decode()
    assert "400 Bad Request" in answer and "context_length_exceeded" in answer
    assert longest < 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        {"prompt": [1.5] * 200_000},
        {"prompt": "x", "stop": [1] * 200_000},
        {"messages": [1] * 200_000},
        {"input": [1] * 200_000},
        {"prompt": [5] * 200_000},
        {"prompt": [[5], [5.5]] * 100_000},
    ],
    ids=["floats", "stops", "messages", "inputs", "tokens", "lists"],
)
def test_wrong_lists_are_refused_at_once(
    connection: http.client.HTTPConnection, door: Running, body: dict[str, Any]
) -> None:
    """A list of a million wrong values is refused by its first: to describe each took seconds, and a gigabyte."""
    before, began = door.memory_mib(), time.monotonic()
    for path in PATHS:
        assert status_of(connection, path, json.dumps({"model": "tiny", **body}).encode()) == 400
    assert time.monotonic() - began < 3
    assert door.memory_mib() - before < 200
