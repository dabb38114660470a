"""What a host prints reaches the operator's terminal without what a terminal obeys, and without a token."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from operations import convergence, front, release, swap
from operations.plan.preflight.check import Check
from operations.plan.preflight.checks import table
from operations.plan.release import Release
from operations.remote import detached
from operations.remote.refusal import Failed
from operations.server import control
from tests.unit.builders import release as made

PROJECT = Path(__file__).resolve().parents[2]
# sets the title of a terminal, clears its screen, and holds a token
TEXT = "\x1b]0;title\x07\x1b[2J found hf_CANARYCANARY, expected\tnone"
SHOWN = "]0;title [2J found (not shown), expected none"
HOST: Any = type("Host", (), {"print_prefix": "[h1] "})()
STEPS: dict[str, tuple[Any, Callable[[Any, Release], None]]] = {
    "point to": (front, lambda host, wanted: front.point_to(host, wanted, wanted.servers[0])),
    "stop": (front, lambda host, wanted: front.stop(host, wanted)),
    "switched": (release, lambda host, wanted: release.switched(host, wanted.settings, wanted.id)),
    "start": (control, lambda host, wanted: control.start(host, wanted.settings)),
    "soaked": (control, lambda host, wanted: control.soaked(host, "triton", 1)),
    "link of the second server": (
        swap,
        lambda host, wanted: swap._side_by_side(host, swap._Swap(wanted, None, [], False, "", False, False)),
    ),
}


def test_said_is_one_line_of_plain_text() -> None:
    assert detached.said(["first", TEXT]) == SHOWN
    assert detached.said(["first", TEXT], 2) == f"first {SHOWN}"
    assert detached.said([]) == "the host did not answer"


@pytest.mark.parametrize(("module", "problem"), STEPS.values(), ids=STEPS)
def test_failure_shows_no_text_that_a_terminal_obeys(
    module: Any, problem: Callable[[Any, Release], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for where in (module, detached):
        monkeypatch.setattr(where, "shell", lambda *_, **__: (False, [TEXT]))
    with pytest.raises(Failed) as failed:
        problem(HOST, made({"front": "haproxy"}))
    assert SHOWN in str(failed.value)
    assert "\x1b" not in str(failed.value)


@pytest.mark.parametrize(("module", "problem"), STEPS.values(), ids=STEPS)
def test_a_step_that_fails_in_silence_fails(
    module: Any, problem: Callable[[Any, Release], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for where in (module, detached):
        monkeypatch.setattr(where, "shell", lambda *_, **__: (False, []))
    with pytest.raises(Failed, match="did not answer"):
        problem(HOST, made({"front": "haproxy"}))


def test_tables_show_no_text_that_a_terminal_obeys() -> None:
    assert "\x1b" not in "".join(table([Check("login shell", "failed", TEXT, TEXT, TEXT)]))
    assert convergence._cut(TEXT, 80) == SHOWN


@pytest.mark.parametrize("path", sorted((PROJECT / "operations").rglob("*.py")), ids=lambda path: path.name)
def test_output_of_a_host_is_joined_in_one_place(path: Path) -> None:
    """`" ".join(output…)` is a line for a person; said() makes it one that a terminal may show."""
    joined = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("' '.join")
        and node.args
        and ast.unparse(node.args[0]).startswith("output")
    ]
    assert len(joined) == (path.name == "detached.py"), f"{path.name}: {joined}"
