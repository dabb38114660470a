"""Tests of the lab. They can run at the same time as a lab in use: on their own network, with their own state folder."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import life, machine, settings
from tests.lab.settings import network_of

LAB = Path(__file__).parent / "lab"
ACROSS_RELOADS = Path(__file__).parent / "faults" / "across_reloads.py"
NETWORK = network_of("LAB_OWN_NET")

# A new worker gets the old one's listening sockets over the statistics socket: haproxy 1.8 needs this option for it.
PROXY = """global
    chroot /var/lib/haproxy
    user haproxy
    group haproxy
    maxconn 200
    stats socket /var/lib/haproxy/stats mode 600 level admin expose-fd listeners
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
listen echo
    bind 127.0.0.1:9000
    server one 127.0.0.1:9001
"""
RELOADS = 20

pytestmark = pytest.mark.lab


class Lab:
    """The lab's command line, on its own network."""

    def __init__(self, state: Path) -> None:
        self.environment = {**os.environ, "LAB_NET": NETWORK, "LAB_STATE": str(state), "LAB_OS": "9"}
        self.state = state

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [LAB, *arguments], env=self.environment, input=stdin, capture_output=True, text=True, check=False
        )

    def ok(self, *arguments: str, stdin: str = "") -> str:
        result = self.run(*arguments, stdin=stdin)
        assert result.returncode == 0, f"lab {' '.join(arguments)}: {result.stderr}"
        return result.stdout.strip()

    def up(self, count: int) -> float:
        began = time.monotonic()
        self.ok("up", str(count))
        return time.monotonic() - began

    def record(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.state / "lab.json").read_text())
        return content

    def reachable(self, number: int) -> bool:
        """Whether a login succeeds within three seconds; a host that is cut off or paused would never answer it."""
        command: list[str | Path] = [LAB, "ssh", str(number), "true"]
        try:
            done = subprocess.run(command, env=self.environment, capture_output=True, timeout=3, check=False)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def free_mib(self, number: int) -> int:
        return int(self.ok("ssh", str(number), "df --output=avail --block-size=1M / | tail -n 1"))

    def left_behind(self) -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            return life.left_behind(settings.from_environment())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lacking = machine.missing(settings.from_environment())
    if lacking:
        pytest.fail("; ".join(lacking))
    ours = Lab(tmp_path_factory.mktemp("lab") / "state")
    ours.ok("down")
    ours.ok("up", "2")
    yield ours
    ours.ok("down")


def test_opc_logs_in_and_has_sudo(lab: Lab) -> None:
    assert lab.ok("ssh", "1", "id -un; sudo -n id -un; hostname").split() == ["opc", "root", "h1"]


def test_systemd_runs_without_failed_units(lab: Lab) -> None:
    assert lab.ok("ssh", "1", "systemctl is-system-running --wait") == "running"


def test_host_reports_oracle_linux(lab: Lab) -> None:
    assert lab.ok(
        "ssh", "1", '. /etc/os-release; echo "$ID $VERSION_ID"; cat /etc/oracle-release'
    ).splitlines() == [
        "ol 9.5",
        "Oracle Linux Server release 9.5",
    ]


def test_bare_host_has_podman_and_no_docker(lab: Lab) -> None:
    assert lab.run("ssh", "1", "command -v docker git git-lfs jq apt-get dpkg").stdout == ""
    assert lab.ok("ssh", "1", "rpm -q --qf '%{NAME} ' runc podman buildah") == "runc podman buildah"


