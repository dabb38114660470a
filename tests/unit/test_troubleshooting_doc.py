"""The troubleshooting pages quote what the code says, and cover each failure that users report."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
INDEX = PROJECT / "docs" / "troubleshooting.md"
STAGES = [INDEX.with_suffix("") / f"{name}.md" for name in ("inventory", "host", "artifacts", "service")]
REPORTS = [INDEX.with_suffix("") / f"{name}.md" for name in ("reported", "reported-more")]
OURS = "\n".join(page.read_text(encoding="utf-8") for page in STAGES)
THEIRS = "\n".join(page.read_text(encoding="utf-8") for page in (*REPORTS, INDEX))

GAP = "…"  # what differs from case to case, on the page and below
SHORTEST = 12  # fixed characters that make a quotation one


# -- what the code says


@cache
def messages() -> tuple[str, ...]:
    """
    Every text of operations/ and files/ that may reach a person, each variable part as a gap.

    A PlanError is put together as the class does it: KEY: found X, expected Y; THEN.
    """
    found: list[str] = []
    for folder in ("operations", "files"):
        for path in sorted((PROJECT / folder).rglob("*")):
            if path.suffix == ".py":
                found += _of_python(ast.parse(path.read_text(encoding="utf-8")))
            elif path.suffix == ".sh":
                found += map(_of_shell, path.read_text(encoding="utf-8").splitlines())
    return tuple(found)


def _of_python(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr):
            yield _of_shell(_text(node))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "PlanError":
            # what a star stands for may be several
            key, what, expected, *then = [*map(_text, node.args), GAP, GAP][: max(3, len(node.args))]
            # a value that is not a text is shown, and an empty one becomes "nothing"
            yield f"{key}: found {what}, expected {expected}" + "".join(f"; {part}" for part in then)


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    return GAP


def _of_shell(text: str) -> str:
    return re.sub(r"\$\([^)]*\)|\$\{?\w+\}?|\$[*@]", GAP, text)


def said(quotation: str) -> bool:
    """Whether one text of the code has the quotation's fixed parts, in their order."""
    parts = [part.strip() for part in quotation.split(GAP) if part.strip()]

    def has(message: str) -> bool:
        at = 0
        for part in parts:
            at = message.find(part, at)
            if at < 0:
                return False
            at += len(part)
        return True

    return any(has(message) for message in messages())


# -- what the page says


