"""What a host remembers of the time before this tool: the scripts that note it, under sh on this machine."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from operations.scripts import HOST_SCRIPTS, host_script
from tests.unit.stubs import Stubs

RECORD_PACKAGES = HOST_SCRIPTS / "record_packages.sh"


class Rpm:
    """rpm's list of packages as a file, and the commands that change it."""

    def __init__(self, place: Path) -> None:
        self.listed = place / "installed"
        self.record = place / "record"
        self.record.mkdir()
        self.stubs = Stubs(place / "bin")
        self.stubs.add(
            "rpm", f'sed "s/ /\\t/g" {self.listed}; exit $(cat {place}/code 2>/dev/null || echo 0)'
        )
        self.set("bash bash-5.1.8-9.el9.x86_64", "podman podman-4.9.4-1.el9.x86_64")

    def set(self, *lines: str) -> None:
        self.listed.write_text("".join(f"{line}\n" for line in lines))

    def run(self, *becomes: str, code: int = 0, directory: Path | None = None) -> int:
        """A package manager's command, after which these packages are there."""
        text = "".join(f"{line}\\n" for line in becomes)
        command = f"printf '{text}' >{self.listed}; exit {code}"
        return subprocess.run(
            ["sh", str(RECORD_PACKAGES), str(directory or self.record), "sh", "-c", command],
            env={"PATH": f"{self.stubs.directory}:{os.environ['PATH']}"},
            timeout=30,
            check=False,
        ).returncode

    def noted(self, name: str) -> list[str]:
        return (self.record / name).read_text().splitlines()


@pytest.fixture
def rpm(tmp_path: Path) -> Rpm:
    return Rpm(tmp_path)


BASH, PODMAN = "bash bash-5.1.8-9.el9.x86_64", "podman podman-4.9.4-1.el9.x86_64"
DOCKER, GIT = "docker-ce docker-ce-28.0.1-1.el9.x86_64", "git git-2.43.5-1.el9.x86_64"
KEY = "gpg-pubkey gpg-pubkey-621e9f35-58adea78.(none)"


def test_what_came_and_what_went_is_noted(rpm: Rpm) -> None:
    assert rpm.run(BASH, DOCKER, KEY) == 0
    assert rpm.noted("came") == ["docker-ce", "gpg-pubkey-621e9f35-58adea78"]
    assert rpm.noted("went") == ["podman\tpodman-4.9.4-1.el9.x86_64"]
    assert sorted(path.name for path in rpm.record.iterdir()) == ["came", "went"]


def test_packages_of_others_are_not_noted(rpm: Rpm) -> None:
    rpm.run(BASH, DOCKER)
    rpm.set(BASH, DOCKER, GIT)  # by an administrator
    rpm.run(BASH, DOCKER, GIT, "nftables nftables-1.0.9-1.el9.x86_64")
    assert rpm.noted("came") == ["docker-ce", "nftables"]


def test_an_upgrade_brings_nothing(rpm: Rpm) -> None:
    rpm.run("bash bash-5.2.0-1.el9.x86_64", PODMAN)
    assert (rpm.noted("came"), rpm.noted("went")) == ([], [])


def test_what_came_and_is_removed_again_is_forgotten(rpm: Rpm) -> None:
    rpm.run(BASH, PODMAN, GIT)
    rpm.run(BASH, PODMAN)
    assert (rpm.noted("came"), rpm.noted("went")) == ([], [])


def test_what_went_and_came_back_is_forgotten(rpm: Rpm) -> None:
    rpm.run(BASH)
    rpm.run(BASH, PODMAN)
    assert (rpm.noted("came"), rpm.noted("went")) == ([], [])


def test_a_killed_command_is_noted_by_the_next(rpm: Rpm) -> None:
    before = rpm.record / ".before"
    before.write_text("bash\tbash-5.1.8-9.el9.x86_64\npodman\tpodman-4.9.4-1.el9.x86_64\n")
    began = int(time.time()) - 86400
    os.utime(before, (began, began))
    killed, administrator = f"{DOCKER} {began + 60}", f"vim vim-9.0-1.el9.x86_64 {began + 40000}"
    rpm.set(BASH, killed, administrator)
    rpm.run(BASH, killed, administrator, f"{GIT} {int(time.time()) + 5}")
    assert rpm.noted("came") == ["docker-ce", "git"]
    assert rpm.noted("went") == ["podman\tpodman-4.9.4-1.el9.x86_64"]


def test_the_commands_exit_code_is_kept(rpm: Rpm) -> None:
    assert rpm.run(BASH, PODMAN, GIT, code=75) == 75
    assert rpm.noted("came") == ["git"]


def test_half_a_list_makes_nothing_ours(rpm: Rpm, tmp_path: Path) -> None:
    (tmp_path / "code").write_text("1")
    assert rpm.run(BASH, DOCKER) == 0
    assert (rpm.noted("came"), rpm.noted("went")) == ([], [])


def test_without_a_record_nothing_is_noted(rpm: Rpm, tmp_path: Path) -> None:
    assert rpm.run(BASH, DOCKER, directory=tmp_path / "none") == 0
    assert not (tmp_path / "none").exists()
    assert rpm.stubs.calls == []


def begun(place: Path, service: str = "triton", **changes: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "DIRECTORY": str(place / "record"),
        "PLACES": f"{service}\t{place}/data",
        "OURS": f"{place}/triton.service",
        "OVERWRITTEN": f"{place}/daemon.json\n{place}/absent",
        "THERE": f"{place}/docker\n{place}/absent",
        "GROUP": "root",
        "EARLY": "",
        **changes,
    }
    script = host_script("begin_record.sh", variables)
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=30, check=False)


def test_record_says_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text("{}")
    (tmp_path / "docker").mkdir()
    assert begun(tmp_path).returncode == 0
    record = tmp_path / "record"
    assert (record / "began").read_text() == "bare\n"
    assert (record / "there").read_text() == f"{tmp_path}/docker\ngroup:root\n"
    assert (record / f"files{tmp_path}/daemon.json").read_text() == "{}"
    assert (record / "places").read_text() == f"triton\t{tmp_path}/data\n"


def test_second_run_changes_no_record(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "daemon.json").write_text("ours")
    (tmp_path / "docker").mkdir()
    begun(tmp_path)
    begun(tmp_path, "other")
    record = tmp_path / "record"
    assert (record / "there").read_text() == "group:root\n"
    assert not (record / "files").exists()
    assert (record / "places").read_text() == "".join(
        f"{name}\t{tmp_path}/data\n" for name in ("other", "triton")
    )


def test_host_deployed_before_has_no_copies(tmp_path: Path) -> None:
    (tmp_path / "triton.service").touch()
    (tmp_path / "daemon.json").write_text("ours")
    begun(tmp_path)
    assert (tmp_path / "record" / "began").read_text() == "used\n"
    assert not (tmp_path / "record" / "files").exists()


def test_full_disk_is_no_fault_before_it_grows(tmp_path: Path) -> None:
    (tmp_path / "record").touch()  # no directory can be made there
    early = begun(tmp_path, EARLY="yes")
    assert (early.returncode, early.stdout) == (
        0,
        "tritonhost: no room for the host's record: it is begun when the root file system has grown\n",
    )
    assert begun(tmp_path).returncode != 0


def test_content_of_a_data_root_that_was_there_is_noted(tmp_path: Path) -> None:
    (tmp_path / "data" / "weights").mkdir(parents=True)
    begun(tmp_path)
    assert f"{tmp_path}/data/weights" in (tmp_path / "record" / "there").read_text().splitlines()
