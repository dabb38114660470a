"""Each mismatch of a host alone, all of them at once, and what may not be taken for a pass."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from operations.facts.host_health import health
from operations.plan.catalog.host_checks import CHECKS, WAIVABLE
from operations.plan.errors import PlanError
from operations.plan.inventory.settings import from_host_data
from operations.plan.observed.health import Health, HubAnswer
from operations.plan.observed.observed import BlockDevice, DataRoot, LocalDisks, Observed
from operations.plan.planning import plan_release
from operations.plan.preflight import checks as preflight
from operations.plan.preflight import sources
from operations.plan.preflight.check import Check, Subject
from operations.plan.profile.profiles import load_profile
from operations.plan.release import Release
from tests.unit.builders import DATA, DIGEST, converged, gpu, profile, release, settings
from tests.unit.preflight_output import NOW, URLS, lines, nvidia_smi

GIB = 2**30
DAY = date(2026, 11, 21)
H100 = {"name": "NVIDIA H100 80GB HBM3", "memory": 81559, "mig": "Disabled"}


def judged(
    changed: Mapping[str, Sequence[str]] | None = None,
    data: Mapping[str, Any] | None = None,
    tables: Mapping[str, Any] | None = None,
    hub: HubAnswer | None = None,
    observed: Observed | None = None,
) -> list[Check]:
    """The checks of a healthy bare host, with these sections of its answer, settings and tables of the profile instead."""
    wanted = release(data, tables)
    bare = replace(converged(wanted), artifacts={}, images={}, container=None, packages={}, units={})
    seen = observed or bare
    subject = Subject(
        wanted.settings, wanted.profile, wanted, health(lines(changed), NOW), seen, hub, today=DAY
    )
    return preflight.checks(subject)


def one(name: str, found: Sequence[Check]) -> Check:
    [check] = [check for check in found if check.name == name]
    return check


def units(fabric: str = "active", firewalld: str = "active") -> list[str]:
    return [
        *("Id=nvidia-fabricmanager.service", "LoadState=loaded", f"ActiveState={fabric}", ""),
        *("Id=firewalld.service", "LoadState=loaded", f"ActiveState={firewalld}"),
    ]


def network(shape: str = '{"shape": "VM.GPU.A10.1"}', **answers: str) -> list[str]:
    """The answers of a host that reaches everything, with these sources' instead: docker="6\\tcurl: (6) …"."""
    found = [f"name\t{name}\t192.0.2.7" for name in sources.names(list(URLS.values()))]
    for name, url in URLS.items():
        found.append(f"source\t{url}\t{answers.get(name.split()[-1], chr(48) + chr(9) + 'HTTP 200')}")
    return [*found, f"metadata\t0\t{shape}"]


def test_healthy_host_passes_every_known_check() -> None:
    found = judged()
    assert [check.name for check in found] == [name for name in CHECKS if name in {c.name for c in found}]
    assert {c.name for c in found} >= {*CHECKS} - {"source docker hub", "source Python index"}
    assert one("version floors", found).verdict == "warning", "these tests' versions are old, and waived"
    odd = [check for check in found if check.verdict != "ok" and check.name != "version floors"]
    assert {check.name: check.found for check in odd} == {
        # the profile of these tests does not say what its model is made of
        "disk space": "900.0 GiB free on /; what it takes is not known",
        "host memory": "240.0 GiB; what a build takes is not known",
    }
    assert all(check.found for check in found)


XID_79 = "NVRM: Xid (PCI:0000:65:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
XID_31 = "NVRM: Xid (PCI:0000:65:00): 31, pid=4242, name=python3, Ch 00000008, intr 10000000. MMU Fault"
REFUSED = "7\tcurl: (7) Failed to connect to mirror.invalid port 443 HTTP 000"


