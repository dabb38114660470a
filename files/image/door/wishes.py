"""What Triton is to make for a request: one wish for each answer."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from .card import Card
from .errors import Refused, unsupported
from .requests import Chat, Completion
from .triton import Model, Wish, taken

DEFAULT_COMPLETION = 16  # tokens, as OpenAI's
WITHOUT_LIMIT = 1024  # tokens of an answer where nobody knows how many fit
LONG_TEXT = 4096  # characters or bytes; above, work is done in a thread

# On the average, at most: a language has four, code three. One token may stand for a hundred blanks.
CHARACTERS_OF_A_TOKEN = 16
one_at_a_time = asyncio.Semaphore(1)

Result = TypeVar("Result")


async def aside(size: int, work: Callable[..., Result], *given: object) -> Result:
    """Work that takes long if its text does: then in a thread, so that streams go on."""
    return await asyncio.to_thread(work, *given) if size > LONG_TEXT else work(*given)


async def encoded(card: Card, text: str, special: bool) -> tuple[str, list[int]]:
    """
    A text and its tokens.

    Raises Refused for a text that does not fit. One that is very long for its limit is refused without its tokens, which take long
    to find, and 270 bytes of memory for each character.
    """
    limits = [limit for limit in (card.longest, card.longest_prompt) if limit is not None]
    if limits and len(text) > min(limits) * CHARACTERS_OF_A_TOKEN:
        said = f"the prompt has {len(text)} characters; this model takes at most {min(limits)} tokens"
        raise Refused(400, said, None, "context_length_exceeded")
    if len(text) <= LONG_TEXT:
        return text, card.words.encode(text, special)
    async with one_at_a_time:
        return text, await asyncio.to_thread(card.words.encode, text, special)


def wishes(asked: Chat | Completion, card: Card, known: Model, prompt: str, ids: list[int]) -> list[Wish]:
    """What Triton is to make of one prompt. Raises Refused for what the model cannot do."""
    if not ids:
        raise Refused(400, "the prompt has no token", "prompt", "invalid_value")
    further = _further(asked, known)
    chances = asked.logprobs is not None and asked.logprobs is not False
    if chances and not known.of_tokens:
        raise unsupported("logprobs", "the model's server gives none for each token")
    if asked.ignore_eos and not known.of_tokens:
        raise unsupported("ignore_eos", "the model's server cannot be told")
    temperature = 1.0 if asked.temperature is None else asked.temperature
    top_p = 1.0 if asked.top_p is None else asked.top_p
    top_k = max(asked.top_k or 0, 0)
    if top_p == 0:
        temperature = 0.0
    ends = () if asked.ignore_eos else card.words.ends
    if isinstance(asked, Chat) and not known.of_tokens:
        # the template has written it, and the server's own tokenizer writes it again
        prompt = prompt.removeprefix(card.words.begins)
    wish = Wish(
        prompt=prompt,
        ids=ids,
        max_tokens=_room(asked, card, len(ids)),
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=0,
        stop=asked.stops,
        end=ends[0] if ends else None,
        ends=ends,
        pad=card.words.pad,
        # a stop word ends the work at once, where the text is looked at while it is made
        in_parts=bool(asked.stream or asked.stops),
        log_probabilities=chances,
        further=further,
    )
    # without one, each answer is another: Triton's own default is always the same
    first = secrets.randbits(63) if asked.seed is None else asked.seed
    return [replace(wish, seed=(first + number) % 2**64) for number in range(asked.n or 1)]


def _further(asked: Chat | Completion, known: Model) -> dict[str, float]:
    """Parameters that are away from what they are without being said. Raises Refused where the model has no input for one."""
    given = {
        "frequency_penalty": (asked.frequency_penalty, 0.0),
        "presence_penalty": (asked.presence_penalty, 0.0),
        "repetition_penalty": (asked.repetition_penalty, 1.0),
        "min_tokens": (asked.min_tokens, 0),
    }
    found: dict[str, float] = {}
    for name, (value, neutral) in given.items():
        if value is None or value == neutral:
            continue
        if taken(known, name) is None:
            raise unsupported(name, "the model's server does not take it")
        found[name] = value
    return found


def check_length(card: Card, prompt_tokens: int, param: str) -> None:
    """Raises Refused for a prompt that does not fit, whatever its answer."""
    if card.longest_prompt is not None and prompt_tokens > card.longest_prompt:
        most = card.longest_prompt
    elif card.longest is not None and prompt_tokens >= card.longest:
        most = card.longest - 1
    else:
        return
    said = f"the prompt has {prompt_tokens} tokens; this model takes at most {most}"
    raise Refused(400, said, param, "context_length_exceeded")


def _room(asked: Chat | Completion, card: Card, prompt_tokens: int) -> int:
    """How many tokens the answer may have. Raises Refused where prompt and answer do not fit."""
    wanted = asked.max_tokens
    if isinstance(asked, Chat):
        wanted = asked.max_completion_tokens or wanted

    def too_long(said: str) -> Refused:
        param = "messages" if isinstance(asked, Chat) else "prompt"
        return Refused(400, said, param, "context_length_exceeded")

    check_length(card, prompt_tokens, "messages" if isinstance(asked, Chat) else "prompt")
    if card.longest is None:
        return wanted or (WITHOUT_LIMIT if isinstance(asked, Chat) else DEFAULT_COMPLETION)
    room = card.longest - prompt_tokens
    if room < 1 or (wanted or 0) > room:
        raise too_long(
            f"the prompt has {prompt_tokens} tokens and the answer may have {wanted or 1}; this model takes at most "
            f"{card.longest} together"
        )
    return wanted or (room if isinstance(asked, Chat) else min(DEFAULT_COMPLETION, room))
