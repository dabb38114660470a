"""The readers of what preflight.sh prints, and the script itself, with the tools of a host played by stubs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pyinfra.api.exceptions import FactProcessError

from operations.facts.host_health import METADATA, HostHealth, gpus_of, health, listening, nvlinks
from operations.plan.health import Answer, Health, Holder, Space
from operations.scripts import host_script
from tests.unit.preflight_output import NOW, URLS, lines, nvidia_smi
from tests.unit.stubs import Stubs

# printed by real tools: one and four H200 of virtual machines, with driver 580.159.04
CAPTURES = Path(__file__).resolve().parents[1] / "lab" / "standins" / "captures"


def read(**changed: list[str]) -> Health:
    return health(lines({name.replace("_", "-"): content for name, content in changed.items()}), NOW)


# --- captured


def test_the_capture_of_a_real_h200_is_a_healthy_gpu() -> None:
    [gpu], driver, problem = gpus_of((CAPTURES / "h200-x1" / "nvidia-smi-q-x.xml").read_text("utf-8"))
    assert (driver, problem) == ("580.159.04", "")
    assert (gpu.index, gpu.name, gpu.memory_mib) == (0, "NVIDIA H200", 143771)
    assert (gpu.ecc, gpu.uncorrectable, gpu.uncorrectable_ever) == ("Enabled", 0, 0)
    assert (gpu.repair_pending, gpu.repair_failed) == ((), ())
    assert (gpu.mig, gpu.persistence, gpu.recovery_action) == ("Disabled", "Enabled", "None")
    assert (gpu.fabric_state, gpu.fabric_status) == ("", "")  # N/A in a virtual machine with one GPU


def test_the_capture_of_a_real_gpu_is_the_same_without_the_table_of_clocks(stubs: Stubs) -> None:
    # the repository's capture was cut like that; the whole has some hundred lines of it
    text = (CAPTURES / "h200-x1" / "nvidia-smi-q-x.xml").read_text("utf-8")
    clocks = "\t\t<supported_clocks>\n\t\t\t<value>3201 MHz</value>\n\t\t</supported_clocks>\n\t</gpu>"
    whole = text.replace("\t</gpu>", clocks)
    script = host_script("preflight.sh", {})
    [filter_] = [line.rpartition("| ")[2] for line in script.splitlines() if "supported_clocks" in line]
    cut = stubs.run(filter_, stdin=whole).stdout
    assert "3201 MHz</value>" in whole and "3201 MHz</value>" not in cut
    assert gpus_of(cut) == gpus_of(text)


def test_the_capture_of_two_linked_h200_tells_of_a_fabric() -> None:
    # in a virtual machine; serial numbers and the like are taken out
    capture = Path(__file__).parent / "captures" / "h200-x2-q-x.xml"
    gpus, driver, problem = gpus_of(capture.read_text("utf-8"))
    assert (driver, problem) == ("580.159.04", "")
    assert [gpu.index for gpu in gpus] == [0, 1]
    assert {(gpu.fabric_state, gpu.fabric_status) for gpu in gpus} == {("Completed", "Success")}
    assert {(gpu.uncorrectable, gpu.uncorrectable_ever, gpu.mig) for gpu in gpus} == {(0, 0, "Disabled")}


def test_the_capture_of_four_linked_h200_has_all_its_links() -> None:
    assert nvlinks((CAPTURES / "h200-x4" / "nvlink.txt").read_text("utf-8")) == (72, ())


# --- written after NVIDIA's documents: https://docs.nvidia.com/deploy/nvidia-smi/ and nvsmi_device_v13.dtd


def changed_gpu(old: str, new: str) -> str:
    text = "\n".join(nvidia_smi())
    assert old in text
    return text.replace(old, new)


def test_the_counters_of_every_kind_of_memory_are_added() -> None:
    old = "<volatile><sram_uncorrectable_parity>0</sram_uncorrectable_parity><dram_uncorrectable>0<"
    new = "<volatile><sram_uncorrectable_parity>2</sram_uncorrectable_parity><dram_uncorrectable>3<"
    [gpu] = gpus_of(changed_gpu(old, new))[0]
    assert (gpu.uncorrectable, gpu.uncorrectable_ever) == (5, 0)


def test_a_gpu_before_ampere_counts_double_bits() -> None:
    text = changed_gpu(
        "<sram_uncorrectable_parity>0</sram_uncorrectable_parity><dram_uncorrectable>0</dram_uncorrectable></volatile>",
        "<single_bit><total>9</total></single_bit><double_bit><total>4</total></double_bit></volatile>",
    )
    assert gpus_of(text)[0][0].uncorrectable == 4


def test_counters_that_are_not_there_are_not_zero() -> None:
    [gpu] = gpus_of("\n".join(nvidia_smi()).replace(">0<", ">N/A<"))[0]
    assert (gpu.uncorrectable, gpu.uncorrectable_ever) == (None, None)


@pytest.mark.parametrize(
    ("old", "new", "pending", "failed"),
    [
        ("_pending>No<", "_pending>Yes<", ("row remapping",), ()),
        ("_failure>No<", "_failure>Yes<", (), ("row remapping",)),
        ("<pending_retirement>N/A<", "<pending_retirement>Yes<", ("page retirement",), ()),
        ("<ecc_errors>", "<ecc_errors><tpc_repair_pending>Yes</tpc_repair_pending>", ("TPC repair",), ()),
        (
            "<ecc_errors>",
            "<ecc_errors><unrepairable_memory>Yes</unrepairable_memory>",
            (),
            ("unrepairable memory",),
        ),
    ],
)
def test_repairs_that_wait_or_failed_are_named(
    old: str, new: str, pending: tuple[str, ...], failed: tuple[str, ...]
) -> None:
    [gpu] = gpus_of(changed_gpu(old, new))[0]
    assert (gpu.repair_pending, gpu.repair_failed) == (pending, failed)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no nvidia-smi"),
        (
            "NVIDIA-SMI has failed because it couldn't communicate\nwith the NVIDIA driver.",
            "couldn't communicate with",
        ),
        ("<?xml version='1.0'?><nvidia_smi_log><gpu>", "ends early"),
        ("<?xml version='1.0'?><nvidia_smi_log></nvidia_smi_log>", "no GPU"),
        ('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><nvidia_smi_log/>', "instead of its GPUs"),
    ],
)
def test_what_is_no_document_of_gpus_is_a_problem(text: str, problem: str) -> None:
    gpus, _, found = gpus_of(text)
    assert gpus == ()
    assert problem in found
    assert "\n" not in found


def test_inactive_links_are_named_with_their_gpu() -> None:
    text = "GPU 1: NVIDIA H100 (UUID: GPU-1)\n\t Link 0: 26.562 GB/s\n\t Link 1: <inactive>\n"
    assert nvlinks(text) == (2, ("GPU 1 link 1",))
    assert nvlinks("GPU 0: NVIDIA A10 (UUID: GPU-0)\n") == (0, ())
    assert nvlinks("Unable to retrieve NVLink information") == (None, ())


def test_a_healthy_host_is_read_whole() -> None:
    found = read()
    assert found.shape == "VM.GPU.A10.1" and found.metadata == ""
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA A10"]
    assert found.xids == ()
    assert found.units["firewalld.service"]["ActiveState"] == "active"
    assert found.disks["/var/lib/docker"] == Space("/", 1073741824000, 966367641600, 524288000, 524000000)
    assert found.memory["MemTotal"] == 240 * 2**30
    assert found.listening == {22: "sshd"}
    assert found.clock_ahead_s == 0.5
    assert found.sources[URLS["source hub"]] == Answer(0, "200", "")
    assert (found.selinux, found.umask, found.ip_forward, found.user) == ("Enforcing", "0022", "0", "0")
    assert found.kernel == found.next_kernel == "5.14.0-570.el9.x86_64"


def test_what_the_network_answered_badly_is_kept_in_its_own_words() -> None:
    said = "curl: (6) Could not resolve host: hub.invalid HTTP 000"
    found = read(network=["name\thub.invalid\t", "metadata\t28\t", f"source\thttps://hub.invalid\t6\t{said}"])
    assert found.names == {"hub.invalid": ""}
    assert found.sources["https://hub.invalid"] == Answer(6, "000", "(6) Could not resolve host: hub.invalid")
    assert (found.shape, found.metadata) == ("", "the instance metadata service does not answer")


@pytest.mark.parametrize("text", ["{", "[]", '{"shape": 3}', '{"region": "x"}'])
def test_metadata_that_names_no_shape_names_none(text: str) -> None:
    found = read(network=[f"metadata\t0\t{text}"])
    assert found.shape == "" and found.metadata


def test_kernel_messages_that_cannot_be_read_are_not_none_at_all() -> None:
    assert read(xids=[]).xids is None
    line = "NVRM: Xid (PCI:0000:65:00): 79, pid='<unknown>', GPU has fallen off the bus."
    assert read(xids=["read", line]).xids == (line,)


def test_lock_holders_are_read_with_their_commands() -> None:
    locks = read(
        locks=[
            "/var/lib/dnf/rpmdb_lock.pid\t412\t/usr/bin/python3 /usr/bin/dnf  makecache ",
            "/run/yum.pid\t7\t",
        ]
    ).locks
    assert locks == (
        Holder("/var/lib/dnf/rpmdb_lock.pid", 412, "/usr/bin/python3 /usr/bin/dnf makecache"),
        Holder("/run/yum.pid", 7, ""),
    )


def test_ports_are_read_with_their_programs() -> None:
    text = [
        'LISTEN 0 4096 127.0.0.1:8000 0.0.0.0:* users:(("docker-proxy",pid=1,fd=4))',
        "LISTEN 0 128 [::]:22 [::]:*",
        'LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=9,fd=3),("systemd",pid=1,fd=5))',
    ]
    assert listening(text) == {8000: "docker-proxy", 22: "sshd"}
    assert listening([]) is None


def test_output_that_ends_early_is_refused_for_the_host_alone() -> None:
    with pytest.raises(FactProcessError, match="ends early"):
        HostHealth().process(lines()[:-1])
    with pytest.raises(FactProcessError, match="could not be read"):
        HostHealth().process(lines({"memory": ["MemTotal\tmuch"]}))


# --- the script


def ask(stubs: Stubs, urls: str = "", names: str = "") -> Health:
    variables = {"DATA_ROOT": "/nowhere/tritonhost", "METADATA": METADATA, "NAMES": names, "URLS": urls}
    done = stubs.run(host_script("preflight.sh", variables))
    assert (done.returncode, done.stderr) == (0, "")
    return health(done.stdout.split("\n"), time.time())


def test_the_script_says_what_a_host_without_any_tool_can_say(stubs: Stubs) -> None:
    stubs.add("curl", "exit 7")
    found = ask(stubs, "https://hub.invalid")
    assert found.architecture and found.kernel and found.umask
    assert found.disks["/nowhere/tritonhost"].mount == "/"
    assert found.clock_ahead_s is not None and abs(found.clock_ahead_s) < 5
    assert found.sources["https://hub.invalid"].exit_code == 7
    assert found.gpu_problem


def test_the_script_asks_for_everything_with_its_limits_and_sends_no_token(stubs: Stubs) -> None:
    stubs.add(
        "curl",
        'case "$*" in *--write-out*) printf "HTTP 401" ;; *) echo "{\\"shape\\": \\"BM.GPU.A10.4\\"}" ;; esac',
    )
    stubs.add("getent", 'echo "192.0.2.1      STREAM $2"')
    stubs.add("nvidia-smi", 'case $1 in -q) printf "%s" "$XML" ;; esac')
    variables = {
        "DATA_ROOT": "/x/y",
        "METADATA": METADATA,
        "NAMES": "hub.invalid",
        "URLS": "https://hub.invalid",
    }
    done = stubs.run(
        host_script("preflight.sh", variables), XML="\n".join(nvidia_smi(count=4)), HF_TOKEN="hf_canary"
    )
    found = health(done.stdout.split("\n"), time.time())
    assert found.shape == "BM.GPU.A10.4" and len(found.gpus) == 4
    assert found.names == {"hub.invalid": "192.0.2.1"}
    assert found.sources["https://hub.invalid"] == Answer(0, "401", "")
    asked = [call for call in stubs.calls if call.startswith("curl ")]
    assert len(asked) == 2 and all("--max-time" in call for call in asked)
    [metadata] = [call for call in asked if METADATA in call]
    assert "Authorization: Bearer Oracle" in metadata
    [source] = [call for call in asked if METADATA not in call]
    assert "--head" in source and "Authorization" not in source
    assert "hf_canary" not in done.stdout + "".join(stubs.calls)


# chronyc's words: https://chrony-project.org/doc/4.5/chronyc.html, written after that page
@pytest.mark.parametrize(
    ("leap", "read"), [("Normal", "yes"), ("Insert second", "yes"), ("Not synchronised", "no")]
)
def test_chrony_says_whether_the_clock_is_kept(stubs: Stubs, leap: str, read: str) -> None:
    stubs.add("curl", "exit 7")
    stubs.add("chronyc", f"printf 'Reference ID    : A9FEA9FE\\nLeap status     : {leap}\\n'")
    assert ask(stubs).synchronized == read


def test_a_tool_that_hangs_costs_its_own_limit_and_the_rest_is_read(stubs: Stubs) -> None:
    stubs.add("nvidia-smi", "exec sleep 60")
    stubs.add("curl", "exit 7")
    began = time.monotonic()
    found = ask(stubs)
    assert time.monotonic() - began < 10
    assert found.gpu_problem and found.nvlinks is None
    assert found.kernel


def test_the_fact_s_command_carries_what_is_asked() -> None:
    text = HostHealth().command(
        data_root="/var/lib/x", names=["a.b"], urls=["https://a.b/c", "http://d"], docker_root="/d"
    )
    assert text.startswith(
        f"DATA_ROOT=/var/lib/x\nDOCKER_ROOT=/d\nMETADATA={METADATA}\nNAMES=a.b\nURLS='https://a.b/c\nhttp://d'\n"
    )
    assert "HF_TOKEN" not in text
