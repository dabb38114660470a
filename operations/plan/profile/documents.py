"""Documents as the operator writes them: JSON lines, checked before anything is stored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from operations.plan.errors import PlanError
from operations.plan.profile.tables import SearchGolden

BATCH = 64  # documents embedded and stored at a time


def batches(text: str) -> Iterator[list[dict[str, Any]]]:
    """
    The documents of JSON lines, in batches.

    Raises ValueError with the line's number for an invalid document.
    """
    batch: list[dict[str, Any]] = []
    ids: set[str] = set()
    # only at line feeds: JSON may contain other characters that Python takes for the end of a line
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number}: {error.msg}; expected a JSON document") from None
        if not isinstance(document, dict) or not isinstance(document.get("id"), str) or not document["id"]:
            raise ValueError(f"line {number}: found no id; expected a text that names the document")
        if not (document.get("text") or document.get("image")):
            raise ValueError(f"line {number}: found neither text nor image of {document['id']}; expected one")
        if not isinstance(document.get("body", {}), dict) or "\\u0000" in json.dumps(document):
            raise ValueError(
                f"line {number}: body of {document['id']}; expected a JSON object without the character 0"
            )
        if document["id"] in ids:
            raise ValueError(f"line {number}: {document['id']} a second time; expected each id once")
        ids.add(document["id"])
        batch.append(document)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def check_seed(name: str, text: str, golden: Iterable[SearchGolden]) -> None:
    """
    Refuse invalid first documents, and golden requests that none of them could answer.

    + name: the file's name in files/documents
    """
    try:
        documents = {document["id"]: document for batch in batches(text) for document in batch}
    except ValueError as error:
        raise PlanError(f"documents.seed {name}", str(error), "one JSON document per line") from None
    known = f"one of {', '.join(documents)}"
    for request in golden:
        if request.expect not in documents:
            raise PlanError("golden.expect", request.expect, known)
        if request.image_of is not None and not documents.get(request.image_of, {}).get("image"):
            raise PlanError("golden.image_of", request.image_of, f"a document with a picture: {known}")
