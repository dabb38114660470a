"""Every model that a client may call is asked, and one that does not answer proves no release."""

from __future__ import annotations

import json
import subprocess
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from operations import swap
from operations.model_repository import golden_requests
from operations.plan import PlanError
from operations.plan.explain import text
from operations.plan.profile.model_repository import DEFAULTS
from operations.plan.profile.profiles import load_profile
from operations.plan.profile.tables import Golden
from operations.remote.refusal import Failed
from operations.server import control as server
from operations.server import golden
from tests.unit.builders import profile, release

BOTH = [
    Golden(model=name, prompt="What?", max_tokens=8, expect="That.")
    for name in ("ensemble", "tensorrt_llm_bls")
]


def test_every_queried_model_has_a_golden_request() -> None:
    assert profile().golden_requests == BOTH
    stored = json.loads(json.dumps(golden_requests(release())))["golden"]
    assert [request["model"] for request in stored] == ["ensemble", "tensorrt_llm_bls"]
    assert text(release()).count("tensorrt_llm_bls: 'What?', 8 tokens: starts with 'That.'") == 1


def test_golden_request_of_the_profile_is_kept() -> None:
    own = {"model": "tensorrt_llm_bls", "prompt": "Who?", "max_tokens": 4, "expect": "You."}
    given = [{"prompt": "What?", "max_tokens": 8, "expect": "That."}, own]
    assert [(g.model, g.prompt) for g in profile(golden=given).golden_requests] == [
        ("ensemble", "What?"),
        ("tensorrt_llm_bls", "Who?"),
    ]
    assert [(g.model, g.prompt) for g in profile(golden=[own]).golden_requests] == [
        ("tensorrt_llm_bls", "Who?"),
        ("ensemble", "Who?"),
    ]


def test_unloaded_model_is_not_queried() -> None:
    chosen = profile(server={"load_models": ["ensemble"]})
    assert chosen.asked_models == ["ensemble"]
    assert [request.model for request in chosen.golden_requests] == ["ensemble"]
    with pytest.raises(ValueError, match=r"load_models\n  ensemble or tensorrt_llm_bls in it"):
        profile(server={"load_models": ["tensorrt_llm"]})


@pytest.mark.parametrize("name", ["llama-3.1-8b-llmapi", "clip-search"])
def test_single_model_uses_its_profile_s_golden_request(name: str) -> None:
    chosen = load_profile(name)
    assert chosen.golden_requests == chosen.golden


