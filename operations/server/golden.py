"""Send golden requests, whose answers are known, to a served model through tritonclient.

Also a command: gRPC does not work in one process with gevent, with which pyinfra patches Python.

    python -m operations.server.golden 127.0.0.1:8001 <<< '{"model": "ensemble", "prompt": "…", "max_tokens": 8, "expect": ""}'
"""

from __future__ import annotations

import argparse
import json
import math
import queue
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from operations.plan.errors import one_line
from operations.plan.paths import TREE
from operations.plan.profile.documents import batches
from operations.plan.profile.tables import Golden, SearchGolden

# A release's speed is measured with this many golden requests, or as many as fit into this time
TIMED, TIMED_SECONDS = 5, 3.0
# The input that asks for the log-probability of a whole answer -> the output that has it, in nats; of ensemble and its like, and
# of the LLM-API model (tensors of tensorrtllm_backend v0.9 and later, and of triton_backend/all_models/llmapi)
LOG_PROBABILITY = {
    "return_log_probs": "cum_log_probs",
    "return_cumulative_logprob": "cumulative_logprob",
}


class Given(NamedTuple):
    """An answer to a golden request. `problem`: empty if it is as expected; `log_probability`: None where it is not known."""

    model: str
    answer: str
    problem: str
    log_probability: float | None = None


def shapes_of(client: Any, model: str) -> dict[str, Sequence[int]]:
    """The inputs of a model: name -> shape."""
    return {given.name: given.shape for given in client.get_model_metadata(model).inputs}


def request_inputs(
    shapes: Mapping[str, Sequence[int]], prompt: str, max_tokens: int, stream: bool = False
) -> list[Any]:
    """
    What a model is sent: the prompt, the limit of tokens, and what it must get beside them.

    + shapes: of its inputs; text_input has two dimensions where the model batches in Triton, one in the LLM-API model
    + stream: ask for each token as a part of its own
    """
    import numpy as np
    import tritonclient.grpc as triton

    def tensor(name: str, value: object, numpy_type: Any, triton_type: str) -> triton.InferInput:
        array: np.typing.NDArray[Any] = np.full([1] * len(shapes["text_input"]), value, dtype=numpy_type)
        given = triton.InferInput(name, list(array.shape), triton_type)
        given.set_data_from_numpy(array)
        return given

    limit = "sampling_param_max_tokens" if "sampling_param_max_tokens" in shapes else "max_tokens"
    return [
        tensor("text_input", prompt.encode(), np.object_, "BYTES"),
        tensor(limit, max_tokens, np.int32, "INT32"),
        *(tensor(name, b"", np.object_, "BYTES") for name in ("bad_words", "stop_words") if name in shapes),
        *([tensor("stream", True, bool, "BOOL")] if stream and "stream" in shapes else []),
    ]


def ask(address: str, golden: Golden, timeout_s: float = 120) -> str:
    """
    The model's whole answer.

    + address: host:port of Triton's gRPC endpoint
    + golden: the request; decoded greedily
    + timeout_s: seconds for the answer

    Streaming gRPC works for decoupled and plain models. Raises RuntimeError with the server's message.
    """
    import tritonclient.grpc as triton

    text = ""
    with triton.InferenceServerClient(address) as client:
        shapes = shapes_of(client, golden.model)
        inputs = request_inputs(shapes, golden.sent, golden.max_tokens)
        for result in _parts(client, golden.model, inputs, timeout_s):
            part = result.as_numpy("text_output")
            if part is not None and part.size:
                text += part.reshape(-1)[0].decode()
    return text


def _parts(client: Any, model: str, inputs: list[Any], timeout_s: float) -> Iterator[Any]:
    """The parts of one answer, one part of a plain model. Raises RuntimeError with the server's message."""
    answers: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    client.async_stream_infer(model, inputs, enable_empty_final_response=True)
    while True:
        try:
            result, error = answers.get(timeout=timeout_s)
        except queue.Empty:
            raise RuntimeError(f"no answer from {model} within {timeout_s:.0f} s") from None
        if error is not None or result is None:
            raise RuntimeError(str(error))
        yield result
        if result.get_response().parameters["triton_final_response"].bool_param:
            break
    client.stop_stream()


def log_probability(address: str, golden: Golden, timeout_s: float = 120) -> float | None:
    """
    The log-probability of the model's answer, in nats; None where the server gives none.

    A request of its own, after the one that decides: a release that refuses the additional input is not refused for it.
    """
    import numpy as np
    import tritonclient.grpc as triton

    found: float | None = None
    try:
        with triton.InferenceServerClient(address) as client:
            shapes = shapes_of(client, golden.model)
            asked = next((name for name in LOG_PROBABILITY if name in shapes), "")
            if not asked:
                return None
            wish = triton.InferInput(asked, [1] * len(shapes["text_input"]), "BOOL")
            wish.set_data_from_numpy(np.full([1] * len(shapes["text_input"]), True))
            inputs = [*request_inputs(shapes, golden.sent, golden.max_tokens), wish]
            for result in _parts(client, golden.model, inputs, timeout_s):
                part = result.as_numpy(LOG_PROBABILITY[asked])
                # each part has the sum so far
                if part is not None and part.size and math.isfinite(value := float(part.reshape(-1)[0])):
                    found = value
    except Exception:  # of the client's, or of a server that is gone: the next request says so
        return None
    return found


