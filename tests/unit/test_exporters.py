"""The exporters' plan: settings, who reaches them, what their containers may, what differs, and the script of their units."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operations.plan.artifacts.images import registry_of
from operations.plan.difference import difference
from operations.plan.errors import PlanError
from operations.plan.explain import explained
from operations.plan.exposure import exporters, firewall
from operations.plan.exposure.exporters import Exporter
from operations.plan.inventory.monitoring_settings import DCGM_IMAGE, NODE_IMAGE
from operations.plan.inventory.settings import from_host_data
from operations.plan.monitoring.watched import watched
from operations.plan.observed.firewall import Firewall
from operations.plan.observed.observed import Observed
from operations.plan.planning import ports_of
from operations.plan.preflight.sources import sources
from operations.plan.release import Release
from operations.remote import host_files
from operations.scripts import host_script
from tests.unit.builders import DATA, DIGEST, IMAGE_ID, UNIT, converged, gpu, profile, release, settings
from tests.unit.stubs import Stubs
from tests.unit.test_monitoring_host import complaints
from tests.unit.test_network import REACHED, chain
from tests.unit.test_preflight import judged, one

DIGESTS = {**DATA["image_digests"], NODE_IMAGE: DIGEST, DCGM_IMAGE: DIGEST}
BOTH: dict[str, Any] = {"node": {}, "dcgm": {}}
NETWORK: dict[str, Any] = {"bind": "10.0.0.11", "sources": ["10.9.0.0/24", "10.9.0.7/32", "10.8.0.1/32"]}
NODE, DCGM = "triton-node-exporter", "triton-dcgm-exporter"


def with_exporters(wanted: dict[str, Any] | None = None, **data: Any) -> Release:
    own = {"exporters": BOTH if wanted is None else wanted, **data.pop("monitoring", {})}
    return release({"monitoring": own, "image_digests": DIGESTS, **data})


def of(wanted: Release, kind: str) -> Exporter:
    return next(one for one in wanted.exporters if one.kind == kind)


WANTED = with_exporters()
PLAIN = release({"monitoring": {}, "image_digests": DIGESTS})


# Settings


@pytest.mark.parametrize(
    ("monitoring", "data", "said"),
    [
        ({"exporters": {"node": {"port": 80}}}, {}, "monitoring.exporters.node.port"),
        ({"exporters": {"node": {"image": "prom/prometheus:v3"}}}, {}, "an image of node_exporter 1"),
        ({"exporters": {"node": {"image": "quay.io/prom/node-exporter:latest"}}}, {}, "node_exporter 1"),
        ({"exporters": {"dcgm": {"image": "dcgm-exporter:latest"}}}, {}, "an image of dcgm-exporter"),
        ({"exporters": {"dcgm": {"image": "n/dcgm-exporter:4.5.2-4.8.1-ubi9"}}}, {}, "4.5.3-4.8.2 or later"),
        ({"exporters": {"dcgm": {"image": "n/dcgm-exporter:4.5.3-4.8.1"}}}, {}, "4.5.3-4.8.2 or later"),
        ({"exporters": {"dcgm": {"profiling": "yes"}}}, {}, "monitoring.exporters.dcgm.profiling"),
        ({"exporters": {"nginx": {}}}, {}, "monitoring.exporters.nginx"),
        ({"exporters": BOTH, "bind": "gpu-1"}, {}, "monitoring.bind"),
        ({"exporters": BOTH, "bind": 7}, {}, "monitoring.bind"),
        ({"exporters": BOTH, "bind": "0.0.0.0"}, {}, "who may reach the exporters on 0.0.0.0"),
        ({"exporters": BOTH, "bind": "10.0.0.11", "sources": []}, {}, "monitoring.sources"),
        ({"exporters": BOTH}, REACHED, "who may reach the exporters on 10.0.0.11"),
        ({"exporters": BOTH, "bind": "0.0.0.0", "sources": ["0.0.0.0/0"]}, {}, "without expose=True"),
        ({"exporters": BOTH, "bind": "10.0.0.11", "sources": ["10.0.0.11/8"]}, {}, "monitoring.sources"),
    ],
    ids=str,
)
def test_exporters_that_cannot_be_meant_are_refused(
    monitoring: dict[str, Any], data: dict[str, Any], said: str
) -> None:
    with pytest.raises(PlanError) as refused:
        from_host_data({**DATA, **data, "monitoring": monitoring}, "gpu-1")
    assert said in str(refused.value) and str(refused.value).startswith("gpu-1: monitoring")


def test_exporters_are_off_by_default() -> None:
    assert PLAIN.exporters == () == release().exporters
    # sources are asked for only where there is something to reach
    settings(**REACHED, monitoring={})
    for newer in ("nvidia/k8s/dcgm-exporter:4.6.0-4.8.3-ubi9", "n/dcgm-exporter:5.0.0-5.0.0"):
        settings(monitoring={"exporters": {"dcgm": {"image": newer}}})


@pytest.mark.parametrize("port", [8000, 8001, 8002, 9000])
def test_port_of_a_server_or_door_is_refused(port: int) -> None:
    with pytest.raises(PlanError, match=r"monitoring\.exporters\.dcgm\.port"):
        with_exporters(
            {"dcgm": {"port": port}},
            door={},
            image_digests={**DIGESTS, "library/python:3.11.15-slim-bookworm": DIGEST},
        )


def test_exporters_of_one_port_are_refused() -> None:
    with pytest.raises(PlanError, match="a port of its own for each exporter"):
        with_exporters({"node": {"port": 9400}, "dcgm": {}})


@pytest.mark.parametrize("image", [NODE_IMAGE, DCGM_IMAGE])
def test_image_without_digest_is_refused(image: str) -> None:
    known = {name: digest for name, digest in DIGESTS.items() if name != image}
    with pytest.raises(PlanError, match=r"tritonhost lock"):
        with_exporters(image_digests=known)


def test_plan_can_be_read_before_digests_are_known() -> None:
    data = {**DATA, "monitoring": {"exporters": BOTH}}
    assert len(explained("smollm2-135m", data, "NVIDIA A10:1").exporters) == 2
    for broken in ({"exporters": 1}, {"exporters": {"node": 1}}, 1):
        with pytest.raises(PlanError):
            explained("smollm2-135m", {**DATA, "monitoring": broken}, "NVIDIA A10:1")


# Containers


def test_release_is_the_same_with_exporters_and_without() -> None:
    """Exporters come and go without a start of the server."""
    assert WANTED.id == PLAIN.id
    assert {image.name for image in WANTED.images} - {image.name for image in PLAIN.images} == {
        "node-exporter",
        "dcgm-exporter",
    }


@pytest.mark.parametrize(("kind", "user"), [("node", 60603), ("dcgm", 60604)])
def test_containers_have_no_rights_and_limits(kind: str, user: int) -> None:
    words = " ".join(of(WANTED, kind).run)
    for option in (
        *(f"--user {user}:{user}", "--read-only", "--cap-drop ALL", "--security-opt no-new-privileges"),
        *("--memory ", "--pids-limit ", "--network host", "--log-driver none", "--pull never"),
    ):
        assert option in words, option
    assert "--cap-add" not in words and "--privileged" not in words


def test_node_exporter_reads_the_host_and_writes_nothing() -> None:
    run = of(WANTED, "node").run
    mounts = [run[n + 1] for n, word in enumerate(run) if word in ("--volume", "--mount")]
    assert mounts == ["/:/host:ro,rslave"]
    assert "--path.rootfs=/host" in run
    assert "--collector.textfile.directory=/host/var/lib/node_exporter/textfile_collector" in run
    assert "--web.listen-address=127.0.0.1:9100" in run
    assert run[run.index("--pid") + 1] == "host"
    assert "label=disable" not in run and "--runtime" not in run


def test_selinux_lets_node_exporter_see_the_host() -> None:
    data = {"monitoring": {"exporters": BOTH}, "image_digests": DIGESTS}
    planned = {confined: exporters.exporters(settings(**data), 1, confined, ()) for confined in (True, False)}
    found = {confined: ["label=disable" in one.run for one in each] for confined, each in planned.items()}
    assert found == {True: [True, False], False: [False, False]}


def test_dcgm_exporter_sees_every_gpu_and_the_written_counters() -> None:
    one = of(with_exporters(gpu_ids=[0]), "dcgm")
    assert one.run[one.run.index("--runtime") + 1] == "nvidia"
    assert "NVIDIA_VISIBLE_DEVICES=all" in one.run
    assert "/var/lib/tritonhost/dcgm-counters.csv:/etc/tritonhost/counters.csv:ro" in one.run
    assert "DCGM_FI_DEV_XID_ERRORS, gauge" in one.counters and "_PROF_" not in one.counters
    assert one.shows == {"DCGM_FI_DEV_GPU_TEMP": 1}


def test_profiling_alone_takes_root_and_one_capability() -> None:
    wanted = with_exporters({"dcgm": {"profiling": True}, "node": {}})
    words = " ".join(of(wanted, "dcgm").run)
    assert "--user 0:0" in words and words.count("--cap-add") == 1 and "--cap-add SYS_ADMIN" in words
    assert "DCGM_FI_PROF_SM_ACTIVE" in of(wanted, "dcgm").counters
    # no rule can mean root alone
    assert wanted.guard.exporter_users == (60603,)


def test_container_of_other_options_has_another_key() -> None:
    for kind, other in (
        ("node", with_exporters({"node": {"port": 9101}})),
        ("node", with_exporters(monitoring={"textfile_directory": "/var/lib/texts"})),
        ("node", with_exporters(monitoring=NETWORK)),
        ("dcgm", with_exporters({"dcgm": {"profiling": True}})),
        ("dcgm", with_exporters(image_digests={**DIGESTS, DCGM_IMAGE: f"sha256:{'c' * 64}"})),
    ):
        assert of(other, kind).key != of(WANTED, kind).key
    one = of(WANTED, "dcgm")
    assert replace(one, read={"counters": "another"}).key != one.key
    assert f"tritonhost.exporter={one.key}" in one.run


def test_image_of_nvidia_comes_from_its_registry() -> None:
    data: dict[str, Any] = {"image_registry": "nv.example", "docker_hub_registry": "hub.example"}
    wanted = with_exporters(**data)
    pulled = {one.kind: one.image.commands[0][2] for one in wanted.exporters}
    assert pulled == {
        "node": f"hub.example/prom/node-exporter@{DIGEST}",
        "dcgm": f"nv.example/nvidia/k8s/dcgm-exporter@{DIGEST}",
    }
    found = {image.name: registry_of(wanted.settings, image) for image in wanted.images}
    assert found == {"serving": "nv.example", "dcgm-exporter": "nv.example", "node-exporter": "hub.example"}
    hub = "source docker hub"
    assert hub in sources(wanted.settings, profile(), "9")
    assert hub not in sources(with_exporters({"dcgm": {}}, **data).settings, profile(), "9")


def test_first_service_runs_the_exporters_of_its_host() -> None:
    shared: dict[str, Any] = {"services": {"llama": {}, "search": {}}, "gpu_ids": [0]}
    first, other = (with_exporters(service_name=name, **shared) for name in ("llama", "search"))
    assert [one.service for one in first.exporters] == ["llama-node-exporter", "llama-dcgm-exporter"]
    assert of(first, "dcgm").counters_path == "/var/lib/tritonhost/services/llama/dcgm-counters.csv"
    assert other.exporters == () and other.guard.exporter_users == ()
    ports = [ports_of(each.settings, profile()) for each in (first, other)]
    assert [9100 in each and 9400 in each for each in ports] == [True, False]


# Who reaches them


def test_exporters_on_the_loopback_open_no_port() -> None:
    text = host_files.guard_rules(WANTED.guard)
    assert "watched" not in text
    assert "meta skuid { 60603, 60604 } jump from_exporters" in chain(text, "output")
    assert chain(text, "from_exporters")[-1] == "counter drop"
    assert not any("accept" in line and "ct " not in line for line in chain(text, "from_exporters"))
    assert not firewall.needed(WANTED.settings)
    assert "exporters" not in host_files.guard_rules(PLAIN.guard)


def test_only_declared_networks_reach_the_exporters() -> None:
    wanted = with_exporters(monitoring=NETWORK)
    text = host_files.guard_rules(wanted.guard)
    assert "tcp dport { 9100, 9400 } jump watched" in chain(text, "input")
    assert chain(text, "watched") == [
        'iifname "lo" accept',
        "ip saddr { 10.8.0.1/32, 10.9.0.0/24 } accept",
        "counter drop",
    ]
    # clients are not let in, and those that watch are not let through to the server
    reached = with_exporters(monitoring=NETWORK, **REACHED)
    text = host_files.guard_rules(reached.guard)
    assert chain(text, "published")[1] == "ip saddr { 10.0.0.0/16, 192.168.0.7/32 } accept"
    assert chain(text, "watched")[1] == "ip saddr { 10.8.0.1/32, 10.9.0.0/24 } accept"


def test_firewalld_admits_them_in_the_zone_of_their_address() -> None:
    zones = {"10.0.0.11": "internal", "10.1.0.11": "public", "172.17.0.1": "docker"}
    there = Firewall(running=True, default="public", zones=zones)
    reached = {**REACHED, "bind_address": "10.1.0.11", "front": "haproxy"}
    wanted = with_exporters({"node": {}}, monitoring=NETWORK, **reached)
    found = {
        (zone, rule.partition("source ")[2].split(" protocol")[0])
        for scope, zone, rule in firewall.wanted(wanted.settings, wanted.ports, there)
        if scope == "runtime"
    }
    watching = {(zone, said) for zone, said in found if "9100" in said}
    assert watching == {
        ("internal", f'address="{source}" port port="9100"') for source in ("10.8.0.1/32", "10.9.0.0/24")
    }
    assert {zone for zone, _ in found - watching} == {"public"} and len(found - watching) == 6
    everywhere = with_exporters({"node": {}}, monitoring={**NETWORK, "bind": "0.0.0.0"}).settings
    assert firewall.needed(everywhere)
    rows = firewall.wanted(everywhere, (8000, 8001, 8002), there)
    assert {zone for _, zone, _ in rows} == {"internal", "public"}


def test_targets_name_the_ports_and_addresses_of_exporters() -> None:
    def targets(wanted: Release) -> tuple[dict[str, str], tuple[str, ...]]:
        entry = watched("gpu-1", wanted.settings, profile(), "203.0.113.7")
        return {target.job: target.address for target in entry.targets}, entry.remarks

    found, remarks = targets(with_exporters({"node": {"port": 9101}}, monitoring=NETWORK))
    # dcgm-exporter is the site's own, wherever that is
    assert found == {"node": "10.0.0.11:9101", "dcgm": "203.0.113.7:9400"} and len(remarks) == 1
    found, remarks = targets(WANTED)
    assert found == {}
    assert remarks[1] == (
        "gpu-1: the node exporter is on 127.0.0.1 alone, where Prometheus does not reach it; set bind and sources of monitoring"
    )
    found, _ = targets(with_exporters(monitoring={**NETWORK, "bind": "0.0.0.0"}))
    assert set(found.values()) == {"203.0.113.7:9100", "203.0.113.7:9400"}
    found, _ = targets(with_exporters(monitoring={**NETWORK, "address": "gpu-1.example"}))
    assert set(found.values()) == {"gpu-1.example:9100", "gpu-1.example:9400"}


# What differs


def watched_host(wanted: Release = WANTED, **changed: Any) -> Observed:
    host = converged(wanted)
    digests = {file.path: file.digest for file in host_files.expected(wanted)}
    units = {
        **host.units,
        "triton-metrics.timer": UNIT,
        **{f"{one.service}.service": UNIT for one in wanted.exporters},
    }
    keys = {one.service: one.key for one in wanted.exporters}
    there = {"file_digests": {**host.file_digests, **digests}, "units": units, "exporters": keys}
    images = {image.tag: IMAGE_ID for image in wanted.images}
    records = {image.key: IMAGE_ID for image in wanted.images}
    return replace(host, **{**there, "images": images, "image_records": records, **changed})


def rows(observed: Observed, wanted: Release = WANTED) -> list[tuple[str, str, str]]:
    found = difference(wanted, observed, host_files.expected(wanted))
    return [(row.what, row.found, row.wanted) for row in found if row.stage == "monitoring"]


def test_host_with_its_exporters_has_no_row() -> None:
    assert rows(watched_host()) == []


@pytest.mark.parametrize("name", [NODE, DCGM])
def test_exporter_that_differs_is_a_row(name: str) -> None:
    host = watched_host()
    for unit, expected in (
        ({**UNIT, "ActiveState": "failed"}, (f"{name}.service", "failed", "active")),
        ({**UNIT, "UnitFileState": "disabled"}, (f"{name}.service", "disabled", "enabled")),
    ):
        assert rows(replace(host, units={**host.units, f"{name}.service": unit})) == [expected]
    other = replace(host, exporters={**host.exporters, name: "another"})
    assert rows(other) == [(f"container {name}", "of other options", "run with its own")]
    gone = {path: digest for path, digest in host.file_digests.items() if name not in path}
    changed = {what for what, _, _ in rows(replace(host, file_digests=gone))}
    assert changed == {f"/etc/systemd/system/{name}.service", f"/etc/{name}.sh"}


def test_other_counters_are_a_row() -> None:
    host, path = watched_host(), "/var/lib/tritonhost/dcgm-counters.csv"
    assert path in host_files.watched(WANTED.settings)
    assert [row[0] for row in rows(replace(host, file_digests={**host.file_digests, path: "0" * 64}))] == [
        path
    ]


def test_exporters_that_nobody_wants_are_removed() -> None:
    left = {
        *(f"/etc/systemd/system/{name}.service" for name in (NODE, DCGM)),
        *(f"/etc/{name}.sh" for name in (NODE, DCGM)),
        "/var/lib/tritonhost/dcgm-counters.csv",
    }
    found = {what for what, said, _ in rows(watched_host(), PLAIN) if said == "left of an exporter"}
    assert found == left
    node_alone = {
        what for what, _, _ in rows(watched_host(), with_exporters({"node": {}})) if "exporter" in what
    }
    assert node_alone == {path for path in left if NODE not in path and "counters" not in path}


@pytest.mark.parametrize(
    ("program", "state", "verdict"),
    [
        ("node_exporter", "active", "ok"),
        # the distribution's own, started by somebody else
        ("node_exporter", "inactive", "failed"),
        ("python3", "active", "failed"),
    ],
)
def test_port_of_our_own_exporter_is_not_taken(program: str, state: str, verdict: str) -> None:
    data = {"monitoring": {"exporters": BOTH}, "image_digests": DIGESTS}
    heard = [f'LISTEN 0 5 127.0.0.1:9100 0.0.0.0:* users:(("{program}",pid=3,fd=3))']
    host = watched_host()
    host = replace(host, units={**host.units, f"{NODE}.service": {**UNIT, "ActiveState": state}})
    check = one("ports", judged({"listening": heard}, data, observed=host))
    assert check.verdict == verdict and ("9100 by" in check.found) == (verdict == "failed")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_units_are_valid_for_systemd(tmp_path: Path) -> None:
    files = host_files.rendered(WANTED)
    texts = {f"{name}.service": files[f"/etc/systemd/system/{name}.service"].text for name in (NODE, DCGM)}
    own = {name: text.replace("Requires=", "Wants=") for name, text in texts.items()}
    assert "exporter.service:" not in complaints(tmp_path, own)
    broken = {name: text.replace("RestartSec=5", "RestartSec=soon") for name, text in own.items()}
    said = complaints(tmp_path, broken)
    assert all(f"{name}.service:" in said for name in (NODE, DCGM))


# The script of their units


def script(name: str = NODE) -> str:
    return host_files.rendered(WANTED)[f"/etc/{name}.sh"].text


PAGE = 'node_uname_info{a="b"} 1\\nnode_filesystem_avail_bytes{c="d"} 2\\nnode_textfile_scrape_error 0\\n'


def shown(folder: Path, page: str) -> subprocess.CompletedProcess[str]:
    stubs = Stubs(folder / "bin")
    stubs.add("curl", f"printf '{page}'" if page else "exit 7")
    file = folder / "exporter.sh"
    file.write_text(script().replace("SECONDS_AT_MOST=60", "SECONDS_AT_MOST=0"))
    return subprocess.run(
        ["sh", str(file), "shows"],
        capture_output=True,
        text=True,
        env={"PATH": f"{stubs.directory}:/usr/bin:/bin"},
    )


def test_page_with_its_metrics_is_enough(tmp_path: Path) -> None:
    done = shown(tmp_path, PAGE)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("", "0 samples of node_uname_info, expected 1 or more"),
        (
            PAGE.replace("node_textfile_scrape_error", "node_textfile_scrape_errors"),
            "node_textfile_scrape_error",
        ),
        (PAGE.replace("node_uname", "# node_uname"), "node_uname_info"),
    ],
    ids=["no answer", "another name", "a comment"],
)
def test_page_that_lacks_a_metric_is_said(tmp_path: Path, page: str, said: str) -> None:
    done = shown(tmp_path, page)
    assert done.returncode == 1
    assert said in done.stderr and "journalctl --unit triton-node-exporter" in done.stderr


def test_every_gpu_is_asked_for() -> None:
    two = release({"monitoring": {"exporters": BOTH}, "image_digests": DIGESTS}, gpus=[gpu(0), gpu(1)])
    assert of(two, "dcgm").shows == {"DCGM_FI_DEV_GPU_TEMP": 2}


def served(
    folder: Path, docker: str, **environment: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    stubs = Stubs(folder / "bin")
    stubs.add("docker", docker)
    record = folder / "record"
    record.write_text("sha256:abc\n")
    variables = {
        "NAME": "x-node-exporter",
        "IMAGE_RECORD": str(record),
        "URL": "http://127.0.0.1:1/metrics",
        "RECORD": str(folder / "key"),
        "SHOWS": "",
        "SECONDS_AT_MOST": "0",
    }
    text = host_script(
        "exporter.sh", {**variables, **environment}, 'run_it() {\n    exec docker run "$image"\n}\n'
    )
    file = folder / "x.sh"
    file.write_text(text)
    path = f"{stubs.directory}:/usr/bin:/bin"
    done = subprocess.run(["sh", str(file), "serve"], capture_output=True, text=True, env={"PATH": path})
    return done, stubs.calls


def test_unit_runs_the_recorded_image(tmp_path: Path) -> None:
    done, calls = served(tmp_path, "[ $1 != inspect ]")
    assert done.returncode == 0 and calls[-1] == "docker run sha256:abc"


def test_container_of_another_is_not_removed(tmp_path: Path) -> None:
    done, calls = served(tmp_path, "echo '<no value>'")
    assert done.returncode == 64 and "found one that is not ours" in done.stderr
    assert [call.split()[1] for call in calls] == ["inspect"]


def test_old_container_of_ours_is_replaced(tmp_path: Path) -> None:
    _, calls = served(tmp_path, "echo key")
    assert [call.split()[1] for call in calls] == ["inspect", "rm", "run"]


def test_missing_image_is_said(tmp_path: Path) -> None:
    done, _ = served(tmp_path, "[ $1 != inspect ]", IMAGE_RECORD=str(tmp_path / "none"))
    assert done.returncode == 65 and "found no record of the image of x-node-exporter" in done.stderr
