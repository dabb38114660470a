"""Stages of a deploy on a machine with a kernel of its own: SELinux enforcing, LVM below the root, NVMe devices, real reboots."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from operations.plan.inventory.hosts import read_group_data
from operations.plan.machine.selinux import TYPE
from tests.lab.settings import from_environment
from tests.lab.vm.machine import Machine

pytestmark = pytest.mark.lab

PROJECT = Path(__file__).resolve().parents[3]
STAGES = Path(__file__).parent / "stages.py"
DATA_ROOT = "/var/lib/tritonhost"
# as the server's container is started: operations/plan/artifacts/commands.py, operations/plan/release.py
HARDENED = (
    "docker run --rm --network none --user 60600:60600 --read-only --tmpfs /tmp:rw,exec,nosuid,nodev,size=16m,mode=1777 "
    "--pids-limit 64 --shm-size 16m --cap-drop ALL --security-opt no-new-privileges"
)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A host before its first deploy: its partition was grown by hand, and nothing above it."""
    folder = tmp_path_factory.mktemp("machine")
    with Machine(folder, from_environment().cache, root_gib=9, data=(700, 700)) as found:
        found.ssh("growpart /dev/vda 3")
        found.ssh(
            "systemctl start docker && docker import --change 'CMD [\"sh\"]' /root/busybox.tar busybox:lab"
        )
        yield found


def converge(machine: Machine) -> str:
    """Run the stages; their output."""
    data = {
        **read_group_data(PROJECT / "inventories/group_data/all.py"),
        "model": "gpt2-medium",
        "image_digests": {"nvidia/tritonserver:26.07-trtllm-python-py3": f"sha256:{'1' * 64}"},
        "local_disks": "raid0",
        **machine.address,
    }
    inventory = machine.folder / "inventory.py"
    inventory.write_text(f"hosts = [('gpu-1', {data!r})]\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pyinfra", "-y", str(inventory), str(STAGES)],
        cwd=machine.folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "PYINFRA_PROGRESS": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-4000:]
    return output


@pytest.fixture(scope="module")
def converged(machine: Machine) -> Machine:
    """The host after the stages."""
    converge(machine)
    return machine


def root_bytes(machine: Machine) -> tuple[int, int]:
    """Of the file system at /, and of its disk."""
    size = machine.output("df --block-size=1 --output=size / | tail -n 1")
    return int(size), int(machine.output("blockdev --getsize64 /dev/vda"))


def denials(machine: Machine) -> int:
    """How often the kernel has refused something to containers, by the audit log."""
    return int(
        machine.output(
            "sleep 2; grep -a -c 'avc:  denied.*scontext=[^ ]*:container_t:' /var/log/audit/audit.log || :"
        )
    )


def refused(machine: Machine, options: str, command: str) -> None:
    """SELinux refuses a container what the command does, and the audit log has it."""
    before = denials(machine)
    done = machine.ssh(f"{HARDENED} {options} busybox:lab {command}", check=False)
    assert done.returncode != 0 and "ermission denied" in done.stderr, done.stdout + done.stderr
    assert denials(machine) > before


def test_host_is_a_machine_of_its_own(machine: Machine) -> None:
    assert machine.output("getenforce").strip() == "Enforcing"
    assert machine.output("findmnt -no SOURCE,FSTYPE /").split() == ["/dev/mapper/ocivolume-root", "xfs"]
    assert "selinux" in machine.output("docker info --format '{{.SecurityOptions}}'")
    assert machine.output("cat /proc/1/comm").strip() == "systemd"
    # half grown: the partition fills the disk, and LVM does not know
    size, disk = root_bytes(machine)
    assert size < disk * 0.6


def test_half_grown_root_volume_is_grown(converged: Machine) -> None:
    size, disk = root_bytes(converged)
    assert size > disk * 0.9


def test_local_disks_hold_the_data_root(converged: Machine) -> None:
    source, kind = converged.output(f"findmnt -no SOURCE,FSTYPE {DATA_ROOT}").split()
    assert source.startswith("/dev/md") and kind == "xfs"
    assert "raid0" in converged.output("cat /proc/mdstat")


def test_data_root_is_labelled_for_containers(converged: Machine) -> None:
    rules = converged.output("semanage fcontext --list --locallist")
    assert f"{DATA_ROOT}(/.*)?" in rules and TYPE in rules
    converged.ssh(f"mkdir -p {DATA_ROOT}/weights && echo weights >{DATA_ROOT}/weights/file")
    assert f":{TYPE}:" in converged.output(f"stat -c %C {DATA_ROOT} {DATA_ROOT}/weights/file").splitlines()[1]
    assert "on" in converged.output("getsebool container_use_devices").split()