def verdict(golden: Golden, answer: str) -> str:
    """Empty if the answer is as expected; otherwise one line with what was found and expected."""
    # a server that does not exclude the input gives it back first
    answer = answer.removeprefix(golden.sent)
    if golden.expect:
        good = answer.strip().startswith(golden.expect.strip())
        wanted = f"an answer starting with {golden.expect!r}"
    else:
        good, wanted = bool(answer.strip()), "an answer of at least one word"
    return "" if good else f"golden request to {golden.model}: found {answer[:80]!r}, expected {wanted}"


def proven(
    address: str, requests: Sequence[Golden | SearchGolden], seed: str = "", likelihood: bool = True
) -> Iterator[Given]:
    """
    For each golden request: the model, its answer as text, and the problem (empty: none).

    + seed: the profile's documents as JSON lines; a search request takes its picture from them
    + likelihood: ask for the log-probability of each answer too, by further requests

    Requests to language models run in one process, which ends at the first one without an answer.
    """
    texts = [golden for golden in requests if isinstance(golden, Golden)]
    if texts:
        lines = "\n".join(golden.model_dump_json() for golden in texts)
        answers, problem = in_a_process(
            "golden",
            address,
            lines,
            timeout_s=150 * len(texts),
            arguments=("--log-probabilities",) if likelihood else (),
        )
        for golden, found in zip(texts, answers, strict=False):
            answer = str(found["answer"])
            yield Given(golden.model, answer, verdict(golden, answer), found.get("log_probability"))
        if problem:
            model = texts[min(len(answers), len(texts) - 1)].model
            yield Given(model, "", f"golden request to {model}: {problem}")
            return
    for search in requests:
        if isinstance(search, SearchGolden):
            yield Given(search.model, *_searched(address, search, seed))


def _searched(address: str, golden: SearchGolden, seed: str) -> tuple[str, str]:
    """What a search found, as text, and the problem (empty: none)."""
    documents = {document["id"]: document for batch in batches(seed) for document in batch}
    image = documents.get(golden.image_of, {}).get("image") if golden.image_of else None
    request = {"model": golden.model, "text": golden.text, "image": image}
    answers, problem = in_a_process("search", address, json.dumps(request))
    found = ((answers[0]["document"] if answers else None) or {}).get("id", "no document")
    if not problem and found != golden.expect:
        problem = f"found {found}, expected {golden.expect}"
    score = f" ({answers[0]['score']:.3f})" if answers else ""
    return f"{found}{score}", f"golden request to {golden.model}: {problem}" if problem else ""


def seconds_of(address: str, golden: Golden) -> float | None:
    """The median time of a request that is sent several times, in seconds. None if it gets no answer."""
    request = golden.model_dump_json()
    requests = "\n".join([request] * TIMED)
    answers, problem = in_a_process("golden", address, requests, arguments=("--enough", str(TIMED_SECONDS)))
    return None if problem else statistics.median(float(answer["seconds"]) for answer in answers)


def in_a_process(
    module: str, address: str, requests: str, timeout_s: float = 150, arguments: Sequence[str] = ()
) -> tuple[list[dict[str, Any]], str]:
    """Run operations.server.golden or operations.server.search in its own process: its answers, and why some are missing."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", f"operations.server.{module}", address, *arguments],
            input=requests,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=TREE,
        )
    except subprocess.TimeoutExpired as late:
        # bytes, even with text=True; the last line may be cut off
        complete = (late.stdout or b"").rpartition(b"\n")[0].splitlines()
        return [json.loads(line) for line in complete], f"no answer within {timeout_s:.0f} s"
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0:
        return answers, one_line((done.stderr.strip().splitlines() or ["no message"])[-1])
    return answers, ""


def main() -> int:
    """Read requests from standard input, one per line; print each answer with the seconds it took."""
    parser = argparse.ArgumentParser(prog="python -m operations.server.golden", allow_abbrev=False)
    parser.add_argument("address")
    parser.add_argument("--enough", type=float, help="seconds after which no further request is sent")
    parser.add_argument("--log-probabilities", action="store_true", help="ask for those of each answer too")
    given = parser.parse_args()
    enough = time.monotonic() + given.enough if given.enough is not None else None
    for line in sys.stdin:
        golden = Golden.model_validate_json(line)
        began = time.monotonic()
        try:
            answer = ask(given.address, golden)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 1
        found: dict[str, object] = {"answer": answer, "seconds": time.monotonic() - began}
        if given.log_probabilities:
            found["log_probability"] = log_probability(given.address, golden)
        print(json.dumps(found), flush=True)
        if enough is not None and time.monotonic() > enough:
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