def test_default_is_an_input_of_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is filled in is what is served: the same id would leave the old file in place."""
    before = release().id
    monkeypatch.setitem(DEFAULTS, "tensorrt_llm_model_name", "other")
    assert release().id != before


def answering(monkeypatch: pytest.MonkeyPatch, answers: list[str], problem: str = "") -> list[str]:
    """The asking process gives these answers; returns what it was asked, one text a process."""
    asked: list[str] = []

    def process(module: str, address: str, requests: str, **_: Any) -> tuple[list[dict[str, Any]], str]:
        asked.append(requests)
        return [{"answer": answer, "seconds": 0.1} for answer in answers], problem

    monkeypatch.setattr(golden, "in_a_process", process)
    return asked


def test_all_models_are_queried_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, ["That. And so on", "That."])
    found = list(golden.proven("127.0.0.1:1", BOTH))
    assert [(model, problem) for model, _, problem, _ in found] == [
        ("ensemble", ""),
        ("tensorrt_llm_bls", ""),
    ]
    [requests] = asked
    assert [json.loads(line)["model"] for line in requests.splitlines()] == ["ensemble", "tensorrt_llm_bls"]


class Result:
    """A part of an answer, as the client gives it."""

    def __init__(self, value: float | None, last: bool) -> None:
        self.value, self.last = value, last

    def as_numpy(self, name: str) -> Any:
        assert name in golden.LOG_PROBABILITY.values()
        return None if self.value is None else np.array([[self.value]], np.float32)

    def get_response(self) -> Any:
        return SimpleNamespace(parameters={"triton_final_response": SimpleNamespace(bool_param=self.last)})


class Client:
    """A server whose model has these inputs and gives these parts."""

    inputs: tuple[str, ...] = ("text_input", "max_tokens", "return_log_probs")
    parts: tuple[Any, ...] = ()
    sent: ClassVar[list[str]] = []

    def __init__(self, _: str) -> None: ...

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None: ...

    def get_model_metadata(self, _: str) -> Any:
        return SimpleNamespace(inputs=[SimpleNamespace(name=name, shape=[-1, 1]) for name in self.inputs])

    def start_stream(self, callback: Any) -> None:
        self.callback = callback

    def async_stream_infer(self, _: str, inputs: list[Any], **__: Any) -> None:
        type(self).sent = [given.name() for given in inputs]
        for part in self.parts:
            self.callback(*(part if isinstance(part, tuple) else (part, None)))

    def stop_stream(self) -> None: ...


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([Result(-1.5, False), Result(-2.5, False), Result(None, True)], -2.5),
        ([Result(-4.0, True)], -4.0),
        ([Result(float("nan"), True)], None),
        ([(None, RuntimeError("unexpected input"))], None),
    ],
)
def test_log_probability_is_the_last_that_is_a_number(
    monkeypatch: pytest.MonkeyPatch, parts: list[Any], found: float | None
) -> None:
    monkeypatch.setattr(
        "tritonclient.grpc.InferenceServerClient", type("One", (Client,), {"parts": tuple(parts)})
    )
    assert golden.log_probability("127.0.0.1:1", BOTH[0], timeout_s=1) == found


@pytest.mark.parametrize(
    ("inputs", "asked"),
    [
        (("text_input", "max_tokens"), False),
        (("text_input", "sampling_param_max_tokens", "return_cumulative_logprob"), True),
    ],
)
def test_only_a_model_that_has_the_input_is_asked(
    monkeypatch: pytest.MonkeyPatch, inputs: tuple[str, ...], asked: bool
) -> None:
    one: Any = type("One", (Client,), {"inputs": inputs, "parts": (Result(-1.0, True),), "sent": []})
    monkeypatch.setattr("tritonclient.grpc.InferenceServerClient", one)
    found = golden.log_probability("127.0.0.1:1", BOTH[0], timeout_s=1)
    assert (found is not None, "return_cumulative_logprob" in one.sent) == (asked, asked)


def test_the_model_without_an_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, ["That."], "RuntimeError: Model '${tensorrt_llm_model_name}' is not ready")
    *_, (model, _, problem, _) = golden.proven("127.0.0.1:1", BOTH)
    assert model == "tensorrt_llm_bls"
    assert problem.startswith("golden request to tensorrt_llm_bls: RuntimeError: Model")


def test_a_wrong_answer_of_the_second_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, ["That.", "Nothing."])
    *_, (model, _, problem, _) = golden.proven("127.0.0.1:1", BOTH)
    assert model == "tensorrt_llm_bls" and "found 'Nothing.', expected an answer starting with" in problem


def test_answers_before_the_time_was_over_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any, timeout: float, **__: Any) -> Any:
        raise subprocess.TimeoutExpired("python", timeout, output=b'{"answer": "That."}\n{"answ')

    monkeypatch.setattr(subprocess, "run", late)
    answers, problem = golden.in_a_process("golden", "127.0.0.1:1", "", timeout_s=3)
    assert answers == [{"answer": "That."}]
    assert problem == "no answer within 3 s"


def test_release_with_failing_bls_passes_no_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gates come before the verdict proven, side by side and in place."""
    wanted = release()
    asked = answering(monkeypatch, ["That."], "RuntimeError: Model '${tensorrt_llm_model_name}' is not ready")
    monkeypatch.setattr(server, "forwarded", lambda *_: nullcontext("127.0.0.1:1"))
    begun = swap._Swap(wanted, None, [], False, "", False, False)
    with pytest.raises(Failed, match="golden request to tensorrt_llm_bls: RuntimeError"):
        swap._gates(SimpleNamespace(print_prefix=""), begun, wanted.servers[0])  # type: ignore[arg-type]
    assert len(asked) == 1


def test_filler_stands_before_the_prompt() -> None:
    plain = Golden(prompt="Why?", max_tokens=4, expect="")
    assert (plain.sent, plain.title) == ("Why?", "Why?")
    long = Golden(prompt="Why?", max_tokens=4, expect="", filler_words=5000)
    assert len(long.sent.split()) == 5001 and long.sent.endswith(" Why?")
    assert long.title == "[5000 words] Why?"
    assert not golden.verdict(long, f"{long.sent} Because")
    assert golden.verdict(long, long.sent)


def test_filler_must_fit_the_sequence() -> None:
    with pytest.raises(
        PlanError,
        match=r"golden\.0\.filler_words: found 4400, expected with max_tokens less than engine.max_seq_len",
    ):
        release(
            {},
            {
                "engine": {"max_seq_len": 2048},
                "golden": [{"prompt": "a", "max_tokens": 8, "expect": "", "filler_words": 4400}],
            },
        )
