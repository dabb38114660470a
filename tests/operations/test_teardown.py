"""The command that takes tritonhost off a host: what it shows, asks and answers with, without a host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from operations import teardown
from operations.plan.teardown import Survey, survey
from tests.unit.builders import settings
from tests.unit.test_teardown import DOCKER_REPOSITORY, PLACE, SECTIONS

UNIT = "/etc/systemd/system/triton.service"


class Answers:
    """A host that is looked at several times, and what was run on it."""

    def __init__(self, patch: pytest.MonkeyPatch, *found: Survey, ran: bool = True) -> None:
        self.found = [*found]
        self.works: list[Any] = []

        def run(state: Any, host: Any, work: Any) -> bool:
            self.works.append(work)
            return ran

        patch.setattr(teardown, "look", lambda host, target: self.found.pop(0))
        patch.setattr(teardown, "run_and_follow", run)
        patch.setattr(teardown, "shell", lambda host, script, **rest: (True, []))

    def run(self, *options: str) -> int:
        given = teardown.parser().parse_args(["gpu-1", *options])
        target = teardown.Target(settings(), (PLACE,), (UNIT,))
        return teardown._taken_off(None, None, target, given)  # type: ignore[arg-type]


def found(**changes: Sequence[str]) -> Survey:
    return survey({**SECTIONS, **changes}, [PLACE])


BARE: dict[str, Sequence[str]] = {
    "began": [],
    "places": [],
    "files": [],
    "roots": [],
    "tables": [],
    "locks": [],
}


def test_bare_host_is_left_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    host = Answers(monkeypatch, found(**BARE))
    assert host.run("--yes") == 0
    assert capsys.readouterr().out == "gpu-1: nothing of tritonhost is on it\n"
    assert host.works == []


def test_plan_changes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    host = Answers(monkeypatch, found())
    assert host.run("--plan") == 0
    assert "  goes    packages          2: docker-ce, git" in capsys.readouterr().out
    assert host.works == []


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (found(roots=["/data\t4096\t\t/data/database\t"]), "--documents-too"),
        (found(busy=["tritonhost-engine-1.service"]), "at work: tritonhost-engine-1.service"),
    ],
)
def test_refusal_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: Survey, said: str
) -> None:
    answers = Answers(monkeypatch, host)
    assert answers.run("--yes") == 2
    assert said in capsys.readouterr().err
    assert answers.works == []


@pytest.mark.parametrize(("typed", "code", "works"), [("gpu-1\n", 0, 1), ("yes\n", 2, 0), ("", 2, 0)])
def test_the_hosts_name_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, typed: str, code: int, works: int
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return typed

    monkeypatch.setattr(teardown.sys, "stdin", Terminal())
    host = Answers(monkeypatch, found(), found(**BARE))
    assert host.run() == code
    assert len(host.works) == works


def test_what_is_left_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    host = Answers(monkeypatch, found(), found(**{**BARE, "files": [UNIT]}))
    assert host.run("--yes") == 1
    assert f"found {UNIT} left, expected nothing" in capsys.readouterr().err


def test_what_stays_by_plan_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Answers(
        monkeypatch, found(began=["used"], came=["git"]), found(**{**BARE, "files": [DOCKER_REPOSITORY]})
    )
    assert host.run("--yes") == 0


def test_failed_work_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert Answers(monkeypatch, found(), ran=False).run("--yes") == 1
    assert "run it again" in capsys.readouterr().err


def test_work_is_proven_by_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Answers(monkeypatch, found(), found(**BARE))
    host.run("--yes")
    [work] = host.works
    assert work.proof == "! test -e /etc/tritonhost"
    assert set(work.files) == {"teardown.sh", "run_unlocked.sh", "versionlock.list"}
    assert "RECORD=/etc/tritonhost\n" in work.files["teardown.sh"]
