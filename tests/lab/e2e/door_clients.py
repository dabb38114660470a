"""What clients of OpenAI's API get of a door, one feature each: functions that `test_door` calls, and their names are a table's rows.

Each takes an `openai` client for a gateway and the model's name, and fails with an assertion.
"""

from __future__ import annotations

import json
from typing import Any

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk

QUESTION: Any = [{"role": "user", "content": "What is machine learning?"}]
# the lab's small models answer at random: of some questions with nothing
OTHERS = ("Hello!", "One, two, three", "Tell me a story about the sea.", "Why?", "2 + 2 =")
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}


def lists_models(client: openai.OpenAI, model: str) -> None:
    assert [each.id for each in client.models.list().data] == [model]
    assert client.models.retrieve(model).id == model


def answers_a_chat(client: openai.OpenAI, model: str) -> None:
    found = client.chat.completions.create(model=model, messages=QUESTION, **GREEDY)
    for other in OTHERS:
        if found.choices[0].message.content:
            break
        question: Any = [{"role": "user", "content": other}]
        found = client.chat.completions.create(model=model, messages=question, **GREEDY)
    # strictly, with no key that the type does not know
    ChatCompletion.model_validate(found.model_dump(), strict=True)
    assert found.choices[0].message.content
    assert found.usage and found.usage.prompt_tokens > 4
    assert 0 < found.usage.completion_tokens <= 12


def streams_the_same_answer(client: openai.OpenAI, model: str) -> None:
    whole = client.chat.completions.create(model=model, messages=QUESTION, **GREEDY)
    options: Any = {"include_usage": True}
    parts = list(
        client.chat.completions.create(
            model=model, messages=QUESTION, stream=True, stream_options=options, **GREEDY
        )
    )
    for part in parts:
        ChatCompletionChunk.model_validate(part.model_dump(), strict=True)
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == whole.choices[0].message.content
    assert parts[-1].usage == whole.usage


def streams_in_many_parts(client: openai.OpenAI, model: str) -> None:
    parts = list(client.chat.completions.create(model=model, messages=QUESTION, stream=True, **GREEDY))
    assert sum(bool(part.choices[0].delta.content) for part in parts) > 3


def completes_texts(client: openai.OpenAI, model: str) -> None:
    found = client.completions.create(model=model, prompt=["One", "Two"], n=2, max_tokens=3)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert found.usage and found.usage.completion_tokens <= 12


def stops_at_words(client: openai.OpenAI, model: str) -> None:
    whole = client.completions.create(model=model, prompt="One", **GREEDY).choices[0].text
    word = whole[len(whole) // 2 :][:3]
    cut = client.completions.create(model=model, prompt="One", stop=[word], **GREEDY).choices[0]
    assert (cut.text, cut.finish_reason) == (whole[: whole.index(word)], "stop")


def repeats_an_answer_by_its_seed(client: openai.OpenAI, model: str) -> None:
    def asked(seed: int) -> str:
        given: dict[str, Any] = {"temperature": 1.5, "max_tokens": 16, "seed": seed}
        return str(client.completions.create(model=model, prompt="Once", **given).choices[0].text)

    assert asked(3) == asked(3)
    assert len({asked(seed) for seed in range(4)}) > 1


def gives_log_probabilities(client: openai.OpenAI, model: str) -> None:
    found = client.chat.completions.create(model=model, messages=QUESTION, logprobs=True, **GREEDY)
    chances = found.choices[0].logprobs
    assert chances and chances.content and found.usage
    assert len(chances.content) == found.usage.completion_tokens
    assert all(each.logprob <= 0 for each in chances.content)


def refuses_log_probabilities(client: openai.OpenAI, model: str) -> None:
    try:
        client.chat.completions.create(model=model, messages=QUESTION, logprobs=True, **GREEDY)
    except openai.BadRequestError as refused:
        assert refused.code == "unsupported_parameter"
    else:
        raise AssertionError("answered without log-probabilities, expected a refusal")


def refuses_what_it_cannot_do(client: openai.OpenAI, model: str) -> None:
    impossible: dict[str, Any] = {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "response_format": {"type": "json_object"},
        "logit_bias": {"5": 1},
        "top_logprobs": 3,
    }
    for name, value in impossible.items():
        further = {"logprobs": True} if name == "top_logprobs" else {}
        body = {"model": model, "messages": QUESTION, name: value, **further}
        try:
            client.post("/chat/completions", body=body, cast_to=object)
        except openai.BadRequestError as refused:
            assert refused.code == "unsupported_parameter", name
        else:
            raise AssertionError(f"{name}: ignored, expected a refusal")


def refuses_what_does_not_fit(client: openai.OpenAI, model: str) -> None:
    try:
        client.completions.create(model=model, prompt="word " * 100000, max_tokens=1)
    except openai.BadRequestError as refused:
        assert refused.code == "context_length_exceeded"
    else:
        raise AssertionError("answered, expected a refusal")


EVERY_KIND = (
    lists_models,
    answers_a_chat,
    streams_the_same_answer,
    completes_texts,
    stops_at_words,
    repeats_an_answer_by_its_seed,
    refuses_what_it_cannot_do,
    refuses_what_does_not_fit,
)
OF_AN_ENGINE = (streams_in_many_parts, gives_log_probabilities)
OF_THE_LLM_API = (refuses_log_probabilities,)


def curl_body(model: str) -> str:
    """What `curl --data` sends."""
    return json.dumps({"model": model, "messages": QUESTION, **GREEDY})
