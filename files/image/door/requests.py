"""What a client may ask for, and the refusal of what this server cannot do: no parameter is ignored in silence.

https://platform.openai.com/docs/api-reference. The keys that other servers of open models added, and that clients send, are known
too: top_k, repetition_penalty, min_tokens, ignore_eos.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import Refused, unsupported

LARGEST_N = 16
MOST_CHOICES = 64
MOST_STOPS = 16
LONGEST_STOP = 256  # characters
MOST_MESSAGES = 4096
INT32 = 2**31 - 1

# what a value has to be for the request to mean what it means without the key
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "logit_bias": (None, {}),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "parallel_tool_calls": (None, True, False),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
    "reasoning_effort": (None,),
    "verbosity": (None,),
    "web_search_options": (None,),
    "service_tier": (None, "auto", "default"),
    "store": (None, False),
    "suffix": (None, ""),
}
_WHY = {
    "tools": "this server does not call tools",
    "functions": "this server does not call functions",
    "tool_choice": "this server does not call tools",
    "function_call": "this server does not call functions",
    "logit_bias": "the model's server takes no bias",
    "suffix": "this server continues a text, and fills none in",
    "modalities": "this server answers in text alone",
}

Number = Annotated[float, Field(allow_inf_nan=False)]


class _Request(BaseModel):
    """What both kinds of requests for text have."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    max_tokens: Annotated[int, Field(ge=1, le=INT32)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=LARGEST_N)] | None = None
    stop: str | Annotated[list[Any], Field(max_length=MOST_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    top_k: Annotated[int, Field(ge=-1, le=INT32)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0, le=2)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=INT32)] | None = None
    ignore_eos: bool | None = None

    @property
    def stops(self) -> list[str]:
        """The words that end an answer. Raises Refused for what is no word."""
        words = [self.stop] if isinstance(self.stop, str) else (self.stop or [])
        if any(not isinstance(each, str) or not 1 <= len(each) <= LONGEST_STOP for each in words):
            raise Refused(
                400, f"stop: expected words of 1 to {LONGEST_STOP} characters", "stop", "invalid_value"
            )
        return words

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the counts."""
        return bool((self.stream_options or {}).get("include_usage"))


class Chat(_Request):
    """POST /v1/chat/completions."""

    # what a list holds is looked at one by one, up to the first that is wrong: of a list with a million wrong ones, pydantic would
    # describe each
    messages: Annotated[list[Any], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=INT32)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: dict[str, Any] | None = None


class Completion(_Request):
    """POST /v1/completions."""

    prompt: str | Annotated[list[Any], Field(min_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=LARGEST_N)] | None = None

    @cached_property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as a text or as tokens. Raises Refused for anything else."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if _are_tokens(self.prompt):
            return [self.prompt]
        if len(self.prompt) > MOST_CHOICES or not all(
            isinstance(each, str) or (isinstance(each, list) and _are_tokens(each)) for each in self.prompt
        ):
            expected = f"a text, tokens, or at most {MOST_CHOICES} of either"
            raise Refused(400, f"prompt: expected {expected}", "prompt", "invalid_value")
        return list(self.prompt)


def _are_tokens(values: list[Any]) -> bool:
    """Whether a list holds tokens, and nothing else; True and False are no numbers."""
    return bool(values) and all(type(each) is int and 0 <= each <= INT32 for each in values)


class Embeddings(BaseModel):
    """POST /v1/embeddings."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    input: str | Annotated[list[Any], Field(min_length=1, max_length=256)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


Kind = TypeVar("Kind", bound=BaseModel)


def parse(kind: type[Kind], body: bytes) -> Kind:
    """A request's body. Raises Refused with the first thing that is wrong with it."""
    try:
        found = kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(
            str(each) for each in first["loc"] if not str(each).startswith(("list[", "function-"))
        )
        raise Refused(400, f"{path or 'body'}: {first['msg']}", path or None, "invalid_value") from None
    except (RecursionError, ValueError):
        raise Refused(400, "the body is no JSON that can be read", None, "invalid_value") from None
    for key, value in (found.model_extra or {}).items():
        _check_further(key, value)
    return found