def test_docker_installs_only_after_podman_is_removed(lab: Lab) -> None:
    mirror = lab.record()["mirror"]["http"]
    repository = (
        f"[docker]\\nname=docker\\nbaseurl={mirror}/dnf/docker-ce/el9/\\ngpgkey={mirror}/dnf/docker-ce/gpg\\n"
        "gpgcheck=1\\nrepo_gpgcheck=1\\n"
    )
    lab.ok("ssh", "2", f"printf '{repository}' | sudo tee /etc/yum.repos.d/docker.repo")
    refused = lab.run("ssh", "2", "sudo dnf -q -y install docker-ce")
    assert refused.returncode != 0
    assert "runc" in refused.stderr
    lab.ok("ssh", "2", "sudo dnf -q -y remove runc podman buildah")
    lab.ok(
        "ssh",
        "2",
        "sudo dnf -q -y install docker-ce-3:20.10.24 docker-ce-cli-1:20.10.24 containerd.io-1.6.20",
    )
    lab.ok("ssh", "2", "sudo systemctl enable --now docker && sudo docker info")
    lab.ok("ssh", "2", "sudo dnf -q -y upgrade docker-ce docker-ce-cli containerd.io && sudo dnf check")
    assert lab.ok("ssh", "2", "rpm -q docker-ce; systemctl is-active docker").splitlines() == [
        "docker-ce-20.10.25-1.el9.x86_64",
        "active",
    ]


def test_root_file_system_grows(lab: Lab) -> None:
    before = lab.free_mib(1)
    lab.ok("ssh", "1", "sudo /usr/libexec/oci-growfs -y")
    assert lab.free_mib(1) - before > 3500
    # As with the real one, exit code 0 also means that there was nothing to do.
    assert "NOCHANGE" in lab.ok("ssh", "1", "sudo /usr/libexec/oci-growfs -y")


def test_record_lists_hosts_and_gpus(lab: Lab) -> None:
    record = lab.record()
    assert record["hosts"] == [
        {"name": "h1", "address": f"{NETWORK}.11"},
        {"name": "h2", "address": f"{NETWORK}.12"},
    ]
    assert record["gpus"] == lab.ok("ssh", "1", "cat /etc/lab/gpus")


def test_every_host_has_its_own_host_key(lab: Lab) -> None:
    lines = Path(lab.record()["known_hosts"]).read_text().splitlines()
    assert len(lines) == 2
    assert len({line.split()[2] for line in lines}) == 2


def test_reboot_boots_again(lab: Lab) -> None:
    question = "cat /proc/sys/kernel/random/boot_id"
    before = lab.ok("ssh", "1", question)
    lab.ok("reboot", "1")
    assert lab.ok("ssh", "1", question) != before


def test_power_loss_keeps_the_disk(lab: Lab) -> None:
    lab.ok("ssh", "1", "echo kept >kept; sync")
    lab.ok("kill", "1")
    assert not lab.reachable(1)
    lab.ok("start", "1")
    assert lab.ok("ssh", "1", "cat kept") == "kept"


def test_stop_shuts_down_cleanly(lab: Lab) -> None:
    lab.ok("stop", "1")
    assert "h1" in lab.run("pause", "1").stderr
    lab.ok("start", "1")
    assert lab.reachable(1)


def test_cut_host_is_unreachable_until_healed(lab: Lab) -> None:
    lab.ok("cut", "1")
    assert not lab.reachable(1)
    assert lab.reachable(2)
    lab.ok("heal", "1")
    assert lab.reachable(1)


def test_paused_host_is_unreachable_until_resumed(lab: Lab) -> None:
    lab.ok("pause", "1")
    assert not lab.reachable(1)
    lab.ok("resume", "1")
    assert lab.reachable(1)


def test_fill_leaves_the_given_free_space(lab: Lab) -> None:
    before = lab.free_mib(1)
    lab.ok("fill", "1", "50")
    assert 40 <= lab.free_mib(1) <= 51
    assert "No space left" in lab.run("ssh", "1", "head -c 100M /dev/zero >big").stderr
    lab.ok("ssh", "1", "rm big")
    lab.ok("fill", "1", "none")
    assert lab.free_mib(1) > before - 100


def test_second_up_changes_nothing_and_is_quick(lab: Lab) -> None:
    question = "cat /proc/sys/kernel/random/boot_id"
    before = lab.ok("ssh", "1", question)
    # it waits for nothing; the boot's id shows that no host was booted
    assert lab.up(2) < 30
    assert lab.ok("ssh", "1", question) == before


