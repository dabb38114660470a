"""Hosts of one run that share artifacts: who makes one, who receives it, and what is sent to whom."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import gevent
import pytest

from operations import artifacts
from operations.artifacts import obtained
from operations.plan.artifacts.artifact import Artifact, ServingImage
from operations.plan.inventory.share_settings import ShareSettings
from operations.plan.observed.observed import Observed
from tests.operations.test_operations import CHECKPOINT, ENGINE
from tests.unit.builders import gpu, release, settings

SHARING = settings(share={"transfer_mbit": 80})
IMAGE = release().image
IDENTITY = f"sha256:{'5' * 64}"
MANIFEST = {
    "kind": "engine",
    "key": ENGINE.key,
    "inputs": {},
    "files": {"rank 0.engine": {"size": 5, "mtime": 1, "sha256": "ab" * 32}},
}


class Member:
    """A connected host of a run."""

    connected = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.print_prefix = f"[{name}] "
        self.data = _Data({"ssh_hostname": f"10.0.0.{name[-1]}"})


class _Data(dict[str, Any]):
    def dict(self) -> dict[str, Any]:
        return dict(self)


class Run:
    """What the hosts of one run did, in order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.did: list[tuple[str, str, str]] = []  # host, made or received, unit
        self.sent: list[tuple[str, Any]] = []
        self.works: list[Any] = []
        self.outcome: Callable[[str, bool], bool] = lambda name, received: True
        self.at_work: set[str] = set()
        patch.setattr(artifacts, "run_and_follow", self._run)
        patch.setattr(artifacts, "shell", self._shell)
        patch.setattr(artifacts, "done", self._done)
        patch.setattr(artifacts, "POLL_SECONDS", 0.01)
        patch.setattr(artifacts, "GIVE_WAY_SECONDS", 0.05)
        patch.setattr(artifacts, "_members", artifacts._Members())

    def join(self, *names: str, driver: str = "570.10", observed: Observed | None = None) -> list[Member]:
        hosts = [Member(name) for name in names]
        gpus = (gpu(driver=driver),)
        for host in hosts:
            found = replace(observed or Observed(), gpus=gpus)
            artifacts.take_part(host, SHARING, found)  # type: ignore[arg-type]
        return hosts

    def _run(self, state: Any, host: Member, work: Any, log: Any = None) -> bool:
        gevent.sleep(0.02)
        received = any(name.startswith("receive_") for name in work.files)
        self.did.append((host.name, "received" if received else "made", work.unit))
        self.works.append(work)
        return self.outcome(host.name, received)

    def _shell(self, host: Member, script: str, **rest: Any) -> tuple[bool, list[str]]:
        if "is-active" in script:
            return host.name in self.at_work, []
        return host.name not in self.lost, []

    lost: frozenset[str] = frozenset()

    def _done(self, host: Member, script: str, **rest: Any) -> list[str]:
        self.sent.append((host.name, script))
        if "manifest.json" in script:
            kind, key = script.split("/")[-3:-1]
            of = {**MANIFEST, "kind": kind.removesuffix("s"), "key": key}
            return ["sudo: unable to resolve host", *json.dumps(of, indent=1).splitlines()]
        return ["sudo: unable to resolve host", IDENTITY]

    def all_obtain(self, hosts: list[Member], work: Artifact | ServingImage, **rest: Any) -> list[bool]:
        running = [gevent.spawn(obtained, None, host, work, **rest) for host in hosts]
        gevent.joinall(running, timeout=20)
        return [bool(each.value) for each in running]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    yield Run(monkeypatch)


def test_one_makes_and_the_others_receive(run: Run) -> None:
    hosts = run.join("h1", "h2", "h3", "h4")
    assert run.all_obtain(hosts, ENGINE) == [True] * 4
    assert [what for _, what, _ in run.did].count("made") == 1
    assert run.did[0] == ("h1", "made", ENGINE.unit)


@pytest.mark.parametrize("names", [["h1"], []])
def test_one_host_makes_its_own(run: Run, names: list[str]) -> None:
    run.join(*names)
    assert run.all_obtain([Member("h1")], ENGINE) == [True]
    assert run.did == [("h1", "made", ENGINE.unit)]
    assert run.sent == []


def test_checkout_and_small_images_are_not_shared(run: Run) -> None:
    hosts = run.join("h1", "h2")
    for work in (replace(ENGINE, kind="source", checksums=False), replace(IMAGE, name="gateway")):
        run.did.clear()
        assert run.all_obtain(hosts, work) == [True, True]
        assert {what for _, what, _ in run.did} == {"made"}


def test_work_of_an_earlier_run_is_followed(run: Run) -> None:
    hosts = run.join("h1", "h2")[::-1]
    run.at_work = {"h2"}
    assert run.all_obtain(hosts, ENGINE) == [True, True]
    # the other one waits for it, and receives
    assert run.did == [("h2", "made", ENGINE.unit), ("h1", "received", ENGINE.unit)]


def test_work_of_an_earlier_run_that_fails_is_begun_again(run: Run) -> None:
    hosts = run.join("h1", "h2")
    run.at_work = {"h2"}
    first = iter([False])
    run.outcome = lambda name, received: next(first, True) if name == "h2" else True
    assert run.all_obtain(hosts, ENGINE) == [True, True]


