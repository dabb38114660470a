import re
from typing import Any

import pytest

from operations.plan.artifacts.keys import KEY_LENGTH, canonical, differing, key_of


def test_canonical_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical({"b": 1, "a": {"d": 2, "c": 3}}) == '{"a":{"c":3,"d":2},"b":1}'


def test_canonical_is_ascii() -> None:
    assert canonical({"a": "é"}) == '{"a":"\\u00e9"}'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_canonical_refuses_values_json_lacks(value: float) -> None:
    with pytest.raises(ValueError):
        canonical({"a": value})


def test_key_is_a_prefix_of_the_sha256_of_the_inputs() -> None:
    # sha256sum <<< '{"a":1}' without the line break
    assert key_of({"a": 1}) == "015abd7f5cc57a2d"
    assert re.fullmatch(rf"[0-9a-f]{{{KEY_LENGTH}}}", key_of({"b": 1}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": "1"}),
        ({"a": ["x", "y"]}, {"a": ["y", "x"]}),
        ({"a": None}, {}),
    ],
)
def test_different_inputs_give_different_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert key_of(one) != key_of(other)


@pytest.mark.parametrize(
    ("wanted", "found", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"gpu": "H200"}, {"gpu": "A10"}, ["gpu: A10 -> H200"]),
        ({"a": 1, "b": [2]}, {"a": 3, "b": [4]}, ["a: 3 -> 1", "b: 4 -> 2"]),
        ({"new": "x"}, {}, ["new: null -> x"]),
        ({}, {"old": "x"}, ["old: x -> null"]),
        ({"a": "y" * 80}, {"a": "x" * 60}, [f"a: {'x' * 60} -> {'y' * 57}..."]),
    ],
)
def test_differing_names_each_input_with_old_and_new(
    wanted: dict[str, Any], found: dict[str, Any], lines: list[str]
) -> None:
    assert differing(wanted, found) == lines