def test_container_reads_what_it_may(converged: Machine) -> None:
    converged.ssh(f"mkdir -p {DATA_ROOT}/weights && echo weights >{DATA_ROOT}/weights/file")
    context = converged.output(f"{HARDENED} busybox:lab cat /proc/self/attr/current")
    assert context.startswith("system_u:system_r:container_t:s0:c")
    read = f"{HARDENED} --volume {DATA_ROOT}/weights:/weights:ro busybox:lab cat /weights/file"
    assert converged.output(read) == "weights\n"


def test_container_is_refused_what_it_may_not(converged: Machine) -> None:
    converged.ssh("mkdir -p /srv/other && echo secret >/srv/other/file && chmod 644 /srv/other/file")
    refused(converged, "--volume /srv/other:/other:ro", "cat /other/file")
    # the permissions would have let it: without SELinux the same user reads it
    assert (
        converged.output("setpriv --reuid 60600 --regid 60600 --clear-groups cat /srv/other/file")
        == "secret\n"
    )
    # a file keeps its label when it is moved into the data root
    converged.ssh(f"mv /srv/other/file {DATA_ROOT}/moved")
    refused(converged, f"--volume {DATA_ROOT}:/data:ro", "cat /data/moved")
    converged.ssh(f"restorecon {DATA_ROOT}/moved")
    read = f"{HARDENED} --volume {DATA_ROOT}:/data:ro busybox:lab cat /data/moved"
    assert converged.output(read) == "secret\n"


def test_boolean_lets_a_container_use_a_device(converged: Machine) -> None:
    """A device of the host, as the GPU's runtime mounts it; this one is /dev/null by another name."""
    converged.ssh("test -e /dev/nvidia0 || mknod -m 666 /dev/nvidia0 c 1 3; restorecon /dev/nvidia0")
    device = "--device-cgroup-rule 'c 1:3 rw' --volume /dev/nvidia0:/dev/nvidia0"
    converged.ssh("setsebool container_use_devices=off")
    refused(converged, device, "sh -c ': </dev/nvidia0'")
    converged.ssh("setsebool container_use_devices=on")
    converged.ssh(f"{HARDENED} {device} busybox:lab sh -c ': </dev/nvidia0'")


def test_one_container_is_refused_the_files_of_another(converged: Machine) -> None:
    own = f"{DATA_ROOT}/own"
    converged.ssh(f"mkdir -p {own} && echo own >{own}/file && chcon -l s0:c1,c2 {own} {own}/file")
    read = f"--volume {own}:/own:ro busybox:lab cat /own/file"
    assert converged.output(f"{HARDENED} --security-opt label=level:s0:c1,c2 {read}") == "own\n"
    refused(converged, f"--security-opt label=level:s0:c3,c4 --volume {own}:/own:ro", "cat /own/file")


def test_guard_is_loaded(converged: Machine) -> None:
    assert converged.output("systemctl is-active triton-guard.service").strip() == "active"
    assert "tritonhost" in converged.output("nft list ruleset")


def test_second_run_changes_nothing(converged: Machine) -> None:
    look = (
        "nft --stateless list ruleset; semanage fcontext --list --locallist; cat /proc/mdstat; lsblk --bytes"
    )
    before = converged.output(look)
    output = converge(converged)
    assert "] Success" not in output, output[-3000:]
    assert converged.output(look) == before


def test_everything_is_back_after_a_reboot(converged: Machine) -> None:
    rules = converged.output("nft list ruleset | grep -v counter")
    size, _ = root_bytes(converged)

    converged.reboot()

    assert (
        converged.output("systemctl is-system-running --wait || systemctl --failed --no-legend").strip()
        == "running"
    )
    assert converged.output("getenforce").strip() == "Enforcing"
    assert root_bytes(converged)[0] == size
    assert converged.output(f"findmnt -no FSTYPE {DATA_ROOT}").strip() == "xfs"
    assert converged.output(f"cat {DATA_ROOT}/weights/file") == "weights\n"
    assert "on" in converged.output("getsebool container_use_devices").split()
    assert converged.output("systemctl is-active triton-guard.service").strip() == "active"
    # docker, which opens ports to the network, starts behind the guard
    order = converged.output(
        "systemctl show --property=ActiveEnterTimestampMonotonic --value triton-guard.service docker.service 2>/dev/null"
    )
    guard, *dockers = [int(line) for line in order.split() if line.isdigit()]
    assert guard > 0
    assert all(guard < docker for docker in dockers if docker)
    ours = [line for line in rules.splitlines() if "tritonhost" in line or "triton" in line]
    assert ours and all(line in converged.output("nft list ruleset") for line in ours)
    converged.ssh("systemctl start docker")
    read = f"{HARDENED} --volume {DATA_ROOT}/weights:/weights:ro busybox:lab cat /weights/file"
    assert converged.output(read) == "weights\n"
    # nothing is left to do
    converge(converged)
