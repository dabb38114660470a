"""A measured speed as a document, two of them compared, their page, and what AIPerf writes."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator  # type: ignore[import-untyped]

from operations import aiperf
from operations.plan import PlanError
from operations.plan.schema import schema_text
from operations.plan.serving.bench_page import page, svg
from operations.plan.serving.bench_result import (
    BenchDocument,
    Measured,
    changed,
    compare,
    lines,
    of_aiperf,
    read,
    shown,
    text_of,
)
from operations.plan.serving.benched import Figures, Slo, Spread, at_rate
from tests.unit.test_replay_page import Page

EXPORT = Path(__file__).with_name("captures") / "aiperf_0.13.0.json"


def figures(first: float = 40.0, tokens: float = 500.0, requests: int = 8, **changed: Any) -> Figures:
    return Figures(
        **{
            "requests": requests,
            "errors": 0,
            "tokens": 320,
            "seconds": 2.5,
            "tokens_per_s": tokens,
            "requests_per_s": 4.0,
            "ttft_ms": Spread(p50=first, p90=2 * first, p99=3 * first),
            "itl_ms": Spread(p50=8.0, p90=9.0, p99=9.5),
            "request_ms": Spread(p50=300.0, p90=310.0, p99=320.0),
            **changed,
        }
    )


def result(found: Figures | None = None, **changed: Any) -> BenchDocument:
    return BenchDocument(
        **{
            "at": "2026-11-30T12:00:00Z",
            "host": "gpu-1",
            "model": "llama-3.1-8b",
            "release": "0123456789abcdef",
            "gpu": "NVIDIA A10",
            "gpus": 1,
            "profile": "smoke",
            "tool": "tritonhost",
            "seed": 1,
            "phases": (Measured(name="alone", figures=found or figures()),),
            **changed,
        }
    )


# --- the document


def test_document_is_read_as_it_was_written() -> None:
    document = result(slo=Slo(), capacity_per_s=3.5)
    assert read(text_of(document).encode(), "a.json") == document


def test_document_is_valid_by_its_schema() -> None:
    validator = Draft7Validator(json.loads(schema_text("bench")))
    assert not list(validator.iter_errors(json.loads(text_of(result()))))
    wrong = {**json.loads(text_of(result())), "profile": "other"}
    assert list(validator.iter_errors(wrong))


def test_file_is_named_by_model_release_gpu_and_profile() -> None:
    assert result().file == "llama-3.1-8b/0123456789abcdef.1x-NVIDIA-A10.smoke.json"
    assert result(gpu="", gpus=0).file == "llama-3.1-8b/0123456789abcdef.nx-unknown.smoke.json"
    # a door elsewhere names what it likes
    assert result(model="../../etc", release="../x").file == "etc/x.1x-NVIDIA-A10.smoke.json"
    assert result(model="..", release="").file == "unknown/unknown.1x-NVIDIA-A10.smoke.json"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version": 2}', b"\xff"])
def test_file_that_is_no_result_is_refused(content: bytes) -> None:
    with pytest.raises(PlanError, match=r"a\.json: .* expected a result of tritonhost bench, version 1"):
        read(content, "a.json")


def test_result_is_a_table() -> None:
    head, columns, row, capacity = shown(result(slo=Slo(), capacity_per_s=3.5))
    assert head == "llama-3.1-8b, release 0123456789abcdef, 1 NVIDIA A10: smoke by tritonhost"
    assert columns.split()[:2] == ["first", "token"]
    assert row.split() == ["alone", "40/80/120", "ms", "8/9/9.5", "ms", "500", "/s", "-", "0", "of", "8"]
    assert capacity == (
        "capacity: 3.5 requests a second within 1000 ms to the first token and 100 ms between tokens"
    )


# --- two of them


def verdict(a: BenchDocument, b: BenchDocument, allowed: float = 0.1) -> list[str]:
    return [row.label for row in compare(a, b, allowed).rows if row.worse]


@pytest.mark.parametrize(
    ("found", "worse"),
    [
        (figures(first=43.9), []),
        (figures(first=44.1), ["alone: time to first token, p50"]),
        (figures(first=20.0), []),
        (figures(tokens=451.0), []),
        (figures(tokens=449.0), ["alone: tokens"]),
        (figures(tokens=900.0), []),
        (figures(errors=1), ["alone: errors"]),
        (figures(goodput_per_s=1.0), []),  # A has none
    ],
)
def test_worse_is_slower_and_not_faster(found: Figures, worse: list[str]) -> None:
    assert verdict(result(), result(found)) == worse
    assert compare(result(), result(found), 0.1).worse is bool(worse)


def test_more_errors_are_worse_and_fewer_are_not() -> None:
    assert verdict(result(figures(errors=2)), result(figures(errors=3)), 0.9) == ["alone: errors"]
    assert verdict(result(figures(errors=3)), result(figures(errors=2))) == []


def test_percentile_of_few_requests_is_not_judged() -> None:
    slow: dict[str, Any] = {"ttft_ms": Spread(p50=40.0, p90=400.0, p99=4000.0)}
    assert verdict(result(), result(figures(**slow))) == []
    many = result(figures(requests=40))
    assert verdict(many, result(figures(requests=40, **slow))) == ["alone: time to first token, p90"]
    many = result(figures(requests=300))
    assert len(verdict(many, result(figures(requests=300, **slow)))) == 2


def test_capacity_is_compared_alone() -> None:
    a, b = (result(profile="capacity", slo=Slo(), capacity_per_s=value) for value in (10.0, 8.0))
    [row] = compare(a, b, 0.1).rows
    assert (row.label, row.worse, changed(row)) == ("capacity", True, "-20.0% worse")
    assert not compare(b, a, 0.1).worse
    none = result(profile="capacity", slo=Slo(), capacity_per_s=0.0)
    assert changed(compare(none, a, 0.1).rows[0]) == "-"


@pytest.mark.parametrize("other", [{"profile": "interactive"}, {"profile_version": 2}, {"phases": ()}])
def test_other_requests_are_not_compared(other: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=r"^B: found "):
        compare(result(), result(**other), 0.1)


def test_what_else_differs_is_a_note() -> None:
    found = compare(result(), result(gpu="NVIDIA H100", tool="aiperf 0.13.0"), 0.1)
    assert found.notes == (
        "not the same GPU: 1 NVIDIA A10, and 1 NVIDIA H100",
        "not the same tool: tritonhost, and aiperf 0.13.0",
    )
    assert lines(found)[-1] == found.notes[-1]
    assert not compare(result(), result(release="other"), 0.1).notes


def test_comparison_is_a_table() -> None:
    head, first, *_ = lines(compare(result(), result(figures(first=80.0), release="other"), 0.1))
    assert head.split() == ["A", "0123456789abcdef", "B", "other", "change"]
    assert first.split() == [
        *["alone:", "time", "to", "first", "token,", "p50", "40", "ms", "80", "ms", "+100.0%", "worse"]
    ]


# --- the page


def test_page_is_whole_and_shows_markup_as_text() -> None:
    text = page(compare(result(), result(figures(first=400.0), release="<b>x"), 0.1))
    read_back = Page(text)
    assert not read_back.open and not read_back.wrong
    assert "<b>x" not in text and "B is worse than is allowed." in text
    assert {"script", "img", "link"}.isdisjoint(tag for tag, _ in read_back.tags)
    bars = [attributes["class"] for tag, attributes in read_back.tags if tag == "rect"]
    assert bars.count("worse") == 1 and "few" in bars
    assert "B is not worse" in page(compare(result(), result(), 0.1))


def test_picture_is_a_file_of_its_own() -> None:
    found = svg(compare(result(), result(figures(first=10.0)), 0.1))
    root = ElementTree.fromstring(found)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    bars = root.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 10
    # faster: to the left of the middle
    assert float(bars[0].attrib["x"]) < 440 and float(bars[0].attrib["width"]) > 0


# --- AIPerf


def test_export_of_aiperf_is_read() -> None:
    version, found = of_aiperf(EXPORT.read_bytes(), EXPORT.name)
    assert version == "0.13.0"
    assert (found.requests, found.errors, found.tokens) == (12, 0, 192)
    assert found.ttft_ms == Spread(p50=4.74, p90=6.203, p99=17.858)
    assert found.itl_ms and found.itl_ms.p90 == 4.438
    assert found.request_ms and found.request_ms.p50 == 70.424
    assert (found.tokens_per_s, found.requests_per_s) == (66.85, 4.178)
    assert found.goodput_per_s == pytest.approx(4.178, abs=1e-3)


@pytest.mark.parametrize("change", [{"request_count": None}, {"time_to_first_token": {"unit": "s"}}])
def test_other_export_is_refused(change: dict[str, Any]) -> None:
    document = json.loads(EXPORT.read_bytes()) | change
    with pytest.raises(PlanError, match=r"profile_export_aiperf\.json of AIPerf 0\.13"):
        of_aiperf(json.dumps(document).encode(), "x.json")


def aiperf_program(tmp_path: Path, script: str) -> str:
    path = tmp_path / "aiperf"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def by_aiperf(tmp_path: Path, program: str, key: str | None = None) -> tuple[str, Figures]:
    folder = tmp_path / "run"
    (folder / "out").mkdir(parents=True)
    phase = at_rate(1, 2, 3, 64)
    told = aiperf.configuration("http://h:1/v1", "m", phase, 2, 1, Slo(), True, "builtin", str(folder))
    return aiperf.measured(program, told, phase, folder, 10, key)


def test_key_reaches_aiperf_by_its_environment_alone(tmp_path: Path) -> None:
    script = f'printf %s "$TRITONHOST_BENCH_KEY" >{tmp_path}/key; cp {EXPORT} out/profile_export_aiperf.json'
    version, _ = by_aiperf(tmp_path, aiperf_program(tmp_path, script), "sesame")
    assert version == "0.13.0" and (tmp_path / "key").read_text() == "sesame"
    told = json.loads((tmp_path / "run" / "aiperf.yaml").read_text())
    assert told["benchmark"]["endpoint"]["api_key"] == "${TRITONHOST_BENCH_KEY}"
    assert told["benchmark"]["endpoint"]["urls"] == ["http://h:1"]
    assert told["random_seed"] == 1 and told["benchmark"]["phases"][0]["requests"] == 6
    assert "sesame" not in json.dumps(told)
    sent = (tmp_path / "run" / "prompts.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in sent] == [r.prompt for r in at_rate(1, 2, 3, 64).requests]


def test_aiperf_that_fails_says_why(tmp_path: Path) -> None:
    script = "echo '╭─ Error Running AIPerf System ─╮'; echo '│ 2 validation errors for X │'; exit 1"
    with pytest.raises(aiperf.NotMeasured, match=r"^aiperf ended with 1: 2 validation errors for X$"):
        by_aiperf(tmp_path, aiperf_program(tmp_path, script))


def test_aiperf_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"--aiperf: found .*, expected the program aiperf"):
        by_aiperf(tmp_path, str(tmp_path / "none"))
