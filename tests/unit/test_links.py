"""
Each relative link and anchor leads to a file and a heading, on a code host as on a site made of the same files.

Pages: README.md, CONTRIBUTING.md, SECURITY.md, CHANGELOG.md and docs/. External URLs are not fetched. The size of the pages is held by
tests/unit/test_docs_site.py.
"""

from __future__ import annotations

import os
import re
import unicodedata
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
AT_THE_TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = sorted([*AT_THE_TOP, *(str(page.relative_to(PROJECT)) for page in (PROJECT / "docs").rglob("*.md"))])
GUIDES = [page for page in PAGES if page.startswith("docs/how-to/") or page == "docs/start.md"]
MOST_LINES_OF_THE_README = 110


@cache
def text_of(page: str) -> str:
    return (PROJECT / page).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    """The text without fenced blocks and code spans, in which brackets are no links."""
    fenced = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", fenced)


def links(text: str) -> list[str]:
    found: list[str] = re.findall(r"\]\(([^)\s]+)\)", without_code(text))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def headings(page: str) -> list[str]:
    fenced = re.sub(r"^ *```.*?^ *```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#{1,6} (.*)$", fenced, re.MULTILINE)
    return [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "") for title in titles]


def slug_of_github(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def slug_of_a_site(title: str) -> str:
    """As Python-Markdown's table of contents makes it, which the common generators use."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


@cache
def anchors(page: str) -> frozenset[str]:
    """Those that mean the same heading in both views."""
    return frozenset(
        slug_of_github(title) for title in headings(page) if slug_of_github(title) == slug_of_a_site(title)
    )


def broken(page: str, text: str) -> list[str]:
    """What is wrong with each link of a page that leads nowhere."""
    wrong = []
    for target in links(text):
        file, _, anchor = target.partition("#")
        place = os.path.normpath(os.path.join(os.path.dirname(page), file)) if file else page
        if not (PROJECT / place).exists():
            wrong.append(f"{target}: no such file")
        elif anchor and anchor not in anchors(place):
            wrong.append(f"{target}: no such heading")
    return wrong


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    assert broken(page, text_of(page)) == []


def test_links_are_found_at_all() -> None:
    assert len([target for page in PAGES for target in links(text_of(page))]) > 200
    assert "docs/flow.svg" in links(text_of("README.md"))
    assert "what-the-lab-does-not-prove" in anchors("docs/lab.md")


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("[a](docs/absent.md)", ["docs/absent.md: no such file"]),
        ("[a](docs/lab.md#absent)", ["docs/lab.md#absent: no such heading"]),
        ("[`a`](#absent), [b](#tests)", ["#absent: no such heading"]),
        ("[a](docs/lab.md#times), [b](https://example.com/), `[c](absent.md)`", []),
        ("[a](https://example.com/absent) and `[b](absent.md)`", []),
    ],
)
def test_links_that_lead_nowhere_are_named(line: str, wrong: list[str]) -> None:
    assert broken("README.md", line) == wrong


def test_guides_are_one_click_from_the_readme_or_the_index() -> None:
    linked = {
        os.path.normpath(os.path.join(os.path.dirname(page), target.partition("#")[0]))
        for page in ("README.md", "docs/index.md")
        if page in PAGES
        for target in links(text_of(page))
    }
    assert set(GUIDES) - linked == set()
    assert len(text_of("README.md").splitlines()) <= MOST_LINES_OF_THE_README
