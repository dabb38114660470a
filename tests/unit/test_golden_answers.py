"""Recorded golden answers: what is compared with what, what is held back, and how other answers are accepted."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from operations import golden_answers
from operations.golden_answers import (
    accept,
    accepted,
    difference_of,
    held_back,
    keep,
    main,
    path_of,
    read,
    record_of,
)
from operations.plan import PlanError
from operations.plan.explain import planned
from operations.plan.profile.profiles import LlmApiProfile, load_profile
from operations.plan.release import Release
from operations.plan.serving import recorded
from operations.plan.serving.recorded import (
    Answer,
    Record,
    Recorded,
    agreement_of,
    difference,
    shown,
    text_of,
)
from tests.unit.builders import DATA, gpu, release

TEXT = "Machine learning is a part of computer science that finds rules in data"
SAID = Answer("ensemble", "What is it?", 16, TEXT)


def record(numerics: str, *answers: Answer, name: str = "r1") -> Record:
    return Record(numerics, {"gpu": "NVIDIA A10"}, name, "2026-11-30", answers or (SAID,))


def other(text: str) -> Answer:
    return replace(SAID, text=text)


FIRST = Recorded((record("a"),))


# --- the rule


def test_nothing_is_compared_with_nothing() -> None:
    assert difference(Recorded(), record("a"), 1.0) == ""


def test_equal_numerics_must_answer_the_same() -> None:
    assert difference(FIRST, record("a"), 0.0) == ""
    line = difference(FIRST, record("a", other(f"{TEXT}.")), 0.0)
    assert line.startswith("golden request to ensemble: found ")
    assert "they part at character 72" in line
    assert line.endswith("(recorded with the same numbers, release r1 of 2026-11-30)")


@pytest.mark.parametrize(
    ("text", "agreement", "held"),
    [
        (TEXT, 1.0, False),
        (TEXT.replace("rules", "patterns"), 0.6, False),
        (TEXT.replace("rules", "patterns"), 1.0, True),
        ("Something else entirely", 0.6, True),
        ("Something else entirely", 0.0, False),
        ("", 0.6, True),
    ],
)
def test_other_numerics_must_agree_in_part(text: str, agreement: float, held: bool) -> None:
    assert bool(difference(FIRST, record("b", other(text)), agreement)) is held


# of 13 words
@pytest.mark.parametrize(
    ("before", "now", "held"),
    [
        (-6.5, -12.9, False),
        (-6.5, -13.2, True),
        (-13.1, -6.5, False),
        (None, -99.0, False),
        (-8.0, None, False),
    ],
)
def test_answer_of_other_numerics_must_be_as_likely(
    before: float | None, now: float | None, held: bool
) -> None:
    known = Recorded((record("a", replace(SAID, log_probability=before)),))
    line = difference(known, record("b", replace(SAID, log_probability=now)), 0.6, less_likely=0.5)
    assert bool(line) is held
    if held:
        assert "found an answer that is less likely by 0.52 nats a word, expected at most 0.5" in line
    # the same numbers: the text alone counts, because sums in another order differ a little
    assert difference(known, record("a", replace(SAID, log_probability=now)), 0.6, less_likely=0.5) == ""


def test_answer_counts_by_its_own_words() -> None:
    short = Recorded((record("a", replace(SAID, text="Paris.", log_probability=-0.5)),))
    less = replace(SAID, text="Paris.", log_probability=-25.0)
    assert "12.25 nats a word" in difference(short, record("b", less), 0.6, less_likely=0.5)
    # a longer one is less likely by its length alone
    longer = replace(SAID, text=f"{TEXT}, and then it goes on for a while", log_probability=-40.0)
    known = Recorded((record("a", replace(SAID, log_probability=-1.0)),))
    assert difference(known, record("b", longer), 0.6, less_likely=0.5) == ""


def test_log_probabilities_are_kept_and_may_be_missing() -> None:
    known = Recorded((record("a", replace(SAID, log_probability=-3.5), replace(SAID, prompt="x")),))
    assert recorded.read(text_of(known).encode(), "here") == known
    old = json.loads(text_of(known))
    for answer in old["records"][0]["answers"]:
        del answer["log_probability"]
    assert [
        one.log_probability for one in recorded.read(json.dumps(old).encode(), "here").records[0].answers
    ] == [
        None,
        None,
    ]


def test_line_of_other_numerics_has_both_numbers() -> None:
    assert "0% of the words agree, expected 60%, release r1 of 2026-11-30" in difference(
        FIRST, record("b", other("Something else entirely")), 0.6
    )


def test_record_of_the_same_numerics_is_the_one_compared_with() -> None:
    both = Recorded((record("a"), record("b", other("B"), name="r2")))
    assert difference(both, record("a"), 1.0) == ""
    assert "release r2" in difference(both, record("b"), 1.0)
    assert "release r2" in difference(both, record("c"), 1.0)


def test_only_the_same_requests_are_compared() -> None:
    assert difference(FIRST, record("a", replace(SAID, max_tokens=8, text="x")), 1.0) == ""
    assert difference(FIRST, record("a", replace(SAID, model="tensorrt_llm_bls", text="x")), 1.0) == ""
    longer = Answer("ensemble", "Another question", 16, "An answer")
    assert difference(FIRST, record("a", SAID, longer), 1.0) == ""


def test_every_model_is_compared() -> None:
    second = replace(SAID, model="tensorrt_llm_bls")
    both = Recorded((record("a", SAID, second),))
    assert "golden request to tensorrt_llm_bls" in difference(
        both, record("a", SAID, replace(second, text="x")), 1.0
    )


@pytest.mark.parametrize(
    ("before", "now", "part"),
    [
        ("機械学習は人工知能の一分野です。", "機械学習は、人工知能の一分野です。", 0.96),
        ("Yes, it is.", "Yes it is", 0.75),
        ("naïve café", "naïve café", 1),
        (" ", "  ", 0),
    ],
)
def test_agreement_of_other_writing(before: str, now: str, part: float) -> None:
    assert agreement_of(before, now) == pytest.approx(part, abs=0.02)


def test_agreement_of_long_answers_is_quick() -> None:
    began = time.process_time()
    assert agreement_of("the x " * 4000, "the x the y " * 2000) == pytest.approx(0.75, abs=0.01)
    assert time.process_time() - began < 2


def test_agreement_is_that_of_the_longest_common_subsequence() -> None:
    random = Random(7)
    for _ in range(50):
        one, two = (" ".join(random.choices("abcd", k=random.randint(0, 12))) for _ in range(2))
        a, b = one.split(), two.split()
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
        if a or b:
            assert agreement_of(one, two) == 2 * table[-1][-1] / (len(a) + len(b)), (one, two)


def test_server_with_clients_is_not_held_to_the_same_text() -> None:
    changed = record("a", other(TEXT.replace("rules", "patterns")))
    assert difference(FIRST, changed, 0.6) != ""
    assert difference(FIRST, changed, 0.6, exact=False) == ""
    assert "0% of the words agree" in difference(
        FIRST, record("a", other("Something else entirely")), 0.6, exact=False
    )


def test_agreement_counts_words_in_order() -> None:
    assert agreement_of("a b c d", "a b c d") == 1
    assert agreement_of("a b c d", "d c b a") < 0.5
    assert agreement_of("", "") == 1
    assert agreement_of("a", "") == 0


def test_difference_is_shown_where_it_begins() -> None:
    before, now = f"{'x' * 100} one tail", f"{'x' * 100} two tail"
    line = shown(before, now)
    assert "they part at character 102" in line and "two tail" in line and "one tail" in line
    assert len(line) < 220


def test_a_record_replaces_one_of_the_same_numerics() -> None:
    again = FIRST.with_record(record("a", other("B"), name="r2"))
    assert [one.release for one in again.records] == ["r2"]
    assert again.accepted == ()
    many = Recorded()
    for number in range(recorded.KEPT + 5):
        many = many.with_record(record(str(number), name=f"r{number}"), accepted=True)
    assert len(many.records) == len(many.accepted) == recorded.KEPT


def test_text_is_read_again() -> None:
    whole = FIRST.with_record(record("b", other('odd "text"\n\u00e9'), name="r2"), accepted=True)
    assert recorded.read(text_of(whole).encode(), "f") == whole


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"records": 1, "accepted": []}', b'{"records": [{}], "accepted": []}', b"\xff"],
)
def test_damaged_file_is_refused(content: bytes) -> None:
    with pytest.raises(PlanError, match="expected recorded golden answers"):
        recorded.read(content, "inventories/golden/x.json")


# --- on the machine that deploys


@pytest.fixture
def made(tmp_path: Path) -> Release:
    return release({"golden_directory": str(tmp_path / "golden")})


HOST = "gpu-1"
VERDICT = "failed golden request to ensemble: found 'a', expected 'b'"


def answers(text: str = TEXT) -> list[Answer]:
    return [other(text)]


def problem_of(release: Release, said: list[Answer], host: str = HOST) -> str:
    """What a swap does: compare, and keep the answers of a release that is held back."""
    problem = difference_of(release, said, host)
    return f"{problem}; {held_back(release, said, host)}" if problem else ""


def test_first_proven_release_is_recorded(made: Release) -> None:
    assert problem_of(made, answers()) == ""
    assert keep(made, answers(), HOST) == ""
    path = path_of(made.settings.model, made.settings.golden_directory)
    [one] = read(path).records
    assert (one.release, one.answers) == (made.id, (SAID,))
    assert (
        one.made_with["gpu"] == made.gpus[0].name and one.made_with["engine"] == made.artifact("engine").key
    )
    assert path.stat().st_mode & 0o777 == 0o644


def test_another_answer_is_held_back_and_kept(made: Release) -> None:
    keep(made, answers(), HOST)
    line = problem_of(made, answers("Something else"))
    assert line.endswith(
        f"; accept it: python -m operations.golden_answers accept {made.settings.model}, and run again"
    )
    [held] = read(path_of(made.settings.model, made.settings.golden_directory, pending=True)).records
    assert held.answers == (other("Something else"),)
    assert read(path_of(made.settings.model, made.settings.golden_directory)).records[0].answers == (SAID,)


def test_accepted_answers_are_the_recorded_ones(made: Release, capsys: pytest.CaptureFixture[str]) -> None:
    model, directory = made.settings.model, made.settings.golden_directory
    keep(made, answers(), HOST)
    problem_of(made, answers("Something else"))
    assert not accepted(made, VERDICT)
    assert main(["accept", model, "--directory", directory]) == 0
    assert f"the answers of release {made.id} are accepted; run the deploy again" in capsys.readouterr().out
    assert accepted(made, VERDICT)
    assert problem_of(made, answers("Something else")) == ""
    assert keep(made, answers("Something else"), HOST) == ""
    # it is held to them from now on, and tried again for nothing else
    assert problem_of(made, answers("garbage !!!!")) != ""
    assert not accepted(made, VERDICT)
    main(["accept", model, "--directory", directory])
    keep(made, answers("garbage !!!!"), HOST)
    assert [one.answers for one in read(path_of(model, directory)).records] == [(other("garbage !!!!"),)]
    assert not path_of(model, directory, pending=True).exists()
    assert main(["accept", model, "--directory", directory]) == 2


def test_accept_needs_a_release_that_was_held_back(made: Release) -> None:
    with pytest.raises(PlanError, match="found no answers that were held back"):
        accept(made.settings.model, made.settings.golden_directory)


def test_accept_takes_every_release_that_was_held_back(made: Release, tmp_path: Path) -> None:
    other_gpu = release(
        {"golden_directory": str(tmp_path / "golden")},
        gpus=[gpu(name="NVIDIA L40S", compute_capability="8.9")],
    )
    keep(made, answers(), "gpu-0")
    problem_of(made, answers("Something else"), "gpu-1")
    problem_of(other_gpu, answers("Another one"), "gpu-2")
    accept(made.settings.model, made.settings.golden_directory)
    assert accepted(made, VERDICT) and accepted(other_gpu, VERDICT)


def test_other_host_is_compared_in_part_and_exact_from_then_on(made: Release) -> None:
    near = TEXT.replace("rules", "patterns")
    keep(made, answers(), "gpu-1")
    assert problem_of(made, answers(near), "gpu-2") == ""
    keep(made, answers(near), "gpu-2")
    assert problem_of(made, answers(), "gpu-2") != ""
    assert problem_of(made, answers(), "gpu-1") == ""


def test_proven_release_is_not_held_back_any_more(made: Release) -> None:
    keep(made, answers(), HOST)
    problem_of(made, answers("Something else"))
    keep(made, answers(), HOST)
    with pytest.raises(PlanError, match="found no answers that were held back"):
        accept(made.settings.model, made.settings.golden_directory)


def test_release_that_failed_otherwise_is_not_tried_again(made: Release) -> None:
    keep(made, answers(), HOST)
    problem_of(made, answers("Something else"))
    accept(made.settings.model, made.settings.golden_directory)
    assert accepted(made, VERDICT)
    for verdict in ("failed triton.service did not get ready", "withdrawn rolled back by hand", ""):
        assert not accepted(made, verdict)


def test_record_that_is_too_large_is_not_written(made: Release) -> None:
    assert "more than 4194304 bytes" in keep(made, answers("x" * 5_000_000), HOST)
    assert not path_of(made.settings.model, made.settings.golden_directory).exists()


def test_new_requests_are_added_to_the_record(made: Release) -> None:
    keep(made, answers(), HOST)
    more = [*answers(), Answer("ensemble", "Another question", 16, "An answer")]
    assert problem_of(made, more) == "" and keep(made, more, HOST) == ""
    [one] = read(path_of(made.settings.model, made.settings.golden_directory)).records
    assert list(one.answers) == more


def test_same_answers_are_written_once(made: Release) -> None:
    keep(made, answers(), HOST)
    path = path_of(made.settings.model, made.settings.golden_directory)
    before = path.stat().st_ino
    keep(made, answers(), HOST)
    assert path.stat().st_ino == before


def test_nothing_is_recorded_where_the_inventory_says_so(tmp_path: Path) -> None:
    made = release({"golden_directory": str(tmp_path), "record_golden": False})
    assert (
        keep(made, answers(), HOST) == ""
        and problem_of(made, answers("x")) == ""
        and not accepted(made, VERDICT)
    )
    assert list(tmp_path.iterdir()) == []


def test_damaged_record_holds_a_release_back(made: Release) -> None:
    path = path_of(made.settings.model, made.settings.golden_directory)
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(PlanError, match="restore the file, or remove it"):
        problem_of(made, answers())
    assert keep(made, answers(), HOST).startswith("golden answers not recorded: ")
    assert path.read_text() == "{"


def test_directory_that_cannot_be_written_is_a_warning(made: Release, tmp_path: Path) -> None:
    (tmp_path / "golden").write_text("a file")
    assert "golden answers not recorded" in keep(made, answers(), HOST)


def test_numerics_are_those_of_engine_image_and_gpu() -> None:
    def key(
        data: dict[str, Any] | None = None, tables: dict[str, Any] | None = None, host: str = HOST
    ) -> str:
        return record_of(release(data, tables), answers(), host).numerics

    base = key()
    assert key({"soak_s": 60}) == base
    assert key(None, {"repository": {"parameters": {"triton_max_batch_size": 2}}}) == base
    assert key(None, {"engine": {"max_batch_size": 2}}) != base
    assert key(None, {"repository": {"parameters": {"decoupled_mode": True}}}) != base
    assert key(None, {"repository": {"parameters": {"max_attention_window_size": 512}}}) != base
    assert key(host="gpu-2") != base


def test_numerics_of_the_llm_api_have_its_arguments() -> None:
    profile = load_profile("llama-3.1-8b-llmapi")
    assert isinstance(profile, LlmApiProfile)
    changed = profile.model_copy(update={"llm": {**profile.llm, "enable_chunked_prefill": True}})
    one, two = (
        record_of(planned("x", each, DATA, "NVIDIA A10:1"), answers(), HOST) for each in (profile, changed)
    )
    assert one.numerics != two.numerics
    assert set(one.made_with) == {"host", "gpu", "tensorrt_llm", "image", "weights", "arguments"}


def test_show_prints_what_is_recorded(made: Release, capsys: pytest.CaptureFixture[str]) -> None:
    model, directory = made.settings.model, made.settings.golden_directory
    assert main(["show", model, "--directory", directory]) == 2
    assert "found no recorded answers" in capsys.readouterr().err
    keep(made, answers(), HOST)
    problem_of(made, answers("Something else"))
    assert main(["show", model, "--directory", directory]) == 0
    out = capsys.readouterr().out
    assert f"release {made.id}: gpu-1, NVIDIA A10" in out and "held back" in out and "Something else" in out


def test_shown_paths_are_relative_to_the_project() -> None:
    assert golden_answers._shown(path_of("x", "inventories/golden")) == "inventories/golden/x.json"