@pytest.mark.parametrize(
    ("name", "verdict", "changed", "words"),
    [
        ("sudo", "failed", {"user": ["1000"]}, "user 1000"),
        ("operating system", "failed", {"os-release": ['ID="ol"', 'VERSION_ID="7.9"']}, "Oracle Linux 8 or 9"),
        ("operating system", "failed", {"os-release": ["ID=ubuntu", 'VERSION_ID="22.04"']}, "ubuntu 22.04"),
        ("operating system", "failed", {"os-release": ['ID="ol"', 'VERSION_ID="10.0"']}, "ol 10.0"),
        ("processor", "failed", {"architecture": ["aarch64"]}, "x86_64"),
        ("shape", "failed", {"gpus": nvidia_smi(count=2)}, "2 x NVIDIA A10 of 22.5 GiB; 1 x A10 of 24 GB"),
        ("shape", "failed", {"gpus": nvidia_smi(name="NVIDIA A100-SXM4-40GB", memory=40960)}, "A100-SXM4-40GB"),
        ("shape", "not checked", {"network": network('{"shape": "VM.Standard.E5.Flex"}')}, "VM.Standard.E5.Flex"),
        ("shape", "not checked", {"network": network("{")}, "no JSON"),
        ("GPU driver", "failed", {"gpus": ["NVIDIA-SMI has failed because"]}, "a working NVIDIA driver"),
        ("GPU driver", "failed", {"gpus": []}, "no nvidia-smi"),
        ("GPU driver", "warning", {"gpus": nvidia_smi(driver="515.65.01")}, "515.65.01; at least 525.60.13"),
        ("GPU driver", "failed", {"gpus": nvidia_smi(driver="470.82.01")}, "470.82.01; a driver of about 510 or later; the driver is too old"),
        ("ECC errors", "failed", {"gpus": [li.replace("dram_uncorrectable>0", "dram_uncorrectable>1") for li in nvidia_smi()]}, "GPU 0: 1 uncorrected"),
        ("ECC errors", "warning", {"gpus": [li.replace("current_ecc>Enabled", "current_ecc>Disabled") for li in nvidia_smi()]}, "ECC off"),
        ("memory repairs", "failed", {"gpus": [li.replace("_pending>No", "_pending>Yes") for li in nvidia_smi()]}, "row remapping pending"),
        ("memory repairs", "failed", {"gpus": [li.replace("_failure>No", "_failure>Yes") for li in nvidia_smi()]}, "row remapping failed"),
        ("MIG", "failed", {"gpus": nvidia_smi(mig="Enabled")}, "GPU 0: enabled"),
        ("persistence mode", "warning", {"gpus": [li.replace("<persistence_mode>Enabled", "<persistence_mode>Disabled") for li in nvidia_smi()]}, "off"),
        ("GPU recovery", "failed", {"gpus": [li.replace("action>None", "action>Reset") for li in nvidia_smi()]}, "Reset"),
        ("Xid errors", "failed", {"xids": ["read", XID_31, XID_79, XID_31]}, "31 (2 times), 79 (1 times): NVRM: Xid (PCI:0000:65:00): 79"),
        ("Xid errors", "warning", {"xids": ["read", XID_31]}, "31 (1 times)"),
        ("Xid errors", "not checked", {"xids": []}, "could not be read"),
        ("NVLink", "warning", {"nvlink": ["GPU 0: x", "\t Link 0: <inactive>", "\t Link 1: 26.5 GB/s"]}, "1 of 2 inactive: GPU 0 link 0"),
        ("NVLink", "not checked", {"nvlink": []}, "no links"),
        ("inodes", "failed", {"disks": ["docker\t/var/lib/docker", "/\t99 99 524288 900 /"]}, "/: 900 free"),
        ("inodes", "not checked", {"disks": ["docker\t/var/lib/docker"]}, "not read"),
        ("clock", "failed", {"clock": [str(NOW - 4000)]}, "4000 s behind"),
        ("clock", "warning", {"clock": [str(NOW + 60)]}, "60 s ahead of"),
        ("clock", "warning", {"synchronized": ["no"]}, "not synchronized"),
        ("clock", "not checked", {"clock": []}, "not read"),
        ("name resolution", "failed", {"network": [li.replace("huggingface.co\t192.0.2.7", "huggingface.co\t") for li in network()]}, "no address for huggingface.co"),
        ("name resolution", "not checked", {"network": []}, "no name was asked for"),
        ("source docker", "failed", {"network": network(docker=REFUSED)}, "Failed to connect"),
        ("source docker", "failed", {"network": network(docker="0\tHTTP 404")}, "HTTP 404"),
        ("source hub", "ok", {"network": network(hub="0\tHTTP 404")}, "https://huggingface.co"),
        ("source hub", "failed", {"network": network(hub="60\tcurl: (60) SSL certificate problem HTTP 000")}, "SSL certificate problem"),
        ("source registry", "ok", {"network": network(registry="0\tHTTP 401")}, "https://nvcr.io/v2/"),
        ("source registry", "failed", {"network": network(registry="0\tHTTP 503")}, "HTTP 503"),
        ("source git", "not checked", {"network": []}, "was not asked for"),
        ("source git", "not checked", {"network": network(git=REFUSED), "proxies": ["/etc/dnf/dnf.conf"]}, "a proxy is configured in /etc/dnf/dnf.conf"),
        ("ports", "failed", {"listening": ['LISTEN 0 5 0.0.0.0:8000 0.0.0.0:* users:(("python3",pid=3,fd=3))']}, "8000 by python3"),
        ("ports", "failed", {"listening": ['LISTEN 0 5 0.0.0.0:8002 0.0.0.0:* users:(("docker-proxy",pid=3,fd=3))']}, "8002 by docker-proxy"),
        ("ports", "not checked", {"listening": []}, "ss was not run"),
        ("package locks", "warning", {"locks": ["/var/lib/dnf/rpmdb_lock.pid\t412\tpython3 /usr/bin/dnf makecache"]}, "process 412 (python3 /usr/bin/dnf makecache)"),
        ("package locks", "warning", {"locks": ["/run/yum.pid\t9\t/usr/sbin/sshd -D"]}, "whose number another one has"),
        ("package locks", "ok", {"locks": ["/run/yum.pid\t9\t"]}, "free"),
        ("cloud-init", "warning", {"cloud-init": ["status: running"]}, "cloud-init status --wait"),
        ("cloud-init", "warning", {"cloud-init": ["", "status: error"]}, "--long"),
        ("cloud-init", "ok", {"cloud-init": ["status: not installed"]}, "not installed"),
        ("cloud-init", "not checked", {"cloud-init": []}, "not read"),
        ("firewalld", "warning", {"units": units(firewalld="inactive")}, "inactive; active"),
        ("firewalld", "not checked", {"units": []}, "systemd was not asked"),
        ("SELinux", "warning", {"selinux": ["Permissive"]}, "Permissive; Enforcing"),
        ("SELinux", "warning", {"container-selinux": []}, "without container-selinux"),
        ("SELinux", "not checked", {"selinux": []}, "no getenforce"),
        ("temporary directories", "warning", {"temporary": ["/tmp rw,nosuid,nodev,noexec", "/ rw"]}, "noexec: /tmp"),
        ("temporary directories", "failed", {"temporary": ["/ ro,relatime", "/ ro,relatime"]}, "read-only: /"),
        ("temporary directories", "failed", {"disks": ["docker\t/d", "/tmp\t99999999 1048576 0 0 /tmp"]}, "1.0 MiB free in /tmp, on /tmp"),
        ("temporary directories", "not checked", {"temporary": []}, "findmnt"),
        ("umask", "warning", {"umask": ["0027"]}, "0027"),
        ("umask", "not checked", {"umask": []}, "does not say"),
        ("kernel", "warning", {"kernel": ["running\t5.14.0-1", "next\t5.14.0-2", "driver\t"]}, "the next boot starts 5.14.0-2, which has no nvidia.ko"),
        ("kernel", "warning", {"kernel": ["running\t5.14.0-1", "next\t5.14.0-2", "driver\t/x/nvidia.ko"]}, "reboot at a time"),
        ("kernel", "not checked", {"kernel": ["running\t5.14.0-1"]}, "next boot"),
        ("kernel fixes", "not checked", {"kernel-fixes": []}, "the package of the running kernel was not read"),
        ("kernel fixes", "not checked", {"kernel-fixes": ["blocked\trxrpc"]}, "the package of the running kernel was not read"),
        ("kernel fixes", "warning", {"kernel-fixes": ["read"]}, "names no fix of CVE-2026-31431, CVE-2026-43284, CVE-2026-43500; "),
        ("kernel fixes", "warning", {"kernel-fixes": ["read", "fixed\tCVE-2026-31431", "blocked\tesp4", "blocked\trxrpc"]}, "names no fix of CVE-2026-43284; "),
        ("kernel fixes", "warning", {"kernel-fixes": ["read"]}, "docs/security.md#kernels"),
        ("kernel fixes", "ok", {"kernel-fixes": ["read", "fixed\tCVE-2026-31431", "blocked\tesp4", "blocked\tesp6", "blocked\trxrpc"]}, "or keeps their modules out"),
    ],
)  # fmt: skip
def test_each_mismatch_alone_gets_its_verdict(
    name: str, verdict: str, changed: Mapping[str, Sequence[str]], words: str
) -> None:
    check = one(name, judged(changed))
    assert check.verdict == verdict, check
    assert words in f"{check.found}; {check.expected}; {check.then}"
    assert "\n" not in check.found + check.expected + check.then


