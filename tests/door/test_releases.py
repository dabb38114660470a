"""The release behind the door: another one, one that is tried, one of another kind, and none."""

from __future__ import annotations

import json
import shutil
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.door.fake_triton import FakeTriton
from tests.door.running import TEMPLATE, Running, data_root, start
from tests.door.test_answers import until

pytestmark = pytest.mark.slow


@pytest.fixture
def serves(tmp_path: Path, triton: FakeTriton) -> Iterator[tuple[Path, Running, openai.OpenAI]]:
    root = data_root(tmp_path)
    door = start(root, triton.port)
    yield root, door, openai.OpenAI(base_url=door.url, api_key="x", max_retries=0, timeout=20)
    door.stop()


def another(root: Path, release: str, **changed: Any) -> None:
    """A second release beside the first one."""
    shutil.copytree(root / "releases/r1", root / "releases" / release)
    path = root / "releases" / release / "release.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "release": release, **changed}))


def lead(root: Path, link: str, release: str) -> None:
    """As a deploy does it: atomically."""
    fresh = root / f".{link}.new"
    fresh.symlink_to(f"releases/{release}")
    fresh.replace(root / link)


def fingerprint(client: openai.OpenAI, model: str = "tiny") -> Any:
    return client.completions.create(model=model, prompt="say:a", seed=1).system_fingerprint


def test_door_follows_the_link(serves: Any, triton: FakeTriton) -> None:
    root, _, client = serves
    assert fingerprint(client) == "fp_r1"
    another(root, "r2", model="larger")
    lead(root, "current", "r2")
    assert [each.id for each in client.models.list().data] == ["larger"]
    assert fingerprint(client, "larger") == "fp_r2"
    with pytest.raises(openai.NotFoundError):
        fingerprint(client)
    lead(root, "current", "r1")
    assert fingerprint(client) == "fp_r1"


def test_input_of_another_name_is_found(serves: Any, triton: FakeTriton) -> None:
    """A server that is replaced behind the same link: TensorRT-LLM 0.20 renamed the seed."""
    _, _, client = serves
    fingerprint(client)
    triton.seed_name = "random_seed"
    try:
        assert fingerprint(client) == "fp_r1"
        assert triton.seen[-1].inputs["random_seed"].tolist() == [1]
    finally:
        triton.seed_name = "seed"


def test_next_release_is_reached_by_its_header(tmp_path: Path, triton: FakeTriton) -> None:
    beside = FakeTriton().start()
    root = data_root(tmp_path)
    another(root, "r2")
    lead(root, "next", "r2")
    door = start(root, triton.port, beside.port)
    try:
        client = openai.OpenAI(base_url=door.url, api_key="x", max_retries=0)
        tried = client.with_options(default_headers={"X-Tritonhost-Server": "next"})
        assert (fingerprint(client), fingerprint(tried)) == ("fp_r1", "fp_r2")
        assert (len(triton.seen), len(beside.seen)) == (1, 1)
    finally:
        door.stop()
        beside.stop()


def test_server_that_is_away_is_not_ready(tmp_path: Path) -> None:
    server = FakeTriton().start()
    door = start(data_root(tmp_path), server.port)
    try:
        client = openai.OpenAI(base_url=door.url, api_key="x", max_retries=0)
        fingerprint(client)
        server.stop()
        with pytest.raises(openai.InternalServerError) as refused:
            fingerprint(client)
        assert (refused.value.status_code, refused.value.code) == (503, "not_ready")
        assert refused.value.response.headers["retry-after"] == "5"
        with pytest.raises(urllib.error.HTTPError, match="503"):
            door.get("/health/ready")
    finally:
        door.stop()


def test_release_that_cannot_be_read_is_said(serves: Any) -> None:
    root, _, client = serves
    fingerprint(client)
    another(root, "r2", artifacts={"weights": {"key": "w2"}})
    lead(root, "current", "r2")
    with pytest.raises(openai.InternalServerError, match=r"no tokenizer\.json"):
        fingerprint(client)
    (root / "current").unlink()
    with pytest.raises(openai.InternalServerError, match="not ready"):
        fingerprint(client)
    lead(root, "current", "r1")
    assert fingerprint(client) == "fp_r1"


def test_model_without_a_template_only_completes(tmp_path: Path, triton: FakeTriton) -> None:
    door = start(data_root(tmp_path, template=None), triton.port)
    try:
        client = openai.OpenAI(base_url=door.url, api_key="x", max_retries=0)
        assert fingerprint(client) == "fp_r1"
        with pytest.raises(openai.BadRequestError, match="has no chat template"):
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}])
    finally:
        door.stop()


HOSTILE = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ messages.append(1) }}",
    "{% for a in range(1000000000) %}x{% endfor %}",
)


@pytest.mark.parametrize("template", HOSTILE)
def test_template_reaches_nothing_but_messages(tmp_path: Path, triton: FakeTriton, template: str) -> None:
    door = start(data_root(tmp_path, template=template), triton.port)
    try:
        client = openai.OpenAI(base_url=door.url, api_key="x", max_retries=0, timeout=20)
        with pytest.raises(openai.BadRequestError, match="chat template refuses"):
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}])
        assert triton.seen == []
    finally:
        door.stop()


