"""How much each key used: counted in a file, so that a restart of the door forgets nothing."""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from .errors import Refused

FILE = "usage.json"
WRITE_S = 1.0  # at most so much is lost if the machine loses its power


def today() -> str:
    """The day that a limit of tokens is for, in UTC."""
    return datetime.now(UTC).date().isoformat()


def until_tomorrow() -> int:
    """Seconds until the next day, in UTC, at least 1."""
    now = datetime.now(UTC)
    begin = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return max(1, int((begin - now).total_seconds()))


@dataclass
class Usage:
    """
    + directory: where the file is
    + day: of `tokens`
    + tokens: key's name -> tokens of that day
    + totals: kind, model and key's name, parted by tabs -> tokens since the file was begun
    """

    directory: Path
    day: str = field(default_factory=today)
    tokens: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    changed: bool = False
    problem: str = ""

    @classmethod
    def read(cls, directory: Path) -> Usage:
        """What was counted before; a file that cannot be read is put aside, and counting begins again."""
        found = cls(directory)
        path = directory / FILE
        try:
            value = json.loads(path.read_text("utf-8"))
            found.totals = _counts(value["totals"])
            if value["day"] == found.day:
                found.tokens = _counts(value["tokens"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            found.problem = f"usage: {path} cannot be read ({error}); it is kept as {FILE}.unread"
            with suppress(OSError):
                path.replace(directory / f"{FILE}.unread")
        return found

    def _turn(self) -> None:
        if self.day != (now := today()):
            self.day, self.tokens, self.changed = now, {}, True

    def admit(self, key: str, limit: int | None, prompt_tokens: int) -> None:
        """Raises Refused for a key whose tokens of the day are used up, or would be by the prompt alone."""
        if limit is None:
            return
        self._turn()
        used = self.tokens.get(key, 0)
        if used >= limit or used + prompt_tokens > limit:
            said = f"the key {key} has used {used} of its {limit} tokens of this day (UTC)"
            raise Refused(429, said, None, "tokens_per_day", until_tomorrow())

    def add(self, key: str, model: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Count what a request used."""
        self._turn()
        self.tokens[key] = self.tokens.get(key, 0) + prompt_tokens + completion_tokens
        for kind, count in (("prompt", prompt_tokens), ("completion", completion_tokens)):
            name = f"{kind}\t{model}\t{key}"
            self.totals[name] = self.totals.get(name, 0) + count
        self.changed = True

    def text(self) -> str:
        """What the file is to hold."""
        return json.dumps({"day": self.day, "tokens": self.tokens, "totals": self.totals})

    def write(self, text: str) -> None:
        """Replace the file. Raises OSError."""
        fresh = self.directory / f"{FILE}.new"
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.directory / FILE)

    async def keep(self) -> None:
        """Write what has changed, once in WRITE_S, until cancelled."""
        said = 0.0
        while True:
            await asyncio.sleep(WRITE_S)
            if not self.changed:
                continue
            text, self.changed = self.text(), False
            try:
                # a disk may be slow, and answers go on meanwhile
                await asyncio.to_thread(self.write, text)
            except OSError as error:
                self.changed = True
                if time.monotonic() - said > 60:
                    said = time.monotonic()
                    print(f"usage: cannot be written: {error}; it is kept in memory", flush=True)

    def finish(self) -> None:
        """Write what was counted last, when nothing else writes any more."""
        try:
            self.write(self.text())
        except OSError as error:
            print(f"usage: cannot be written at the end: {error}", flush=True)


def _counts(value: dict[str, object]) -> dict[str, int]:
    return {str(name): int(count) for name, count in value.items() if isinstance(count, int)}
