"""The runner of `make test`: what makes a part red, and which parts there are."""

from __future__ import annotations

import datetime
import os
import sys
from pathlib import Path

import pytest

from tests import report, run_all
from tests.kept_results import Results
from tests.lab.settings import DEFAULT_NETWORK, LOWER, NETWORKS, network_of
from tests.lab.shell import LabError, attempt
from tests.report import Outcome
from tests.run_all import PYTEST, Part, Result

PASSED = Outcome("tests/unit/test_a.py::test_a", "passed", 0.1)
SKIPPED = Outcome("tests/unit/test_a.py::test_b", "skipped", 0.1, "no nft")
MAY_SKIP = Outcome(next(iter(run_all.ALLOWED_SKIPS)), "skipped", 0.1, "part of make test-all")


@pytest.mark.parametrize(
    ("code", "outcomes", "wrong"),
    [
        (0, [PASSED], ""),
        (0, [PASSED, MAY_SKIP], ""),
        (1, [PASSED], "exit code 1"),
        (0, [], "no test was run"),
        (0, [MAY_SKIP], "no test was run"),
        (0, [PASSED, SKIPPED], "1 skipped, expected none: tests/unit/test_a.py::test_b: no nft"),
    ],
)
def test_part_is_red_when_it_proves_nothing(code: int, outcomes: list[Outcome], wrong: str) -> None:
    assert Result(Part("unit", PYTEST), code, 1.0, outcomes).wrong() == wrong


def test_ended_part_reports_its_signal_and_location() -> None:
    text = (
        "tests/a.py::test_a \nFatal Python error: Aborted\n\nThread 0x1 (most recent call first):\n  File a"
    )
    result = Result(Part("unit", PYTEST), -6, 1.0, [PASSED], text)
    assert result.wrong() == "ended by SIGABRT"
    assert run_all._reasons(result)[0] == "Fatal Python error: Aborted"
    failed = Result(Part("unit", PYTEST), 1, 1.0, [PASSED], "FAILED tests/a.py::test_a - x\n1 failed")
    assert run_all._reasons(failed) == ["FAILED tests/a.py::test_a - x"]
    assert run_all._reasons(Result(Part("unit", PYTEST), 0, 1.0, [PASSED], "FAILED no")) == []


def test_part_without_tests_uses_its_exit_code() -> None:
    assert Result(Part("lint", ["ruff"]), 0, 1.0, []).wrong() == ""


def test_slow_tests_are_in_make_test() -> None:
    chosen = [word for part in run_all.short(datetime.date(2026, 11, 30)) for word in part.command]
    assert not [word for word in chosen if "slow" in word]
    assert {"tests/unit", "tests/operations", "tests/deploy", "tests/oci"} <= set(chosen)


def test_thirds_rotate_over_three_days() -> None:
    days = [datetime.date(2026, 11, 29) + datetime.timedelta(n) for n in range(3)]
    assert sorted(map(run_all.third, days)) == ["1/3", "2/3", "3/3"]


def test_every_lab_module_is_in_test_all() -> None:
    """But for those of `make test-vm`."""
    words = [word for part in run_all.everything() for word in part.command]
    lab = Path(run_all.REPOSITORY, "tests", "lab")
    for path in lab.rglob("test_*.py"):
        if path.parent.name == "vm":
            continue
        name = path.relative_to(run_all.REPOSITORY).as_posix()
        assert any(name == word or name.startswith(f"{word}/") for word in words), name


@pytest.mark.parametrize("parts", [run_all.everything(), run_all.short(datetime.date(2026, 11, 30))])
def test_parallel_parts_use_different_networks(parts: list[Part]) -> None:
    """Two labs of one network are one lab: the second takes the first down."""
    said = [(name, net) for part in parts for name, net in part.environment.items() if name in NETWORKS]
    defaults = [net for name, net in NETWORKS.items() if name not in dict(said)]
    networks = [*(net for _, net in said), *defaults, DEFAULT_NETWORK]
    assert len(networks) == len(set(networks)), sorted(networks)


def test_networks_inside_a_root_differ_from_this_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    lower = int(os.environ.get(LOWER, "0"))
    outside = {network_of(name) for name in NETWORKS}
    monkeypatch.setenv(LOWER, str(lower + 20))
    inside = {network_of(name) for name in NETWORKS}
    seconds = [{net.split(".")[1] for net in nets} for nets in (outside, inside)]
    assert not seconds[0] & seconds[1]


def test_report_keeps_the_worst_outcome_of_a_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "outcomes.jsonl"
    lines = [
        '{"test": "a", "outcome": "passed", "seconds": 1.0, "reason": ""}',
        '{"test": "a", "outcome": "failed", "seconds": 0.1, "reason": ""}',
        '{"test": "b", "outcome": "skipped", "seconds": 0.1, "reason": "why"}',
    ]
    path.write_text("\n".join(lines), "utf-8")
    assert report.read(path) == [Outcome("a", "failed", 0.1), Outcome("b", "skipped", 0.1, "why")]
    assert report.read(tmp_path / "absent") == []


def test_runner_names_a_part_that_cannot_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [Part("absent", ["/nonexistent/program"]), Part("good", [sys.executable, "-c", "print('said')"])]
    kept = Results(tmp_path / "kept", tmp_path)
    results = run_all.Runner(parts, tmp_path, kept, resume=False).run()
    assert {result.part.title: result.code for result in results} == {"absent": 1, "good": 0}
    printed = capsys.readouterr().out
    assert "FAILED absent" in printed and "said" in printed


def test_lab_names_a_program_that_is_missing() -> None:
    with pytest.raises(LabError, match="found no no-such-program, expected the program: install it"):
        attempt("no-such-program", "--version")
