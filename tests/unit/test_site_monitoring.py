"""The files for a site's Prometheus: targets of an inventory, a valid configuration, and the command that writes them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from operations.plan.inventory.settings import Settings
from operations.plan.monitoring import prometheus
from operations.plan.monitoring.rules import ALERTS
from operations.plan.monitoring.site import Site, files
from operations.plan.monitoring.watched import JOBS, Watched, targets_of, watched
from tests.command_line import PROJECT
from tests.unit.builders import DATA, DIGEST, profile, settings

REACHED: dict[str, Any] = {"bind_address": "10.0.0.11", "allowed_sources": ["10.0.0.0/16"]}
GATEWAY: dict[str, Any] = {
    "gateway": {"certificate": "chain.pem", "private_key": "key.pem", "api_keys": "keys", "port": 8443},
    "image_digests": {**DATA["image_digests"], "library/nginx:1.30.7": DIGEST},
}


def of(name: str = "gpu-1", **data: Any) -> Watched:
    return watched(name, settings(**{"monitoring": {}, **data}), profile(), "203.0.113.7")


def addresses(entry: Watched) -> dict[str, str]:
    return {target.job: target.address for target in entry.targets}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # reached over its loopback alone: its exporters, and nothing of Triton
        ({}, {"node": "203.0.113.7:9100", "dcgm": "203.0.113.7:9400"}),
        (
            REACHED,
            {"triton": "10.0.0.11:8002", "node": "10.0.0.11:9100", "dcgm": "10.0.0.11:9400"},
        ),
        (
            {**REACHED, "metrics_port": 18002, "monitoring": {"node_port": 9101, "dcgm_port": 9401}},
            {"triton": "10.0.0.11:18002", "node": "10.0.0.11:9101", "dcgm": "10.0.0.11:9401"},
        ),
        (
            {**REACHED, "bind_address": "0.0.0.0", "expose": True},
            {"triton": "203.0.113.7:8002", "node": "203.0.113.7:9100", "dcgm": "203.0.113.7:9400"},
        ),
        (
            {**REACHED, **GATEWAY, "monitoring": {"address": "gpu-1.example"}},
            {
                "triton-gateway": "gpu-1.example:8443",
                "node": "gpu-1.example:9100",
                "dcgm": "gpu-1.example:9400",
            },
        ),
    ],
    ids=["loopback", "private", "ports", "everywhere", "gateway"],
)
def test_targets_are_where_prometheus_reaches_them(data: dict[str, Any], expected: dict[str, str]) -> None:
    entry = of(**data)
    assert addresses(entry) == expected
    assert bool(entry.remarks) == (not {"triton", "triton-gateway"} & set(expected))


def test_door_is_a_target_behind_a_gateway_alone() -> None:
    behind = of(**REACHED, **GATEWAY, door={"port": 9100})
    assert addresses(behind)["door"] == addresses(behind)["triton-gateway"] == "10.0.0.11:8443"
    assert behind.remarks == ()
    assert "door" not in addresses(of(**REACHED, **GATEWAY))
    # on the host's loopback, whatever else is reached
    alone = of(**REACHED, door={})
    assert "door" not in addresses(alone)
    assert alone.remarks == ("gpu-1: the door's metrics are on the host's loopback alone; set gateway",)
    unpublished = of(**GATEWAY, door={})
    assert set(addresses(unpublished)) == {"node", "dcgm"} and len(unpublished.remarks) == 1


def test_door_is_scraped_at_the_gateway_s_path() -> None:
    text = files([of(**REACHED, **GATEWAY, door={})], Site())["prometheus.yml"]
    (job,) = (part for part in text.split("- job_name: ") if part.startswith('"door"'))
    assert 'metrics_path: "/metrics/door"' in job and 'credentials_file: "secrets/key"' in job
    assert "location = /metrics/door {" in (PROJECT / "templates/gateway.conf.j2").read_text("utf-8")
    assert '"door"' not in files([of(**REACHED, **GATEWAY)], Site())["prometheus.yml"]


def test_services_of_a_host_share_its_exporters() -> None:
    shared: dict[str, Any] = {**REACHED, "services": {"llama": {}, "search": {}}}
    entries = [
        of("gpu-1/llama", service_name="llama", metrics_port=8002, **shared),
        of("gpu-1/search", service_name="search", metrics_port=8102, **shared),
    ]
    found = targets_of(entries)
    assert [target.entry() for target in found["node"]] == [
        {"targets": ["10.0.0.11:9100"], "labels": {"host": "gpu-1"}}
    ]
    assert len(found["dcgm"]) == 1
    assert [target.entry() for target in found["triton"]] == [
        {
            "targets": [f"10.0.0.11:{port}"],
            "labels": {"host": "gpu-1", "service": service, "profile": "smollm2-135m"},
        }
        for port, service in ((8002, "llama"), (8102, "search"))
    ]


def checked(folder: Path, entries: list[Watched], site: Site) -> subprocess.CompletedProcess[str]:
    secrets = {prometheus.KEY_FILE: "key", prometheus.CA_FILE: ""}
    for name, text in {**files(entries, site), **secrets}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return subprocess.run(
        ["promtool", "check", "config", str(folder / "prometheus.yml")], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("entries", "site"),
    [
        ([of(**REACHED)], Site()),
        (
            [of(**REACHED, **GATEWAY, door={}), of("gpu-2", **REACHED)],
            Site(remote_write="https://m.example/api/v1/write"),
        ),
    ],
    ids=["plain", "gateway"],
)
def test_configuration_is_valid_for_prometheus(tmp_path: Path, entries: list[Watched], site: Site) -> None:
    done = checked(tmp_path, entries, site)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "prometheus.yml").read_text()
    assert ("\nremote_write:" in text) == bool(site.remote_write)
    assert ("credentials_file" in text) == any("triton-gateway" in addresses(entry) for entry in entries)
    (tmp_path / "prometheus.yml").write_text(text.replace("file_sd_configs", "file_sd"))
    broken = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yml")], capture_output=True, text=True
    )
    assert broken.returncode != 0


def test_each_job_has_a_file_of_targets() -> None:
    texts = files([of(**REACHED)], Site())
    named = re.findall(r'"(targets/[a-z-]+\.json)"', texts["prometheus.yml"])
    assert set(named) == {f"targets/{name}.json" for name, job in JOBS.items() if not job.tls}
    assert set(named) <= set(texts)
    for name in texts:
        if name.endswith(".json"):
            json.loads(texts[name])


def test_alertmanager_silences_only_alerts_that_exist() -> None:
    names = set(re.findall(r"Tritonhost\w+", prometheus.alertmanager()))
    assert names and names <= {alert.name for alert in ALERTS}


# The command


def inventory(folder: Path, **data: Any) -> Path:
    (folder / "group_data").mkdir()
    lines = [f"{key} = {value!r}\n" for key, value in {**DATA, **data}.items()]
    (folder / "group_data" / "all.py").write_text("".join(lines))
    own = {"ssh_hostname": "10.0.0.12", **REACHED, "bind_address": "10.0.0.12"}
    (folder / "hosts.py").write_text(
        f"hosts = [('gpu-1', {{'ssh_hostname': '10.0.0.11'}}), ('gpu-2', {own!r})]\n"
    )
    return folder / "hosts.py"


def written(folder: Path, path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "operations.site_monitoring", str(folder / "out"), "--inventory", str(path)]
    return subprocess.run(
        [*argv, *words], cwd=PROJECT, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )


@pytest.mark.slow
def test_command_writes_what_promtool_accepts(tmp_path: Path) -> None:
    path = inventory(tmp_path, monitoring={})
    done = written(tmp_path, path, "--runbooks", "https://docs.example/how-to/alerts/")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert f"{out}: 13 files for 2 hosts" in done.stdout
    assert "gpu-1: Triton's metrics are on 127.0.0.1 alone" in done.stderr
    assert json.loads((out / "targets/triton.json").read_text())[0]["targets"] == ["10.0.0.12:8002"]
    assert "https://docs.example/how-to/alerts/#tritonhostdown" in (out / "rules/tritonhost.yml").read_text()
    check = subprocess.run(["promtool", "check", "config", str(out / "prometheus.yml")], capture_output=True)
    assert check.returncode == 0
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()}
    (out / "targets/node.json").unlink()
    (out / "alertmanager.yml").write_text("the site's own")
    again = written(tmp_path, path, "--runbooks", "https://docs.example/how-to/alerts/")
    assert again.returncode == 0
    after = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()}
    changed = {file.name for file in after if after[file] != before.get(file)}
    assert changed == {"node.json", "alertmanager.yml"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "words", "said"),
    [
        ({}, (), "monitoring: found no host with it, expected at least one"),
        (
            {"monitoring": {}},
            ("--remote-write", "https://me:secret@m.example"),
            "--remote-write: found something else",
        ),
        ({"monitoring": {}}, ("--alertmanager", "am"), "--alertmanager: found am, expected HOST:PORT"),
        ({"monitoring": {"port": 1}}, (), "unknown key"),
    ],
    ids=["none", "secret", "no port", "key"],
)
def test_command_refuses_what_cannot_be_meant(
    tmp_path: Path, data: dict[str, Any], words: tuple[str, ...], said: str
) -> None:
    done = written(tmp_path, inventory(tmp_path, **data), *words)
    assert done.returncode == 2
    assert said in done.stderr and "secret@" not in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_settings_without_monitoring_are_not_watched() -> None:
    assert Settings.model_validate(DATA).monitoring is None
