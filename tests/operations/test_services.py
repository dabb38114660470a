"""The services of one host in one run: one lock, work that is made once, and what a turn waits for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest
from pyinfra.context import ctx_host

from operations import convergence, lock, pyinfra_patches, rollout
from operations.plan import PlanError
from operations.plan.profile.profiles import load_profile
from operations.plan.serving.rollout import Place
from operations.remote import detached
from operations.scripts import host_script
from tests.operations.test_operations import DONE, ENGINE, STARTED, THERE, Shell
from tests.unit.builders import converged, release, settings


class Named(Shell):
    """A connected service of a host."""

    def __init__(self, name: str, *answers: tuple[bool, list[str]]) -> None:
        super().__init__(*answers)
        self.name = name


@pytest.fixture(autouse=True)
def _nothing_made() -> Iterator[None]:
    yield
    detached._made.clear()
    lock._channels.clear()
    lock._guards.clear()
    lock._transports.clear()
    lock._units.clear()


def test_work_of_two_services_is_done_once(caplog: pytest.LogCaptureFixture) -> None:
    first, second = Named("gpu-1/llama", STARTED, DONE, THERE), Named("gpu-1/gpt")
    with caplog.at_level("INFO", "pyinfra"):
        ran = [gevent.spawn(detached.run_and_follow, None, one, ENGINE) for one in (first, second)]
        gevent.joinall(ran)
    assert [one.value for one in ran] == [True, True]
    assert second.scripts == []
    assert "made for another service of this host" in caplog.text


def test_work_that_failed_for_one_service_is_tried_by_the_other() -> None:
    assert not detached.run_and_follow(None, Named("gpu-1/llama", (False, ["no space"])), ENGINE)  # type: ignore[arg-type]
    assert detached.run_and_follow(None, Named("gpu-1/gpt", STARTED, DONE, THERE), ENGINE)  # type: ignore[arg-type]


def test_hosts_of_one_service_each_do_their_own_work() -> None:
    for name in ("gpu-1", "gpu-2", "gpu-1"):
        host = Named(name, STARTED, DONE, THERE)
        assert detached.run_and_follow(None, host, ENGINE)  # type: ignore[arg-type]
        assert host.scripts


class Channel:
    """The lock's channel of a host that gives it."""

    def __init__(self, commands: list[str], answer: bytes) -> None:
        self.commands, self.answer = commands, answer

    def settimeout(self, _: float) -> None: ...

    def exec_command(self, command: str) -> None:
        self.commands.append(command)

    def recv(self, _: int) -> bytes:
        return self.answer


class Transport:
    def __init__(self, commands: list[str], answer: bytes = b"held\n") -> None:
        self.commands, self.answer = commands, answer

    def open_session(self, timeout: float) -> Channel:
        return Channel(self.commands, self.answer)


def locked(
    monkeypatch: pytest.MonkeyPatch, *names: str, answer: bytes = b"held\n"
) -> tuple[list[bool], list[str]]:
    commands: list[str] = []
    monkeypatch.setattr(pyinfra_patches, "transport_of", lambda _: Transport(commands, answer))
    monkeypatch.setattr(gevent, "spawn", lambda *_: None)
    lock._units["gpu-1"] = {"tritonhost-engine-b", "tritonhost-engine-a"}
    return [lock.hold(None, Named(name), "deploy", ["tritonhost-engine-a"]) for name in names], commands  # type: ignore[arg-type]


def test_services_of_a_host_share_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    held, commands = locked(monkeypatch, "gpu-1/llama", "gpu-1/gpt", "gpu-2")
    assert held == [True, True, True]
    assert len(commands) == 2
    # detached work of each of them is adopted
    assert "tritonhost-engine-a tritonhost-engine-b" in commands[0]
    assert lock._guards.keys() == {"gpu-1", "gpu-2"}
    assert len(lock._transports["gpu-1"]) == 2


def test_lock_that_another_holds_is_refused_to_each(monkeypatch: pytest.MonkeyPatch) -> None:
    held, _ = locked(monkeypatch, "gpu-1/llama", "gpu-1/gpt", answer=b"refused ann\n")
    assert held == [False, False]


def wait(tmp_path: Path, *states: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\necho {' '.join(states)}\n")
    (tmp_path / "systemctl").chmod(0o755)
    script = host_script("wait_units.sh", {"UNITS": "llama\ngpt", "SECONDS_AT_MOST": "1"})
    return subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}
    )


