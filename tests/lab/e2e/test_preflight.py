"""The preflight on a bare host: a healthy one passes, a broken one gets all failures at once, and neither is changed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab.e2e.one_host import DEPLOY, INVENTORY, PYINFRA, Done, OneHost
from tests.lab.e2e.test_bare_host import NOISE

PREFLIGHT = [sys.executable, "-m", "operations.preflight", INVENTORY]
# no instance metadata, no kernel messages, no boot loader and no kernel's package in a container
NOT_IN_THE_LAB = {"shape", "Xid errors", "kernel", "kernel fixes"}
HELD = "/run/preflight-test"
# The preflight measures its own elapsed time and limits each check that may wait: these are twice the sum of its limits,
# for a machine that runs other labs as well. The limit of a whole command includes pyinfra's imports.
LOOK_SECONDS, COMMAND_SECONDS, UNREACHED_SECONDS = 20, 60, 90
# rpm's lock, taken as rpm takes it, by a process that calls itself dnf
LOCK = "import fcntl, time; f = open('/var/lib/rpm/.rpm.lock', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(600)"


def checks(done: Done) -> dict[str, dict[str, str]]:
    [host] = document(done)["hosts"].values()
    return {check["name"]: check for check in host["checks"]}


def document(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.output[done.output.index("{") :])
    return found


def named(found: dict[str, dict[str, str]], verdict: str) -> set[str]:
    return {name for name, check in found.items() if check["verdict"] == verdict}


def test_bare_host_passes_except_checks_the_lab_cannot_make(bare: OneHost) -> None:
    before = everything(bare)
    done = bare.run(*PREFLIGHT, "--json")
    assert done.code == 4, done.output
    found = checks(done)
    assert named(found, "failed") == set()
    assert named(found, "not checked") == NOT_IN_THE_LAB
    assert all(found[name]["found"] for name in NOT_IN_THE_LAB)
    assert {name for name in found if name.startswith("source ")} <= named(found, "ok")
    assert document(done)["hosts"]["h1"]["status"] == "not checked"
    # the time for one host; the whole command with its imports takes a little longer
    assert document(done)["hosts"]["h1"]["seconds"] < LOOK_SECONDS
    assert done.seconds < COMMAND_SECONDS
    assert everything(bare) == before


@pytest.mark.requirement("R05", "R19")
def test_preflight_reports_all_problems_and_changes_nothing(bare: OneHost) -> None:
    with broken(bare):
        before = everything(bare)
        alone = bare.run(*PREFLIGHT, "--json", "--data", "shape=BM.GPU.H100.8")
        assert alone.code == 3, alone.output
        found = checks(alone)
        assert named(found, "failed") == {
            "release",  # MIG is refused by the plan, too
            "shape",
            "fabric manager",
            "ports",
            "ECC errors",
            "MIG",
            "memory repairs",
        }
        assert found["shape"]["found"] == "4 x NVIDIA A100-SXM4-80GB of 80.0 GiB"
        assert found["shape"]["expected"] == "8 x H100 of 80 GB, as BM.GPU.H100.8 has them"
        assert found["ECC errors"]["found"].startswith("GPU 2: 3 uncorrected")
        assert found["MIG"]["found"] == "GPU 1: enabled"
        assert found["ports"]["found"] == "8000 by python3"
        assert "/var/lib/rpm/.rpm.lock by process" in found["package locks"]["found"]
        assert f"{HELD}/dnf makecache" in found["package locks"]["found"]
        assert found["temporary directories"]["found"] == "noexec: /tmp"
        assert named(found, "warning") >= {"package locks", "temporary directories"}
        assert document(alone)["hosts"]["h1"]["seconds"] < LOOK_SECONDS

        told = bare.run(
            *PYINFRA, "-y", INVENTORY, "operations.preflight.report", "--data", "shape=BM.GPU.H100.8"
        )
        assert told.code == 1, told.output
        deployed = bare.run(*DEPLOY, "--data", "shape=BM.GPU.H100.8")
        assert deployed.code == 1, deployed.output
        for said in (told.output, deployed.output):
            assert "Traceback" not in said
            assert "8000 by python3" in said and "GPU 2: 3 uncorrected" in said
            assert "8 x H100 of 80 GB" in said and f"{HELD}/dnf makecache" in said
        assert everything(bare) == before
        assert bare.root("pgrep -f http.server && pgrep -f rpm.lock"), "nobody was ended for it"


def test_unreachable_source_fails_and_unreachable_host_exits_5(bare: OneHost) -> None:
    away = bare.run(*PREFLIGHT, "--json", "--data", "hub_endpoint=http://127.0.0.1:9")
    assert away.code == 3, away.output
    found = checks(away)
    assert named(found, "failed") == {"source hub"}
    assert "http://127.0.0.1:9: " in found["source hub"]["found"]
    bare.lab("cut", "1")
    try:
        gone = bare.run(*PREFLIGHT, "--json")
    finally:
        bare.lab("heal", "1")
    assert gone.code == 5, gone.output
    assert document(gone)["hosts"]["h1"]["status"] == "unreachable"
    assert gone.seconds < UNREACHED_SECONDS, "it does not wait for TCP to give up"


@pytest.mark.requirement("R33")
def test_login_user_without_sudo_is_reported_without_a_prompt(bare: OneHost) -> None:
    # without sudo, only a timer can revert it
    bare.root(
        "systemd-run --quiet --on-active=30 rm -f /etc/sudoers.d/zz-preflight; "
        "echo 'opc ALL=(ALL) PASSWD: ALL' >/etc/sudoers.d/zz-preflight"
    )
    try:
        done = bare.run(*PREFLIGHT, "--json")
    finally:
        until = time.monotonic() + 60
        while bare.try_root("true")[0] != 0:
            assert time.monotonic() < until, "sudo works again"
            time.sleep(1)
    assert done.code == 3, done.output
    assert "password:" not in done.output
    assert named(checks(done), "failed") == {"sudo"}
    assert checks(done)["operating system"]["verdict"] == "ok"


@contextmanager
def broken(site: OneHost) -> Iterator[None]:
    """Four GPUs of another model, one of them faulty and one partitioned; /tmp noexec; a port and rpm's lock taken."""
    gpus = site.root("cat /etc/lab/gpus")
    site.root(
        f"mkdir {HELD}; cat >{HELD}/dnf; chmod 755 {HELD}/dnf; "
        "printf 'NVIDIA A100-SXM4-80GB:4\\nuncorrected.2=3\\npending.2=Yes\\nmig.1=Enabled\\n' >/etc/lab/gpus; "
        "mount -t tmpfs -o noexec,mode=1777 tmpfs /tmp; "
        f"systemd-run --quiet --unit=preflight-lock python3 {HELD}/dnf makecache; "
        "systemd-run --quiet --unit=preflight-port python3 -m http.server 8000; "
        "n=0; until curl --silent --output /dev/null http://127.0.0.1:8000; do n=$((n + 1)); [ $n -lt 100 ]; sleep 0.1; done",
        stdin=LOCK,
    )
    try:
        yield
    finally:
        site.root(
            f"systemctl stop preflight-lock preflight-port; umount /tmp; rm -r {HELD}; cat >/etc/lab/gpus",
            stdin=f"{gpus}\n",
        )


def everything(site: OneHost) -> list[str]:
    """Everything that a change would show in: files of the system and of the data root, packages, units."""
    pruned = " -o ".join(f"-path {path}" for path in NOISE)
    return site.root(
        f"find /etc /var/lib /usr /root /run/tritonhost /home /tmp \\( {pruned} \\) -prune -o "
        "-printf '%p %s %T@ %m %u\\n' 2>/dev/null | sort; rpm -qa | sort; "
        # a login's scope ends a little later than its connection
        "systemctl list-unit-files --no-legend | grep -v -e '^session-' -e '^user'; "
        "iptables-save 2>/dev/null | sed '/^#/d'"
    ).splitlines()
