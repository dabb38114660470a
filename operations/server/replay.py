"""Send prompts to a served model, several at a time, and time each answer. A process of its own: see operations.server.golden.

python -m operations.server.replay 127.0.0.1:8001 MODEL SENDERS <<< '{"number": 1, "prompt": "…", "max_tokens": 8}'
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from typing import Any

from operations.plan.errors import one_line
from operations.plan.serving.replayed import Reply
from operations.server.golden import request_inputs, shapes_of

SECONDS = 600  # without a part of an answer


class Sender:
    """One connection with one stream, which answers one prompt after the other."""

    def __init__(self, address: str, model: str) -> None:
        import tritonclient.grpc as triton

        self.model = model
        self.client = triton.InferenceServerClient(address)
        self.shapes = shapes_of(self.client, model)
        self.decoupled = bool(self.client.get_model_config(model).config.model_transaction_policy.decoupled)
        self._begin()

    def _begin(self) -> None:
        """A new stream: what still comes of an earlier one goes to a queue that nobody reads."""
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.answers = answers
        self.client.start_stream(callback=lambda result, error: answers.put((result, error)))

    def _failed(self, number: int, problem: str) -> Reply:
        self.client.stop_stream(cancel_requests=True)
        self._begin()
        return Reply(number, error=problem)

    def ask(self, number: int, prompt: str, max_tokens: int) -> Reply:
        """The answer, with the time of its first part and of its end."""
        began = time.monotonic()
        inputs = request_inputs(self.shapes, prompt, max_tokens, stream=self.decoupled)
        self.client.async_stream_infer(self.model, inputs, enable_empty_final_response=True)
        text, first, parts = "", 0.0, 0
        while True:
            try:
                result, error = self.answers.get(timeout=SECONDS)
            except queue.Empty:
                return self._failed(number, f"no answer within {SECONDS} s")
            if error is not None or result is None:
                return self._failed(number, one_line(str(error))[:300])
            part = result.as_numpy("text_output")
            if part is not None and part.size:
                text += part.reshape(-1)[0].decode()
                parts += 1
                first = first or time.monotonic() - began
            if result.get_response().parameters["triton_final_response"].bool_param:
                return Reply(number, text.removeprefix(prompt), first, time.monotonic() - began, parts)


def main() -> int:
    """Read requests from standard input, one a line; print each answer as a line of JSON, in the order in which they end."""
    address, model, senders = sys.argv[1], sys.argv[2], int(sys.argv[3])
    waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    for line in sys.stdin:
        waiting.put(json.loads(line))
    for _ in range(senders):
        waiting.put(None)
    printing = threading.Lock()
    problems: list[str] = []

    def work() -> None:
        try:
            sender = Sender(address, model)
            while (request := waiting.get()) is not None:
                reply = sender.ask(request["number"], request["prompt"], request["max_tokens"])
                with printing:
                    print(json.dumps(vars(reply)), flush=True)
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, daemon=True) for _ in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        print(one_line(problems[0]), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
