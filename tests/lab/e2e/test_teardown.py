"""A host that is taken off again: bare, deployed with all that a host can have, torn down, compared with what it was."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.e2e.conftest import KEEP
from tests.lab.e2e.one_host import DATA_ROOT, INVENTORY, Done, OneHost, settings_of_lab
from tests.lab.e2e.test_door import Doored
from tests.lab.settings import network_of

UNIT = "tritonhost-teardown-"
# What a host writes by itself, or what says when something was done and not what is there.
CHANGING = (
    *("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/cache", "/var/lib/systemd"),
    *("/var/lib/dnf", "/var/lib/rpm", "/usr/lib/sysimage", "/var/spool", "/home"),
    # caches that are written again after each transaction of packages
    *("/etc/ld.so.cache", "/usr/share/info/dir", "/usr/lib/udev/hwdb.bin", "/etc/udev/hwdb.bin"),
    # what groupadd keeps of the time before
    *("/etc/group-", "/etc/gshadow-"),
)
EXPECTED = (
    # firewalld keeps the file of a zone that was changed once: docs/how-to/hosts.md says so
    re.compile(r"left: .*/etc/firewalld/zones( d|/public\.xml)"),
    # `systemctl disable` removes the directory of links in which it leaves none
    re.compile(r"lost: /etc/systemd/system/[a-z-]+\.target\.wants d "),
    # of the lab's stand-ins
    re.compile(r"left: /usr/libexec/lab d "),
)
STEPS = (
    "stop the services",
    "remove containers, images and networks",
    "remove the guard and rules of the firewall",
    "remove units and settings",
    "remove the data",
    "take back what SELinux was told",
    "remove packages",
    "put back what had to make room",
    "remove repositories and keys",
    "forget the host",
)


class Machine:
    """The host, what it was, and the command that takes tritonhost off it."""

    def __init__(self, site: OneHost, folder: Path) -> None:
        self.site = site
        self.doored = Doored(site, folder)
        self.doored.write()
        self.files, self.packages = self.snapshot()

    def snapshot(self) -> tuple[set[str], set[str]]:
        """Every file of the host with its kind, mode, owner and content; and every package of it."""
        pruned = " -o ".join(f"-path {path}" for path in CHANGING)
        files = self.site.root(
            f"find / -xdev \\( {pruned} \\) -prune -o ! -type f -printf '%p %y %m %u:%g %l\\n' | sort;"
            f"find / -xdev \\( {pruned} \\) -prune -o -type f -printf '%p %y %m %u:%g %s\\n' | sort;"
            "find /etc /usr/local /root /opt -xdev -type f ! -name ld.so.cache ! -name 'g*-' -exec sha256sum {} + | sort -k 2"
        ).splitlines()
        packages = self.site.root(
            "rpm -qa --qf '%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}\\n' | sort"
        ).splitlines()
        return set(files), set(packages)

    def differences(self) -> list[str]:
        files, packages = self.snapshot()
        return [
            *(f"left: {line}" for line in sorted(files - self.files)),
            *(f"lost: {line}" for line in sorted(self.files - files)),
            *(f"left: package {name}" for name in sorted(packages - self.packages)),
            *(f"lost: package {name}" for name in sorted(self.packages - packages)),
        ]

    def left(self) -> list[str]:
        """The differences from the bare host, without those that have to be."""
        return [line for line in self.differences() if not any(one.match(line) for one in EXPECTED)]

    def teardown(self, *options: str) -> Done:
        command = [sys.executable, "-m", "operations.teardown", f"h{self.site.number}"]
        return self.site.run(*command, "--inventory", INVENTORY, *self.doored.options, *options)

    def killed_after(self, step: str) -> Done:
        """A teardown whose work on the host ends, as if the power had gone, when this step begins."""
        since = self.site.now()
        stop = threading.Event()

        def end() -> None:
            look = f"journalctl --quiet --output=cat --since=@{since} --grep='^tritonhost: step: {step}$'"
            while not stop.is_set():
                _, output = self.site.try_root(
                    f"{look} | grep -q . && systemctl kill --signal=KILL '{UNIT}*' && echo killed"
                )
                if "killed" in output:
                    return
                time.sleep(0.05)

        watcher = threading.Thread(target=end)
        watcher.start()
        try:
            return self.teardown("--yes")
        finally:
            stop.set()
            watcher.join()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    site = OneHost(settings_of_lab(network_of("LAB_E2E_NET")))
    if not KEEP:
        site.lab("down")
    site.lab("up", "1")
    yield Machine(site, tmp_path_factory.mktemp("teardown"))
    if not KEEP:
        site.lab("down")


def of_the_table(output: str) -> dict[tuple[str, str], str]:
    """(fate, what) -> detail."""
    rows = [line.strip().split(None, 1) for line in output.splitlines() if line.startswith("  ")]
    return {(fate, rest[:18].strip()): rest[18:].strip() for fate, rest in rows}


def test_bare_host_has_nothing_to_take_off(machine: Machine) -> None:
    done = machine.teardown("--yes")
    assert (done.code, done.output) == (0, "h1: nothing of tritonhost is on it\n"), done.output


def test_plan_is_shown_and_changes_nothing(machine: Machine) -> None:
    machine.doored.deploy()
    since = machine.site.now()
    done = machine.teardown("--plan")
    assert done.code == 0, done.output
    rows = of_the_table(done.output)
    assert "triton.service" in rows["goes", "services"]
    assert rows["goes", "data root"].startswith(f"{DATA_ROOT}: ")
    assert "docker-ce" in rows["goes", "packages"]
    assert machine.site.units_touched(since) == []


def test_question_without_a_terminal_changes_nothing(machine: Machine) -> None:
    since = machine.site.now()
    done = machine.teardown()
    assert done.code == 2
    assert "expected --yes" in done.output
    assert machine.site.units_touched(since) == []


def test_host_at_work_is_left_alone(machine: Machine) -> None:
    machine.site.root("systemd-run --quiet --unit=tritonhost-planted sleep 600")
    done = machine.teardown("--yes")
    machine.site.root("systemctl stop tritonhost-planted")
    assert done.code == 2
    assert "at work: tritonhost-planted.service" in done.output


def test_nothing_is_left_after_an_end_at_each_step(machine: Machine) -> None:
    for step in STEPS:
        done = machine.killed_after(step)
        assert done.code in (0, 1), done.output
    done = machine.teardown("--yes")
    assert done.code == 0, done.output
    left = machine.left()
    assert left == [], "\n".join(left)
    assert machine.site.try_root("test -e /run/tritonhost || nft list tables | grep tritonhost_")[0] == 1


def test_second_teardown_finds_nothing(machine: Machine) -> None:
    done = machine.teardown("--yes")
    assert (done.code, done.output) == (0, "h1: nothing of tritonhost is on it\n"), done.output


def test_what_others_have_stays(machine: Machine) -> None:
    site = machine.site
    machine.doored.deploy()
    site.root(f"docker volume create ours && mkdir {DATA_ROOT}/backup && touch {DATA_ROOT}/backup/file")
    done = machine.teardown("--yes")
    assert done.code == 0, done.output
    rows: dict[Any, str] = of_the_table(done.output)
    assert rows["stays", "docker"] == "it has volume ours, not tritonhost's"
    assert site.root("docker volume ls --quiet") == "ours"
    assert site.root(f"ls -A {DATA_ROOT}") == "backup"
    assert (
        site.root("docker container ls --all --quiet; docker network ls --quiet --filter type=custom") == ""
    )
    assert site.try_root("systemctl cat triton.service")[0] != 0
    # what had to stay goes when its reason has gone
    site.root(f"docker volume rm ours && rm -r {DATA_ROOT}/backup")
    done = machine.teardown("--yes")
    assert done.code == 0, done.output
    assert machine.left() == []
