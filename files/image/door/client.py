"""One request's other side: what it sends, what it is sent, and what becomes of its work when it goes away."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from .errors import Refused
from .metrics import Metrics

LARGEST_BODY = 64 << 20
SLOW_S = 5.0  # a client that takes nothing for so long is given up, and its work in Triton is cancelled
HOST = "host"  # the name of a request from the host itself, which needs no key


class Gone(Exception):
    """The client went away, or takes nothing."""


@dataclass
class Client:
    """
    One request's other side.

    + key: the name of its key; `host` for a request from the host itself
    + limit: its tokens a day; None: as many as it likes
    + next: it is for the release that is tried before clients reach it
    + wanted: the model that its path names
    + model: the model that answers; empty until one is found
    """

    receive: Receive
    send: Send
    key: str
    limit: int | None
    next: bool
    wanted: str = ""
    model: str = ""
    content: bytes = b""
    status: int = 0

    async def body(self) -> bytes:
        """All of it. Raises Refused, Gone."""
        found, size = [], 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Gone
            found.append(message.get("body", b""))
            size += len(found[-1])
            if size > LARGEST_BODY:
                raise Refused(413, f"the body has more than {LARGEST_BODY} bytes", None, "too_large")
            if not message.get("more_body"):
                return b"".join(found)

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        listed = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": listed})

    async def give(self, content: bytes, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": content, "more_body": more})

    async def _send(self, message: Message) -> None:
        try:
            async with asyncio.timeout(SLOW_S):
                await self.send(message)
        except (TimeoutError, OSError):
            raise Gone from None

    async def document(
        self, status: int, document: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        response = JSONResponse(document, status, headers)
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": response.raw_headers})
        await self.give(bytes(response.body), more=False)

    async def gone(self) -> None:
        """Returns when the client has gone away."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


Work = Callable[[Client], Coroutine[Any, Any, None]]


class Endpoint:
    """An ASGI application around one piece of work: it ends when the client goes away, and every error has OpenAI's form."""

    def __init__(self, metrics: Metrics, work: Work) -> None:
        self.metrics, self.work = metrics, work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        limit = headers.get("x-tritonhost-tokens-per-day", "")
        client = Client(
            receive,
            send,
            headers.get("x-tritonhost-client") or HOST,
            int(limit) if limit.isdecimal() else None,
            next=headers.get("x-tritonhost-server") == "next",
            wanted=str(scope.get("path_params", {}).get("name", "")),
        )
        with self.metrics.streams.track_inprogress():
            try:
                await self._work(client)
            except Gone:
                client.status = 499
        # only the name of a model that is here: a client's own words would make numbers without end
        self.metrics.requests.labels(client.model, client.key, str(client.status)).inc()

    async def _work(self, client: Client) -> None:
        try:
            await self._until_gone(client)
        except Refused as error:
            if client.status:
                raise Gone from None
            await client.document(error.status, error.body, error.headers)
        except Gone:
            raise
        except Exception:  # a fault of the door's: the journal has it, the client learns that there is one
            traceback.print_exc()
            if client.status:
                raise Gone from None
            await client.document(500, Refused(500, "the door failed; its journal says why").body)

    async def _until_gone(self, client: Client) -> None:
        """The work, ended as soon as the client has gone away."""
        client.content = await client.body()
        work = asyncio.create_task(self.work(client))
        watch = asyncio.create_task(client.gone())
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Gone
            await work
        finally:
            for task in (work, watch):
                if not task.done():
                    task.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await task
