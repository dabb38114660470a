"""The process that sends prompts: what it makes of a stream's parts, errors and late answers, with the client simulated."""

from __future__ import annotations

import queue
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from operations.server import replay
from operations.server.replay import Sender


class Text:
    """An output tensor of one text."""

    size = 1

    def __init__(self, text: str) -> None:
        self.text = text

    def reshape(self, _: int) -> list[bytes]:
        return [self.text.encode()]


def part(text: str | None, last: bool) -> Any:
    final = SimpleNamespace(parameters={"triton_final_response": SimpleNamespace(bool_param=last)})
    return SimpleNamespace(
        as_numpy=lambda _: None if text is None else Text(text), get_response=lambda: final
    )


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> Sender:
    """A sender whose client answers what `script` holds, one list for each request."""
    made = Sender.__new__(Sender)
    made.model, made.shapes, made.decoupled = "m", {"text_input": [-1, 1]}, False
    made.callbacks, made.script, made.stops = [], [], 0  # type: ignore[attr-defined]
    monkeypatch.setattr(replay, "request_inputs", lambda *_, **__: [])

    class Client:
        def start_stream(self, callback: Callable[[Any, Any], None]) -> None:
            made.callbacks.append(callback)  # type: ignore[attr-defined]

        def stop_stream(self, cancel_requests: bool) -> None:
            made.stops += 1  # type: ignore[attr-defined]

        def async_stream_infer(self, *_: Any, **__: Any) -> None:
            for answer in made.script.pop(0):  # type: ignore[attr-defined]
                made.callbacks[-1](*answer)  # type: ignore[attr-defined]

    made.client = Client()
    made._begin()
    return made


def test_parts_make_one_answer(sender: Any) -> None:
    sender.script = [[(part("a ", False), None), (part("b", False), None), (part(None, True), None)]]
    reply = sender.ask(1, "p", 8)
    assert (reply.text, reply.parts, reply.error) == ("a b", 2, "")
    assert 0 < reply.first_s <= reply.seconds


def test_echoed_prompt_is_no_answer(sender: Any) -> None:
    sender.script = [[(part("p and more", True), None)]]
    assert sender.ask(1, "p", 8).text == " and more"


def test_error_ends_the_stream_and_the_next_prompt_is_answered(sender: Any) -> None:
    sender.script = [[(None, RuntimeError("CUDA\nout of memory"))], [(part("fine", True), None)]]
    assert sender.ask(1, "p", 8).error == "CUDA out of memory"
    assert sender.ask(2, "p", 8).text == "fine"
    assert sender.stops == 1


def test_late_answer_is_not_given_to_the_next_prompt(sender: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "SECONDS", 0.05)
    sender.script = [[], [(part("answer of 2", True), None)]]
    assert sender.ask(1, "p", 8).error == "no answer within 0.05 s"
    sender.callbacks[0](part("late answer of 1", True), None)
    assert sender.ask(2, "p", 8).text == "answer of 2"
    assert isinstance(sender.answers, queue.Queue) and sender.answers.empty()
