"""Golden requests through the door: what a client of OpenAI's interface would get of a release."""

from __future__ import annotations

import http.client
import json
import math
import time
from collections.abc import Mapping
from typing import Any

from pyinfra import logger
from pyinfra.api.host import Host

from operations.plan.errors import one_line
from operations.plan.exposure.door import NEXT, Door
from operations.plan.profile.tables import Golden, SearchGolden
from operations.plan.release import Release
from operations.plan.serving.servers import LOOPBACK, Server
from operations.remote.detached import LOST, shell
from operations.remote.refusal import Failed
from operations.remote.tunnel import forwarded
from operations.server.golden import verdict

ANSWER_SECONDS = {"GET": 10, "POST": 150}
# the door asks Triton what the model takes when it sees another release, and a proxy has just been pointed to another server
READY_SECONDS = 15


def runs(host: Host, door: Door) -> bool:
    """Whether the door that the release wants is running."""
    ok, _ = shell(
        host, f"systemctl is-active --quiet {door.service}.service && grep -qxF {door.key} {door.record}"
    )
    return ok


def proven(host: Host, release: Release, server: Server) -> None:
    """
    The door gives the golden answers of a release.

    + server: who runs it: the main server, or the second one before clients reach it

    Raises Failed with the first wrong answer.
    """
    door = release.door
    assert door is not None
    try:
        with forwarded(host, LOOPBACK, door.port) as endpoint:
            problem = asked(endpoint, release, server.link == "next")
    except LOST as error:
        problem = f"no answer: {error}"
    if problem:
        raise Failed(one_line(problem))
    logger.info(f"{host.print_prefix}the door gives the golden answers")


def asked(endpoint: str, release: Release, is_next: bool = False) -> str:
    """
    Ask the door at host:port for its model and every golden answer. Returns the problem, or an empty string.

    + is_next: of the release that is tried before clients reach it
    """
    headers = {"Content-Type": "application/json", **({NEXT[0]: NEXT[1]} if is_next else {})}
    deadline = time.monotonic() + READY_SECONDS
    while True:
        status, answer = _request(endpoint, "GET", "/v1/models", headers)
        names = [str(each.get("id")) for each in answer.get("data", [])] if status == 200 else []
        if names or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    if not names:
        why = _said(answer)
        return f"/v1/models: found no model (HTTP {status}{why and f', {why}'}), expected the one that serves"
    for golden in release.profile.golden_requests:
        problem = _wrong(endpoint, headers, names[0], golden)
        if problem:
            return problem
    return ""


def _wrong(endpoint: str, headers: Mapping[str, str], model: str, golden: Golden | SearchGolden) -> str:
    """What is wrong with the answer to one golden request."""
    if isinstance(golden, SearchGolden):
        return _wrong_vector(endpoint, headers, model, golden.text) if golden.text else ""
    body = {"model": model, "prompt": golden.sent, "max_tokens": golden.max_tokens, "temperature": 0}
    status, answer = _until_ready(endpoint, "/v1/completions", headers, body)
    try:
        text, usage = answer["choices"][0]["text"], answer["usage"]
        counted = usage["prompt_tokens"] > 0 and usage["completion_tokens"] > 0
    except (LookupError, TypeError):
        said = _said(answer) or "no message"
        return f"/v1/completions: found HTTP {status} ({said}), expected an answer with its usage"
    if problem := verdict(golden, str(text)):
        return problem
    return "" if counted else f"/v1/completions: found usage {usage}, expected counts above 0"


def _wrong_vector(endpoint: str, headers: Mapping[str, str], model: str, text: str) -> str:
    status, answer = _until_ready(endpoint, "/v1/embeddings", headers, {"model": model, "input": text})
    try:
        vector = [float(each) for each in answer["data"][0]["embedding"]]
    except (LookupError, TypeError, ValueError):
        said = _said(answer) or "no message"
        return f"/v1/embeddings: found HTTP {status} ({said}), expected a vector"
    good = any(vector) and all(map(math.isfinite, vector))
    return "" if good else "/v1/embeddings: found a vector of zeros, expected that of the text"


def _said(answer: Mapping[str, Any]) -> str:
    """The message of an error, if there is one."""
    error = answer.get("error")
    return str(error.get("message", "")) if isinstance(error, dict) else ""


def _until_ready(
    endpoint: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    """The answer to a request, asked again for a while where the door says that the model is not ready."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        status, answer = _request(endpoint, "POST", path, headers, body)
        if status != 503 or time.monotonic() > deadline:
            return status, answer
        time.sleep(0.5)


def _request(
    endpoint: str, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None = None
) -> tuple[int, dict[str, Any]]:
    """HTTP status and document; 0 and an empty one where there is no answer in time."""
    name, _, port = endpoint.rpartition(":")
    connection = http.client.HTTPConnection(name, int(port), timeout=ANSWER_SECONDS[method])
    try:
        connection.request(method, path, json.dumps(body) if body else None, dict(headers))
        response = connection.getresponse()
        found = json.loads(response.read())
        return response.status, found if isinstance(found, dict) else {}
    except (OSError, http.client.HTTPException, ValueError):
        return 0, {}
    finally:
        connection.close()
