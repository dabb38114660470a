"""Answers in OpenAI's form, whole and in parts: https://platform.openai.com/docs/api-reference."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

DONE = b"data: [DONE]\n\n"


@dataclass
class Choice:
    """
    One answer.

    + tokens: how many the model made, the one that ended the answer not among them
    + names: the texts of its tokens, where log-probabilities are wanted, with those
    """

    index: int
    text: str = ""
    tokens: int = 0
    reason: str = "stop"
    names: list[str] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Form:
    """How the answers to one request are written. `chat`: to a conversation, and not to a text."""

    chat: bool
    model: str
    release: str
    log_probabilities: bool
    with_usage: bool
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def _head(self, kind: str) -> dict[str, Any]:
        name = "chatcmpl" if self.chat else "cmpl"
        return {
            "id": f"{name}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            # an answer of another release has another one
            "system_fingerprint": f"fp_{self.release}",
        }

    def whole(self, choices: Sequence[Choice], prompt_tokens: int) -> dict[str, Any]:
        """The document of a whole answer."""
        kind = "chat.completion" if self.chat else "text_completion"
        listed = [self._choice(each) for each in sorted(choices, key=lambda each: each.index)]
        count = sum(each.tokens for each in choices)
        return {**self._head(kind), "choices": listed, "usage": usage(prompt_tokens, count)}

    def _choice(self, choice: Choice) -> dict[str, Any]:
        chances = self.log_probabilities_of(choice.names, choice.log_probabilities, 0)
        rest = {"logprobs": chances, "finish_reason": choice.reason}
        if self.chat:
            message = {"role": "assistant", "content": choice.text, "refusal": None}
            return {"index": choice.index, "message": message, **rest}
        return {"index": choice.index, "text": choice.text, **rest}

    def log_probabilities_of(
        self, names: Sequence[str], values: Sequence[float], offset: int
    ) -> dict[str, Any] | None:
        """Those of some tokens; None where none are wanted. + offset: in characters, of the first token's text"""
        if not self.log_probabilities:
            return None
        values = [max(each, -9999.0) for each in values]  # JSON has no infinity
        if self.chat:
            return {
                "content": [
                    {"token": name, "logprob": value, "bytes": _bytes(name), "top_logprobs": []}
                    for name, value in zip(names, values, strict=True)
                ],
                "refusal": None,
            }
        offsets = []
        for name in names:
            offsets.append(offset)
            offset += len(name)
        return {
            "tokens": list(names),
            "token_logprobs": values,
            "top_logprobs": None,
            "text_offset": offsets,
        }

    def begin(self, index: int) -> bytes:
        """The first part of a stream; empty where the form has none."""
        if not self.chat:
            return b""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return self._part({"index": index, "delta": delta, "logprobs": None, "finish_reason": None})

    def part(self, index: int, text: str, chances: dict[str, Any] | None, reason: str | None = None) -> bytes:
        """One part of a stream. + reason: of the last one of an answer"""
        rest = {"logprobs": chances, "finish_reason": reason}
        if self.chat:
            delta = {"content": text} if text or reason is None else {}
            return self._part({"index": index, "delta": delta, **rest})
        return self._part({"index": index, "text": text, **rest})

    def _part(self, choice: dict[str, Any]) -> bytes:
        return self._event([choice], {"usage": None} if self.with_usage else {})

    def counts(self, prompt_tokens: int, completion_tokens: int) -> bytes:
        """The part with the counts, which comes last."""
        return self._event([], {"usage": usage(prompt_tokens, completion_tokens)})

    def _event(self, choices: list[dict[str, Any]], further: dict[str, Any]) -> bytes:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return event({**self._head(kind), "choices": choices, **further})


def _bytes(name: str) -> list[int] | None:
    """A token's text as bytes; None for a part of a character, whose bytes are not known."""
    return None if "\ufffd" in name else list(name.encode())


def event(document: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """The counts of a request."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
