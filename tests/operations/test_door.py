"""The door: when its container is started again, what a run asks it, and what is left of one that nobody wants."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pyinfra.api.command import FunctionCommand

from operations.door import gone, kept, running
from operations.facts.units import KeptUnit, KeptUnitState
from operations.plan.release import Release
from operations.scripts import host_script
from operations.server.door import asked
from tests.operations.harness import Host, commands_of, text_of
from tests.unit.builders import release as plain_release
from tests.unit.stubs import Stubs
from tests.unit.test_door import with_door

WANTED = with_door()


def ran(operation: Any, found: KeptUnit, release: Release = WANTED) -> list[str]:
    """The commands, a function's by its name."""
    commands = commands_of(operation, Host({KeptUnitState: found}), release=release)
    return [
        c.function.__name__ if isinstance(c, FunctionCommand) else c if isinstance(c, str) else text_of(c)
        for c in commands
    ]


def as_wanted(**changed: Any) -> KeptUnit:
    assert WANTED.door
    return KeptUnit(**{"active": True, "enabled": True, "key": WANTED.door.key, **changed})


def test_door_that_matches_its_plan_is_not_changed() -> None:
    for operation in (kept, running):
        assert ran(operation, as_wanted()) == []


@pytest.mark.parametrize("changed", [{"key": "another"}, {"active": False, "key": ""}])
def test_other_or_stopped_door_is_started_and_asked(changed: dict[str, Any]) -> None:
    again, restart, ask = ran(running, as_wanted(**changed))
    # `restart` lets go of what was kept, and a door may start and answer wrongly
    assert again.endswith("cp -p /run/triton-door.service.kept /run/triton-door.service.kept.asked")
    assert "UNIT=triton-door.service\nKEPT=/run/triton-door.service.kept\n" in restart
    assert ask == "_asked"


def test_door_is_enabled_at_boot() -> None:
    assert ran(running, as_wanted(enabled=False)) == [
        "systemctl enable --quiet triton-door.service",
        "_asked",
    ]


def test_files_of_a_running_door_are_kept() -> None:
    [keep] = ran(kept, as_wanted(key="another"))
    assert "/etc/triton-door.sh\n/etc/systemd/system/triton-door.service" in keep
    # none runs: there is nothing to go back to
    assert ran(kept, KeptUnit()) == []


def test_door_that_nobody_wants_is_stopped() -> None:
    plain = plain_release()
    assert ran(gone, KeptUnit(), plain) == []
    for found in (KeptUnit(active=True), KeptUnit(enabled=True)):
        assert ran(gone, found, plain) == ["systemctl disable --quiet --now triton-door.service"]


def test_key_of_a_door_that_does_not_run_is_out_of_date() -> None:
    fact = KeptUnitState()
    assert fact.process(["active", "enabled", "k"]) == KeptUnit(True, True, "k")
    assert fact.process(["inactive", "", "k"]) == KeptUnit(False, False, "")
    assert "systemctl is-active triton-door.service" in fact.command("triton-door", "/run/triton-door")


# What a run asks


class Answers(BaseHTTPRequestHandler):
    """A door that answers what the test says."""

    models: ClassVar[Any] = {"data": [{"id": "small"}]}
    answer: ClassVar[Any] = {}
    status = 200
    seen: ClassVar[list[tuple[str, Any, str]]] = []

    def do_GET(self) -> None:
        self.reply(200, self.models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, body, self.headers.get("X-Tritonhost-Server", "")))
        self.reply(self.status, self.answer)

    def reply(self, status: int, document: Any) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing on the test's output."""


GOOD = {
    "choices": [{"text": " That."}],
    "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4},
}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("operations.server.door.READY_SECONDS", 0.2)
    monkeypatch.setattr(Answers, "seen", [])
    monkeypatch.setattr(Answers, "answer", GOOD)
    monkeypatch.setattr(Answers, "status", 200)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_golden_request_goes_through_the_door(endpoint: str) -> None:
    assert asked(endpoint, WANTED) == ""
    assert asked(endpoint, WANTED, is_next=True) == ""
    path, body, _ = Answers.seen[0]
    assert path == "/v1/completions"
    servers = [server for _, _, server in Answers.seen]
    assert servers == ["", *servers[1:-1], "next"] and {*servers} == {"", "next"}
    assert body == {"model": "small", "prompt": "What?", "max_tokens": 8, "temperature": 0}


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (
            {**GOOD, "choices": [{"text": "This."}]},
            200,
            "found 'This.', expected an answer starting with 'That.'",
        ),
        ({**GOOD, "usage": {"prompt_tokens": 0, "completion_tokens": 2}}, 200, "expected counts above 0"),
        ({"choices": GOOD["choices"]}, 200, "found HTTP 200 (no message)"),
        ({"error": {"message": "not ready"}}, 503, "found HTTP 503 (not ready)"),
        ([], 200, "found HTTP 200"),
    ],
)
def test_wrong_answer_of_the_door_is_said(endpoint: str, answer: Any, status: int, said: str) -> None:
    Answers.answer, Answers.status = answer, status
    assert said in asked(endpoint, WANTED)


def test_door_without_a_model_is_said(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "models", {"data": []})
    assert asked(endpoint, WANTED) == "/v1/models: found no model (HTTP 200), expected the one that serves"
    assert "HTTP 0" in asked("127.0.0.1:1", WANTED)


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path / "bin")


@pytest.mark.parametrize("kept_before", [True, False])
def test_door_that_answers_wrongly_is_put_back(stubs: Stubs, tmp_path: Path, kept_before: bool) -> None:
    record, kept_at = tmp_path / "record", tmp_path / "kept"
    record.write_text("new\n")
    if kept_before:
        (tmp_path / "unit").write_text("before")
        subprocess.run(["tar", "-C", "/", "-cpf", str(kept_at), str(tmp_path / "unit")[1:]], check=True)
        (tmp_path / "unit").write_text("new")
    stubs.add("systemctl", ":")
    done = stubs.run(host_script("door_back.sh", {"UNIT": "u", "KEPT": str(kept_at), "RECORD": str(record)}))
    assert done.returncode == 0
    if kept_before:
        assert (tmp_path / "unit").read_text() == "before"
        assert "what it ran with before is back" in done.stdout
    else:
        # the next run finds another key than the one it wants, and does not take the door for good
        assert record.read_text() == "not proven\n"
