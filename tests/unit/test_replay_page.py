"""The page of a comparison: whole, without anything to fetch or to run, and true to what the servers answered."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from operations.plan.html_page import ticks
from operations.plan.serving.replay_page import page
from operations.plan.serving.replayed import Prompt, Reply, pairs_of, report
from tests.unit.test_replayed import NAMES, ONE, PROMPTS, TWO

VOID = ("meta",)


class Page(HTMLParser):
    """+ text: of each element, by its path; wrong: tags that end what is not open"""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Of a picture: it has no content."""
        self.tags.append((tag, dict(attrs)))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append((" ".join(self.open), data))

    def of(self, tag: str) -> list[str]:
        """The text directly in each such element."""
        return [data for path, data in self.text if path.endswith(f" {tag}")]


def shown(
    one: list[Reply], two: list[Reply], prompts: list[Prompt] = PROMPTS, names: tuple[str, str] = NAMES
) -> tuple[str, Page]:
    pairs = pairs_of(prompts, one, two)
    text = page(report(names, pairs), pairs)
    parsed = Page(text)
    assert (parsed.open, parsed.wrong) == ([], [])
    return text, parsed


HOSTILE = "</pre></td></table></body><script>alert(1)</script><img src=x onerror=alert(1)> &amp; \" '"


def test_page_shows_markup_as_text() -> None:
    prompts = [Prompt(number, HOSTILE, 8) for number in (1, 2, 3)]
    one = [Reply(1, HOSTILE, 0.1, 0.2, 1), Reply(2, "a", 0.1, 0.2, 1), Reply(3, error=HOSTILE)]
    _, found = shown(one, TWO, prompts, (HOSTILE, HOSTILE))
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "img"})
    assert not [name for _, given in found.tags for name in given if name.startswith("on")]
    assert found.of("pre").count("\n" + HOSTILE) == 4 and HOSTILE in found.of("p")
    assert found.of("h1") == [f"{HOSTILE} and {HOSTILE}"] and found.of("title") == found.of("h1")
    assert "CUDA out of memory" in found.of("p")


def test_page_fetches_and_runs_nothing() -> None:
    text, found = shown(ONE, TWO)
    [policy] = [given["content"] for tag, given in found.tags if "http-equiv" in given]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert not re.search(r"https?:|url\(|@import|<script|<link|\b(src|href)=", text)


def test_page_shows_the_least_alike_first() -> None:
    _, found = shown(ONE, TWO)
    assert [text for text in found.of("pre") if text.endswith("?")] == ["\nthree?", "\ntwo?", "\none?"]
    assert "3 of 3 prompts" in "".join(found.of("p"))


def test_page_names_both_servers_in_each_part() -> None:
    _, found = shown(ONE, TWO)
    labels = [given["data-label"] for tag, given in found.tags if "data-label" in given]
    # on a narrow screen each cell has its own
    assert labels == ["line", "in common", "prompt", *NAMES] * 3
    for tag, count in (("th", 2), ("span", 1)):
        assert [[text.strip() for text in found.of(tag)].count(name) for name in NAMES] == [count, count]


def test_page_has_the_units_of_its_pictures() -> None:
    _, found = shown(ONE, TWO)
    pictures = [given["aria-label"] for tag, given in found.tags if given.get("role") == "img"]
    assert pictures == ["prompts by the part of the words in common", "part of the answers by seconds"]
    texts = found.of("text")
    assert {"words in common", "seconds", "0%", "50%", "100%", "0.2"} <= set(texts)
    # one pair at 50%, one at 100%, and one without two answers
    assert texts.count("1") == 2
    assert "Not counted: 1 without two answers." in "".join(found.of("p"))


def test_page_without_answers_has_no_pictures() -> None:
    _, found = shown([], [])
    said = found.of("p")
    assert "No prompt has an answer of both servers." in said and "No server has answered." in said
    assert [given for tag, given in found.tags if given.get("role") == "img"] == []


def test_page_of_one_server_has_one_line() -> None:
    _, found = shown(ONE, [])
    lines = [given.get("class") for tag, given in found.tags if tag == "path" and "V" in str(given["d"])]
    assert lines == ["from"]


def test_long_answers_are_shown_where_they_part() -> None:
    same = "same " * 400
    one, two = ([Reply(1, f"{same}{word}{' more' * 300}", 0.1, 0.2, 1)] for word in ("This", "That"))
    text, found = shown(one, two, PROMPTS[:1])
    assert "Th</span>is more" in text and "Th</span>at more" in text
    said = found.of("p")
    assert said.count("… 1852 characters before") == 2 and said.count("… 1052 characters more") == 2
    shorter = [Reply(1, same, 0.1, 0.2, 1)]
    _, found = shown(one, shorter, PROMPTS[:1])
    # all that it has, up to where the other goes on
    assert [text.endswith("same same ") for text in found.of("span") if "same" in text] == [True, True]


def test_long_prompt_says_that_it_is_cut() -> None:
    _, found = shown(ONE[:1], TWO[:1], [Prompt(1, "x" * 1000, 8)])
    assert "… 700 characters more" in found.of("p")


@pytest.mark.parametrize(
    ("answer", "pieces"),
    [
        # the letters behind an override would stand in another order
        ("a\u202eb", ["a", "U+202E", "b"]),
        ("\x00\x1b[31m", ["U+0000", "U+001B", "[31m"]),
        ("\ud800", ["U+D800"]),
        ("\ufeff\u2067", ["U+FEFF", "U+2067"]),
        # which are part of a writing, and of an emoji
        ("\u200f\u0645 \U0001f469\u200d\U0001f467\t\n.", ["\u200f\u0645 \U0001f469\u200d\U0001f467\t\n."]),
    ],
)
def test_hidden_characters_are_shown_by_number(answer: str, pieces: list[str]) -> None:
    text, found = shown([Reply(1, answer, 0.1, 0.2, 1)], [Reply(1, "other", 0.1, 0.2, 1)], PROMPTS[:1])
    said = [data for path, data in found.text if " pre" in path]
    at = said.index("\n" + PROMPTS[0].prompt) + 1
    assert [piece.removeprefix("\n") for piece in said[at:-1] if piece != "\n"] == pieces
    text.encode()


def test_answer_without_text_says_so() -> None:
    _, found = shown([Reply(1, "", 0.1, 0.2, 1)], [Reply(1, " \n", 0.1, 0.2, 1)], PROMPTS[:1])
    assert found.of("p").count("no text") == 2


def test_text_sets_its_own_direction() -> None:
    _, found = shown(ONE, TWO)
    assert {given.get("dir") for tag, given in found.tags if tag == "pre"} == {"auto"}


@pytest.mark.slow
def test_page_of_20000_answers_is_small() -> None:
    prompts = [Prompt(number, "p", 8) for number in range(1, 20_001)]
    replies = [Reply(number, "a b c", 0.1, number / 1000, 1) for number in range(1, 20_001)]
    text, found = shown(replies, replies, prompts)
    assert len(text) < 60_000
    assert "50 of 20000 prompts" in "".join(found.of("p"))


@pytest.mark.parametrize(
    ("most", "step", "count"),
    [
        (0.0, 0.0002, 5),
        (0.3, 0.1, 3),
        (0.562, 0.2, 3),
        (1.0, 0.2, 5),
        (1.01, 0.5, 3),
        (6.4, 2, 4),
        (600, 200, 3),
    ],
)
def test_marks_of_an_axis_reach_the_largest_value(most: float, step: float, count: int) -> None:
    found, marks = ticks(most)
    assert abs(found - step) < 1e-9 and marks == count
    assert found * marks >= most * (1 - 1e-9)
