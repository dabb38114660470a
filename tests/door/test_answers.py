"""The answers of the door, as the `openai` package reads them."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest

from tests.door.fake_triton import BEGIN, END, OTHER_END, WORDS, FakeTriton
from tests.door.running import LONGEST, LONGEST_PROMPT

HELLO: Any = [{"role": "user", "content": "say:Grüße, 世界! 🙂"}]


def count(text: str) -> int:
    return len(WORDS.encode(text, add_special_tokens=False).ids)


def chat(client: openai.OpenAI, messages: Any = HELLO, **given: Any) -> Any:
    return client.chat.completions.create(model="tiny", messages=messages, **given)


def test_models_are_listed(client: openai.OpenAI) -> None:
    [found] = client.models.list().data
    assert (found.id, found.owned_by) == ("tiny", "tritonhost")
    assert abs(found.created - time.time()) < 3600
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="no model 'other' here; expected one of: tiny"):
        client.models.retrieve("other")


def test_chat_answer_has_text_reason_and_usage(client: openai.OpenAI, triton: FakeTriton) -> None:
    answer = chat(client)
    [choice] = answer.choices
    assert choice.message.content == "Grüße, 世界! 🙂"
    assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
    prompt = "<s>[user] say:Grüße, 世界! 🙂\n<|turn|>"
    # the template has written the token that begins a text: the tokenizer adds no second one
    assert triton.seen[0].inputs["input_ids"].tolist() == WORDS.encode(prompt, add_special_tokens=False).ids
    assert triton.seen[0].inputs["input_ids"].tolist().count(BEGIN) == 1
    assert answer.usage.prompt_tokens == count(prompt)
    assert answer.usage.completion_tokens == count("Grüße, 世界! 🙂")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.system_fingerprint == "fp_r1"


def test_stream_has_the_same_text_and_usage(client: openai.OpenAI) -> None:
    whole = chat(client)
    parts = list(chat(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == whole.choices[0].message.content
    assert parts[0].choices[0].delta.role == "assistant"
    assert [part.choices[0].finish_reason for part in parts[:-1]].count("stop") == 1
    assert parts[-2].choices[0].finish_reason == "stop"
    assert (parts[-1].choices, parts[-1].usage) == ([], whole.usage)
    assert {part.id for part in parts} == {parts[0].id}
    # a character of several tokens is never cut
    assert all("\ufffd" not in (part.choices[0].delta.content or "") for part in parts[:-1])


def test_max_tokens_end_an_answer(client: openai.OpenAI) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        answer = chat(client, [{"role": "user", "content": "say:abcdef"}], **{name: 3})
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("abc", "length")
        assert answer.usage.completion_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
def test_stop_words_end_an_answer_and_its_work(
    client: openai.OpenAI, triton: FakeTriton, stream: bool
) -> None:
    triton.seconds, triton.end = 0.01, None
    question: Any = [{"role": "user", "content": "say:one, two. STOP and more"}]
    if stream:
        parts = list(chat(client, question, stop=["STOP", "never"], stream=True))
        text = "".join(part.choices[0].delta.content or "" for part in parts)
        reason = parts[-1].choices[0].finish_reason
    else:
        answer = chat(client, question, stop="STOP")
        text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert (text, reason) == ("one, two. ", "stop")
    until(lambda: triton.seen[0].cancelled)
    assert triton.seen[0].parts < 40


def until(what: Any, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_any_of_the_end_tokens_ends_an_answer(client: openai.OpenAI, triton: FakeTriton) -> None:
    for end in (END, OTHER_END):
        triton.end = end
        for stream in (False, True):
            answer = chat(client, stream=stream)
            text = (
                "".join(part.choices[0].delta.content or "" for part in answer)
                if stream
                else answer.choices[0].message.content
            )
            assert text == "Grüße, 世界! 🙂"
    given = triton.seen[0].inputs
    assert given["end_id"].tolist() == [END]
    # [tokens], [where each word ends]
    assert given["stop_words_list"].tolist() == [OTHER_END, 1]


def test_sampling_reaches_the_model(client: openai.OpenAI, triton: FakeTriton) -> None:
    chat(client, temperature=0)
    chat(client, temperature=0.5, top_p=0.25, seed=7, frequency_penalty=0.5, presence_penalty=-0.5)
    chat(client, extra_body={"top_k": 3, "repetition_penalty": 1.5, "min_tokens": 2})
    greedy, sampled, further = (seen.inputs for seen in triton.seen)
    assert greedy["runtime_top_k"].tolist() == [1] and "temperature" not in greedy
    assert (sampled["temperature"][0], sampled["runtime_top_p"][0], sampled["seed"][0]) == (0.5, 0.25, 7)
    assert sampled["runtime_top_k"].tolist() == [0]
    assert (sampled["frequency_penalty"][0], sampled["presence_penalty"][0]) == (0.5, -0.5)
    assert (further["runtime_top_k"][0], further["repetition_penalty"][0], further["min_tokens"][0]) == (
        3,
        1.5,
        2,
    )
    # as OpenAI's, where nothing is said; Triton's own seed is always the same
    assert (further["temperature"][0], further["runtime_top_p"][0]) == (1, 1)
    assert further["seed"][0] != greedy["seed"][0]


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_have_seeds_of_their_own(
    client: openai.OpenAI, triton: FakeTriton, stream: bool
) -> None:
    answer = chat(client, n=3, seed=10, stream=stream)
    if stream:
        texts = {0: "", 1: "", 2: ""}
        for part in answer:
            for choice in part.choices:
                texts[choice.index] += choice.delta.content or ""
        assert set(texts.values()) == {"Grüße, 世界! 🙂"}
    else:
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        assert answer.usage.completion_tokens == 3 * count("Grüße, 世界! 🙂")
    assert sorted(int(seen.inputs["seed"][0]) for seen in triton.seen) == [10, 11, 12]


def test_log_probabilities_are_those_of_each_token(client: openai.OpenAI) -> None:
    wanted = [("a", -0.25), ("b", -0.5), ("c", -0.75)]
    question: Any = [{"role": "user", "content": "say:abc"}]
    whole = chat(client, question, logprobs=True).choices[0].logprobs.content
    assert [(each.token, each.logprob) for each in whole] == wanted
    streamed = [
        (each.token, each.logprob)
        for part in chat(client, question, logprobs=True, stream=True)
        for each in (part.choices[0].logprobs.content if part.choices[0].logprobs else ())
    ]
    assert streamed == wanted
    found = client.completions.create(model="tiny", prompt="say:abc", logprobs=0).choices[0].logprobs
    assert found and (found.tokens, found.token_logprobs) == (["a", "b", "c"], [-0.25, -0.5, -0.75])
    assert found.text_offset == [0, 1, 2]


def test_completions_take_texts_and_tokens(client: openai.OpenAI, triton: FakeTriton) -> None:
    ids = WORDS.encode("say:zwei", add_special_tokens=False).ids
    found = client.completions.create(model="tiny", prompt=["say:eins", "say:drei"], n=2, echo=True)
    assert [choice.text for choice in found.choices] == [
        *["say:einseins"] * 2,
        *["say:dreidrei"] * 2,
    ]
    assert found.usage and found.usage.prompt_tokens == 2 * count("say:eins")
    for prompt in (ids, [ids]):
        assert client.completions.create(model="tiny", prompt=prompt).choices[0].text == "zwei"
    parts = list(client.completions.create(model="tiny", prompt="say:vier", stream=True))
    assert "".join(part.choices[0].text for part in parts) == "vier"


def test_prompt_that_does_not_fit_is_refused(client: openai.OpenAI, triton: FakeTriton) -> None:
    for prompt, most in (("x" * (LONGEST_PROMPT + 1), None), ("x" * 10, LONGEST)):
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model="tiny", prompt=prompt, max_tokens=most)
        assert refused.value.code == "context_length_exceeded"
    assert triton.seen == []
    # without a limit an answer may be as long as there is room
    chat(client)
    given = triton.seen[0].inputs
    assert given["request_output_len"][0] == LONGEST - len(given["input_ids"])


REFUSED = {
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "logit_bias": {"1": 2},
    "response_format": {"type": "json_object"},
    "modalities": ["audio"],
    "top_logprobs": 2,
    "store": True,
    "temperature": 3,
    "top_p": -1,
    "n": 17,
    "stop": ["x"] * 17,
    "max_tokens": 0,
    "seed": 0.5,
    "unknown_key": 1,
    "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
    "stream_options": {"include_usage": True},
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_done_is_refused(client: openai.OpenAI, triton: FakeTriton, key: str) -> None:
    body: dict[str, Any] = {"model": "tiny", "messages": HELLO, key: REFUSED[key]}
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/chat/completions", body=body, cast_to=object)
    assert refused.value.type == "invalid_request_error"
    assert (refused.value.param or "").startswith(key)
    assert triton.seen == []


def test_neutral_values_are_taken(client: openai.OpenAI) -> None:
    neutral = {
        "tools": [],
        "logit_bias": {},
        "response_format": {"type": "text"},
        "store": False,
        "user": "me",
    }
    body = {"model": "tiny", "messages": HELLO, **neutral, "n": None, "stop": None, "logprobs": False}
    client.post("/chat/completions", body=body, cast_to=object)


def test_parts_of_a_message_are_one_text(client: openai.OpenAI) -> None:
    content = [{"type": "text", "text": "say:a"}, {"type": "text", "text": "b"}]
    assert chat(client, [{"role": "user", "content": content}]).choices[0].message.content == "a"


def test_queue_that_is_full_is_said(client: openai.OpenAI, triton: FakeTriton) -> None:
    import grpc

    for said, code in (
        ("Exceeds maximum queue size", grpc.StatusCode.UNAVAILABLE),
        ("Executor failed: Maximum queue size of 2 has been reached, please try again later", None),
    ):
        triton.refused, triton.code = said, code
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as refused:
                list(chat(client, stream=True)) if stream else chat(client)
            assert refused.value.response.headers["retry-after"] == "1"


def test_fault_in_a_stream_is_said_in_it(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.refused, triton.after = "the engine failed", 3
    parts = []
    with pytest.raises(openai.APIError, match="the engine failed"):
        for part in chat(client, stream=True):
            parts.append(part)
    assert parts
    triton.after = 0
    with pytest.raises(openai.InternalServerError, match="the engine failed"):
        chat(client)


def test_answers_of_a_model_that_does_not_stream(
    client: openai.OpenAI, door: Any, triton: FakeTriton
) -> None:
    triton.decoupled = False
    parts = list(chat(client, stream=True))
    assert "".join(part.choices[0].delta.content or "" for part in parts) == "Grüße, 世界! 🙂"
