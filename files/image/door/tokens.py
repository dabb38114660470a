"""Texts and tokens: the weights' own tokenizer, the text of a stream that grows, and the words that end it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

# tokens that may be needed for one character; more of them are none, and are written as they are
LONGEST_CHARACTER = 32
REPLACEMENT = "\ufffd"  # what an incomplete character decodes to


class Words:
    """The tokenizer of a model. `ends`: the tokens that end an answer, the first of which Triton is told as the end."""

    def __init__(self, file: Path, ends: Sequence[int], pad: int | None = None) -> None:
        self.tokenizer = Tokenizer.from_file(str(file))
        # a file may say that texts are cut or filled up, which a prompt must not be
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.ends = tuple(ends)
        self.pad = pad if pad is not None else (self.ends[0] if self.ends else 0)
        vocabulary = self.tokenizer.get_vocab(with_added_tokens=True)
        self._anchor: tuple[list[int], int] | None = None
        self.size = max(vocabulary.values(), default=-1) + 1
        added = self.tokenizer.get_added_tokens_decoder()
        self.special = frozenset(number for number, token in added.items() if token.special)

    def encode(self, text: str, special: bool) -> list[int]:
        """+ special: add what the tokenizer puts before a text; a chat template writes that itself"""
        # not `encode`, which holds Python's lock all the time
        return list(self.tokenizer.encode_batch_fast([text], add_special_tokens=special)[0].ids)

    @property
    def begins(self) -> str:
        """What the tokenizer itself puts before a text, as text; empty where it puts nothing there."""
        ids = self.encode("", special=True)
        return self.named(ids[0]) if ids and ids[0] not in self.ends else ""

    def decode(self, ids: Sequence[int]) -> str:
        """Without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def written(self, ids: Sequence[int]) -> str:
        """With special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    def named(self, token: int) -> str:
        """A token's text behind another one: at the beginning of a text, some tokenizers leave out a blank."""
        if self._anchor is None:
            ids = self.encode("a", special=False)
            self._anchor = (ids, len(self.written(ids)))
        ids, length = self._anchor
        return self.written([*ids, token])[length:]


class Growing:
    """
    The text of a stream of tokens, as far as it is certain.

    A character may take several tokens, and a tokenizer may write the space before a word or not, depending on what is before it.
    Only a window at the end is decoded, so that a long answer costs no more for each token than a short one.

    + before: the last tokens of the prompt, which the text follows
    """

    def __init__(self, words: Words, before: Sequence[int] = ()) -> None:
        self.words = words
        self.ids = [each for each in before if each not in words.special]
        self.begin, self.read = 0, len(self.ids)

    def add(self, ids: Sequence[int]) -> str:
        """The text that these tokens add; empty while a character is incomplete."""
        # special tokens have no text, and a window of them would grow
        self.ids.extend(each for each in ids if each not in self.words.special)
        if self.read == len(self.ids):
            return ""
        if len(self.ids) - self.read > LONGEST_CHARACTER:
            return self.rest()
        before = self.words.decode(self.ids[self.begin : self.read])
        now = self.words.decode(self.ids[self.begin :])
        if len(now) <= len(before) or now.endswith(REPLACEMENT):
            return ""
        self.begin, self.read = self.read, len(self.ids)
        return now[len(before) :]

    def rest(self) -> str:
        """At the end: what is still held back, an incomplete character among it."""
        before = self.words.decode(self.ids[self.begin : self.read])
        now = self.words.decode(self.ids[self.begin :])
        self.begin = self.read = len(self.ids)
        return now[len(before) :]


class Stops:
    """The words that end an answer. Text that may be the beginning of one is held back."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.held = ""
        self.found = False

    def add(self, text: str) -> str:
        """The text that may go out; nothing after a word was found."""
        if not self.words:
            return text
        if self.found:
            return ""
        self.held += text
        places = [place for word in self.words if (place := self.held.find(word)) >= 0]
        if places:
            self.found = True
            out, self.held = self.held[: min(places)], ""
            return out
        keep = max((self._beginning(word) for word in self.words), default=0)
        cut = len(self.held) - keep
        out, self.held = self.held[:cut], self.held[cut:]
        return out

    def _beginning(self, word: str) -> int:
        """How many characters at the end of the text are the beginning of the word."""
        for length in range(min(len(word) - 1, len(self.held)), 0, -1):
            if self.held.endswith(word[:length]):
                return length
        return 0

    def rest(self) -> str:
        """At the end: what was held back."""
        out, self.held = self.held, ""
        return out


def end_tokens(
    tokenizer: Tokenizer, generation: dict[str, Any], model: dict[str, Any], eos: str | None
) -> list[int]:
    """
    The tokens that end an answer, of generation_config.json, else of config.json, else of the tokenizer's eos_token.

    The eos_token comes first if it is one of them: the engine is told one end.
    """
    found: list[int] = []
    for source in (generation, model):
        value = source.get("eos_token_id")
        ids = value if isinstance(value, list) else [value]
        found = [each for each in ids if isinstance(each, int) and not isinstance(each, bool)]
        if found:
            break
    own = tokenizer.token_to_id(eos) if eos else None
    if own is not None:
        found = [own, *(each for each in found if each != own)] if own in found or not found else found
    return found