def test_wrong_usage_is_one_plain_line(lab: Lab) -> None:
    assert lab.run("ssh", "7", "true").stderr == "lab: h7 does not exist; `up 7` makes it\n"
    assert lab.run("up", "0").returncode == 2
    lab.environment["LAB_OS"] = "7"
    assert lab.run("up", "1").stderr == "lab: LAB_OS is '7', expected 8 or 9\n"
    lab.environment["LAB_OS"] = "9"


@pytest.mark.parametrize("seconds", [0.3, 0.6, 1.2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_up_can_be_repeated(lab: Lab, seconds: float, number: signal.Signals) -> None:
    lab.ok("down")
    process = subprocess.Popen([LAB, "up", "2"], env=lab.environment, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    process.send_signal(number)
    process.wait()
    lab.up(2)
    assert lab.reachable(1) and lab.reachable(2)


def test_down_after_an_interrupted_up_leaves_nothing(lab: Lab) -> None:
    lab.ok("down")
    process = subprocess.Popen([LAB, "up", "2"], env=lab.environment, stderr=subprocess.DEVNULL)
    time.sleep(0.9)
    process.kill()
    process.wait()
    lab.ok("down")
    assert lab.left_behind() == []


@pytest.mark.parametrize("os_major", ["8", "9"])
def test_haproxy_reloads_without_losing_a_connection(
    lab: Lab, os_major: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.ok("down")
    monkeypatch.setitem(lab.environment, "LAB_OS", os_major)
    lab.up(1)
    try:
        assert lab.run("ssh", "1", "rpm -q haproxy").returncode != 0, "a bare host has none"
        lab.ok("ssh", "1", "sudo dnf -q -y install haproxy && rpm --verify haproxy")
        installed = lab.ok("ssh", "1", "rpm -q --qf '%{VERSION} %{RELEASE}' haproxy").split()
        assert installed[1] == f"1.el{os_major}"
        assert f"HAProxy version {installed[0]}-" in lab.ok("ssh", "1", "/usr/sbin/haproxy -v")
        state = "systemctl is-enabled haproxy; systemctl is-active haproxy; stat -c %U /var/lib/haproxy"
        assert lab.ok("ssh", "1", f"{state}; id -un haproxy").split() == [
            "disabled",
            "inactive",
            "haproxy",
            "haproxy",
        ]
        lab.ok("ssh", "1", "sudo tee /etc/haproxy/haproxy.cfg >/dev/null", stdin=PROXY)
        lab.ok("ssh", "1", "sudo systemctl start haproxy")
        assert "-Ws" in lab.ok("ssh", "1", "ps -o args= $(cat /run/haproxy.pid)")
        seen = json.loads(lab.ok("ssh", "1", f"sudo python3 - {RELOADS}", stdin=ACROSS_RELOADS.read_text()))
        print(seen)
        assert seen["failures"] == []
        assert seen["answered"] >= 10 * RELOADS, "few connections met a reload"
        assert seen["workers"] >= RELOADS + 1, "fewer new workers than reloads"
        assert seen["first_worker_stayed"], "the worker of the open connection ended"
        assert seen["first_worker_left"], "the first worker stayed after its last connection"
    finally:
        lab.ok("down")


def test_down_leaves_nothing(lab: Lab) -> None:
    lab.up(1)
    assert lab.left_behind()
    lab.ok("down")
    assert lab.left_behind() == []
    assert not lab.state.exists()
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(lab.state) not in listed
    assert f"{NETWORK}.1" not in listed


def test_full_disk_keeps_nobody_from_removing_a_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(boots: bool) -> list[str]:
        return [line for line in machine.missing(settings.from_environment(), boots) if "MiB free" in line]

    monkeypatch.setattr(machine, "_free_mib", lambda _: 1)
    assert len(said(boots=True)) == 1
    assert said(boots=False) == []


def test_missing_requirements_of_a_machine_are_all_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    lines = machine.missing(settings.from_environment())
    assert [line for line in lines if line.startswith("not root")]
    assert [line for line in lines if "apt-get install" in line and "systemd-container" in line]