def test_template_s_own_refusal_is_told(serves: Any) -> None:
    root, _, client = serves
    data_root(root, template=TEMPLATE.replace("robot", "user"))
    another(root, "r2")
    lead(root, "current", "r2")
    with pytest.raises(openai.BadRequestError, match="no users"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}])


@pytest.mark.parametrize("decoupled", [True, False])
def test_model_of_the_llm_api(tmp_path: Path, decoupled: bool) -> None:
    """It takes text: tokens are counted by the door, and what it cannot do is refused."""
    server = FakeTriton(kind="text", decoupled=decoupled, seconds=0.01).start()
    door = start(data_root(tmp_path), server.port)
    try:
        client = openai.OpenAI(base_url=door.url, api_key="x", max_retries=0)
        question: Any = [{"role": "user", "content": "say:Grüße, 世界! 🙂"}]
        whole = client.chat.completions.create(model="tiny", messages=question)
        assert whole.choices[0].message.content == "Grüße, 世界! 🙂"
        assert whole.usage and whole.usage.completion_tokens == len("Grüße, 世界! 🙂".encode())
        parts = list(
            client.chat.completions.create(
                model="tiny", messages=question, stream=True, stream_options={"include_usage": True}
            )
        )
        text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
        assert (text, parts[-1].usage) == ("Grüße, 世界! 🙂", whole.usage)
        assert (len(parts) > 10) == decoupled
        cut = client.completions.create(model="tiny", prompt="say:abcdef", max_tokens=3)
        assert (cut.choices[0].text, cut.choices[0].finish_reason) == ("abc", "length")
        stopped = client.completions.create(model="tiny", prompt="say:one. two", stop=["."])
        assert (stopped.choices[0].text, stopped.choices[0].finish_reason) == ("one", "stop")
        assert server.seen[-1].inputs["sampling_param_stop"] == ["."]
        refused: dict[str, Any] = {"logprobs": 0, "extra_body": {"repetition_penalty": 2.0}}
        for name, value in refused.items():
            with pytest.raises(openai.BadRequestError, match=r"server (gives none|does not take it)"):
                client.completions.create(model="tiny", prompt="x", **{name: value})
    finally:
        door.stop()
        server.stop()


def test_embeddings(tmp_path: Path, triton: FakeTriton) -> None:
    place = {"model": "clip_search", "input": "text", "output": "text_embedding"}
    door = start(data_root(tmp_path), triton.port, embedding=place, name="search")
    try:
        client = openai.OpenAI(base_url=door.url, api_key="x", max_retries=0)
        # the client asks for base64 unless it is told otherwise
        for form in ("float", "base64"):
            found = client.embeddings.create(model="search", input=["abc", "défg"], encoding_format=form)
            vectors = [each.embedding for each in found.data]
            if form == "float":
                assert vectors == [[3, 0.5, -1], [5, 0.5, -1]]
            assert [each.index for each in found.data] == [0, 1]
            assert found.usage.prompt_tokens == 8
        with pytest.raises(openai.BadRequestError, match="dimensions"):
            client.embeddings.create(model="search", input="x", dimensions=2)
        with pytest.raises(openai.BadRequestError, match="embeddings alone"):
            fingerprint(client, "search")
    finally:
        door.stop()


def test_door_reads_the_release_of_the_server_that_answers(tmp_path: Path, triton: FakeTriton) -> None:
    """Side by side the proxy leads to the second server first, and the link of the main one changes later."""
    root = data_root(tmp_path)
    another(root, "r2")
    lead(root, "next", "r2")
    door = start(root, triton.port, triton.port, leads=str(root / "leads"))
    try:
        client = openai.OpenAI(base_url=door.url, api_key="x", max_retries=0)
        assert fingerprint(client) == "fp_r1"
        (root / "leads").write_text("next\n")
        assert fingerprint(client) == "fp_r2"
        lead(root, "current", "r2")
        (root / "leads").write_text("current\n")
        assert fingerprint(client) == "fp_r2"
        # a swap that was undone: the proxy leads to a server that is gone
        lead(root, "current", "r1")
        (root / "next").unlink()
        (root / "leads").write_text("next\n")
        assert fingerprint(client) == "fp_r1"
    finally:
        door.stop()


def test_server_that_streams_from_now_on_is_asked_again(tmp_path: Path) -> None:
    """The link changes before the server does: what the old one says is not kept for the new one."""
    server = FakeTriton(decoupled=False).start()
    door = start(data_root(tmp_path), server.port)
    try:
        client = openai.OpenAI(base_url=door.url, api_key="x", max_retries=0)

        def parts() -> int:
            stream = client.completions.create(model="tiny", prompt="say:abcdef", stream=True)
            return sum(bool(part.choices[0].text) for part in stream)

        assert parts() == 1
        server.decoupled = True
        until(lambda: parts() == 6, 15)
    finally:
        door.stop()
        server.stop()
