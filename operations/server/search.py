"""Query the search model through tritonclient: one request per line of standard input, one answer per line.

    python -m operations.server.search 127.0.0.1:8001 <<< '{"text": "a red square", "image": null}'

A process of its own, for the reason that operations/server/golden.py gives.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MODEL = "clip_search"


def searched(
    address: str, requests: Iterable[Mapping[str, Any]], timeout_s: float = 60
) -> Iterator[dict[str, Any]]:
    """
    The answer to each request: document (its JSON, or None), score, image_embedding, text_embedding.

    + address: host:port of Triton's gRPC endpoint
    + requests: each with `image` (a file, base64), `text`, or both

    Raises the client's InferenceServerException with the server's message.
    """
    import numpy as np
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(address) as client:
        for request in requests:
            inputs = []
            for name, content in (
                ("image", base64.b64decode(request["image"]) if request.get("image") else None),
                ("text", request["text"].encode() if request.get("text") is not None else None),
            ):
                if content is not None:
                    given = triton.InferInput(name, [1, 1], "BYTES")
                    given.set_data_from_numpy(np.array([[content]], dtype=np.object_))
                    inputs.append(given)
            answer = client.infer(request.get("model", MODEL), inputs, client_timeout=timeout_s)

            def first(name: str, answer: Any = answer) -> Any:
                return answer.as_numpy(name).reshape(answer.as_numpy(name).shape[0], -1)[0]

            document = first("document")[0]
            yield {
                "document": json.loads(document) if document else None,
                "score": float(first("score")[0]),
                "image_embedding": first("image_embedding").tolist(),
                "text_embedding": first("text_embedding").tolist(),
            }


def main() -> int:
    """Requests from standard input, answers to standard output."""
    requests = (json.loads(line) for line in sys.stdin if line.strip())
    try:
        for answer in searched(sys.argv[1], requests):
            print(json.dumps(answer), flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
