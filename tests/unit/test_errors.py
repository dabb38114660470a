import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from operations.plan.errors import PlanError, from_validation, shown, suggestion


@pytest.mark.parametrize(
    ("then", "text"),
    [
        ("", "port: found 0, expected 1 to 9"),
        ("pick another", "port: found 0, expected 1 to 9; pick another"),
    ],
)
def test_a_plan_error_names_key_found_expected_and_what_to_do(then: str, text: str) -> None:
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
    assert str(from_validation(caught.value, "here", ["size"])) == text


def test_a_bad_value_is_shown_with_what_is_allowed() -> None:
    with pytest.raises(ValidationError) as caught:
        Example.model_validate({"size": "big"})
    text = str(from_validation(caught.value, "here", ["size"]))
    assert text.startswith("here: size: found big, expected ")
    assert "integer" in text
