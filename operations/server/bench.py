"""Send requests to a door and time each one. A process of its own: see operations.server.golden.

python -m operations.server.bench http://127.0.0.1:9000 [--model NAME] [--header NAME=VALUE] [--key-variable NAME] < phases.json

Reads a list of phases (operations/plan/serving/benched.py); prints one line of JSON that says what was asked, then one for each
request. Only the standard library: it is the gate of a swap, and the load must not depend on what else is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from operations.plan.errors import one_line
from operations.plan.serving.benched import Timing

SECONDS = 120  # for one answer
LONGEST = 2**20  # bytes of a line
_CODES = (400, 404, 422)  # of a door that does not know a parameter


class Wrong(Exception):
    """What a door answered instead; the text says it. + status: of HTTP"""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class Answer(NamedTuple):
    """Seconds to the first token and to the last, how many there were, and the release that made them."""

    first_s: float
    seconds: float
    tokens: int
    release: str


@dataclass
class Door:
    """Where the requests go. + model: empty: the first that the door has; ignore_eos: whether each answer is as long as it may be"""

    url: str
    model: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    ignore_eos: bool = True
    release: str = ""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        self.host, self.secure = parts.hostname or "", parts.scheme == "https"
        self.port = parts.port or (443 if self.secure else 80)
        self.base = parts.path.rstrip("/") or "/v1"
        self.context = ssl.create_default_context() if self.secure else None

    @asynccontextmanager
    async def answer(self, method: str, path: str, body: bytes = b"") -> AsyncIterator[_Reply]:
        """Send one request over a connection of its own. The clock of the reply begins when the connection is there."""
        reader, writer = await asyncio.open_connection(self.host, self.port, ssl=self.context, limit=LONGEST)
        lines = [
            f"{method} {self.base}{path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            "Connection: close",
        ]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
        try:
            began = time.monotonic()
            writer.write("\r\n".join(lines).encode() + body)
            yield await _reply(reader, began)
        finally:
            writer.close()

    async def find_model(self) -> None:
        """The model's name is known. Raises Wrong."""
        if self.model:
            return
        async with self.answer("GET", "/models") as reply:
            text = b"".join([line async for line in reply.lines()])
        names = [str(each.get("id")) for each in _document(text).get("data") or [] if isinstance(each, dict)]
        if reply.status != 200 or not names:
            raise Wrong(
                f"{self.base}/models: found no model (HTTP {reply.status}), expected the one that serves"
            )
        self.model = names[0]

    async def ask(self, request: Mapping[str, Any]) -> Answer:
        """One answer as a stream. Raises Wrong."""
        wanted = {
            "model": self.model,
            "prompt": request["prompt"],
            "max_tokens": request["max_tokens"],
            "seed": request["seed"],
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"ignore_eos": True} if self.ignore_eos else {}),
        }
        async with self.answer("POST", "/completions", json.dumps(wanted).encode()) as reply:
            if reply.status != 200:
                text = b"".join([line async for line in reply.lines()])
                raise Wrong(f"HTTP {reply.status}: {_message(_document(text))}", reply.status)
            return await _timed(reply)


@dataclass
class _Reply:
    """A reply whose head was read."""

    status: int
    chunked: bool
    reader: asyncio.StreamReader
    began: float

    async def _content(self) -> AsyncIterator[bytes]:
        while not self.chunked:
            content = await self.reader.read(2**16)
            if not content:
                return
            yield content
        while size := int((await self.reader.readline()).split(b";")[0] or b"0", 16):
            yield (await self.reader.readexactly(size + 2))[:-2]

    async def lines(self) -> AsyncIterator[bytes]:
        """The content by lines, the last of which may have no end."""
        rest = b""
        async for content in self._content():
            *whole, rest = (rest + content).split(b"\n")
            for line in whole:
                yield line.rstrip(b"\r")
        if rest:
            yield rest


