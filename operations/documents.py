"""Documents for a search model: the served model embeds them, and they are stored with their vectors.

    pyinfra -y inventories/oci.py operations.documents.put file=documents.jsonl

One JSON document per line: {"id": "…", "body": {…}, "text": "…", "image": "<base64 of an image file>"}; with a text, an
image or both. A line replaces the stored document with the same id.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from pyinfra import logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations import convergence
from operations.database import psql
from operations.plan import PlanError
from operations.plan.difference import running_problems
from operations.plan.profile.documents import batches
from operations.plan.release import Database, Release
from operations.plan.serving.migrations import store
from operations.remote.detached import LOST, log_lost, said, shell
from operations.remote.refusal import Failed, refuse
from operations.remote.tunnel import forwarded
from operations.server.golden import in_a_process


@operation()
def put(file: str) -> Generator[FunctionCommand, None, None]:
    """
    Every document of a file is stored, with vectors from the encoders of the running release.

    + file: JSON lines on this machine
    """
    try:
        release, observed = convergence.planned()
    except PlanError as error:
        yield refuse(str(error))
        return
    if release.database is None:
        yield refuse(
            f"documents: {release.settings.model} has no document search; expected a profile of kind plan"
        )
        return
    # another release may serve other encoders, whose vectors would be stored under these names
    if problem := next(running_problems(release, observed), None):
        yield refuse(
            f"documents: {problem.what}: found {problem.found}, expected {problem.wanted}; deploy first: nothing was stored"
        )
        return
    try:
        text = Path(file).read_text(encoding="utf-8")
        for _ in batches(text):
            pass
    except (OSError, ValueError) as error:
        yield refuse(f"documents: {file}: {error}; nothing was stored")
        return
    yield FunctionCommand(_put, (release, text), {})


def _put(state: State, host: Host, release: Release, text: str) -> bool:
    try:
        with forwarded(host, release.address, release.ports[1]) as endpoint:
            stored(host, release, endpoint, text)
    except LOST as error:
        log_lost(host, "documents", release.settings.service_name, error)
        return False
    except Failed as problem:
        logger.error(f"{host.print_prefix}{problem}")
        return False
    return True


def stored(host: Host, release: Release, endpoint: str, text: str) -> None:
    """Embed and store every document. Raises Failed with how many were stored."""
    database = release.database
    assert database is not None
    count = 0
    for batch in batches(text):
        requests = [{"text": d.get("text"), "image": d.get("image")} for d in batch]
        answers, problem = in_a_process("search", endpoint, "\n".join(map(json.dumps, requests)))
        if problem:
            document = batch[min(len(answers), len(batch) - 1)]["id"]
            raise Failed(f"documents: {document}: {problem}; {count} were stored")
        rows = [_row(database, d, a) for d, a in zip(batch, answers, strict=True)]
        sizes = {name: len(answers[0][output]) for output, name in database.encoders.items()}
        ok, output = shell(host, psql(database), stdin=store(rows, sizes), timeout=300)
        if not ok:
            raise Failed(f"documents: {said(output, 3)}; {count} were stored")
        count += len(batch)
    logger.info(f"{host.print_prefix}{count} documents stored")


def _row(database: Database, document: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """A document with a vector for each part that it has: the embedding of a missing part means nothing."""
    has = {"image_embedding": document.get("image"), "text_embedding": document.get("text")}
    vectors = {name: answer[output] for output, name in database.encoders.items() if has[output]}
    return {"id": document["id"], "body": document.get("body", {}), "vectors": vectors}
