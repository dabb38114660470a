"""Answers that are made at the same time, in one thread: each gets a token in turn, as in a batch on a GPU.

One thread, because Triton's Python backend does not bear several: with two or more that compute and send at the same time,
arrays came out with another's content, and the stub process ended.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

Answer = Iterator[tuple[Any, bool]]


class Sink(Protocol):
    """Where the responses of one request go."""

    def send(self, response: Any, last: bool) -> None:
        """One response; None: a step without one, and with `last` an answer that ends without one."""

    def fail(self, error: Exception) -> None:
        """The answer ends with an error."""


# Triton's stub lets go of a response, and of a request, in threads of its own that do not hold Python's lock: what is still
# referred to here is not freed there.
_KEPT: deque[Any] = deque(maxlen=8192)


# The real backend asks so often whether a client went away: cancellation_check_period_ms. Each question goes through Triton.
CANCELLED_S = 0.1


class Asked:
    """Whether a client went away, asked now and then."""

    def __init__(self, question: Callable[[], Any]) -> None:
        self.question, self.at = question, time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self.at < CANCELLED_S:
            return False
        self.at = now
        return bool(self.question())


class Sender:
    """The responses of a request whose answer comes in parts. `utils`: Triton's own module"""

    def __init__(self, utils: Any, request: Any) -> None:
        self.utils, self.request, self.sender = utils, request, request.get_response_sender()
        self.cancelled = Asked(self.sender.is_cancelled)

    def send(self, response: Any, last: bool) -> None:
        flags = self.utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0
        _KEPT.append((self, response))
        if response is not None:
            self.sender.send(response, flags=flags)
        elif last:
            self.sender.send(flags=flags)

    def fail(self, error: Exception) -> None:
        failed = self.utils.InferenceResponse(output_tensors=[], error=self.utils.TritonError(str(error)))
        _KEPT.append((self, failed))
        self.sender.send(failed, flags=self.utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


class Whole:
    """The one response of a request whose answer comes whole. `utils`: Triton's own module"""

    def __init__(self, utils: Any, request: Any) -> None:
        self.utils, self.request = utils, request
        self.ended = threading.Event()
        self.found: Any = None
        self.cancelled = Asked(request.is_cancelled)

    def send(self, response: Any, last: bool) -> None:
        self.found = response if response is not None else self.found
        if last:
            self.ended.set()

    def fail(self, error: Exception) -> None:
        self.found = self.utils.InferenceResponse(output_tensors=[], error=self.utils.TritonError(str(error)))
        self.ended.set()

    def wait(self) -> Any:
        """The response, once it is there."""
        self.ended.wait()
        if self.found is not None:
            return self.found
        error = self.utils.TritonError("request cancelled", self.utils.TritonError.CANCELLED)
        return self.utils.InferenceResponse(output_tensors=[], error=error)


@dataclass
class _Running:
    answer: Answer
    sink: Sink
    closed: bool = False


class Batch:
    """
    + most: answers that are made at the same time; the others wait
    + delay: returns the seconds that a step takes longer, for all of a batch together
    """

    def __init__(self, most: int, delay: Callable[[], float]) -> None:
        self.most, self.delay = max(most, 1), delay
        self.waiting: deque[_Running] = deque()
        self.changed = threading.Condition()
        self.running: list[_Running] = []
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, answer: Answer, sink: Sink) -> None:
        """Make this answer too."""
        with self.changed:
            self.waiting.append(_Running(answer, sink))
            self.changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Return when nothing is made any more, or after some seconds."""
        with self.changed:
            self.changed.wait_for(lambda: not self.waiting and not self.running, seconds)

    def _run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting or self.running)
                while self.waiting and len(self.running) < self.most:
                    self.running.append(self.waiting.popleft())
                now = list(self.running)
            ended = [each for each in now if not self._step(each)]
            with self.changed:
                self.running = [each for each in self.running if each not in ended]
                self.changed.notify_all()
            if pause := self.delay():
                time.sleep(pause)

    @staticmethod
    def _step(running: _Running) -> bool:
        """One token more. Returns whether there is another."""
        try:
            response, last = next(running.answer)
            running.closed = last
            running.sink.send(response, last)
        except StopIteration:
            if not running.closed:
                running.sink.send(None, True)
            return False
        except Exception as error:  # whatever it was, the client must get an answer
            if not running.closed:
                running.sink.fail(error)
            return False
        return not last
