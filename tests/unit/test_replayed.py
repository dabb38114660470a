"""The same prompts to two servers: how prompts are read, answers compared, and the report written."""

from __future__ import annotations

import json

import pytest

from operations.plan import PlanError
from operations.plan.serving.replayed import (
    Pair,
    Prompt,
    Reply,
    histogram,
    lines,
    pairs_of,
    percent,
    prompts_of,
    report,
)

PROMPTS = [Prompt(1, "one?", 8), Prompt(2, "two?", 8), Prompt(3, "three?", 8)]
ONE = [Reply(1, "a b c d", 0.1, 0.4, 4), Reply(2, "a b c d", 0.1, 0.5, 4), Reply(3, "x", 0.1, 0.2, 1)]
TWO = [
    Reply(1, "a b c d", 0.2, 0.6, 4),
    Reply(2, "a b x y", 0.2, 0.7, 4),
    Reply(3, error="CUDA out of memory"),
]
NAMES = ("ensemble@gpu-1", "tensorrt_llm@gpu-2")


def pairs() -> list[Pair]:
    return pairs_of(PROMPTS, ONE, TWO)


def test_prompts_are_texts_or_tables() -> None:
    text = '"Hello"\n\n{"prompt": "Hi", "max_tokens": 3}\n{"prompt": "x", "id": 7}\n'
    assert prompts_of(text, "p.jsonl", 16) == [Prompt(1, "Hello", 16), Prompt(3, "Hi", 3), Prompt(4, "x", 16)]


def test_prompts_may_hold_other_line_breaks() -> None:
    text = json.dumps("a\u2028b\x85c", ensure_ascii=False)
    assert prompts_of(f"{text}\r\n{text}", "p.jsonl", 8) == [
        Prompt(1, "a\u2028b\x85c", 8),
        Prompt(2, "a\u2028b\x85c", 8),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "p.jsonl: found no prompts, expected one a line"),
        ("Hello", "p.jsonl: line 1: prompt: found Hello, expected a JSON text, or a table"),
        ('"a"\n{"text": "b"}', "p.jsonl: line 2: prompt: "),
        ('{"prompt": ""}', "p.jsonl: line 1: prompt: "),
        ('{"prompt": 3}', "p.jsonl: line 1: prompt: "),
        (r'"\ud800"', "p.jsonl: line 1: prompt: "),
        ("[" * 5000, "p.jsonl: line 1: prompt: "),
        (
            '{"prompt": "a", "max_tokens": 0}',
            "p.jsonl: line 1: max_tokens: found 0, expected a whole number from 1 to 131072",
        ),
        ('{"prompt": "a", "max_tokens": "8"}', 'p.jsonl: line 1: max_tokens: found "8"'),
        ('{"prompt": "a", "max_tokens": true}', "p.jsonl: line 1: max_tokens: found true"),
    ],
)
def test_bad_prompts_are_refused_with_their_line(text: str, line: str) -> None:
    with pytest.raises(PlanError) as caught:
        prompts_of(text, "p.jsonl", 16)
    assert str(caught.value).startswith(line)


def test_pairs_have_their_agreement() -> None:
    assert [pair.agreement for pair in pairs()] == [1, 0.5, None]


def test_prompt_without_an_answer_has_an_error() -> None:
    [pair] = pairs_of([Prompt(1, "a", 8)], [], [Reply(1, "b")])
    assert (pair.one.error, pair.agreement) == ("no answer", None)


def test_report_has_both_sides() -> None:
    found = report(NAMES, pairs())
    assert found["from"]["answers"] == 3 and found["to"]["errors"] == 1
    assert found["same"] == 1 and found["agreement"]["least"] == 0.5
    assert found["from"]["seconds"] == {"median": 0.4, "p95": 0.5, "most": 0.5}
    # three tokens behind the first, in 0.3 s and in 0.4 s; the answer of one part does not stream
    assert found["from"]["tokens_per_s"]["most"] == 10
    assert found["histogram"] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert json.loads(json.dumps(found)) == found


def test_report_of_nothing_but_errors() -> None:
    found = report(NAMES, pairs_of(PROMPTS, [], []))
    assert found["agreement"] is None and found["from"]["seconds"] is None
    assert "-" in lines(found)[2]


def test_histogram_puts_the_whole_into_the_last() -> None:
    assert histogram([0.0, 0.05, 0.99, 1.0]) == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]


def test_lines_say_what_a_reader_asks() -> None:
    said = "\n".join(lines(report(NAMES, pairs())))
    assert "answers          3 of 3" in said and "2 of 3" in said
    assert said.endswith("the same answer: 1 of 3; words in common: median 75%, least 50%")


def test_lines_have_no_exponent() -> None:
    long = [Reply(1, "word " * 1234, 0.1, 2345.6, 1)]
    said = "\n".join(lines(report(NAMES, pairs_of(PROMPTS[:1], long, long))))
    assert "1234, p95 1234" in said and "2346 s, p95 2346 s" in said


def test_only_the_same_answer_is_100_percent() -> None:
    assert [percent(part) for part in (0.0, 0.004, 0.5, 0.9949, 0.9999, 1.0)] == [
        "0%",
        "0%",
        "50%",
        "99%",
        "99%",
        "100%",
    ]
