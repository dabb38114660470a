"""The command `replay`: its words, and its end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from operations import replay
from operations.plan import PlanError
from operations.replay import Target, main, target


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text('"one"\n{"prompt": "two", "max_tokens": 3}\n')
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(address, model) of each server that was asked; it answers with the model's name, but no prompt `two` of model `half`."""
    seen: list[tuple[str, str]] = []

    def process(
        module: str, address: str, requests: str, timeout_s: float, arguments: Sequence[str]
    ) -> tuple[list[dict[str, Any]], str]:
        seen.append((address, arguments[0]))
        found = [
            {
                "number": one["number"],
                "text": f"{arguments[0]} {one['prompt']}",
                "first_s": 0.1,
                "seconds": 0.2,
                "parts": 2,
                "error": "",
            }
            for one in map(json.loads, requests.splitlines())
            if (arguments[0], one["prompt"]) != ("half", "two")
        ]
        return found, "" if len(found) == 2 else "connection lost"

    monkeypatch.setattr(replay, "in_a_process", process)
    return seen


def run(tmp_path: Path, *words: str) -> int:
    return main([*words, "--output", str(tmp_path / "out")])


DIRECT = ("--from", "a@10.0.0.1:8001", "--to", "b@10.0.0.2:8001")


def test_both_servers_get_the_prompts(
    prompts: Path, tmp_path: Path, asked: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, *DIRECT, str(prompts)) == 0
    assert asked == [("10.0.0.1:8001", "a"), ("10.0.0.2:8001", "b")]
    out = capsys.readouterr().out
    assert "the same answer: 0 of 2; words in common: median 50%, least 50%" in out
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["from"]["server"] == "a@10.0.0.1:8001" and len(found["pairs"]) == 2
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!doctype html>")


def test_words_stand_where_a_person_puts_them(
    prompts: Path, tmp_path: Path, asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (
        [str(prompts), *DIRECT],
        [*DIRECT, str(prompts)],
        ["x.py", *DIRECT, str(prompts)],
        [*DIRECT[:2], "x.py", *DIRECT[2:], str(prompts)],
    ):
        assert run(tmp_path, *words) == 0, words


def test_answer_with_half_a_character_is_written(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def process(*_: Any) -> tuple[list[dict[str, Any]], str]:
        return [
            {"number": n, "text": "\ud800", "first_s": 0.1, "seconds": 0.2, "parts": 1, "error": ""}
            for n in (1, 2)
        ], ""

    monkeypatch.setattr(replay, "in_a_process", process)
    assert run(tmp_path, *DIRECT, str(prompts)) == 0
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000


def test_both_at_the_same_time_give_the_same(
    prompts: Path, tmp_path: Path, asked: list[tuple[str, str]]
) -> None:
    assert run(tmp_path, *DIRECT, str(prompts), "--together") == 0
    assert sorted(asked) == [("10.0.0.1:8001", "a"), ("10.0.0.2:8001", "b")]
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [found[side]["server"] for side in ("from", "to")] == ["a@10.0.0.1:8001", "b@10.0.0.2:8001"]
    assert found["pairs"][0]["from"]["text"] == "a one"


def test_prompt_without_an_answer_is_an_error(
    prompts: Path, tmp_path: Path, asked: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--from", "a@h:1", "--to", "half@h:2", "--json", str(prompts)) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["to"]["errors"] == 1 and "pairs" not in found
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["pairs"][1]["to"]["error"] == "connection lost"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--from", "a", "--to", "b@h:1"], "--from: found a, expected MODEL@HOST"),
        (["--from", "a@h:99999", "--to", "b@h:1"], "--from: found a@h:99999, expected MODEL@HOST"),
        (
            ["--from", "a@h:1", "--to", "b@h"],
            "INVENTORY: found nothing, expected the inventory that has the hosts",
        ),
        (
            ["--from", "a@h:1", "--to", "b@h:2", "--senders", "0"],
            "--senders: found 0, expected a whole number from 1 to 256",
        ),
        (["--from", "a@h:1", "--to", "b@h:2", "x.py", "y.py"], "PROMPTS: found 3 words"),
    ],
)
def test_wrong_words_are_refused(
    prompts: Path,
    tmp_path: Path,
    asked: list[tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    line: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, *words, str(prompts))
    assert ended.value.code == 2
    assert line in capsys.readouterr().err
    assert asked == []


def test_file_that_is_not_there_is_refused(
    tmp_path: Path, asked: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, *DIRECT, str(tmp_path / "no.jsonl"))
    assert "no.jsonl: found No such file or directory, expected a file of prompts" in capsys.readouterr().err


def test_output_that_cannot_be_written_is_one_line(
    prompts: Path, tmp_path: Path, asked: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file")
    assert run(tmp_path, *DIRECT, str(prompts)) == 2
    assert asked == [], "noticed before a server is asked"
    assert capsys.readouterr().err.count("\n") == 1


def test_host_of_the_inventory_is_reached_once(
    prompts: Path, tmp_path: Path, asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def through(host: Any, stack: Any) -> str:
        opened.append(host)
        return "127.0.0.1:7"

    monkeypatch.setattr(replay, "_through_ssh", through)
    monkeypatch.setattr(replay, "_hosts", lambda *_: {"gpu-1": "gpu-1"})
    assert run(tmp_path, "--from", "a@gpu-1", "--to", "b@gpu-1", "inventories/oci.py", str(prompts)) == 0
    assert opened == ["gpu-1"]
    assert asked == [("127.0.0.1:7", "a"), ("127.0.0.1:7", "b")]


def test_host_that_is_not_reached_ends_with_5(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def through(host: Any, stack: Any) -> str:
        raise replay.Unreached("gpu-1: no route to host")

    monkeypatch.setattr(replay, "_through_ssh", through)
    monkeypatch.setattr(replay, "_hosts", lambda *_: {"gpu-1": "gpu-1"})
    assert run(tmp_path, "--from", "a@gpu-1", "--to", "b@h:2", "inventories/oci.py", str(prompts)) == 5
    assert capsys.readouterr().err == "tritonhost: gpu-1: no route to host\n"


def test_target_may_be_one_of_several_services() -> None:
    assert str(replay.target("ensemble@gpu-1/llama", "--from")) == "ensemble@gpu-1/llama"
    for text in ("ensemble@gpu-1/", "ensemble@gpu-1/a/b", "ensemble@/llama", "ensemble@gpu-1/A"):
        with pytest.raises(PlanError):
            replay.target(text, "--from")


def test_host_with_several_services_is_not_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [SimpleNamespace(name=f"gpu-1/{name}") for name in ("llama", "gpt")]
    monkeypatch.setattr(replay.preflight, "state_and_hosts", lambda _: (None, chosen))
    target = replay.target("ensemble@gpu-1", "--from")
    with pytest.raises(PlanError, match="such as MODEL@gpu-1/gpt"):
        replay._hosts("inventories/oci.py", [target])


def test_target_is_read_and_shown() -> None:
    assert target("tensorrt_llm@gpu-1", "--to") == Target("tensorrt_llm", "gpu-1", None)
    assert str(target("ensemble@10.0.0.1:8001", "--to")) == "ensemble@10.0.0.1:8001"
    for text in ("", "@h", "m@", "m@h:", "m@h:0", "m@h;rm", "a b@h"):
        with pytest.raises(PlanError):
            target(text, "--to")