@pytest.mark.requirement("R05")
def test_all_mismatches_are_reported_at_once() -> None:
    found = judged(
        {
            "os-release": ["ID=centos", 'VERSION_ID="9"'],
            "architecture": ["aarch64"],
            "gpus": [
                line.replace("dram_uncorrectable>0", "dram_uncorrectable>7").replace(
                    "_pending>No", "_pending>Yes"
                )
                for line in nvidia_smi(count=4, name="NVIDIA A100-SXM4-80GB", memory=81920, mig="Enabled")
            ],
            "xids": ["read", XID_79],
            "clock": [str(NOW + 9999)],
            "disks": ["docker\t/var/lib/docker", "/\t99 99 524288 900 /"],
            "listening": ['LISTEN 0 5 0.0.0.0:8000 0.0.0.0:* users:(("python3",pid=3,fd=3))'],
            "network": [
                *network("{}", docker=REFUSED, toolkit=REFUSED, git=REFUSED, hub=REFUSED, registry=REFUSED)
            ],
            "umask": ["0027"],
        },
        data={"shape": "BM.GPU.H100.8"},
    )
    assert [check.name for check in found if check.verdict == "failed"] == [
        *("operating system", "processor", "shape", "ECC errors", "memory repairs", "MIG", "Xid errors"),
        *("fabric manager", "inodes", "clock"),
        *("source docker", "source toolkit", "source git", "source hub", "source registry", "ports"),
    ]
    shape = one("shape", found)
    assert shape.found == "4 x NVIDIA A100-SXM4-80GB of 80.0 GiB"
    assert shape.expected == "8 x H100 of 80 GB, as BM.GPU.H100.8 has them"


def test_inventory_shape_is_compared_with_the_metadata() -> None:
    shape = one("shape", judged(data={"shape": "VM.GPU.A10.2"}))
    assert shape.verdict == "failed"
    assert "VM.GPU.A10.1, by the instance metadata" in shape.found and "VM.GPU.A10.2" in shape.expected
    away = {"network": [line for line in network() if not line.startswith("metadata")]}
    assert one("shape", judged(away, {"shape": "VM.GPU.A10.1"})).verdict == "ok"
    check = one("shape", judged(away))
    assert (check.verdict, check.then) == ("not checked", "set shape in the inventory")


def test_every_component_below_its_floor_is_named() -> None:
    check = one("version floors", judged(data={"waivers": []}))
    assert check.verdict == "failed"
    for said in ("triton version: found 24.09", "driver version: found 580.95.05", "NVIDIA 5861"):
        assert said in check.found
    assert one("version floors", judged({"gpus": []})).verdict == "not checked"


# --- firewalld, which would shut out whom a socket of the host serves

