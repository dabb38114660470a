"""The request bodies of the guides, and streaming from a release that is decoupled."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.lab.e2e.one_host import DATA_ROOT, INVENTORY, STARTED, OneHost

MODELS = ("ensemble", "tensorrt_llm_bls")
QUESTION = "What is machine learning?"
STREAMING_PORT = 8010
# Ports and template parameters are not inputs of the engine.
STREAMING = {
    "repository": {"parameters": {"decoupled_mode": True}},
    "server": {"http_port": STREAMING_PORT},
}
BODIES: dict[str, dict[str, Any]] = {
    "plain": {"text_input": QUESTION, "max_tokens": 8, "bad_words": "", "stop_words": ""},
    "parameters": {
        "text_input": QUESTION,
        "parameters": {"max_tokens": 8, "bad_words": [""], "stop_words": [""]},
    },
}
STREAM = {**BODIES["plain"], "stream": True}


@pytest.mark.smoke
@pytest.mark.parametrize("model", MODELS)
def test_both_forms_of_a_request_answer(converged: OneHost, model: str) -> None:
    answers = {}
    with converged.http() as endpoint:
        for form, body in BODIES.items():
            with _post(f"{endpoint}/v2/models/{model}/generate", body) as response:
                answer = json.load(response)
            assert answer["model_name"] == model
            answers[form] = answer["text_output"].strip()
    assert answers["plain"], "an answer without a word"
    assert answers["plain"] == answers["parameters"]


def test_replay_finds_two_models_of_one_engine_alike(converged: OneHost, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(f"{json.dumps({'prompt': text, 'max_tokens': 6})}\n" for text in (QUESTION, "Water is"))
    )
    command = [
        sys.executable,
        "-m",
        "operations.replay",
        INVENTORY,
        str(prompts),
        "--output",
        str(tmp_path / "out"),
    ]
    done = converged.run(*command, "--from", "ensemble@h1", "--to", "tensorrt_llm_bls@h1", "--senders", "2")
    assert done.code == 0, done.output
    assert "the same answer: 2 of 2" in done.output
    found = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert all(pair["from"]["text"].strip() and pair["from"]["seconds"] > 0 for pair in found["pairs"])
    done = converged.run(*command, "--from", "ensemble@h1", "--to", "no_such_model@h1")
    assert done.code == 1, done.output
    assert "Traceback" not in done.output and "answers          2 of 2" in done.output


@pytest.mark.smoke
def test_decoupled_release_streams_and_shares_the_engine(converged: OneHost) -> None:
    before, since = converged.current(), converged.now()
    engine = before["artifacts"]["engine"]["key"]
    inode = converged.root(f"stat -c '%i %Y' {DATA_ROOT}/engines/{engine}")
    converged.converge(STREAMING)
    try:
        after = converged.current()
        assert after["release"] != before["release"]
        assert after["artifacts"] == before["artifacts"]
        assert converged.root(f"stat -c '%i %Y' {DATA_ROOT}/engines/{engine}") == inode
        assert converged.journal(since, f"MESSAGE_ID={STARTED}"), "the journal tells of starts"
        assert converged.starts(f"tritonhost-engine-{engine}.service", since) == 0
        with converged.http(STREAMING_PORT) as endpoint:
            for model in MODELS:
                with _post(f"{endpoint}/v2/models/{model}/generate_stream", STREAM) as response:
                    lines = [line.decode() for line in response if line.startswith(b"data: ")]
                parts = [json.loads(line.removeprefix("data: "))["text_output"] for line in lines]
                assert len(parts) == STREAM["max_tokens"], f"{model}: one message a token"
                assert "learning" in "".join(parts)
    finally:
        converged.converge()
    assert converged.running_release() == before["release"]


def _post(url: str, body: dict[str, Any]) -> Any:
    return urllib.request.urlopen(urllib.request.Request(url, data=json.dumps(body).encode()), timeout=60)
