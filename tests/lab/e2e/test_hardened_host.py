"""A host hardened as guides recommend: /tmp without execution, a umask of 0027, no IP forwarding, no sftp, no tunnels.

It is hardened while it is bare. It converges, serves, stays converged, and serves again after a reboot.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab.e2e.conftest import KEEP
from tests.lab.e2e.one_host import DATA_ROOT, OneHost, settings_of_lab
from tests.lab.settings import network_of

SECONDS = 90
READY = "curl --silent --output /dev/null --write-out '%{http_code}' http://127.0.0.1:8000/v2/models/ensemble/ready"
NOEXEC = ("/tmp", "/var/tmp", "/dev/shm")

HARDEN = """
set -e
for place in /tmp /var/tmp /dev/shm; do
    printf 'tmpfs %s tmpfs noexec,nosuid,nodev,size=256M 0 0\\n' $place
done >>/etc/fstab
# systemd-nspawn has mounted /tmp before the host's systemd could
cat >/etc/systemd/system/noexec-tmp.service <<'END'
[Service]
Type=oneshot
ExecStart=/bin/mount -o remount,noexec,nosuid,nodev /tmp
[Install]
WantedBy=sysinit.target
END
systemctl enable --quiet noexec-tmp.service

printf 'net.ipv4.ip_forward = 0\\nnet.ipv4.conf.all.forwarding = 0\\n' >/etc/sysctl.d/60-hardened.conf

# the umask of every way in: login.defs and PAM, login shells, sudo
sed -i 's/^UMASK.*/UMASK 027/' /etc/login.defs
echo 'umask 027' >/etc/profile.d/umask.sh
sed -i '1i umask 027' /etc/bash.bashrc
for file in /etc/pam.d/common-session /etc/pam.d/common-session-noninteractive; do
    echo 'session optional pam_umask.so umask=0027' >>$file
done
cat >/etc/sudoers.d/10-hardened <<'END'
Defaults use_pty
Defaults logfile=/var/log/sudo.log
Defaults umask=0027
Defaults umask_override
END
chmod 440 /etc/sudoers.d/10-hardened

sed -i '/^Subsystem/d' /etc/ssh/sshd_config
cat >>/etc/ssh/sshd_config.d/00-hardened.conf <<'END'
AllowTcpForwarding no
AllowAgentForwarding no
X11Forwarding no
PermitRootLogin no
PasswordAuthentication no
MaxAuthTries 4
MaxSessions 10
MaxStartups 10:30:60
ClientAliveInterval 300
END
grep -q '^Include /etc/ssh/sshd_config.d' /etc/ssh/sshd_config ||
    cat /etc/ssh/sshd_config.d/00-hardened.conf >>/etc/ssh/sshd_config
"""


@pytest.fixture(scope="module")
def hardened() -> Iterator[OneHost]:
    """A bare host of its own lab, hardened and rebooted; LAB_HARDENED_NET is its network."""
    ours = OneHost(settings_of_lab(network_of("LAB_HARDENED_NET")))
    ours.environment["LAB_MODEL"] = "gpt2-medium"
    if not KEEP:
        ours.lab("down")
    ours.lab("up", "1")
    if ours.try_root("test -e /etc/sudoers.d/10-hardened")[0] != 0:
        ours.root(HARDEN)
        ours.lab("reboot", "1")
    yield ours
    if not KEEP:
        ours.lab("down")


def wait_until_it_serves(site: OneHost) -> None:
    deadline = time.monotonic() + SECONDS
    while site.try_root(READY)[1] != "200":
        assert time.monotonic() < deadline, f"not ready within {SECONDS} s"
        time.sleep(0.5)


def test_the_host_is_hardened(hardened: OneHost) -> None:
    # the hardening must work, or the tests below prove nothing
    for place in NOEXEC:
        code, said = hardened.try_root(f"cp /bin/true {place}/x && {place}/x; c=$?; rm -f {place}/x; exit $c")
        assert code == 126, f"{place}: {said}"
    assert hardened.root("umask").endswith("27")
    assert hardened.root("cat /proc/sys/net/ipv4/ip_forward") == "0"
    effective = hardened.root("sshd -T").lower().splitlines()
    assert "allowtcpforwarding no" in effective
    assert not [line for line in effective if line.startswith("subsystem sftp")]
    hardened.root("true")
    assert "COMMAND=" in hardened.root("cat /var/log/sudo.log")


@pytest.mark.requirement("R33")
def test_hardened_host_converges_and_next_run_changes_nothing(hardened: OneHost) -> None:
    bare = hardened.try_root(f"test -e {DATA_ROOT}/current")[0] != 0
    done = hardened.converge()
    assert ("gives the golden answer" if bare else "converged: release") in done.output, done.output
    again = hardened.converge()
    assert f"converged: release {hardened.running_release()}" in again.output
    assert "Starting operation" not in again.output
    assert hardened.litter() == []
    # readable without root, also for the container's user
    assert hardened.root(f"find {DATA_ROOT}/current/ {DATA_ROOT}/engines ! -perm /o=r ! -type l") == ""


def test_reapplied_hardening_does_not_disturb_the_service(hardened: OneHost) -> None:
    hardened.converge()
    hardened.root("/usr/lib/systemd/systemd-sysctl")
    assert hardened.root("cat /proc/sys/net/ipv4/ip_forward") == "0"
    assert hardened.root(READY) == "200"
    assert "converged: release" in hardened.converge().output


def test_verification_passes_without_tunnels(hardened: OneHost) -> None:
    hardened.converge()
    hardened.verified()


def test_hardened_host_serves_again_after_a_reboot(hardened: OneHost) -> None:
    hardened.converge()
    release = hardened.running_release()
    hardened.lab("reboot", "1")
    wait_until_it_serves(hardened)
    assert hardened.running_release() == release
    again = hardened.converge()
    assert f"converged: release {release}" in again.output
