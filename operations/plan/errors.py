"""The one error a plan can end in: a single line that says what to change."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import NamedTuple

# A token of the Hugging Face hub, wherever it stands
TOKEN = re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{8,}")
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")
_SHOWN, _SHOWN_OF_A_TOOL, _LONGEST_KEY, _LONGEST_MESSAGE = 80, 400, 200, 4000  # characters
# Looking for the nearest known word takes long where a word is long.
_LONGEST_WORD = 80
_NEAR = 0.75  # of the letters are the same: adress is not egress
_MOST_ITEMS = 20  # of a list that is shown with quotes


class Said(str):
    """What a tool said: shown nearly whole, because what to do stands at the end of such a line."""

    __slots__ = ()


class Origin(NamedTuple):
    """
    Where a value was written.

    + where: the file
    + table: what stands before the key there, such as [hosts.gpu-1] or --data
    + also: keys that this table has, and the model that checks it does not
    """

    where: str = ""
    table: str = ""
    also: tuple[str, ...] = ()


NOWHERE = Origin()


class PlanError(ValueError):
    """
    An input that cannot be deployed: one line with the key, the value found, what is allowed and what to do.

    Every part stays readable as an attribute, as text without a secret; the line is made by `str` alone.

    + key: what is wrong, in the words of the file or of the command line
    + found: its value as it was typed (`typed`), or what it is in words
    + where: the file the key stands in; then the line begins with it
    + host: the host it is about; the line begins with it where no file is known
    + reference: a word for programs and for the docs, which stays when the text changes; without it, of the key
    """

    def __init__(
        self,
        key: str,
        found: object,
        expected: str,
        then: str = "",
        *,
        where: str = "",
        host: str = "",
        reference: str = "",
    ) -> None:
        self.key = _bounded(one_line(key), _LONGEST_KEY)
        self.found = shown(found)
        self.expected = _bounded(one_line(expected), _LONGEST_MESSAGE)
        self.then = _bounded(one_line(then), _LONGEST_MESSAGE)
        self.where = _bounded(one_line(where), _LONGEST_KEY)
        self.host = _bounded(one_line(host), _LONGEST_KEY)
        self.reference = reference or derived_reference(self.key)
        super().__init__(self.key, self.found, self.expected, self.then)

    def __str__(self) -> str:
        return self._line(self.where or self.host)

    def beside(self, host: str) -> str:
        """The line as it is printed behind that host's name, which it does not repeat."""
        return self._line(self.where or ("" if self.host == host else self.host))

    def _line(self, place: str) -> str:
        before = ": ".join(filter(None, (place, self.key)))
        message = f"{before}: found {self.found}, expected {self.expected}"
        return _bounded(f"{message}; {self.then}" if self.then else message, _LONGEST_MESSAGE)

    def placed(self, origin: Origin = NOWHERE, host: str = "") -> PlanError:
        """The same error, where a caller knows the file, the table or the host, and who raised it did not."""
        if origin.table:
            self.key = _bounded(one_line(f"{origin.table} {self.key}"), _LONGEST_KEY)
        self.where = self.where or _bounded(one_line(origin.where), _LONGEST_KEY)
        self.host = self.host or _bounded(one_line(host), _LONGEST_KEY)
        return self

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        names = ("reference", "host", "where", "key", "found", "expected", "then")
        return {name: getattr(self, name) for name in names}


def derived_reference(key: str) -> str:
    """
    The reference of an error that names none: the words of its key, up to the first that a person chose.

    `image.release` -> image-release, `GPU 3` -> gpu, `backend_commits.v0.13.0` -> backend-commits
    """
    # a file or a table of one, which may stand in front of it
    named = [word for word in key.split() if "/" not in word.partition("[")[0] and word[0] != "["]
    words = re.match(r"[^A-Za-z]*([A-Za-z]+(?:[ ,_.]+[A-Za-z]++(?![0-9]))*)", " ".join(named))
    return re.sub(r"[ ,_.]+", "-", words[1].lower()) if words else "plan"


def text_of(value: object) -> str:
    """A value as text; its type's name where Python refuses: thousands of digits, or a thousand levels."""
    if isinstance(value, str):
        return value
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return f"an unprintable {type(value).__name__}"


def shown(value: object) -> str:
    """A value as it may stand in a one-line message: bounded, without line breaks, without a secret's text."""
    text = text_of(value)
    if TOKEN.search(text):
        return "a value that looks like a Hugging Face token (not shown)"
    longest = _SHOWN_OF_A_TOOL if isinstance(value, Said) else _SHOWN
    return _bounded(one_line(text), longest) or "nothing"


def one_line(text: str) -> str:
    """Without line breaks, control characters, tokens, and what stands before an @ of a URL."""
    # plain ASCII is left to the pattern, which is quick: a value may be a megabyte
    printable = _NOT_PLAIN.sub(lambda found: found[0] if found[0].isprintable() else " ", text)
    return TOKEN.sub("(not shown)", " ".join(_without_userinfo(word) for word in printable.split()))


def _without_userinfo(word: str) -> str:
    before, _, after = word.rpartition("@")
    start, slashes, _ = before.partition("//")
    if slashes:
        return f"{start}//(not shown)@{after}"
    # user:password@host, and not an image's name:tag@sha256:…
    user, colon, _ = before.partition(":")
    return f"(not shown)@{after}" if colon and "/" not in user else word


def _bounded(text: str, longest: int) -> str:
    return f"{text[: longest - 3]}..." if len(text) > longest else text


def typed(value: object) -> object:
    """A file's value as a person typed it: text in quotes, so that "8000" and 8000 differ; a table by its keys alone."""
    if value is None or value == "":
        return "nothing"
    try:
        if isinstance(value, Said) or TOKEN.search(text_of(value)):
            return value
        if isinstance(value, str):
            return f'"{_bounded(one_line(value), _SHOWN - 2)}"'
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, Mapping):
            keys = ", ".join(map(str, value))
            return f"a table with {keys}" if keys else "an empty table"
        if isinstance(value, list | tuple) and len(value) < _MOST_ITEMS:
            return f"[{', '.join(text_of(typed(item)) for item in value)}]"
    except (RecursionError, ValueError):
        pass  # a thousand levels, or thousands of digits
    return value


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """ "did you mean …?" for the nearest allowed word, or the whole list where nothing is near."""
    names = sorted(allowed)
    near = nearest(word, names)
    return f"did you mean {near}?" if near else f"known: {', '.join(names)}"


def nearest(word: str, allowed: Iterable[str]) -> str:
    """The allowed word that is the likeliest to be meant, in whatever case; empty where none is near."""
    if len(word) > _LONGEST_WORD:
        return ""
    folded = {name.casefold(): name for name in allowed}
    near = get_close_matches(word.casefold(), sorted(folded), n=1, cutoff=_NEAR)
    return folded[near[0]] if near else ""
