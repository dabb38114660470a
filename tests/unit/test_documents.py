"""Documents are checked before anything is stored, and golden searches before anything is built."""

import json
from typing import Any

import pytest

from operations.plan.errors import PlanError
from operations.plan.profile.documents import BATCH, batches, check_seed
from operations.plan.profile.tables import SearchGolden
from operations.plan.serving.migrations import index_name, script, store

GOOD = {"id": "a", "text": "words"}


def lines(*documents: Any) -> str:
    return "\n".join(
        document if isinstance(document, str) else json.dumps(document) for document in documents
    )


def test_documents_are_batched_and_empty_lines_skipped() -> None:
    many = [{**GOOD, "id": str(number)} for number in range(BATCH + 1)]
    assert [len(batch) for batch in batches(lines(*many, "", ""))] == [BATCH, 1]


def test_unicode_line_separators_do_not_end_a_line() -> None:
    text = json.dumps({**GOOD, "text": "one\u2028two\x85three"}, ensure_ascii=False)
    assert [len(batch) for batch in batches(text)] == [1]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "line 2: "),
        ("[]", "line 2: found no id"),
        ({"text": "x"}, "line 2: found no id"),
        ({"id": ""}, "line 2: found no id"),
        ({"id": "b"}, "line 2: found neither text nor image of b"),
        (GOOD, "line 2: a a second time"),
        ({"id": "b", "text": "x", "body": None}, "line 2: body of b"),
        ({"id": "b", "text": "x", "body": {"k": "\0"}}, "line 2: body of b"),
    ],
)
def test_invalid_document_is_named_by_its_line(document: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(batches(lines(GOOD, document)))


def test_golden_search_without_a_matching_seed_is_refused() -> None:
    check_seed("s", lines(GOOD), [SearchGolden(text="words", expect="a")])
    with pytest.raises(PlanError, match=r"golden\.expect: found b, expected one of a"):
        check_seed("s", lines(GOOD), [SearchGolden(text="words", expect="b")])
    with pytest.raises(PlanError, match=r"golden\.image_of: found a, expected a document with a picture"):
        check_seed("s", lines(GOOD), [SearchGolden(image_of="a", expect="a")])
    with pytest.raises(PlanError, match=r"documents\.seed s: found line 1"):
        check_seed("s", "{", [])


def test_document_cannot_end_its_dollar_quote() -> None:
    evil = {"id": "x", "body": {"q": "$d$ '; DROP TABLE documents; --"}, "vectors": {}}
    sql = store([evil], {"owner/name@0123456789ab": 4})
    quote = sql.split("jsonb_to_recordset(")[1].split("$")[1]
    assert len(quote) == 17
    assert sql.count(f"${quote}$") == 2
    assert store([evil], {}) != store([evil], {}), "the quote is random each time"


def test_index_name_fits_postgresql_s_limit() -> None:
    name = index_name("a-long-owner-name/and-an-even-longer-name-of-a-model@0123456789ab")
    assert len(name) <= 63
    assert name.endswith("0123456789ab")


def test_a_migration_is_applied_once_and_in_order() -> None:
    text = script({2: "SECOND;", 1: "FIRST;"})
    assert text.index("FIRST;") < text.index("SECOND;")
    assert text.index("pg_advisory_xact_lock") < text.index("FIRST;")
    assert text.count("\\if :pending") == text.count("\\endif") == 2