REACHED = {"bind_address": "10.0.0.11", "allowed_sources": ["10.0.0.0/16"]}
FRONTED = {**REACHED, "front": "haproxy"}
BEHIND_GATEWAY = {
    **REACHED,
    "gateway": {
        "certificate": "tls/fullchain.pem",
        "private_key": "tls/privkey.pem",
        "api_keys": "tls/api-keys",
    },
    "image_digests": {**DATA["image_digests"], "library/nginx:1.30.7": DIGEST},
}
PLAIN = "dnf install firewalld; systemctl enable --now firewalld; or rely on security lists and say so"


def firewalld(
    data: Mapping[str, Any], *serving: str, loaded: str = "loaded", listening: Mapping[int, str] | None = None
) -> str:
    """What is advised where firewalld does not run, on a host whose units `serving` run."""
    wanted = release(data)
    seen = replace(converged(wanted), units={unit: {"ActiveState": "active"} for unit in serving})
    state = [line.replace("LoadState=loaded", f"LoadState={loaded}") for line in units(firewalld="inactive")]
    sockets = [
        f'LISTEN 0 5 0.0.0.0:{port} 0.0.0.0:* users:(("{program}",pid=3,fd=3))'
        for port, program in (listening or {22: "sshd"}).items()
    ]
    check = one("firewalld", judged({"units": state, "listening": sockets}, data, observed=seen))
    assert check.verdict == "warning"
    return check.then


@pytest.mark.parametrize(
    ("data", "unit", "ports"),
    [
        (FRONTED, "triton-front.service", "--add-port=8000/tcp --add-port=8001/tcp --add-port=8002/tcp"),
        (BEHIND_GATEWAY, "triton-gateway.service", "--add-port=8443/tcp"),
    ],
    ids=["front", "gateway"],
)
def test_firewalld_advice_opens_the_ports_in_use_first(
    data: Mapping[str, Any], unit: str, ports: str
) -> None:
    assert firewalld(data, "triton.service", unit) == (
        f"dnf install firewalld; in a maintenance window, or it shuts out whom {unit} serves: firewall-offline-cmd {ports}; "
        "systemctl enable --now firewalld; at once the deploy, which adds its own rules; then take the "
        "ports out again (docs/how-to/network.md); or rely on security lists and say so"
    )


def test_firewalld_advice_opens_current_and_not_future_ports() -> None:
    listening = {8000: "haproxy", 8001: "haproxy", 8002: "haproxy", 22: "sshd"}
    advice = firewalld(BEHIND_GATEWAY, "triton.service", "triton-front.service", listening=listening)
    assert "--add-port=8000/tcp --add-port=8001/tcp --add-port=8002/tcp;" in advice
    advice = firewalld(FRONTED, "triton.service", "triton-gateway.service", listening={9443: "nginx"})
    assert "firewall-offline-cmd --add-port=9443/tcp;" in advice


def test_firewalld_advice_is_short_when_no_host_socket_serves() -> None:
    assert firewalld(FRONTED) == PLAIN, "nobody is served yet"
    assert firewalld(REACHED, "triton.service") == PLAIN, "docker forwards its ports, whatever firewalld says"
    assert firewalld({"front": "haproxy"}, "triton-front.service") == PLAIN, "on the loopback alone"


def test_firewalld_advice_assumes_clients_on_an_unprobed_host() -> None:
    wanted = release(FRONTED)
    seen = health(lines({"units": units(firewalld="inactive")}), NOW)
    found = preflight.checks(Subject(wanted.settings, wanted.profile, None, seen, today=DAY))
    assert "whom triton-front.service serves" in one("firewalld", found).then


# --- the fabric manager (R19)

FABRIC = {"fabric": "Completed", "status": "Success"}


def fabric(version: str = "580.95.05", unit: str = "active", **gpus: Any) -> Check:
    changed = {
        "gpus": nvidia_smi(count=8, **{**H100, **FABRIC, **gpus}),
        "units": units(fabric=unit),
        "fabric-manager": [f"Fabric Manager version is : {version}"] if version else [],
        "network": network('{"shape": "BM.GPU.H100.8"}'),
    }
    return one("fabric manager", judged(changed))


def test_active_fabric_manager_of_the_driver_version_passes() -> None:
    assert fabric() == Check("fabric manager", "ok", "580.95.05, active")


@pytest.mark.requirement("R19")
@pytest.mark.parametrize(
    ("given", "found", "expected"),
    [
        ({"version": "575.57.08"}, "version 575.57.08", "the driver's version, 580.95.05"),
        ({"version": ""}, "version not known", "the driver's version"),
        ({"unit": "inactive"}, "nvidia-fabricmanager.service inactive", "active"),
        ({"fabric": "In Progress", "status": "N/A"}, "GPU 7: In Progress, no status", "Completed, Success"),
        (
            {"fabric": "Completed", "status": "Not Supported by this one"},
            "GPU 0: Completed",
            "Success on each GPU",
        ),
    ],
)
def test_other_fabric_manager_states_fail(given: dict[str, Any], found: str, expected: str) -> None:
    check = fabric(**given)
    assert check.verdict == "failed"
    assert found in check.found and expected in check.expected and check.then


def test_nvswitches_known_only_to_the_driver_need_a_manager() -> None:
    found = judged({"switches": ["0000:c7:00.0"], "network": []})
    assert one("fabric manager", found).verdict == "failed"
    assert one("fabric manager", judged()).found == "not needed: no NVSwitch"