def test_giver_that_says_nonsense_is_not_believed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = run.join("h1", "h2")
    nonsense = json.dumps(
        {**MANIFEST, "files": {"../../etc/cron.d/x": {"size": 5, "mtime": 1, "sha256": "ab" * 32}}}
    )
    monkeypatch.setattr(artifacts, "done", lambda host, script, **rest: [nonsense])
    assert run.all_obtain(hosts, ENGINE) == [True, True]
    assert {what for _, what, _ in run.did} == {"made"}
    run.did.clear()
    assert run.all_obtain(hosts, IMAGE) == [True, True]
    assert {what for _, what, _ in run.did} == {"made"}


def test_description_and_dataset_are_had_by_all(run: Run) -> None:
    """They are checked, and used, on each host."""
    hosts = run.join("h1", "h2")
    for kind in ("description", "dataset"):
        run.did.clear()
        assert run.all_obtain(hosts, replace(ENGINE, kind=kind), unless=ENGINE) == [True, True]
        assert len(run.did) == 2


def test_receiver_knows_what_to_expect_and_no_hub_token(run: Run) -> None:
    hosts = run.join("h1", "h2")
    run.all_obtain(hosts, replace(ENGINE, needs_token=True))
    work = run.works[1]
    assert work.files["list"] == f"{'ab' * 32}\t5\trank 0.engine\trank%200.engine\n"
    assert work.files["token"].startswith("Authorization: ")
    assert not work.needs_token
    assert work.resumable
    assert (work.unit, work.path, work.inputs) == (ENGINE.unit, ENGINE.path, ENGINE.inputs)
    [command] = work.commands
    assert command[2:] == (
        f"{ENGINE.path.rpartition('/')[0]}/.{ENGINE.key}.partial",
        f"https://10.0.0.1:8470/files/engines/{ENGINE.key}",
        "h1",
        "10000000",  # bytes a second of 80 megabits
    )
    [start] = [script for host, script in run.sent if "systemd-run" in script]
    assert "RECEIVER=10.0.0.2" in start
    assert "private" not in repr(artifacts._members.givers).lower()


def test_image_is_received_by_its_id(run: Run) -> None:
    hosts = run.join("h1", "h2")
    assert run.all_obtain(hosts, IMAGE) == [True, True]
    [command] = run.works[1].commands
    assert command[2:] == (
        IMAGE.tag,
        IDENTITY,
        f"https://10.0.0.1:8470/images/serving/{IMAGE.key}",
        "h1",
        "10000000",
    )


def test_transfer_that_fails_is_no_failure_of_the_run(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    hosts = run.join("h1", "h2")
    run.outcome = lambda name, received: not received
    with caplog.at_level("INFO", "pyinfra"):
        assert run.all_obtain(hosts, ENGINE) == [True, True]
    assert [what for _, what, _ in run.did] == ["made", "received", "made"]
    assert "[h2] engine" in caplog.text
    assert "not received from h1: another way is taken" in caplog.text
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_maker_that_is_lost_is_replaced(run: Run) -> None:
    hosts = run.join("h1", "h2", "h3")
    run.outcome = lambda name, received: name != "h1"
    run.lost = frozenset({"h1"})
    assert run.all_obtain(hosts, ENGINE) == [False, True, True]
    assert [(name, what) for name, what, _ in run.did] == [("h1", "made"), ("h2", "made"), ("h3", "received")]


def test_build_that_fails_twice_is_not_begun_on_all(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    hosts = run.join("h1", "h2", "h3", "h4")
    run.outcome = lambda name, received: False
    assert run.all_obtain(hosts, ENGINE) == [False] * 4
    assert len(run.did) == 2
    assert "found that it failed on two hosts, last on h2" in caplog.text


def test_checkpoint_is_made_once_and_never_sent(run: Run) -> None:
    hosts = run.join("h1", "h2", "h3")
    assert run.all_obtain(hosts, CHECKPOINT, unless=ENGINE) == [True] * 3
    assert run.all_obtain(hosts, ENGINE) == [True] * 3
    assert [(name, what) for name, what, unit in run.did if unit == CHECKPOINT.unit] == [("h1", "made")]
    assert [name for name, what, unit in run.did if unit == ENGINE.unit and what == "made"] == ["h1"]


def test_host_that_takes_over_makes_the_checkpoint_first(run: Run) -> None:
    hosts = run.join("h1", "h2")
    run.all_obtain(hosts, CHECKPOINT, unless=ENGINE)
    run.outcome = lambda name, received: name != "h1"
    run.lost = frozenset({"h1"})
    run.did.clear()
    assert run.all_obtain(hosts, ENGINE) == [False, True]
    # h1 is gone, and cannot give the checkpoint that it has
    made = [(name, unit) for name, what, unit in run.did if what == "made" and name == "h2"]
    assert made[-1] == ("h2", ENGINE.unit)
    assert next(unit for name, what, unit in run.did if name == "h2") == CHECKPOINT.unit


def test_nothing_is_shared_unasked(run: Run) -> None:
    host = Member("h1")
    artifacts.take_part(host, settings(), Observed())  # type: ignore[arg-type]
    assert not artifacts._members.exchange.takes_part("h1")


def test_limit_of_zero_is_none() -> None:
    assert artifacts._limit(settings(share=ShareSettings())) == "0"