def _check_further(key: str, value: object) -> None:
    if key not in _NEUTRAL:
        if value is None:
            return
        raise Refused(
            400, f"{key[:80]}: found a key that this server does not know", key[:80], "unknown_parameter"
        )
    if not any(type(value) is type(known) and value == known for known in _NEUTRAL[key]):
        raise unsupported(key, _WHY.get(key, "not available from this server"))


def check(asked: Chat | Completion) -> None:
    """Raises Refused for what no model of this server can do."""
    _ = asked.stops
    if unknown := {*(asked.stream_options or {})} - {"include_usage", "include_obfuscation"}:
        raise unsupported(f"stream_options.{min(unknown)[:80]}", "not known to this server")
    if asked.stream_options and not asked.stream:
        raise Refused(
            400, "stream_options: expected only with stream = true", "stream_options", "invalid_value"
        )
    if isinstance(asked, Chat):
        _check_chat(asked)
    else:
        _check_completion(asked)


def _check_chat(asked: Chat) -> None:
    if asked.top_logprobs and not asked.logprobs:
        raise Refused(
            400, "top_logprobs: expected only with logprobs = true", "top_logprobs", "invalid_value"
        )
    if asked.top_logprobs:
        raise unsupported(
            "top_logprobs", "the model's server gives the log-probability of the chosen token alone"
        )
    if asked.max_tokens and asked.max_completion_tokens and asked.max_tokens != asked.max_completion_tokens:
        raise Refused(400, "max_tokens: found another max_completion_tokens", "max_tokens", "invalid_value")
    kind = (asked.response_format or {"type": "text"}).get("type")
    if kind != "text":
        raise unsupported(
            "response_format", "the model's server does not constrain answers; expected type text"
        )


def _check_completion(asked: Completion) -> None:
    if asked.logprobs:
        raise unsupported(
            "logprobs", "the model's server gives the log-probability of the chosen token alone: 0"
        )
    if asked.echo and asked.logprobs is not None:
        raise unsupported("echo", "not together with logprobs")
    if asked.best_of is not None and asked.best_of != (asked.n or 1):
        raise unsupported("best_of", "all answers are given; expected the value of n")
    if len(asked.prompts) * (asked.n or 1) > MOST_CHOICES:
        raise Refused(
            400, f"prompt: expected at most {MOST_CHOICES} answers in one request", "prompt", "invalid_value"
        )


ROLES = ("system", "developer", "user", "assistant", "tool")


def conversation(asked: Chat) -> list[dict[str, Any]]:
    """The messages as a chat template takes them: each with a role and a text. Raises Refused."""
    messages = []
    for number, message in enumerate(asked.messages):
        where = f"messages.{number}"
        if not isinstance(message, dict):
            raise Refused(400, f"{where}: expected a table with a role and a content", where, "invalid_value")
        role = message.get("role")
        if role not in ROLES:
            raise Refused(
                400, f"{where}.role: expected one of {', '.join(ROLES)}", f"{where}.role", "invalid_value"
            )
        if role == "tool" or message.get("tool_calls"):
            raise unsupported(f"{where}.role", "this server does not call tools")
        text = _content(message.get("content"), f"{where}.content")
        messages.append({"role": role, "content": text, **_named(message, where)})
    return messages


def _named(message: dict[str, Any], where: str) -> dict[str, str]:
    name = message.get("name")
    if name is None:
        return {}
    if not isinstance(name, str):
        raise Refused(400, f"{where}.name: expected a text", f"{where}.name", "invalid_value")
    return {"name": name}


def _content(content: object, where: str) -> str:
    """A text, or parts that are texts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Refused(400, f"{where}: expected a text", where, "invalid_value")
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind != "text":
                raise unsupported(where, f"found a part of type {kind[:40]}; this server reads text alone")
            raise Refused(400, f"{where}: expected parts with type text and a text", where, "invalid_value")
        texts.append(part["text"])
    return "\n".join(texts)