def test_fabric_of_a_virtual_machine_is_external() -> None:
    capture = (Path(__file__).parent / "captures" / "h200-x2-q-x.xml").read_text("utf-8")
    virtual = network('{"shape": "VM.GPU.H200.2"}')
    check = one("fabric manager", judged({"gpus": capture.splitlines(), "network": virtual}))
    assert (check.verdict, check.found.split(":")[0]) == ("ok", "not needed here")
    waiting = capture.replace("<state>Completed<", "<state>In Progress<", 1)
    assert waiting != capture
    check = one("fabric manager", judged({"gpus": waiting.splitlines(), "network": []}))
    assert (check.verdict, check.found) == ("failed", "GPU 0: In Progress, Success")


@pytest.mark.parametrize("shape", ['{"shape": "BM.GPU.NEW.8"}', "{}"])
def test_fabric_of_an_unknown_shape_is_not_checked(shape: str) -> None:
    # HGX B300 has NVSwitches that the driver does not list: a fabric state alone says nothing of who sets it up
    linked = nvidia_smi(8, "NVIDIA B300 SXM6 AC", 275040, **FABRIC)
    check = one("fabric manager", judged({"gpus": linked, "network": network(shape)}))
    assert check.verdict == "not checked"
    assert "a fabric, and neither a known shape nor an NVSwitch says" in check.found
    assert "shape" in check.then


def test_fabric_behind_infiniband_needs_a_manager() -> None:
    seen = {
        "gpus": nvidia_smi(8, "NVIDIA B300 SXM6 AC", 275040, **FABRIC),
        "switches": ["/sys/class/infiniband/mlx5_0/device/vpd"],
        "network": network("{}"),
    }
    check = one("fabric manager", judged(seen))
    assert (check.verdict, check.expected) == ("failed", "active, the driver's version, 580.95.05")


def test_inactive_links_fail_where_gpus_work_together() -> None:
    changed = {"nvlink": ["GPU 0: x", "\t Link 0: <inactive>"], "gpus": nvidia_smi(count=2)}
    wanted = plan_release(settings(), [gpu(0), gpu(1)], "9", profile(checkpoint={"tensor_parallel": 2}))
    subject = Subject(wanted.settings, wanted.profile, wanted, health(lines(changed), NOW), converged(wanted))
    assert one("NVLink", preflight.checks(subject)).verdict == "failed"


def test_only_the_chosen_gpus_are_checked() -> None:
    text = "\n".join(nvidia_smi(count=2))
    first, second = text.split("</gpu>")[:2]
    broken = text.replace(second, second.replace("dram_uncorrectable>0", "dram_uncorrectable>1"))
    changed = {"gpus": broken.splitlines()}
    assert first != second
    assert one("ECC errors", judged(changed)).verdict == "failed"
    assert one("ECC errors", judged(changed, {"gpu_ids": [0]})).verdict == "ok"


# --- disk and memory (R06), against the forecast of a model whose numbers are known


def nemo() -> Release:
    big = gpu(name="NVIDIA A100-SXM4-40GB", compute_capability="8.0", memory_total_mib=40960)
    image = {"nvidia/tritonserver:24.08-trtllm-python-py3": DIGEST}
    return plan_release(settings(image_digests=image), [big], "9", load_profile("mistral-nemo"))


def spaces(*of: tuple[str, float, str]) -> dict[str, Sequence[str]]:
    rows = [f"{path}\t{2000 * GIB} {int(free * GIB)} 0 0 {mount}" for path, free, mount in of]
    return {"disks": ["docker\t/var/lib/docker", *rows]}


def disk(changed: Mapping[str, Sequence[str]], **observed: Any) -> list[Check]:
    wanted = nemo()
    seen = replace(converged(wanted), **{"artifacts": {}, "images": {}, **observed})
    seen = (
        replace(seen, root=replace(seen.root, size=seen.root.disk_size)) if "root" not in observed else seen
    )
    return preflight.checks(
        Subject(wanted.settings, wanted.profile, wanted, health(lines(changed), NOW), seen)
    )


@pytest.mark.requirement("R06")
@pytest.mark.parametrize(("free", "verdict"), [(120, "ok"), (100, "warning"), (88, "failed"), (30, "failed")])
def test_disk_below_80_percent_of_the_estimate_fails(free: int, verdict: str) -> None:
    both = (("/var/lib/tritonhost", free, "/"), ("/var/lib/docker", free, "/"))
    check = one("disk space", disk(spaces(*both)))
    assert check.verdict == verdict
    assert check.found == f"{free}.0 GiB free on /"
    if verdict != "ok":
        assert check.expected.startswith("about 110.4 GiB on / (engine ")
        assert "weights 22.8 GiB" in check.expected and "data_root" in check.then


def test_each_file_system_is_checked_for_what_it_will_hold() -> None:
    check = one(
        "disk space",
        disk(spaces(("/var/lib/tritonhost", 900, "/mnt/nvme"), ("/var/lib/docker", 20, "/"))),
    )
    assert check.verdict == "failed"
    assert (
        check.expected.startswith("about 68.4 GiB on /mnt/nvme") or "on /mnt/nvme (engine" in check.expected
    )
    assert "on / (image 42.0 GiB)" in check.expected


def test_root_file_system_counts_with_its_grown_size() -> None:
    both = (("/var/lib/tritonhost", 20, "/"), ("/var/lib/docker", 20, "/"))
    root = replace(converged(nemo()).root, size=36 * GIB, disk_size=300 * GIB)
    check = one("disk space", disk(spaces(*both), root=root))
    assert (check.verdict, check.found) == ("ok", "254.0 GiB free on / after growing")


