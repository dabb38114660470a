"""One answer, from Triton's parts to the text that a client gets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from .card import Card
from .errors import Refused
from .tokens import REPLACEMENT, Growing, Stops
from .triton import Channels, Model, Wish, parts

PROMPT_WINDOW = 8  # tokens of the prompt that the text of an answer is decoded behind


@dataclass
class Piece:
    """
    What an answer grows by.

    + tokens: how many it has, all together, so far
    + names, log_probabilities: of the tokens of this piece
    + reason: of the last piece: stop or length; empty before
    """

    text: str
    tokens: int
    reason: str = ""
    names: Sequence[str] = ()
    log_probabilities: Sequence[float] = ()


@dataclass
class _State:
    card: Card
    wish: Wish
    stops: Stops
    tokens: int = 0
    pending_names: list[str] = field(default_factory=list)
    pending_chances: list[float] = field(default_factory=list)

    def piece(self, text: str, reason: str = "") -> Piece:
        names, self.pending_names = self.pending_names, []
        chances, self.pending_chances = self.pending_chances, []
        return Piece(text, self.tokens, reason, names, chances)


async def pieces(channels: Channels, known: Model, card: Card, wish: Wish) -> AsyncGenerator[Piece, None]:
    """
    The pieces of an answer; the last one has the reason why it ends, and there is always one.

    A stop word ends the work at once: what Triton would still make is cancelled. Raises Refused.
    """
    state = _State(card, wish, Stops(wish.stop))
    made = _of_tokens(channels, known, state) if known.of_tokens else _of_text(channels, known, state)
    async with aclosing(made):
        async for piece in made:
            yield piece


async def _of_tokens(channels: Channels, known: Model, state: _State) -> AsyncGenerator[Piece, None]:
    words, wish = state.card.words, state.wish
    growing = Growing(words, wish.ids[-PROMPT_WINDOW:])
    ended = False
    async with aclosing(parts(channels, known, wish)) as given:
        async for part in given:
            ids = list(part.ids)
            # the engine is told one end; the others are stop words for it, which it gives
            end = next((place for place, each in enumerate(ids) if each in wish.ends), None)
            if end is not None:
                ids, ended = ids[:end], True
            state.tokens += len(ids)
            if wish.log_probabilities:
                state.pending_names += [words.named(each) for each in ids]
                state.pending_chances += list(part.log_probabilities)[: len(ids)]
            text = state.stops.add(growing.add(ids)) if ids else ""
            if ended or state.stops.found:
                break
            if text or state.pending_names:
                yield state.piece(text)
                text = ""
        else:
            text = ""
    if not state.stops.found:
        text += state.stops.add(growing.rest())
        text += state.stops.rest()
    stopped = ended or state.stops.found or state.tokens < wish.max_tokens
    yield state.piece(text, "stop" if stopped else "length")


def _counted(state: _State, text: str) -> int:
    """The tokens of a text whose server does not say how many it made: it may be written in more than that, and made of no more."""
    return min(len(state.card.words.encode(text, special=False)), state.wish.max_tokens)


async def _of_text(channels: Channels, known: Model, state: _State) -> AsyncGenerator[Piece, None]:
    wish = state.wish
    whole = sent = reason = ""
    out = ""
    async with aclosing(parts(channels, known, wish)) as given:
        async for part in given:
            # all of the text so far, the beginning of a character at its end
            whole, reason = part.text, part.reason
            certain = whole.rstrip(REPLACEMENT)
            if not certain.startswith(sent) and not sent.startswith(certain):
                raise Refused(502, "the server changed what it had answered", None, "upstream_error")
            new = certain[len(sent) :]
            sent += new
            out = state.stops.add(new)
            if state.stops.found:
                break
            if out:
                # at least one for each part; all are counted once, at the end
                state.tokens += 1
                yield state.piece(out)
                out = ""
    if not state.stops.found:
        if whole.startswith(sent):
            out += state.stops.add(whole[len(sent) :])
            sent = whole
        out += state.stops.rest()
    state.tokens = _counted(state, sent)
    length = not state.stops.found and (
        reason == "length" or (reason not in ("stop", "length") and state.tokens >= wish.max_tokens)
    )
    yield state.piece(out, "length" if length else "stop")
