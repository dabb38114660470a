"""The process that sends requests and times them, against a door that runs."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from operations.plan.exposure.door import NEXT
from operations.plan.serving.benched import Phase, Request, Timing, as_json, at_rate, figures, smoke
from operations.server import bench
from operations.server.bench import Door, Wrong
from tests.door.fake_triton import FakeTriton
from tests.door.running import Running, data_root, start
from tests.door.test_releases import another, lead

PROJECT = Path(__file__).resolve().parents[2]


def phase(count: int, tokens: int = 8, at_once: int = 2, prompt: str = "say:ab") -> Phase:
    return Phase("p", at_once, tuple(Request(n, prompt, tokens, n) for n in range(count)))


def run(url: str, *phases: Phase, **given: Any) -> tuple[Door, list[Timing]]:
    """The door as it was found, and the times."""
    made = Door(url, **given)
    wanted = as_json(phases)

    async def work() -> list[Timing]:
        await bench.prepare(made, wanted)
        return [timing for each in wanted for timing in [t async for t in bench.measure(made, each)]]

    return made, asyncio.run(work())


def test_each_request_is_timed(door: Running, triton: FakeTriton) -> None:
    triton.seconds, triton.end = 0.005, None
    found, timings = run(door.url, phase(4, tokens=10))
    assert (found.model, found.release, found.ignore_eos) == ("tiny", "r1", True)
    assert [timing.error for timing in timings] == [""] * 4
    assert {timing.tokens for timing in timings} == {10}
    for timing in timings:
        assert 0 < timing.first_s < timing.seconds
        # nine gaps of 5 ms, on a machine that may hand over the first part late
        assert timing.between_s == pytest.approx((timing.seconds - timing.first_s) / 9)
        assert 0.045 <= timing.seconds < 0.5
    # one that is not counted, and four
    assert len(triton.seen) == 5 and triton.most <= 2
    assert {int(seen.inputs["seed"][0]) for seen in triton.seen[1:]} == {0, 1, 2, 3}


@pytest.mark.slow
def test_requests_come_as_many_at_once_as_the_phase_says(door: Running, triton: FakeTriton) -> None:
    triton.seconds, triton.end = 0.01, None
    triton.most = 0
    run(door.url, phase(6, at_once=1))
    assert triton.most == 1
    triton.most = 0
    run(door.url, phase(6, at_once=3))
    assert triton.most == 3


@pytest.mark.slow
def test_requests_of_a_rate_do_not_wait_for_each_other(door: Running, triton: FakeTriton) -> None:
    triton.seconds, triton.end = 0.01, None
    triton.most = 0
    wanted = at_rate(1, 40, 0.2, 8)
    _, timings = run(door.url, wanted)
    assert triton.most > 2
    sent = {timing.number: timing.began_s for timing in timings}
    for request in wanted.requests:
        assert request.at_s is not None and 0 <= sent[request.number] - request.at_s < 0.1


@pytest.mark.slow
def test_model_of_the_llm_api_is_asked_without_ignore_eos(tmp_path: Path) -> None:
    """Its door refuses the parameter: each answer is as long as it is."""
    server = FakeTriton(kind="text", decoupled=True, seconds=0.001).start()
    made = start(data_root(tmp_path), server.port)
    try:
        found, timings = run(made.url, phase(2, prompt="say:abc"))
        assert not found.ignore_eos
        assert [(timing.tokens, timing.error) for timing in timings] == [(3, "")] * 2
    finally:
        made.stop()
        server.stop()


def test_door_that_refuses_is_an_error_of_the_request(door: Running, triton: FakeTriton) -> None:
    before = len(triton.seen)
    made, wanted = Door(door.url), as_json([phase(2)])

    async def work() -> list[Timing]:
        await bench.prepare(made, wanted)
        triton.refused, triton.after = "out of memory", 1
        return [timing async for timing in bench.measure(made, wanted[0])]

    timings = asyncio.run(work())
    assert all("out of memory" in timing.error for timing in timings) and len(triton.seen) > before
    assert figures(timings).errors == 2


def test_model_that_is_not_there_ends_the_process(door: Running) -> None:
    with pytest.raises(Wrong, match="HTTP 404"):
        run(door.url, phase(1), model="other")


# --- what a door may answer


@contextmanager
def answering(content: bytes) -> Iterator[str]:
    """An address that answers each request with this, and ends the connection."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.recv(65536)
            connection.sendall(content)
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    listening.close()


def stream(*events: object, done: bool = True, chunk: int = 0) -> bytes:
    """A reply with these events. + chunk: bytes of each chunk, wherever an event ends; 0: not in chunks"""
    lines = [f"data: {json.dumps(event)}\n\n" for event in events] + (["data: [DONE]\n\n"] if done else [])
    content = "".join(lines).encode()
    if not chunk:
        return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + content
    parts = [content[at : at + chunk] for at in range(0, len(content), chunk)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body


PART = {"choices": [{"text": "a"}], "system_fingerprint": "fp_r9"}
USAGE = {"choices": [], "usage": {"completion_tokens": 7}}


def ask(content: bytes) -> bench.Answer:
    with answering(content) as url:
        request = {"prompt": "x", "max_tokens": 8, "seed": 1}
        return asyncio.run(Door(url, "m").ask(request))


@pytest.mark.parametrize("chunk", [0, 1, 7, 4096])
def test_stream_is_read_however_it_is_cut_into_chunks(chunk: int) -> None:
    answer = ask(stream(PART, PART, USAGE, chunk=chunk))
    assert (answer.tokens, answer.release) == (7, "r9")


def test_parts_are_counted_where_there_is_no_usage() -> None:
    assert ask(stream(PART, PART)).tokens == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (stream(PART, done=False), "the stream was cut"),
        (stream(PART, done=False, chunk=4), "the stream was cut"),
        (stream(PART, {"error": {"message": "gone"}}), "^gone$"),
        (stream(), "an answer without a token"),
        (b"HTTP/1.1 429 Too Many\r\n\r\n" + b'{"error": {"message": "slow\\ndown"}}', r"HTTP 429: slow down"),
        (b"HTTP/1.1 502 Bad\r\n\r\n<html>", "HTTP 502: no message"),
        (b"", "no answer of HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "no answer of HTTP"),
    ],
)
def test_answer_that_is_none_is_said(content: bytes, words: str) -> None:
    with pytest.raises(Wrong, match=words):
        ask(content)