def table_rows(text: str) -> list[list[str]]:
    """The cells of every row that is neither head nor rule."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rules = [number for number, row in enumerate(cells) if set("".join(row)) <= set("-:")]
    return [row for number, row in enumerate(cells) if number not in rules and number + 1 not in rules]


QUOTATIONS = [span for row in table_rows(OURS) for span in re.findall(r"`([^`]+)`", row[0])]


def test_text_missing_from_the_code_is_detected() -> None:
    assert not said("the moon is full")
    assert not said("expected a profile in inventories/models: found …")  # the wrong order
    assert said("model: found …, expected a profile in inventories/models; …")


@pytest.mark.parametrize("quotation", QUOTATIONS)
def test_quoted_line_exists_in_the_code(quotation: str) -> None:
    assert len(quotation.replace(GAP, "").strip()) >= SHORTEST
    assert said(quotation), f"no text of operations/ or files/ reads {quotation!r}"


def test_page_has_the_likeliest_refusals() -> None:
    assert len(table_rows(OURS)) >= 25
    assert all(len(row) == 3 and all(row) for row in table_rows(OURS))


# The twenty failures of deployments by hand, by rank, with the public threads each was taken from: t, b and s are the
# issues of TensorRT-LLM, tensorrtllm_backend and server, p a pull request of the one before it.
REPORTED = {
    1: "b531 b299 b424 b194 b235 t1695",
    2: "s8592 t2758 b501 b210 b393 s6813",
    3: "b38 b44 b302 t28 t72 t94 s7382",
    4: "s6839 s7374 t1695 b568",
    5: "b33 b398 t1047 t2021 t1992",
    6: "b377 b576 b577 b564 b553",
    7: "t1826 t408 t602",
    8: "b303 b456 b366 t260 t486 t2139 t694",
    9: "b366 b59",
    10: "t236 t102 t538 t577 t841 t1543",
    11: "b297 b62 t2357 t2021",
    12: "b243 b524 b275 s7211 b455",
    13: "t222 t3031 t1826",
    14: "t1840 t2143 tp2049 tp2057 bp604 t2014 t2471",
    15: "t2469 t186 b262 b474 b843 b394 t1705 t103",
    16: "t2416 t1549 t2599 t4458",
    17: "b553 b712 t2801 t1294 t5854",
    18: "t23 t83 t189",
    19: "b332 b112 b34 b70 b348 b513",
    20: "",
}
REPOSITORIES = {
    "t": "NVIDIA/TensorRT-LLM",
    "b": "triton-inference-server/tensorrtllm_backend",
    "s": "triton-inference-server/server",
}


def address(thread: str) -> str:
    kind = "pull" if thread[1] == "p" else "issues"
    return f"https://github.com/{REPOSITORIES[thread[0]]}/{kind}/{thread.lstrip('tbsp')}"


def entries() -> dict[int, str]:
    """Number -> text of each of the twenty."""
    parts = re.split(r"^##? (?:(\d+)\. )?.*$", THEIRS, flags=re.MULTILINE)[1:]
    return {int(number): text for number, text in zip(parts[::2], parts[1::2], strict=True) if number}


def test_each_reported_failure_has_its_entry() -> None:
    assert list(entries()) == list(REPORTED)


@pytest.mark.parametrize("number", REPORTED)
def test_an_entry_is_complete(number: int) -> None:
    text = entries()[number]
    (quoted,) = re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert quoted.strip()
    labels = re.findall(r"^- \*\*(.+?)\*\*: \S", text, re.MULTILINE)
    assert labels == ["Seen", "Why", "tritonhost", "If you still see it", "Threads"]
    linked = re.findall(r"\[([^]]+)\]\((https://github\.com/[^)]+)\)", text)
    assert linked
    for label, target in linked:
        assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", target)
        assert label.split()[-1] == target.rsplit("/", 1)[1]
    targets = [target for _, target in linked]
    assert {address(thread) for thread in REPORTED[number].split()} <= set(targets)
    assert len(set(targets)) == len(targets)


@pytest.mark.parametrize(
    "words",
    [
        "stdVersionRead == kSERIALIZATION_VERSION failed",
        "Expected integer, got: $",
        "Expected integer or identifier, got: $",
        "generated on an incompatible device, expecting compute",
        "maxTokensInPagedKvCache must be large enough",
        "unrecognized arguments",
        "worldSize",
        "No module named 'tensorrt_llm.bindings'",
        "Cannot find engine config file",
        "file format not recognized",
        "returned 803",
        "returned 804",
        "401 Client Error",
        "403 Client Error",
        "There are not enough slots",
        "Address already in use",
        "Killed",
        "exit code 137",
        "NCCL",
    ],
)
def test_search_terms_are_on_the_page(words: str) -> None:
    assert words in THEIRS


def test_the_index_leads_to_every_page() -> None:
    text = INDEX.read_text(encoding="utf-8")
    assert {page.name for page in INDEX.with_suffix("").glob("*.md")} == {
        page.name for page in (*STAGES, *REPORTS)
    }
    for page in (*STAGES, *REPORTS):
        assert f"](troubleshooting/{page.name})" in text


def test_the_index_leads_to_every_reported_failure() -> None:
    linked = re.findall(
        r"\]\(troubleshooting/reported(?:-more)?\.md#(\d+)-", INDEX.read_text(encoding="utf-8")
    )
    assert [int(number) for number in linked] == list(REPORTED)
