"""The interface of OpenAI, https://platform.openai.com/docs/api-reference: models, chat completions, completions, embeddings."""

from __future__ import annotations

import asyncio
import base64
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .answers import DONE, Choice, Form, event
from .card import NOT_READY, Card, Door
from .client import Client, Endpoint, Gone
from .config import Config
from .errors import Refused, unsupported
from .generation import Piece, pieces
from .metrics import Metrics
from .requests import Chat, Completion, Embeddings, check, conversation, parse
from .triton import Changed, Model, Wish, embedding, ready
from .usage import Usage
from .wishes import aside, check_length, encoded, wishes


async def _text_of(card: Card, known: Model, with_echo: bool, text: str | None, ids: list[int]) -> str:
    """A prompt as text, where it is needed: for a server of texts, or for a client that wants it back."""
    if text is not None:
        return text
    if not with_echo and known.of_tokens:
        return ""
    if known.of_tokens:
        return await aside(len(ids), card.words.decode, ids)
    whole = await aside(len(ids), card.words.written, ids)
    return whole.removeprefix(card.words.begins)


_STREAM = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}


class Application:
    """The door's routes, over the services of its configuration."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.usage = Usage.read(config.usage)
        if self.usage.problem:
            print(self.usage.problem, flush=True)
        self.metrics = Metrics(self.usage)
        self.doors = [Door(config, each, each.current) for each in config.services]
        self.nexts = [Door(config, each, each.next) for each in config.services if each.next]

    @property
    def asgi(self) -> Starlette:
        routes = [
            Route("/v1/models", Endpoint(self.metrics, self.list_models), methods=["GET"]),
            Route("/v1/models/{name}", Endpoint(self.metrics, self.one_model), methods=["GET"]),
            Route("/v1/chat/completions", Endpoint(self.metrics, self.chat), methods=["POST"]),
            Route("/v1/completions", Endpoint(self.metrics, self.completions), methods=["POST"]),
            Route("/v1/embeddings", Endpoint(self.metrics, self.embeddings), methods=["POST"]),
            Route("/health/live", lambda _: Response(), methods=["GET"]),
            Route("/health/ready", self.ready, methods=["GET"]),
            Route("/metrics", self.numbers, methods=["GET"]),
        ]
        missing = Refused(404, "no such path", None, "not_found")
        wrong = Refused(405, "another method is expected", None, "method_not_allowed")
        return Starlette(
            routes=routes,
            lifespan=self._life,
            exception_handlers={
                404: lambda _, error: JSONResponse(missing.body, 404),
                405: lambda _, error: JSONResponse(wrong.body, 405, getattr(error, "headers", None)),
            },
        )

    @asynccontextmanager
    async def _life(self, _: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.usage.keep()), asyncio.create_task(self._retire())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

    async def _retire(self) -> None:
        """Connections that nobody uses are closed soon: a server that is drained waits for none of them."""
        while True:
            await asyncio.sleep(1)
            for door in (*self.doors, *self.nexts):
                door.channels.retire_idle()

    async def ready(self, _: object) -> Response:
        """Whether every model answers."""
        for door in self.doors:
            try:
                await door.card()
            except Refused as error:
                return JSONResponse(error.body, error.status)
            embedding_model = door.service.embedding
            if not await (
                ready(door.channels, embedding_model.model) if embedding_model else ready(door.channels)
            ):
                return JSONResponse(Refused(503, "the model is not ready", None, "not_ready").body, 503)
        return Response()

    async def numbers(self, _: object) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    # --- models

    async def list_models(self, client: Client) -> None:
        found, problem = [], None
        for door in self._doors(client):
            try:
                found.append(_described(await door.card()))
            except Refused as error:
                problem = error
        if problem is not None and not found:
            raise problem
        await client.document(200, {"object": "list", "data": found})

    async def one_model(self, client: Client) -> None:
        _, card = await self._door(client, client.wanted)
        await client.document(200, _described(card))

    def _doors(self, client: Client) -> list[Door]:
        return self.nexts if client.next else self.doors

    async def _door(self, client: Client, name: str) -> tuple[Door, Card]:
        """Who answers for a model. Raises Refused."""
        known, problem = [], None
        for door in self._doors(client):
            try:
                card = await door.card()
            except Refused as error:
                problem = error
                continue
            if card.name == name:
                client.model = name
                return door, card
            known.append(card.name)
        if problem is not None:
            raise problem
        expected = f"; expected one of: {', '.join(known)}" if known else ""
        raise Refused(404, f"no model {name[:200]!r} here{expected}", "model", "model_not_found")

    # --- texts

    async def chat(self, client: Client) -> None:
        asked = await aside(len(client.content), parse, Chat, client.content)
        check(asked)
        door, card = await self._door(client, asked.model)
        if card.template is None:
            said = f"the model {card.name} has no chat template; use /v1/completions"
            raise Refused(400, said, "messages", "chat_template")
        text = await aside(len(client.content), card.template.render, conversation(asked))
        await self._answer(client, door, card, asked, [await encoded(card, text, special=False)])

    async def completions(self, client: Client) -> None:
        asked = await aside(len(client.content), parse, Completion, client.content)
        check(asked)
        door, card = await self._door(client, asked.model)
        prompts: list[tuple[str | None, list[int]]] = []
        for each in asked.prompts:
            if isinstance(each, str):
                prompts.append(await encoded(card, each, special=True))
            else:
                if (highest := max(each)) >= card.words.size:
                    said = f"prompt: token {highest} is outside of the vocabulary of {card.words.size}"
                    raise Refused(400, said, "prompt", "invalid_value")
                check_length(card, len(each), "prompt")
                prompts.append((None, each))
        await self._answer(client, door, card, asked, prompts)

    async def _answer(
        self,
        client: Client,
        door: Door,
        card: Card,
        asked: Chat | Completion,
        prompts: Sequence[tuple[str | None, list[int]]],
    ) -> None:
        if card.embeds:
            raise Refused(400, f"the model {card.name} gives embeddings alone", "model", "model_not_found")
        prompt_tokens = sum(len(ids) for _, ids in prompts)
        self.usage.admit(client.key, client.limit, prompt_tokens)
        known = await door.model()
        with_echo = isinstance(asked, Completion) and bool(asked.echo)
        texts = [await _text_of(card, known, with_echo, *prompt) for prompt in prompts]
        wanted = [
            wish
            for text, (_, ids) in zip(texts, prompts, strict=True)
            for wish in wishes(asked, card, known, text, ids)
        ]
        wants_chances = asked.logprobs is not None and asked.logprobs is not False
        form = Form(isinstance(asked, Chat), card.name, card.release, wants_chances, asked.with_usage)
        made = [Choice(index, wish.prompt if with_echo else "") for index, wish in enumerate(wanted)]
        began = time.monotonic()
        given = False
        try:
            async with aclosing(self._pieces(door, card, known, wanted)) as stream:
                async for index, piece in stream:
                    if not given:
                        given = True
                        self.metrics.first.labels(card.name).observe(time.monotonic() - began)
                        if asked.stream:
                            await client.begin(200, _STREAM | {"x-request-id": form.id})
                            for choice in made:
                                await client.give(form.begin(choice.index) + _echoed(form, choice))
                    _grow(made[index], piece)
                    if asked.stream:
                        await client.give(_written(form, made[index], piece))
        except (Gone, asyncio.CancelledError):
            # the server has begun, whether or not the first part came
            given = True
            raise
        except Refused as error:
            if not client.status:
                raise
            # a part of it was sent: the status cannot be changed any more
            await client.give(event(error.body), more=False)
            return
        finally:
            completion = sum(choice.tokens for choice in made)
            if given:
                self.usage.add(client.key, card.name, prompt_tokens, completion)
            self.metrics.whole.labels(card.name).observe(time.monotonic() - began)
        if asked.stream:
            last = form.counts(prompt_tokens, completion) if form.with_usage else b""
            await client.give(last + DONE, more=False)
        else:
            await client.document(200, form.whole(made, prompt_tokens), {"x-request-id": form.id})

    async def _pieces(
        self, door: Door, card: Card, known: Model, wishes: Sequence[Wish]
    ) -> AsyncGenerator[tuple[int, Piece], None]:
        """The pieces of all answers as they come, each with its answer's number. Raises Refused."""
        if len(wishes) == 1:
            async with aclosing(self._tried(door, card, known, wishes[0])) as made:
                async for piece in made:
                    yield 0, piece
            return
        # a short queue: a client that reads slowly slows Triton down, and no memory fills here
        queue: asyncio.Queue[tuple[int, Piece | Exception | None]] = asyncio.Queue(maxsize=2)

        async def work(index: int, wish: Wish) -> None:
            try:
                async with aclosing(self._tried(door, card, known, wish)) as made:
                    async for piece in made:
                        await queue.put((index, piece))
            except Exception as error:
                await queue.put((index, error))
            else:
                await queue.put((index, None))

        tasks = [asyncio.create_task(work(index, wish)) for index, wish in enumerate(wishes)]
        try:
            left = len(tasks)
            while left:
                index, found = await queue.get()
                if isinstance(found, Exception):
                    raise found
                if found is None:
                    left -= 1
                else:
                    yield index, found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tried(self, door: Door, card: Card, known: Model, wish: Wish) -> AsyncGenerator[Piece, None]:
        """
        Pieces, from a server that may be another one by now: then it is asked what it takes, and tried once again.

        Of another release the prompt may be another one too: that is for the client to send again. Raises Refused.
        """
        begun = False
        try:
            async with aclosing(pieces(door.channels, known, card, wish)) as made:
                async for piece in made:
                    begun = True
                    yield piece
            return
        except Changed:
            if begun:
                raise
        door.forget()
        if (await door.card()).release != card.release:
            raise NOT_READY
        async with aclosing(pieces(door.channels, await door.model(), card, wish)) as made:
            async for piece in made:
                yield piece

    # --- vectors

    async def embeddings(self, client: Client) -> None:
        asked = await aside(len(client.content), parse, Embeddings, client.content)
        door, card = await self._door(client, asked.model)
        place = door.service.embedding
        if place is None:
            raise Refused(400, f"the model {card.name} gives no embeddings", "model", "model_not_found")
        if asked.dimensions is not None:
            raise unsupported("dimensions", "the model's vectors have one size")
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        if any(not isinstance(each, str) or not each.strip() for each in texts):
            raise Refused(400, "input: expected texts that are not empty", "input", "invalid_value")
        count = sum([len((await encoded(card, each, special=True))[1]) for each in texts])
        self.usage.admit(client.key, client.limit, count)
        vectors = [
            await embedding(door.channels, place.model, place.input, place.output, each) for each in texts
        ]
        self.usage.add(client.key, card.name, count, 0)
        data = [
            {"object": "embedding", "index": index, "embedding": _vector(each, asked.encoding_format)}
            for index, each in enumerate(vectors)
        ]
        counts = {"prompt_tokens": count, "total_tokens": count}
        await client.document(200, {"object": "list", "data": data, "model": card.name, "usage": counts})


def _grow(choice: Choice, piece: Piece) -> None:
    choice.text += piece.text
    choice.tokens = piece.tokens
    choice.names += piece.names
    choice.log_probabilities += piece.log_probabilities
    if piece.reason:
        choice.reason = piece.reason


def _written(form: Form, choice: Choice, piece: Piece) -> bytes:
    """A piece as a part of the stream."""
    offset = sum(map(len, choice.names)) - sum(map(len, piece.names)) if form.log_probabilities else 0
    chances = form.log_probabilities_of(piece.names, piece.log_probabilities, offset)
    if piece.reason and form.chat:
        # as OpenAI's: what ends an answer is a part of its own
        before = form.part(choice.index, piece.text, chances) if piece.text or piece.names else b""
        return before + form.part(choice.index, "", None, piece.reason)
    return form.part(choice.index, piece.text, chances, piece.reason or None)


def _echoed(form: Form, choice: Choice) -> bytes:
    return form.part(choice.index, choice.text, None) if choice.text else b""


def _described(card: Card) -> dict[str, Any]:
    return {"id": card.name, "object": "model", "created": card.created, "owned_by": "tritonhost"}


def _vector(values: list[float], form: str | None) -> list[float] | str:
    if form == "base64":
        return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    return values