@pytest.mark.parametrize(
    ("level", "shape", "each", "found", "verdict"),
    [
        ("raid0", "BM.GPU.A10.4", 3_840_000_000_000, "7152.6 GiB", "ok"),
        ("raid10", "BM.GPU.A10.4", 3_840_000_000_000, "3576.3 GiB", "ok"),
        # what the table says of a shape, and of none that is known what the host shows
        ("raid0", "BM.GPU.A10.4", 5 * GIB, "7152.6 GiB", "ok"),
        ("raid0", None, 30 * GIB, "60.0 GiB", "warning"),
        ("raid10", None, 40 * GIB, "40.0 GiB", "failed"),
        # a disk of four is missing
        ("raid0", "BM.GPU4.8", 40 * GIB, "80.0 GiB", "ok"),
    ],
)
def test_planned_local_disks_count_with_their_future_size(
    level: str, shape: str | None, each: int, found: str, verdict: str
) -> None:
    wanted = nemo()
    wanted = replace(
        wanted, settings=wanted.settings.model_copy(update={"local_disks": level, "shape": shape})
    )
    local = LocalDisks(
        tuple(BlockDevice(name, "disk", each) for name in ("nvme0n1", "nvme1n1")),
        {"nvme0n1": (), "nvme1n1": ()},
    )
    seen = replace(converged(wanted), artifacts={}, images={}, local=local, data_root=DataRoot(mount="/"))
    seen = replace(seen, root=replace(seen.root, size=seen.root.disk_size))
    both = {
        **spaces(("/var/lib/tritonhost", 60, "/"), ("/var/lib/docker", 60, "/")),
        "network": network("{}"),
    }
    subject = Subject(wanted.settings, wanted.profile, wanted, health(lines(both), NOW), seen)
    check = one("disk space", preflight.checks(subject))
    assert check.verdict == verdict
    assert f"{found} free on the local disks to be mounted" in check.found
    assert "60.0 GiB free on /" in check.found


def test_local_disks_of_unknown_size_are_not_checked() -> None:
    wanted = nemo()
    wanted = replace(wanted, settings=wanted.settings.model_copy(update={"local_disks": "raid0"}))
    both = spaces(("/var/lib/tritonhost", 60, "/"), ("/var/lib/docker", 60, "/"))
    seen = replace(converged(wanted), artifacts={}, images={})
    seen = replace(seen, root=replace(seen.root, size=seen.root.disk_size))
    subject = Subject(wanted.settings, wanted.profile, wanted, health(lines(both), NOW), seen)
    assert one("disk space", preflight.checks(subject)).verdict == "ok", (
        "42 GiB of image are all that is here"
    )
    mounted = replace(seen, data_root=DataRoot(mount=wanted.data_root))
    assert one("disk space", preflight.checks(replace(subject, observed=mounted))).verdict == "failed"


def test_complete_artifacts_need_no_disk() -> None:
    wanted = nemo()
    both = (("/var/lib/tritonhost", 1, "/"), ("/var/lib/docker", 1, "/"))
    here = converged(wanted)
    assert (
        one("disk space", disk(spaces(*both), artifacts=here.artifacts, images=here.images)).verdict == "ok"
    )


def test_low_memory_is_a_warning_and_swap_counts() -> None:
    little = {"memory": [f"MemTotal\t{15 * GIB // 1024}", "SwapTotal\t0"]}
    check = one("host memory", disk(little))
    assert (check.verdict, check.found) == ("warning", "15.0 GiB with swap")
    assert "61.0 GiB" in check.expected and "137" in check.then
    little = {"memory": [f"MemTotal\t{15 * GIB // 1024}", f"SwapTotal\t{64 * GIB // 1024}"]}
    assert one("host memory", disk(little)).verdict == "ok"


# --- sources and the token


def test_source_of_complete_artifacts_may_be_unreachable() -> None:
    wanted = release()
    away = {"network": network(docker=REFUSED, toolkit=REFUSED, git=REFUSED, hub=REFUSED, registry=REFUSED)}
    found = judged(away, observed=converged(wanted))
    assert {check.verdict for check in found if check.name.startswith("source")} == {"warning"}
    engine = wanted.artifact("engine")
    gone = {
        k: v
        for k, v in converged(wanted).artifacts.items()
        if k != ("weights", wanted.artifact("weights").key)
    }
    found = judged(away, observed=replace(converged(wanted), artifacts=gone))
    assert engine.key in {key for _, key in gone}
    assert [c.name for c in found if c.verdict == "failed"] == ["source hub"]


def test_preflight_checks_the_configured_mirrors() -> None:
    given = settings(
        git_mirrors={"https://github.com/": "https://git.example/mirror/"},
        image_registry="registry.example:5000",
        docker_daemon_settings={"insecure-registries": ["http://registry.example:5000"]},
        hub_endpoint="https://hub.example",
        docker_repository_url="https://mirror.example/docker/el{os_major}/$basearch/",
    )
    found = sources.sources(given, profile(), "8")
    assert found["source docker"] == "https://mirror.example/docker/el8/x86_64/repodata/repomd.xml"
    assert found["source git"].startswith("https://git.example/mirror/triton-inference-server/")
    assert found["source registry"] == "http://registry.example:5000/v2/"
    assert sources.names(list(found.values())) == [
        *("git.example", "hub.example", "mirror.example", "mirror.invalid", "registry.example"),
    ]
    assert sources.names(["http://10.0.0.1:8000/x", "http://[::1]/x"]) == []


