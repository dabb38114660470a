"""The site of docs/: its navigation, links out of it, the size of its pages, and the lock of what builds it."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from tests.unit.test_links import links

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
SITE = (PROJECT / "mkdocs.yml").read_text(encoding="utf-8")
NAV = re.findall(r"^ +- ([\w./-]+\.md)$", SITE, re.MULTILINE)
PAGES = sorted({str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")})
# generated: its cells are lists of tests
LISTS = ("requirements.md",)
# generated: it grows with the commands
GROWS = ("reference/commands.md",)
MOST_LINES, MOST_CHARACTERS_OF_A_CELL = 250, 280


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def outside(page: str, text: str) -> list[str]:
    """The links of a page that lead out of docs/, which have no place on the site; tests/unit/test_links.py follows the others."""
    places = {target: os.path.normpath(os.path.join(os.path.dirname(page), target)) for target in links(text)}
    return [target for target, place in places.items() if place.startswith("..")]


def test_navigation_names_every_page_once() -> None:
    assert len(NAV) == len(set(NAV))
    assert set(PAGES) - set(NAV) == set()
    assert {page for page in NAV if not (DOCS / page).exists()} == set()


@pytest.mark.parametrize("page", PAGES)
def test_site_links_stay_within_docs(page: str) -> None:
    assert outside(page, text_of(page)) == []


def test_site_link_out_of_docs_is_named() -> None:
    assert outside("index.md", "[a](../README.md), [b](lab.md#times)") == ["../README.md"]
    assert outside("how-to/run.md", "[a](../lab.md), [b](../../README.md)") == ["../../README.md"]


@pytest.mark.parametrize("page", [page for page in PAGES if page not in LISTS])
def test_pages_are_short_and_cells_hold_no_paragraph(page: str) -> None:
    lines = text_of(page).splitlines()
    assert len(lines) <= MOST_LINES or page in GROWS
    rows = [re.sub(r"\]\([^)]*\)", "]", line) for line in lines if line.startswith("|")]
    cells = [cell for row in rows for cell in re.split(r"(?<!\\)\|", row)]
    assert [cell for cell in cells if len(cell) > MOST_CHARACTERS_OF_A_CELL] == []


def test_architecture_fits_on_two_screens() -> None:
    assert len(text_of("architecture.md").splitlines()) <= 120


def test_site_is_built_strictly_into_an_ignored_directory() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^docs:.*\n\t.*build --strict ", makefile, re.MULTILINE)
    assert re.search(r"^site_dir: build/", SITE, re.MULTILINE)
    assert "/build/" in (PROJECT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_lock_of_the_site_is_its_own_and_hashed() -> None:
    lock = (PROJECT / "requirements-docs.lock").read_text(encoding="utf-8")
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [re.split(r"[><=]", name)[0] for name in project["project"]["optional-dependencies"]["docs"]]
    pinned = re.findall(r"^([a-z0-9-]+)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE)
    assert set(wanted) <= set(pinned)
    assert len(pinned) == len(re.findall(r"^\w", lock, re.MULTILINE))
    assert not set(wanted) & set(
        re.findall(r"^([a-z0-9-]+)==", (PROJECT / "requirements.lock").read_text("utf-8"), re.MULTILINE)
    )
