"""Faults that a test sets in the mirror: rules for request paths, and their effect on the body of an answer."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields

STALL_S = 600.0  # a stalled body is abandoned after this time


class Cut(ConnectionError):
    """The connection is to be closed in the middle of the body."""


@dataclass
class Rule:
    """What happens to requests whose path (without query) `path_regex` finds.

    status, headers, delay_s   answer so, instead of the content (status) or with it (headers, delay only)
    truncate_at                close the connection after so many bytes of this body
    flip_byte_at               invert the byte at this offset of the file, independent of the requested range
    stall_after                send so many bytes of this body, then nothing
    bytes_per_second           send the body no faster
    times                      how often the rule applies; absent = until the rules are replaced
    method                     only requests with this method
    """

    path_regex: str
    method: str | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    times: int | None = None
    delay_s: float = 0.0
    truncate_at: int | None = None
    flip_byte_at: int | None = None
    stall_after: int | None = None
    bytes_per_second: int | None = None

    @property
    def shapes_body(self) -> bool:
        body = (self.truncate_at, self.flip_byte_at, self.stall_after, self.bytes_per_second)
        return self.status is None and any(value is not None for value in body)


class Rules:
    """The rules in force; the first that matches a request applies, and is used up by it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []

    def replace(self, text: bytes) -> None:
        """Set the rules of this JSON list.

        :raises ValueError: with one line that says what is wrong; the rules in force stay
        """
        known = {f.name for f in fields(Rule)}
        entries = json.loads(text)
        if not isinstance(entries, list):
            raise ValueError(f"found {type(entries).__name__}, expected a list of rules")
        rules = []
        for entry in entries:
            if not isinstance(entry, dict) or "path_regex" not in entry or (extra := set(entry) - known):
                odd = sorted(extra) if isinstance(entry, dict) and "path_regex" in entry else entry
                raise ValueError(f"found {odd}, expected path_regex and of {sorted(known - {'path_regex'})}")
            try:
                re.compile(entry["path_regex"])
            except re.error as error:
                raise ValueError(f"path_regex {entry['path_regex']!r} is no expression: {error}") from error
            rules.append(Rule(**entry))
        with self._lock:
            self._rules = rules

    def as_json(self) -> bytes:
        """The rules in force, `times` being what is left of it."""
        with self._lock:
            return json.dumps([vars(rule) for rule in self._rules]).encode()

    def take(self, method: str, path: str, body: bool) -> Rule | None:
        """The rule for this request, or for its body; a rule used up no longer matches."""
        with self._lock:
            for rule in self._rules:
                if rule.shapes_body != body or rule.times == 0 or (rule.method and rule.method != method):
                    continue
                if re.search(rule.path_regex, path):
                    if rule.times is not None:
                        rule.times -= 1
                    print(f"mirror: fault rule {rule.path_regex!r} applies to {method} {path}", flush=True)
                    return rule
        return None


def shaped(rule: Rule, chunks: Iterator[bytes], offset: int, gone: Callable[[], bool]) -> Iterator[bytes]:
    """The body `chunks`, beginning at `offset` of its file, as `rule` wants it sent.

    :param gone: whether the client has hung up; asked while stalling
    :raises Cut: where the connection is to be closed
    """
    sent = 0
    step = max(1, rule.bytes_per_second // 20) if rule.bytes_per_second else 1 << 16
    for chunk in chunks:
        for start in range(0, len(chunk), step):
            piece = bytearray(chunk[start : start + step])
            if rule.flip_byte_at is not None and 0 <= (at := rule.flip_byte_at - offset - sent) < len(piece):
                piece[at] ^= 0xFF
            for limit in (rule.truncate_at, rule.stall_after):
                if limit is not None and sent + len(piece) >= limit:
                    yield bytes(piece[: limit - sent])
                    if limit == rule.stall_after:
                        give_up = time.monotonic() + STALL_S
                        while time.monotonic() < give_up and not gone():
                            time.sleep(0.2)
                    raise Cut(f"cut after {limit} bytes by a fault rule")
            yield bytes(piece)
            sent += len(piece)
            if rule.bytes_per_second:
                time.sleep(len(piece) / rule.bytes_per_second)
