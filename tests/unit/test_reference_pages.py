"""docs/reference is what the code says: `make reference` writes it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from operations.plan.inventory.settings import Settings
from operations.plan.profile.profiles import KINDS
from tests import reference_pages
from tests.reference_pages import PAGES, in_words, parsers, rows_of
from tests.reference_texts import OPERATIONS, PROFILE, SETTINGS, SETTINGS_GROUPS

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", PAGES)
def test_page_is_current(name: str) -> None:
    written = (reference_pages.REFERENCE / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), "run `make reference`"


def models_in(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    for field in model.model_fields.values():
        if nested := reference_pages._model_in(field.annotation):
            found |= models_in(nested)
    return found


@pytest.mark.parametrize(("texts", "roots"), [(SETTINGS, [Settings]), (PROFILE, list(KINDS.values()))])
def test_every_text_is_of_a_field(texts: dict[str, str], roots: list[type[BaseModel]]) -> None:
    models: set[type[BaseModel]] = set()
    for root in roots:
        models |= models_in(root)
    fields = {
        f"{base.__name__}.{name}"
        for model in models
        for base in model.__mro__
        for name in vars(base).get("__annotations__", ())
    }
    assert set(texts) <= fields


def test_a_field_without_a_text_is_refused() -> None:
    class Table(BaseModel):
        unknown: int

    with pytest.raises(KeyError, match=r"Table\.unknown"):
        list(rows_of(Table, SETTINGS))


def test_every_setting_is_in_one_group() -> None:
    grouped = [key for keys in SETTINGS_GROUPS.values() for key in keys]
    assert sorted(grouped) == sorted(Settings.model_fields)


@pytest.mark.parametrize("text", [*SETTINGS.values(), *PROFILE.values(), *OPERATIONS.values()])
def test_a_text_is_short_and_fits_into_a_cell(text: str) -> None:
    assert text.endswith(".")
    assert "\n" not in text and "|" not in text
    assert len(text) <= 250


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "true or false"),
        (Annotated[int, Field(ge=1, le=64)], "whole number, 1 to 64"),
        (Annotated[int, Field(ge=-1)], "whole number, -1 or more"),
        (Literal["a", "b", "c"], "`a`, `b` or `c`"),
        (str | None, "text"),
        (list[Annotated[int, Field(ge=0, le=9)]] | Literal["all"], "list of whole numbers, 0 to 9 or `all`"),
        (dict[str, str], "table of text"),
    ],
)
def test_in_words_says_type_and_bounds(annotation: object, words: str) -> None:
    assert in_words(annotation) == words


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("http_port", "port, 1024 to 65535"),
        ("start_timeout_s", "whole number of seconds, 10 to 7200"),
        ("docker_packages", "table of `[epoch:]version-release`"),
    ],
)
def test_rows_of_settings_carry_our_own_bounds(key: str, words: str) -> None:
    assert {row.key: row.type for row in rows_of(Settings, SETTINGS)}[key] == words


def test_commands_page_has_every_option() -> None:
    page = PAGES["commands.md"]()
    for call, parser in parsers().values():
        assert call in page
        for name in reference_pages._names_of_options(parser):
            assert re.search(rf"[`\[ ]{name}[`\] ]", page), name


@pytest.mark.parametrize("call", OPERATIONS)
def test_an_operation_by_name_is_an_operation(call: str) -> None:
    module, name = call.split()[0].removeprefix("operations.").split(".")
    tree = ast.parse((PROJECT / "operations" / f"{module}.py").read_text(encoding="utf-8"))
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    assert any(ast.unparse(decorator).startswith("operation") for decorator in function.decorator_list)