@pytest.mark.parametrize(
    ("state", "code"), [("active", 0), ("failed", 1), pytest.param("activating", 1, marks=pytest.mark.slow)]
)
def test_units_beside_are_waited_for(tmp_path: Path, state: str, code: int) -> None:
    done = wait(tmp_path, state)
    assert done.returncode == code
    if code:
        assert done.stdout.startswith(f"found llama.service {state}, expected it active as before")


@pytest.mark.parametrize("ok", [True, False])
def test_turn_ends_when_the_services_beside_serve_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ok: bool
) -> None:
    run = rollout._Run()
    run.began = True
    run.places = {"gpu-1/llama": Place("gpu-1/llama", True)}
    run.statuses = {"gpu-1/llama": rollout.UNCHANGED}
    run.beside = {"gpu-1/llama": ("gpt",)}
    monkeypatch.setattr(rollout, "_run", run)
    host: Any = Named("gpu-1/llama", (ok, [] if ok else ["found gpt.service failed"]))
    assert rollout._take_turn(None, host, release(), [], lambda *_: None) is ok  # type: ignore[arg-type]
    assert "UNITS=gpt" in host.scripts[0]
    assert run.places["gpu-1/llama"].stage == ("done" if ok else "failed")
    assert ("services beside it: found gpt.service failed" in caplog.text) is not ok


ALONE = {"triton": {"gpu_ids": [0]}, "gpt": {"gpu_ids": [1]}}


def planned(services: dict[str, Any], name: str, **seen: Any) -> Any:
    given = {"at_data_root": services[name].get("at_data_root", False), "service_name": name}
    several = settings(services=services, gpu_ids=[0], **given)
    return convergence.planned_for(
        several, load_profile(several.model), replace(converged(release()), **seen)
    )


@pytest.mark.parametrize("container", [True, False])
def test_service_that_served_alone_needs_its_key(container: bool) -> None:
    stopped = {} if container else {"container": None}
    with pytest.raises(PlanError, match="at_data_root = true") as caught:
        planned(ALONE, "triton", alone="r1", current="", **stopped)
    assert caught.value.reference == "served-alone-before"
    assert planned(ALONE, "triton", alone="r1", current="r2")
    # another one of the services is that one
    assert planned({**ALONE, "triton": {"gpu_ids": [0], "at_data_root": True}}, "gpt", alone="r1", current="")


def test_links_of_another_unit_are_not_taken() -> None:
    services = {"llama": {"gpu_ids": [0], "at_data_root": True}, "gpt": {"gpu_ids": [1]}}
    with pytest.raises(PlanError, match=r"found no /etc/systemd/system/llama\.service") as caught:
        planned(services, "llama", current="r1", file_digests={})
    assert caught.value.reference == "at-data-root-of-another"
    assert planned(services, "llama", current="", file_digests={})


def test_failed_leader_stops_the_others_at_the_barrier(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = rollout._Run()
    run.leaders = {"gpu-1": "gpu-1/llama"}
    monkeypatch.setattr(rollout, "_run", run)
    monkeypatch.setattr(pyinfra_patches, "failed_hosts", lambda _: {"gpu-1/llama"})
    host: Any = Named("gpu-1/gpt")
    assert not rollout._is_ready(None, host)  # type: ignore[arg-type]
    assert run.statuses == {"gpu-1/gpt": "untouched: gpu-1/llama failed before it"}
    assert "found gpu-1/llama failed" in caplog.text
    monkeypatch.setattr(pyinfra_patches, "failed_hosts", lambda _: set())
    assert rollout._is_ready(None, host)  # type: ignore[arg-type]
    assert run.shared == {"gpu-1"}


def test_service_in_a_crash_loop_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    run = rollout._Run()
    monkeypatch.setattr(rollout, "_run", run)
    wanted = replace(release(), settings=settings(services=ALONE, gpu_ids=[0]))
    found: tuple[tuple[str, tuple[str, ...]], ...] = (("activating", ()), ("active", ("gpt",)))
    for state, beside in found:
        seen = replace(converged(release()), units={"gpt.service": {"ActiveState": state}})
        with ctx_host.use(Named("gpu-1/triton")):
            rollout.expect(wanted, seen)
        assert run.beside == {"gpu-1/triton": beside}