def test_search_model_needs_other_sources() -> None:
    found = sources.sources(settings(), load_profile("clip-search"), "9")
    assert "source git" not in found
    assert found["source docker hub"] == "https://registry-1.docker.io/v2/"
    assert "source Python index" not in found
    named = settings(python_index_url="https://mirror.invalid/simple/")
    assert (
        sources.sources(named, load_profile("clip-search"), "9")["source Python index"]
        == named.python_index_url
    )


GATED = {"weights": {"gated": True}}


def test_hub_token_is_a_check_of_its_own() -> None:
    assert one("hub token", judged()).found == "not needed: the model is not gated"
    assert one("hub token", judged(tables=GATED)).verdict == "not checked"
    refused = HubAnswer(
        "failed", "HTTP 403, the token has no access to this gated model", "accept its licence"
    )
    check = one("hub token", judged(tables=GATED, hub=refused))
    assert (check.verdict, check.expected) == ("failed", "a token with access to owner/name")
    assert one("hub token", judged(tables=GATED, hub=HubAnswer("ok", "taken by the hub"))).verdict == "ok"


# --- our own


def test_our_own_server_may_listen() -> None:
    ours = {"listening": ['LISTEN 0 5 127.0.0.1:8000 0.0.0.0:* users:(("docker-proxy",pid=3,fd=3))']}
    host = converged(release())
    assert host.container is not None
    serving = replace(host, container=replace(host.container, ports=frozenset({8000, 8001, 8002})))
    assert one("ports", judged(ours, observed=serving)).verdict == "ok"
    # docker publishes other containers' ports too
    elsewhere = replace(host, container=replace(host.container, ports=frozenset({9000, 9001, 9002})))
    assert one("ports", judged(ours, observed=elsewhere)).verdict == "failed"
    led = {"listening": ['LISTEN 0 5 127.0.0.1:8000 0.0.0.0:* users:(("haproxy",pid=3,fd=3))']}
    behind = replace(
        host,
        container=replace(host.container, ports=frozenset({18000, 18001, 18002})),
        units={**host.units, "triton-front.service": {"ActiveState": "active"}},
    )
    assert one("ports", judged(led, observed=behind)).verdict == "ok"
    assert one("ports", judged(led, observed=serving)).verdict == "failed"
    other = {"listening": ['LISTEN 0 5 127.0.0.1:8000 0.0.0.0:* users:(("python3",pid=3,fd=3))']}
    assert one("ports", judged(other, observed=converged(release()))).verdict == "failed"


def test_ip_forwarding_turned_off_after_docker_is_a_warning() -> None:
    assert one("IP forwarding", judged()).verdict == "ok"
    assert one("IP forwarding", judged(observed=converged(release()))).verdict == "warning"
    assert one("IP forwarding", judged({"ip-forward": ["1"]})).verdict == "ok"


# --- nothing is known


def test_unknown_host_passes_no_check() -> None:
    given = settings()
    found = preflight.checks(Subject(given, profile(), None, Health(), problem="the host was not looked at"))
    passed = {check.name for check in found if check.verdict == "ok"}
    # what needs no answer of the host
    assert passed == {"fabric manager", "hub token"}
    assert {c.name for c in found if c.verdict == "failed"} == {"release"}
    assert all(check.found for check in found)


def test_user_without_sudo_gets_the_checks_that_need_none() -> None:
    why = "sudo -n true fails: it wants a password, or the login user may not use it"
    seen = health(lines({"user": ["1000"]}), NOW)
    found = preflight.checks(
        Subject(settings(), profile(), None, seen, problem="not looked at", sudo_problem=why)
    )
    assert [c.name for c in found if c.verdict == "failed"] == ["sudo"]
    assert one("sudo", found).found == why
    assert one("release", found).verdict == "not checked"
    assert one("operating system", found).verdict == "ok"


def test_release_without_a_plan_is_one_failed_check() -> None:
    problem = "GPUs: found none, expected at least one GPU"
    found = preflight.checks(
        Subject(settings(), profile(), None, health(lines({"gpus": []}), NOW), None, problem=problem)
    )
    assert one("release", found).found == problem
    assert one("GPU driver", found).verdict == "failed"
    assert one("umask", found).verdict == "ok"


# --- waivers, summary, JSON


def test_waived_check_that_fails_is_a_warning() -> None:
    taken = {"listening": ['LISTEN 0 5 0.0.0.0:8000 0.0.0.0:* users:(("python3",pid=3,fd=3))']}
    check = one("ports", judged(taken, {"preflight_waived": ["ports"]}))
    assert check.verdict == "warning"
    assert check.then.endswith("; waived by preflight_waived")
    assert one("ports", judged(None, {"preflight_waived": ["ports"]})).verdict == "ok"


@pytest.mark.parametrize("name", ["port", "Ports", "release", "operating system", ""])
def test_waiver_of_an_unknown_check_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(PlanError) as caught:
        from_host_data({**DATA, "preflight_waived": [name]}, "gpu-1")
    assert "gpu-1: preflight_waived" in str(caught.value)
    assert all(known in str(caught.value) for known in WAIVABLE)