async def _reply(reader: asyncio.StreamReader, began: float) -> _Reply:
    first = (await reader.readline()).split(b" ", 2)
    if len(first) < 2 or not first[1].isdigit():
        raise Wrong("no answer of HTTP: the connection ended")
    chunked = False
    while (line := await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        chunked = chunked or (name.lower() == "transfer-encoding" and "chunked" in value.lower())
    return _Reply(int(first[1]), chunked, reader, began)


async def _timed(reply: _Reply) -> Answer:
    """The times of a stream. Raises Wrong for one that is cut or that ends with an error."""
    first, last, parts, counted, ended, release = 0.0, 0.0, 0, 0, False, ""
    async for line in reply.lines():
        if not line.startswith(b"data:"):
            continue
        if (data := line[5:].strip()) == b"[DONE]":
            ended = True
            break
        document = _document(data)
        if "error" in document:
            raise Wrong(_message(document))
        choices = document.get("choices") or [{}]
        if choices[0].get("text"):
            last = time.monotonic() - reply.began
            first, parts = first or last, parts + 1
        counted = int((document.get("usage") or {}).get("completion_tokens") or counted)
        release = str(document.get("system_fingerprint") or release).removeprefix("fp_")
    if not ended:
        raise Wrong("the stream was cut")
    whole = time.monotonic() - reply.began
    tokens = counted or parts
    if not tokens:
        raise Wrong("an answer without a token")
    return Answer(first or whole, last or whole, tokens, release)


def _document(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _message(document: Mapping[str, Any]) -> str:
    error = document.get("error")
    return one_line(str(error.get("message") if isinstance(error, dict) else error or "no message"))[:200]


async def prepare(door: Door, phases: Sequence[Mapping[str, Any]]) -> None:
    """
    The model is known, and it has answered a request that is not counted: the first to a release reads its tokenizer.

    Raises Wrong.
    """
    await door.find_model()
    request = {**phases[0]["requests"][0], "prompt": "Hello.", "seed": 0}
    try:
        door.release = (await door.ask(request)).release
    except Wrong as problem:
        # kind `llmapi` has no such parameter: its answers are as long as they are
        if problem.status not in _CODES or "ignore_eos" not in str(problem):
            raise
        door.ignore_eos = False
        door.release = (await door.ask(request)).release


async def measure(door: Door, phase: Mapping[str, Any]) -> AsyncIterator[Timing]:
    """Each request of a phase, as it ends."""
    ended: asyncio.Queue[Timing] = asyncio.Queue()
    began = time.monotonic()

    async def one(request: Mapping[str, Any]) -> None:
        sent = time.monotonic() - began
        try:
            async with asyncio.timeout(SECONDS):
                found = await door.ask(request)
            times = Timing(phase["name"], request["number"], sent, found.first_s, found.seconds, found.tokens)
        except (Wrong, OSError, EOFError, ValueError, asyncio.LimitOverrunError) as problem:
            said = one_line(str(problem)) or type(problem).__name__
            late = f"no answer within {SECONDS} s" if isinstance(problem, TimeoutError) else said
            times = Timing(phase["name"], request["number"], sent, error=late)
        ended.put_nowait(times)

    async def at_its_time(request: Mapping[str, Any]) -> None:
        await asyncio.sleep(began + request["at_s"] - time.monotonic())
        await one(request)

    async def one_by_one(waiting: list[Mapping[str, Any]]) -> None:
        while waiting:
            await one(waiting.pop(0))

    requests = list(phase["requests"])
    if phase["at_once"]:
        waiting = list(requests)
        tasks = [asyncio.create_task(one_by_one(waiting)) for _ in range(phase["at_once"])]
    else:
        tasks = [asyncio.create_task(at_its_time(request)) for request in requests]
    for _ in requests:
        yield await ended.get()
    await asyncio.gather(*tasks)


async def work(door: Door, phases: Sequence[Mapping[str, Any]]) -> None:
    """Print what was asked, and each request. Raises Wrong, OSError."""
    async with asyncio.timeout(SECONDS):
        await prepare(door, phases)
    print(
        json.dumps({"model": door.model, "release": door.release, "ignore_eos": door.ignore_eos}), flush=True
    )
    for phase in phases:
        async for timing in measure(door, phase):
            print(json.dumps(asdict(timing)), flush=True)


def main() -> int:
    """The process; 1 where the door gave no answer to the first request."""
    parser = argparse.ArgumentParser(prog="python -m operations.server.bench", allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("--model", default="")
    parser.add_argument("--header", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--key-variable", help="the environment's variable that holds the key")
    given = parser.parse_args()
    headers = dict(each.split("=", 1) for each in given.header)
    if given.key_variable:
        headers["Authorization"] = f"Bearer {os.environ.get(given.key_variable, '')}"
    try:
        asyncio.run(work(Door(given.url, given.model, headers), json.load(sys.stdin)))
    except TimeoutError:
        print(f"no answer within {SECONDS} s", file=sys.stderr)
        return 1
    except (Wrong, OSError, EOFError, ValueError) as problem:
        print(one_line(str(problem)) or type(problem).__name__, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
