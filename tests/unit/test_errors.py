import ast
import re
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from operations.plan.errors import Origin, PlanError, derived_reference, shown, suggestion, typed
from operations.plan.wording import from_validation


@pytest.mark.parametrize(
    ("then", "text"),
    [
        ("", "port: found 0, expected 1 to 9"),
        ("pick another", "port: found 0, expected 1 to 9; pick another"),
    ],
)
def test_plan_error_names_key_found_expected_and_next_step(then: str, text: str) -> None:
    error = PlanError("port", 0, "1 to 9", then)
    assert str(error) == text
    assert error.key == "port"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        (True, "True"),
        (None, "None"),
        ("", "nothing"),
        ("two\nlines\tand  spaces", "two lines and spaces"),
        ("x" * 80, "x" * 80),
        ("x" * 81, f"{'x' * 77}..."),
        ("hf_abcdefgh", "a value that looks like a Hugging Face token (not shown)"),
        (["hf_abcdefgh"], "a value that looks like a Hugging Face token (not shown)"),
    ],
)
def test_shown_is_one_bounded_line_without_a_token(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("word", "text"),
    [("ssh_usr", "did you mean ssh_user?"), ("zzzzzz", "known: model, ssh_port, ssh_user")],
)
def test_a_suggestion_is_the_nearest_word_or_the_whole_list(word: str, text: str) -> None:
    assert suggestion(word, {"ssh_user", "ssh_port", "model"}) == text


class Example(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            {"size": 1, "sise": 2},
            "here: sise: found unknown key sise, expected a known key; did you mean size?",
        ),
        ({}, "here: size: found nothing, expected a value; add size to here"),
    ],
)
def test_pydantic_s_first_complaint_becomes_one_line(data: dict[str, int], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Example.model_validate(data)
    assert str(from_validation(caught.value, Example, Origin("here"))) == text


def test_bad_value_is_shown_with_the_allowed_type() -> None:
    with pytest.raises(ValidationError) as caught:
        Example.model_validate({"size": "big"})
    text = str(from_validation(caught.value, Example, Origin("here")))
    assert text == 'here: size: found "big", expected a whole number'


def test_plan_error_keeps_its_parts_and_renders_one_line() -> None:
    error = PlanError("gateway.port", 1, "2; or, expected 3", "do", host="gpu-1", reference="taken")
    parts = (error.reference, error.host, error.where, error.key, error.found, error.expected, error.then)
    assert parts == ("taken", "gpu-1", "", "gateway.port", "1", "2; or, expected 3", "do")
    assert tuple(error.as_dict().values()) == parts
    line = "gateway.port: found 1, expected 2; or, expected 3; do"
    assert (str(error), error.beside("gpu-1"), error.beside("gpu-2")) == (
        f"gpu-1: {line}",
        line,
        f"gpu-1: {line}",
    )


def test_plan_error_is_placed_by_callers() -> None:
    error = PlanError("port", 1, "2").placed(Origin("a.toml", "[hosts.gpu-1]"), "gpu-1")
    assert str(error) == error.beside("gpu-1") == "a.toml: [hosts.gpu-1] port: found 1, expected 2"
    # what was known before stays
    assert str(error.placed(Origin("b.toml"), "gpu-2")) == str(error)


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("image.release", "image-release"),
        ("GPU 3", "gpu"),
        ("GPU driver", "gpu-driver"),
        ("backend_commits.v0.13.0", "backend-commits"),
        ("inventories/oci.toml [oci] region", "region"),
        ("image_digests['nvidia/x:1']", "image-digests"),
        ("/etc/docker", "plan"),
        ("", "plan"),
    ],
)
def test_a_reference_is_derived_from_the_key(key: str, word: str) -> None:
    assert derived_reference(key) == PlanError(key, 1, "2").reference == word


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("8000", '"8000"'),
        (8000, "8000"),
        (True, "true"),
        (None, "nothing"),
        ("", "nothing"),
        (["0", 1], '["0", 1]'),
        ({"a": 1, "b": 2}, "a table with a, b"),
        ({}, "an empty table"),
        ({10**5000: 1}, "an unprintable dict"),
        ([10**5000], "[an unprintable int]"),
        ("x" * 81, f'"{"x" * 75}..."'),
        ({"a": "hf_abcdefgh"}, "a value that looks like a Hugging Face token (not shown)"),
        ("https://user:hunter2@mirror.invalid", '"https://(not shown)@mirror.invalid"'),
    ],
)
def test_a_value_is_shown_as_it_was_typed(value: object, text: str) -> None:
    assert shown(typed(value)) == text


@pytest.mark.parametrize("word", ["adress", "zone", "foo"])
def test_a_far_word_is_not_suggested(word: str) -> None:
    assert suggestion(word, ["egress", "gateway"]) == "known: egress, gateway"


def test_a_word_in_another_case_is_suggested() -> None:
    assert suggestion("vm.gpu.a10.1", ["VM.GPU.A10.1", "BM.GPU4.8"]) == "did you mean VM.GPU.A10.1?"


REFERENCE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def test_each_reference_is_one_word_of_its_own_kind() -> None:
    words: set[str] = set()
    for path in sorted((Path(__file__).resolve().parents[2] / "operations").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.keyword)
                and node.arg == "reference"
                and isinstance(node.value, ast.Constant)
            ):
                assert isinstance(node.value.value, str)
                words.add(node.value.value)
    assert len(words) > 40
    assert [word for word in sorted(words) if not REFERENCE.fullmatch(word)] == []


def test_no_code_takes_the_line_of_an_error_apart() -> None:
    """What is wanted of an error is in its attributes: a text that is split breaks where a value holds the separator."""
    apart = re.compile(
        r"str\(error\)\s*\.\s*(removeprefix\(|r?partition\(|r?split\([^)]|replace\(|startswith\()"
    )
    for path in sorted((Path(__file__).resolve().parents[2] / "operations").rglob("*.py")):
        assert not apart.search(path.read_text(encoding="utf-8")), path.name
