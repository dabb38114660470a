"""Three hosts, some of them unreachable: the run fails with the reason, and its table names all hosts."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.e2e.conftest import KEEP
from tests.lab.e2e.one_host import DEPLOY, INVENTORY, PYINFRA, Done, OneHost, settings_of_lab
from tests.lab.faults.test_rollout import reported
from tests.lab.settings import REPOSITORY, network_of


@pytest.fixture(scope="module")
def three() -> Iterator[list[OneHost]]:
    """Three bare hosts; LAB_THREE_NET is their network."""
    settings = settings_of_lab(network_of("LAB_THREE_NET"))
    ours = [OneHost(settings, number) for number in (1, 2, 3)]
    if not KEEP:
        ours[0].lab("down")
    ours[0].lab("up", "3")
    yield ours
    if not KEEP:
        ours[0].lab("down")


def looked_at(site: OneHost, *options: str) -> Done:
    """A dry run: these tests need only the connection and the probe."""
    done = site.run(*PYINFRA, INVENTORY, "deploy.py", "--dry", "-y", *options)
    assert "Traceback" not in done.output
    return done


@pytest.mark.requirement("R03")
def test_stopped_host_is_reported_and_others_are_probed(three: list[OneHost]) -> None:
    three[0].lab("stop", "2")
    try:
        done = looked_at(three[0])
    finally:
        three[0].lab("start", "2")
    assert done.code == 1, done.output
    statuses = reported(done.output)
    assert list(statuses) == ["h1", "h2", "h3"]
    assert statuses["h2"].startswith("unreachable: ")
    assert statuses["h1"] == statuses["h3"] == "differs, nothing was changed"


@pytest.mark.requirement("R04")
def test_changed_host_key_is_refused_and_all_hosts_reported(three: list[OneHost], tmp_path: Path) -> None:
    known = three[0].settings.known_hosts
    kept = tmp_path / "known_hosts"
    shutil.copy(known, kept)
    told = three[1].root("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]
    try:
        lines = kept.read_text(encoding="utf-8").splitlines()
        address = three[1].target.address
        other = next(line for line in lines if line.split()[0] != address).split(maxsplit=1)[1]
        changed = [f"{address} {other}" if line.split()[0] == address else line for line in lines]
        known.write_text("\n".join(changed) + "\n", encoding="utf-8")
        done = looked_at(three[0])
        assert done.code == 1, done.output
        assert f"host key: found ED25519 {told}, expected ED25519 SHA256:" in done.output
        assert f"ssh-keygen -R {address} -f {known}" in done.output
        assert reported(done.output)["h2"].startswith("unreachable: host key: found ED25519 ")
        assert reported(done.output)["h3"] == "differs, nothing was changed"

        known.write_text(
            "\n".join(line for line in lines if line.split()[0] != address) + "\n", encoding="utf-8"
        )
        before = known.read_text(encoding="utf-8")
        done = looked_at(three[0])
        assert done.code == 1, done.output
        assert f"host key: found ED25519 {told}, expected one that {known} knows" in done.output
        assert list(reported(done.output)) == ["h1", "h2", "h3"]
        assert known.read_text(encoding="utf-8") == before, "never accepted by itself"
    finally:
        shutil.copy(kept, known)


def test_unreached_hosts_are_all_reported(three: list[OneHost]) -> None:
    for number in ("1", "2", "3"):
        three[0].lab("stop", number)
    try:
        done = looked_at(three[0], "--exclude", "h3")
    finally:
        for number in ("1", "2", "3"):
            three[0].lab("start", number)
    assert done.code == 1, done.output
    statuses = reported(done.output)
    assert statuses["h1"].startswith("unreachable: ")
    assert statuses["h2"].startswith("unreachable: ")
    assert statuses["h3"] == "left out by --limit or --exclude"


def test_ctrl_c_exits_130_and_reports_all_hosts(three: list[OneHost]) -> None:
    process = subprocess.Popen(
        ["timeout", "--foreground", "--preserve-status", "--signal=INT", "8", *DEPLOY, "--limit", "h1"],
        env=three[0].environment,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 130, output
    assert "interrupted; " in output, output
    assert "Traceback" not in output
    assert list(reported(output)) == ["h1", "h2", "h3"]