@pytest.mark.requirement("M14")
def test_unknown_oci_shape_is_refused_with_the_list() -> None:
    with pytest.raises(PlanError, match=r'gpu-1: shape: found "BM.GPU4.9", expected an OCI shape.*BM.GPU4.8'):
        from_host_data({**DATA, "shape": "BM.GPU4.9"}, "gpu-1")


def test_runtimes_of_docker_belong_to_the_toolkit() -> None:
    with pytest.raises(
        PlanError, match=r"docker_daemon_settings: found .*, expected settings without runtimes"
    ):
        from_host_data({**DATA, "docker_daemon_settings": {"runtimes": {}}}, "gpu-1")


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["ok", "warning"], 0),
        (["ok", "not checked"], 4),
        (["not checked", "unreachable"], 5),
        (["unreachable", "failed", "ok"], 3),
        ([], 0),
    ],
)
def test_exit_codes(statuses: list[str], code: int) -> None:
    assert preflight.exit_code(statuses) == code


def test_the_status_is_the_worst_verdict() -> None:
    def of(*verdicts: Any) -> str:
        return preflight.status([Check("x", verdict, "y") for verdict in verdicts])

    assert of("ok", "warning") == "warning"
    assert of("warning", "not checked", "ok") == "not checked"
    assert of("not checked", "failed") == "failed"
    assert of("ok") == of() == "ok"


def test_unreachable_source_does_not_stop_a_deploy() -> None:
    found = judged({"network": network(hub=REFUSED), "user": ["1000"]})
    taken = preflight.of_deploy(found)
    assert one("source hub", found).verdict == "failed"
    assert one("source hub", taken).verdict == "warning"
    assert one("sudo", taken).verdict == "failed"


def test_json_names_every_check_of_every_host() -> None:
    found = judged()
    document = json.loads(
        json.dumps(
            preflight.as_json(
                {"gpu-1": ("ok", found, 1.234, ""), "gpu-2": ("unreachable", [], 10, "timed out")}
            )
        )
    )
    first = document["hosts"]["gpu-1"]
    assert (first["status"], first["seconds"], first["problem"]) == ("ok", 1.23, "")
    assert [set(check) for check in first["checks"]] == [
        {"name", "verdict", "found", "expected", "then", "reference"}
    ] * len(found)
    assert document["hosts"]["gpu-2"] == {
        "status": "unreachable",
        "problem": "timed out",
        "error": None,
        "checks": [],
        "seconds": 10,
    }


def test_table_shows_only_the_requested_verdicts() -> None:
    found = [Check("ports", "failed", "8000 by x", "free", "end it"), Check("umask", "ok", "0022")]
    head, row = preflight.table(found, ["failed"])
    assert head.split() == ["verdict", "check", "found", "expected;", "what", "to", "do"]
    assert row == "failed   ports  8000 by x  free; end it"
    assert len(preflight.table(found)) == 3


def test_toolkit_source_url_contains_the_channel() -> None:
    url = "https://mirror.invalid/{channel}/rpm/$basearch"
    chosen = settings(
        nvidia_container_toolkit_repository_url=url, nvidia_container_toolkit_channel="experimental"
    )
    asked = sources.sources(chosen, profile(), "9")["source toolkit"]
    assert asked == "https://mirror.invalid/experimental/rpm/x86_64/repodata/repomd.xml"


@pytest.mark.parametrize(
    ("answer", "proxies", "verdict"),
    [
        ("0\tHTTP 404", [], "failed"),
        ("0\tHTTP 403", [], "failed"),
        ("0\tHTTP 410", [], "failed"),
        ("60\tcurl: (60) SSL certificate problem: self-signed certificate HTTP 000", [], "failed"),
        ("0\tHTTP 404", ["/etc/dnf/dnf.conf"], "warning"),
        ("0\tHTTP 503", [], "warning"),
        ("28\tcurl: (28) Connection timed out HTTP 000", [], "warning"),
    ],
)
def test_repository_that_refuses_permanently_stops_a_deploy(
    answer: str, proxies: list[str], verdict: str
) -> None:
    found = judged({"network": network(docker=answer), "proxies": proxies})
    check = one("source docker", preflight.of_deploy(found))
    assert check.verdict == verdict
    assert set(check.as_dict()) == {"name", "verdict", "found", "expected", "then", "reference"}
    # a hub's answer to a HEAD is no refusal of its files
    assert (
        one("source hub", preflight.of_deploy(judged({"network": network(hub=answer)}))).verdict != "failed"
    )


@pytest.mark.parametrize(
    ("state", "program", "verdict"),
    [
        ("activating", "docker-proxy", "warning"),
        ("active", "docker-proxy", "warning"),
        ("inactive", "docker-proxy", "failed"),
        ("failed", "docker-proxy", "failed"),
        ("activating", "python3", "failed"),
    ],
)
def test_server_that_starts_meanwhile_may_listen(state: str, program: str, verdict: str) -> None:
    """In a crash loop the look finds no container, and the next question finds its ports: a repair must not be refused."""
    heard = {"listening": [f'LISTEN 0 5 127.0.0.1:8000 0.0.0.0:* users:(("{program}",pid=3,fd=3))']}
    host = converged(release())
    seen = replace(host, container=None, units={**host.units, "triton.service": {"ActiveState": state}})
    check = one("ports", judged(heard, observed=seen))
    assert check.verdict == verdict
    assert check.found == f"8000 by {program}"