def test_answer_that_does_not_come_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        made = Door(f"http://127.0.0.1:{silent.getsockname()[1]}", "m")
        wanted = as_json([phase(1)])[0]

        async def work() -> list[Timing]:
            return [timing async for timing in bench.measure(made, wanted)]

        [timing] = asyncio.run(work())
    assert timing.error == "no answer within 0.05 s"


# --- the process, and the command


def program(*words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=PROJECT,
        env={"PATH": "/usr/bin:/bin", **environment},
    )


@pytest.mark.slow
def test_process_sends_the_key_of_its_environment(door: Running) -> None:
    seen = list[bytes]()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            seen.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 401 No\r\n\r\n" + b'{"error": {"message": "unknown key"}}')
            connection.close()

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        words = ("operations.server.bench", url, "--model", "m", "--key-variable", "K")
        done = program(*words, stdin=json.dumps(as_json([phase(1)])), K="sesame")
    assert b"Authorization: Bearer sesame\r\n" in seen[0]
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "HTTP 401: unknown key\n")


@pytest.mark.slow
def test_header_of_the_next_release_leads_to_it(tmp_path: Path) -> None:
    """As the gate of a side-by-side swap sends it: the release that clients reach is not measured in its place."""
    tritons = [FakeTriton(end=None).start() for _ in range(2)]
    root = data_root(tmp_path)
    another(root, "r2")
    lead(root, "next", "r2")
    made = start(root, *(triton.port for triton in tritons))
    try:
        words = ("operations.server.bench", made.url, "--header", f"{NEXT[0]}={NEXT[1]}")
        done = program(*words, stdin=json.dumps(as_json([phase(3)])))
        about, *times = (json.loads(line) for line in done.stdout.splitlines())
        assert (about["release"], [time["error"] for time in times]) == ("r2", [""] * 3)
        assert [len(triton.seen) for triton in tritons] == [0, 4]
        assert (
            json.loads(program(*words[:2], stdin=json.dumps(as_json([phase(1)]))).stdout.splitlines()[0])[
                "release"
            ]
            == "r1"
        )
    finally:
        made.stop()
        for triton in tritons:
            triton.stop()


@pytest.mark.slow
def test_command_measures_and_compares(door: Running, triton: FakeTriton, tmp_path: Path) -> None:
    triton.end, triton.seconds = None, 0.001
    words = ("operations.bench", "--url", door.url, "--gpu", "NVIDIA A10")
    done = program(*words, "--directory", str(tmp_path / "fast"))
    assert done.returncode == 0, done.stderr
    assert f"written: {tmp_path}/fast/tiny/r1.1x-NVIDIA-A10.smoke.json" in done.stdout
    assert len(triton.seen) == 21
    triton.seconds = 0.004
    assert program(*words, "--directory", str(tmp_path / "slow")).returncode == 0
    fast, slow = (str(tmp_path / name / "tiny/r1.1x-NVIDIA-A10.smoke.json") for name in ("fast", "slow"))
    compare = ("operations.bench", "compare", "--json", "--page", str(tmp_path / "change.html"))
    done = program(*compare, fast, slow)
    assert done.returncode == 1 and "together: tokens" in worse(done.stdout)
    assert "<svg" in (tmp_path / "change.html").read_text()
    # the times to the first token are milliseconds, which differ on a busy machine
    assert "together: tokens" not in worse(program(*compare, slow, fast).stdout)


def worse(printed: str) -> list[str]:
    """The figures of which B has less than is allowed."""
    return [row["label"] for row in json.loads(printed)["figures"] if row["worse"]]


@pytest.mark.slow
def test_capacity_of_a_door_is_found(door: Running, triton: FakeTriton, tmp_path: Path) -> None:
    triton.end, triton.seconds = None, 0.001
    words = ("operations.bench", "--url", door.url, "--profile", "capacity", "--directory", str(tmp_path))
    # a token takes longer than the limit: no rate is kept
    done = program(*words, "--rate", "8", "--seconds", "0.5", "--slo", "itl_ms=0.5")
    assert done.returncode == 1 and "capacity: 0 requests a second" in done.stdout, done.stderr
    assert "8 a second (too fast)" in done.stdout


@pytest.mark.slow
def test_smoke_takes_seconds(door: Running, triton: FakeTriton) -> None:
    triton.end, triton.seconds = None, 0.002
    began = time.monotonic()
    _, timings = run(door.url, *smoke(1))
    assert len(timings) == 20 and time.monotonic() - began < 5
