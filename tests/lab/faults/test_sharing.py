"""Three hosts that share: what one of them has made, the others receive; a maker that dies, and a giver whose disk lies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from operations.plan.artifacts.artifact import DIRECTORIES
from operations.plan.artifacts.sharing import UNIT
from tests.lab.e2e.one_host import DATA_ROOT, OneHost
from tests.lab.faults.conftest import Table, lab_of
from tests.lab.faults.interrupt import GPUS_OF_THE_LAB, Client, manifests, until
from tests.lab.settings import network_of

NET = network_of("LAB_FLEET_NET")
SHARE = ("--data", 'share={"port": 8470}')
# how long the stand-in's builds take: the power is to go while one goes on
SLOW = f"echo build_seconds=20 >>{GPUS_OF_THE_LAB}"
FAST = f"sed -i /^build_seconds=/d {GPUS_OF_THE_LAB}"
# kinds whose making takes the time, or the hub's network
SHARED = ("image", "weights", "engine")


@pytest.fixture(scope="module")
def fleet() -> Iterator[list[OneHost]]:
    yield from lab_of(3, NET)


def batch(size: int) -> dict[str, Any]:
    """Another engine, and so another release."""
    return {"engine": {"max_batch_size": size}}


def received(output: str, kind: str) -> list[tuple[str, str]]:
    """(receiver, giver) of each transfer of an artifact of that kind."""
    return re.findall(rf"\[(h\d)\] {kind} [0-9a-f]+: received from (h\d) in", output)


def downloads(site: OneHost) -> int:
    """How often the hub gave the weights away."""
    log = (site.settings.state / "mirror.log").read_text(encoding="utf-8")
    return len(re.findall(r'"GET /lfs/\S+/model\.safetensors \S+" 200', log))


def contents(site: OneHost, kind: str) -> str:
    """The SHA-256 of every file of the current artifact of that kind."""
    place = f"{DATA_ROOT}/{DIRECTORIES[kind]}/{site.artifact(kind)}"
    return site.root(f"cd {place} && find . -type f ! -name manifest.json -exec sha256sum {{}} + | sort")


def test_one_host_makes_what_three_need(fleet: list[OneHost], table: Table) -> None:
    done = fleet[0].deploy(*SHARE)
    assert done.code == 0, done.output
    for kind in SHARED:
        assert len(received(done.output, kind)) == 2, f"{kind}: {done.output}"
    assert downloads(fleet[0]) == 1
    for kind in ("engine",):
        [content] = {contents(host, kind) for host in fleet}
        assert content
    assert fleet[0].deploy(*SHARE).code == 0
    table.add("three hosts of one GPU that share: one makes, two receive", 1, 1)
    for host in fleet:
        # it ends by itself later: tests/unit/test_share_server.py
        host.root(f"systemctl stop {UNIT} 2>/dev/null || :; ! test -e /run/{UNIT}")


def test_death_of_the_maker_elects_another(fleet: list[OneHost], table: Table) -> None:
    for host in fleet:
        host.root(SLOW)
    with Client(fleet[0], "--limit", "h2", "--limit", "h3", *SHARE, overrides=batch(9)) as client:
        until(lambda: bool(re.search(r"\[(h\d)\] engine [0-9a-f]+ +\d+ s \|", client.output)), 180, "a build")
        maker = re.findall(r"\[h(\d)\] engine [0-9a-f]+ +\d+ s \|", client.output)[0]
        fleet[0].lab("kill", maker)
        done = client.ended(600)
    assert done.code != 0
    left = [host for host in fleet if str(host.number) != maker]
    [(receiver, giver)] = received(done.output, "engine")
    assert {receiver, giver} == {f"h{host.number}" for host in left}, done.output
    fleet[0].lab("start", maker)
    for host in fleet:
        host.root(FAST)
    again = fleet[0].deploy(*SHARE, overrides=batch(9))
    assert again.code == 0, again.output
    table.add("power of the host that makes the engine for three", 1, 1)


def test_giver_whose_disk_lies_is_named_and_left_out(fleet: list[OneHost], table: Table) -> None:
    first = fleet[0].deploy("--limit", "h1", *SHARE, overrides=batch(10))
    assert first.code == 0, first.output
    engine = f"{DATA_ROOT}/engines/{fleet[0].artifact('engine')}"
    # one byte, with the size and the time that the manifest has
    fleet[0].root(
        f"f=$(find {engine} -name '*.engine' | head -n 1); t=$(stat -c %y $f); "
        'printf "\\377" | dd of=$f bs=1 seek=100 conv=notrunc 2>/dev/null; touch -d "$t" $f'
    )
    done = fleet[0].deploy(*SHARE, overrides=batch(10))
    assert done.code == 0, done.output
    assert "h1: " in done.output and "found another content than its manifest says" in done.output
    assert all(giver != "h1" for _, giver in received(done.output, "engine")), done.output
    kept = manifests(fleet[1])
    assert engine in kept
    assert contents(fleet[1], "engine") == contents(fleet[2], "engine") != contents(fleet[0], "engine")
    table.add("a flipped byte on the disk of the host that gives", 1, 1)
