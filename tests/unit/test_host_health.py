"""The readers of what preflight.sh prints, and the script itself, with the tools of a host played by stubs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from pyinfra.api.exceptions import FactProcessError

from operations.facts.host_health import METADATA, HostHealth, gpus_of, health, listening, nvlinks
from operations.plan.observed.health import Answer, Health, Holder, Space
from operations.scripts import host_script
from tests.unit.preflight_output import HEALTHY, NOW, URLS, lines, nvidia_smi
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


def test_capture_without_the_clock_table_parses_the_same(stubs: Stubs) -> None:
    # the repository's capture was cut like that; the whole has some hundred lines of it
    text = (CAPTURES / "h200-x1" / "nvidia-smi-q-x.xml").read_text("utf-8")
    clocks = "\t\t<supported_clocks>\n\t\t\t<value>3201 MHz</value>\n\t\t</supported_clocks>\n\t</gpu>"
    whole = text.replace("\t</gpu>", clocks)
    script = host_script("preflight.sh", {})
    [filter_] = [line.rpartition("| ")[2] for line in script.splitlines() if "supported_clocks" in line]
    cut = stubs.run(filter_, stdin=whole).stdout
    assert "3201 MHz</value>" in whole and "3201 MHz</value>" not in cut
    assert gpus_of(cut) == gpus_of(text)


def test_capture_of_two_linked_h200_shows_a_fabric() -> None:
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


def test_ecc_counters_of_all_memory_kinds_are_added() -> None:
    old = "<volatile><sram_uncorrectable_parity>0</sram_uncorrectable_parity><dram_uncorrectable>0<"
    new = "<volatile><sram_uncorrectable_parity>2</sram_uncorrectable_parity><dram_uncorrectable>3<"
    [gpu] = gpus_of(changed_gpu(old, new))[0]
    assert (gpu.uncorrectable, gpu.uncorrectable_ever) == (5, 0)


def test_gpus_before_ampere_count_double_bit_errors() -> None:
    text = changed_gpu(
        "<sram_uncorrectable_parity>0</sram_uncorrectable_parity><dram_uncorrectable>0</dram_uncorrectable></volatile>",
        "<single_bit><total>9</total></single_bit><double_bit><total>4</total></double_bit></volatile>",
    )
    assert gpus_of(text)[0][0].uncorrectable == 4


def test_missing_counters_are_not_zero() -> None:
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
def test_pending_and_failed_repairs_are_distinguished(
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
def test_invalid_gpu_xml_is_a_problem(text: str, problem: str) -> None:
    gpus, _, found = gpus_of(text)
    assert gpus == ()
    assert problem in found
    assert "\n" not in found


WARNING = "WARNING: infoROM is corrupted at gpu 0000:00:1E.0"


@pytest.mark.parametrize("text", ["{warning}\n{document}", "{document}\n{warning}\n"])
def test_warning_around_the_xml_hides_no_gpu(text: str) -> None:
    found = gpus_of(text.format(warning=WARNING, document="\n".join(nvidia_smi())))
    assert [gpu.index for gpu in found[0]] == [0]
    assert found[2] == ""


def test_lost_gpu_is_a_problem_even_if_others_answer() -> None:
    before, name, behind = "\n".join(nvidia_smi(count=2)).rpartition("NVIDIA A10")
    assert name
    found = gpus_of(f"{before}GPU is lost{behind}")
    assert found[2] == "GPU 1: nvidia-smi says GPU is lost for product_name"


def test_inactive_links_are_named_with_their_gpu() -> None:
    text = "GPU 1: NVIDIA H100 (UUID: GPU-1)\n\t Link 0: 26.562 GB/s\n\t Link 1: <inactive>\n"
    assert nvlinks(text) == (2, ("GPU 1 link 1",))
    assert nvlinks("GPU 0: NVIDIA A10 (UUID: GPU-0)\n") == (0, ())
    assert nvlinks("Unable to retrieve NVLink information") == (None, ())


def test_healthy_host_is_read_completely() -> None:
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


def test_network_failures_keep_their_messages() -> None:
    said = "curl: (6) Could not resolve host: hub.invalid HTTP 000"
    found = read(network=["name\thub.invalid\t", "metadata\t28\t", f"source\thttps://hub.invalid\t6\t{said}"])
    assert found.names == {"hub.invalid": ""}
    assert found.sources["https://hub.invalid"] == Answer(6, "000", "(6) Could not resolve host: hub.invalid")
    assert (found.shape, found.metadata) == ("", "the instance metadata service does not answer")


@pytest.mark.parametrize("text", ["{", "[]", '{"shape": 3}', '{"region": "x"}'])
def test_metadata_without_a_shape_gives_none(text: str) -> None:
    found = read(network=[f"metadata\t0\t{text}"])
    assert found.shape == "" and found.metadata


def test_unreadable_kernel_messages_differ_from_none() -> None:
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


def test_truncated_output_fails_only_its_host() -> None:
    with pytest.raises(FactProcessError, match="ends early"):
        HostHealth().process(lines()[:-1])
    with pytest.raises(FactProcessError, match="could not be read"):
        HostHealth().process(lines({"network": ["source\thttps://a.b\tsoon"]}))


# a line that a tool adds to its answer
WORD = "WARNING: something that no tool of today says"


@pytest.mark.parametrize(
    "section",
    ["memory", "locks", "disks", "kernel", "units", "temporary", "listening", "nvlink", "cloud-init"],
)
def test_unknown_line_changes_nothing_else(section: str) -> None:
    before = health(lines(), NOW)
    known = next(list(content) for name, content in HEALTHY.items() if name == section)
    assert health(lines({section: [*known, WORD]}), NOW) == before
    assert health(lines({section: [WORD, *known]}), NOW) == before


# --- the script


def ask(stubs: Stubs, urls: str = "", names: str = "") -> Health:
    variables = {"DATA_ROOT": "/nowhere/tritonhost", "METADATA": METADATA, "NAMES": names, "URLS": urls}
    done = stubs.run(host_script("preflight.sh", variables))
    assert (done.returncode, done.stderr) == (0, "")
    return health(done.stdout.split("\n"), time.time())


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ('{"data-root": "/tmp"}', "/tmp"),
        ('{"data-root" :\n  "/tmp"}', "/tmp"),
        ('{"data-root": "\\u002ftmp"}', "/tmp"),
        ('\ufeff{"data-root": "/tmp"}', "/tmp"),
        ('{"log-opts": {"data-root": "/tmp"}}', "/var/lib/docker"),
        ('{"labels": ["x=\\"data-root\\": \\"/tmp\\""]}', "/var/lib/docker"),
        ('{"data-root": 1}', "/var/lib/docker"),
        ('{"data-root": "/tmp\\nx"}', "/var/lib/docker"),
        ("<html>", "/var/lib/docker"),
    ],
)
@pytest.mark.slow
def test_docker_directory_is_read_from_daemon_json(
    stubs: Stubs, tmp_path: Path, text: str, root: str
) -> None:
    stubs.add("curl", "exit 7")
    (tmp_path / "daemon.json").write_text(text, "utf-8")
    variables = {"DATA_ROOT": "/nowhere", "METADATA": METADATA, "NAMES": "", "URLS": ""}
    script = host_script("preflight.sh", {**variables, "DAEMON_JSON": f"{tmp_path}/daemon.json"})
    assert health(stubs.run(script).stdout.split("\n"), time.time()).docker_root == root


@pytest.mark.slow
def test_script_works_on_a_host_without_tools(stubs: Stubs) -> None:
    stubs.add("curl", "exit 7")
    found = ask(stubs, "https://hub.invalid")
    assert found.architecture and found.kernel and found.umask
    assert found.disks["/nowhere/tritonhost"].mount == "/"
    assert found.clock_ahead_s is not None and abs(found.clock_ahead_s) < 5
    assert found.sources["https://hub.invalid"].exit_code == 7
    assert found.gpu_problem


@pytest.mark.slow
def test_the_script_finds_nvswitches_behind_infiniband(stubs: Stubs, tmp_path: Path) -> None:
    # HGX B200 and B300: https://github.com/NVIDIA/gpu-operator/issues/2781
    stubs.add("curl", "exit 7")
    for device, text in {"mlx5_0": "MT2910 SW_MNG", "mlx5_1": "MT2910 HCA", "mlx5_2": ""}.items():
        place = tmp_path / "infiniband" / device / "device"
        place.mkdir(parents=True)
        if text:
            (place / "vpd").write_bytes(b"\x82\x1a\x00" + text.encode() + b"\x00\xff\n")
    variables = {"DATA_ROOT": "/nowhere", "METADATA": METADATA, "NAMES": "", "URLS": ""}
    script = host_script("preflight.sh", variables)
    for place, expected in ((tmp_path, 1), (tmp_path / "absent", 0)):
        done = stubs.run(script.replace("/sys/class/infiniband", f"{place}/infiniband"))
        assert health(done.stdout.split("\n"), time.time()).switches == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("built_in", "command_line", "blocked"),
    [
        (False, "ro quiet", {"algif_aead", "esp4", "rxrpc"}),
        # a rule of modprobe keeps nothing out that is part of the kernel
        (True, "ro quiet", {"esp4", "rxrpc"}),
        (True, "ro initcall_blacklist=algif_aead_init quiet", {"algif_aead", "esp4", "rxrpc"}),
    ],
)
def test_script_reads_kernel_fixes_and_blocked_modules(
    stubs: Stubs, tmp_path: Path, built_in: bool, command_line: str, blocked: set[str]
) -> None:
    running = os.uname().release
    modules = tmp_path / "lib/modules" / running
    modules.mkdir(parents=True)
    (modules / "vmlinuz").touch()
    (modules / "modules.builtin").write_text(
        "kernel/crypto/algif_aead.ko\n" if built_in else "kernel/fs/xfs.ko\n"
    )
    (tmp_path / "cmdline").write_text(f"{command_line}\n")
    (tmp_path / "loaded").write_text("esp6 16384 0 - Live 0x0\n")
    stubs.add("curl", "exit 7")
    stubs.add(
        "rpm",
        f'case "$*" in *--file*{modules}/vmlinuz*) echo kernel-core-1-1 ;; *--changelog*kernel-core-1-1*) '
        'echo "- crypto: a fix {CVE-2026-31431}"; echo "- another {CVE-2026-99999}" ;; *) exit 1 ;; esac',
    )
    stubs.add("ksplice", 'case "$*" in "kernel show") echo "[abc] CVE-2026-43284: xfrm" ;; *) exit 2 ;; esac')
    names = ("algif_aead", "esp4", "esp6", "rxrpc")
    stubs.add("modprobe", "\n".join(f"echo 'install {name} /bin/false'" for name in names))
    script = host_script(
        "preflight.sh", {"DATA_ROOT": "/nowhere", "METADATA": METADATA, "NAMES": "", "URLS": ""}
    )
    for place in ("/lib/modules/", "/proc/cmdline", "/proc/modules"):
        assert place in script
    script = script.replace("/lib/modules/", f"{tmp_path}/lib/modules/")
    script = script.replace("/proc/cmdline", f"{tmp_path}/cmdline").replace(
        "/proc/modules", f"{tmp_path}/loaded"
    )
    found = health(stubs.run(script).stdout.split("\n"), time.time())
    assert found.kernel_fixed == frozenset({"CVE-2026-31431", "CVE-2026-43284"})
    assert found.kernel_blocked == blocked


@pytest.mark.slow
def test_script_queries_all_sources_with_limits_and_no_token(stubs: Stubs) -> None:
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
@pytest.mark.slow
@pytest.mark.parametrize(
    ("leap", "read"), [("Normal", "yes"), ("Insert second", "yes"), ("Not synchronised", "no")]
)
def test_chrony_reports_whether_the_clock_is_synchronized(stubs: Stubs, leap: str, read: str) -> None:
    stubs.add("curl", "exit 7")
    stubs.add("chronyc", f"printf 'Reference ID    : A9FEA9FE\\nLeap status     : {leap}\\n'")
    assert ask(stubs).synchronized == read


@pytest.mark.slow
def test_hanging_tool_is_limited_and_the_rest_is_read(stubs: Stubs) -> None:
    stubs.add("nvidia-smi", "exec sleep 60")
    stubs.add("curl", "exit 7")
    began = time.monotonic()
    found = ask(stubs)
    assert time.monotonic() - began < 10
    assert found.gpu_problem and found.nvlinks is None
    assert found.kernel


def test_fact_command_carries_its_arguments() -> None:
    text = HostHealth().command(
        data_root="/var/lib/x", names=["a.b"], urls=["https://a.b/c", "http://d"], docker_root="/d"
    )
    assert text.startswith(
        f"DATA_ROOT=/var/lib/x\nDOCKER_ROOT=/d\nMETADATA={METADATA}\nNAMES=a.b\nURLS='https://a.b/c\nhttp://d'\n"
    )
    assert "HF_TOKEN" not in text
