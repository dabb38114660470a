"""Tokens that are counted for each key: limits of a day, and a file that outlives the door."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest

from files.image.door.errors import Refused
from files.image.door.usage import FILE, Usage, until_tomorrow
from tests.door.fake_triton import FakeTriton
from tests.door.running import data_root, start
from tests.door.test_answers import until


def test_tokens_above_the_day_s_limit_are_refused(tmp_path: Path) -> None:
    usage = Usage(tmp_path)
    usage.add("shop", "tiny", 30, 60)
    usage.admit("shop", 100, 10)
    usage.admit("other", 100, 100)
    usage.admit("shop", None, 10**9)
    for limit, prompt in ((90, 0), (100, 11)):
        with pytest.raises(Refused) as refused:
            usage.admit("shop", limit, prompt)
        assert (refused.value.status, refused.value.code) == (429, "tokens_per_day")
        assert refused.value.retry_after_s in (until_tomorrow(), until_tomorrow() + 1)


def test_another_day_begins_with_nothing_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = Usage(tmp_path)
    usage.add("shop", "tiny", 30, 60)
    monkeypatch.setattr("files.image.door.usage.today", lambda: "2999-01-01")
    usage.admit("shop", 90, 0)
    assert usage.tokens == {} and usage.totals["prompt\ttiny\tshop"] == 30


def test_file_is_read_again(tmp_path: Path) -> None:
    usage = Usage(tmp_path)
    usage.add("shop", "tiny", 30, 60)
    usage.write(usage.text())
    again = Usage.read(tmp_path)
    assert (again.tokens, again.totals) == (usage.tokens, usage.totals)
    # of another day: only the totals count
    (tmp_path / FILE).write_text(json.dumps({**json.loads(usage.text()), "day": "2020-01-01"}))
    assert (Usage.read(tmp_path).tokens, Usage.read(tmp_path).totals) == ({}, usage.totals)


@pytest.mark.parametrize("text", ["", "[]", '{"day": 1}', '{"day": "x", "tokens": 3, "totals": []}', "\xff"])
def test_file_that_cannot_be_read_is_kept_aside(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    found = Usage.read(tmp_path)
    assert found.totals == {} and "cannot be read" in found.problem
    assert (tmp_path / f"{FILE}.unread").read_text() == text


def is_written(directory: Path, tokens: dict[str, int]) -> bool:
    return (directory / FILE).exists() and Usage.read(directory).tokens == tokens


@pytest.mark.slow
def test_counters_survive_a_restart(triton: FakeTriton, tmp_path: Path) -> None:
    root = data_root(tmp_path)
    headers = {"X-Tritonhost-Client": "shop", "X-Tritonhost-Tokens-Per-Day": "60"}
    counts: list[int] = []
    for number in range(2):
        door = start(root, triton.port)
        client = openai.OpenAI(base_url=door.url, api_key="x", max_retries=0, default_headers=headers)
        used = client.completions.create(model="tiny", prompt="say:hello").usage
        assert used
        counts.append(used.total_tokens)
        total = sum(counts)
        name = 'tritonhost_door_{}_tokens_total{{key="shop",model="tiny"}}'
        page = dict(line.rsplit(" ", 1) for line in door.get("/metrics").splitlines() if line[0] != "#")
        found = sum(float(page[name.format(kind)]) for kind in ("prompt", "completion"))
        assert found == total
        if number == 0:
            # killed, not stopped: what was written is what counts
            until(partial(is_written, root / "usage", {"shop": total}))
            door.process.kill()
            door.process.wait()
        else:
            with pytest.raises(openai.RateLimitError) as refused:
                client.completions.create(model="tiny", prompt="say:" + "x" * 60)
            assert refused.value.code == "tokens_per_day"
            assert door.stop() == 0


@pytest.mark.slow
def test_stopped_door_finishes_what_it_began(triton: FakeTriton, tmp_path: Path) -> None:
    triton.seconds = 0.05
    door = start(data_root(tmp_path), triton.port)
    client = openai.OpenAI(base_url=door.url, api_key="x", max_retries=0)
    stream: Any = client.completions.create(model="tiny", prompt="say:" + "y" * 14, stream=True)
    parts = [next(stream).choices[0].text]
    began = time.monotonic()
    door.process.terminate()
    parts += [part.choices[0].text for part in stream]
    assert "".join(parts) == "y" * 14
    assert door.process.wait(10) == 0
    assert time.monotonic() - began > 0.3
    assert Usage.read(tmp_path / "usage").totals["completion\ttiny\thost"] == 14


@pytest.mark.slow
def test_answers_that_are_given_up_at_the_end_are_counted(triton: FakeTriton, tmp_path: Path) -> None:
    triton.seconds, triton.end = 0.1, None
    door = start(data_root(tmp_path), triton.port, drain_s=1)
    client = openai.OpenAI(base_url=door.url, api_key="x", max_retries=0)
    given: dict[str, Any] = {"model": "tiny", "prompt": "say:abc", "n": 4, "max_tokens": 200, "stream": True}
    stream: Any = client.completions.create(**given)
    for _ in range(8):
        next(stream)
    door.process.terminate()
    with pytest.raises(Exception, match=r".+"):
        list(stream)
    assert door.process.wait(15) == 0
    found = Usage.read(tmp_path / "usage").totals
    assert found["prompt\ttiny\thost"] == 7 and found["completion\ttiny\thost"] >= 8
