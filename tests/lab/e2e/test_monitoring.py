"""Monitoring on the shared host: its own metrics and both exporters, who reaches them, an update, and what removal leaves."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.e2e.one_host import DATA_ROOT, OneHost
from tests.lab.e2e.test_second_run import MOST_COMMANDS
from tests.lab.standins import exporter_images

NODE, DCGM = "triton-node-exporter", "triton-dcgm-exporter"
TEXTS = "/var/lib/node_exporter/textfile_collector"


class Watched:
    """The host with monitoring."""

    def __init__(self, host: OneHost, folder: Path) -> None:
        self.host, self.folder = host, folder
        self.address = host.settings.address(1)

    def write(self, **further: Any) -> None:
        """The group data of the next run."""
        node = {"image": f"{exporter_images.NODE_REPOSITORY}:{exporter_images.NODE_TAG}"}
        values = {
            "exporters": {"node": node, "dcgm": {}},
            **self.reached(self.host.settings.gateway),
            **further,
        }
        self.write_data(values)

    def reached(self, source: str) -> dict[str, Any]:
        return {"bind": self.address, "sources": [f"{source}/32"]}

    def write_data(self, monitoring: Any) -> None:
        group = self.folder / "group_data"
        group.mkdir(exist_ok=True)
        (group / "all.py").write_text(f"monitoring = {monitoring!r}\n", encoding="utf-8")

    @property
    def options(self) -> list[str]:
        return ["--group-data", str(self.folder / "group_data")]

    def deploy(self, code: int = 0) -> str:
        done = self.host.deploy(*self.options)
        assert done.code == code, done.output
        return done.output

    def page(self, port: int, seconds: float = 10) -> str:
        """What Prometheus would read, from this machine."""
        with urllib.request.urlopen(f"http://{self.address}:{port}/metrics", timeout=seconds) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def watched(site: OneHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    site.converge()
    made = Watched(site, tmp_path_factory.mktemp("monitoring"))
    made.write()
    began = site.now()
    output = made.deploy()
    assert "triton-node-exporter.service" in output and "triton-dcgm-exporter.service" in output
    # the server was not touched
    assert site.starts("triton.service", began) == 0
    yield made
    site.converge()


def test_host_with_exporters_is_verified(watched: Watched) -> None:
    chosen = "test_exporters or test_monitoring or test_network or test_ownership"
    watched.host.verified(chosen, *watched.options, features=("monitoring", "exporters"))


def test_next_run_with_exporters_changes_nothing(watched: Watched) -> None:
    host = watched.host
    before = host.now()
    done = host.deploy(*watched.options, "-vvv")
    assert "converged: release" in done.output and "Starting operation" not in done.output
    # one look at the host, as without exporters
    assert done.output.count("[h1] >>> ") <= MOST_COMMANDS
    assert host.units_touched(before) == []


def test_declared_source_reads_both_pages(watched: Watched) -> None:
    node, dcgm = watched.page(9100), watched.page(9400)
    release = watched.host.running_release()
    assert f'release="{release}"' in next(
        line for line in node.splitlines() if line.startswith("tritonhost_release_info{")
    )
    gpus = watched.host.root("nvidia-smi --query-gpu=uuid --format=csv,noheader").split()
    shown = [line for line in dcgm.splitlines() if line.startswith("DCGM_FI_DEV_GPU_TEMP{")]
    assert len(shown) == len(gpus) > 0 and all(uuid in "".join(shown) for uuid in gpus)


def test_exporter_that_does_not_start_is_put_back(watched: Watched) -> None:
    """It is told to listen on an address that the host does not have: what ran before runs again."""
    host = watched.host
    before = host.root(f"cat /run/{NODE}")
    watched.write(bind=f"{host.settings.net}.250")
    output = watched.deploy(code=1)
    assert f"{NODE}.service: did not start with its new files" in output, output
    assert "what it ran with before is back, and it runs with it" in output, output
    assert host.root(f"cat /run/{NODE}") == before
    assert "node_uname_info" in watched.page(9100)
    watched.write()
    watched.deploy()
    assert "converged: release" in watched.deploy()


def test_port_of_another_program_is_seen_before_a_change(watched: Watched) -> None:
    host = watched.host
    image = f"{exporter_images.NODE_REPOSITORY}:{exporter_images.NODE_TAG}"
    began = host.now()
    host.root(f"systemd-run --unit=squatter --collect python3 -m http.server 9199 --bind {watched.address}")
    try:
        watched.write(exporters={"node": {"image": image, "port": 9199}, "dcgm": {}})
        output = watched.deploy(code=1)
    finally:
        host.root("systemctl stop squatter")
    assert "9199 by python3" in output, output
    assert host.starts(f"{NODE}.service", began) == 0
    watched.write()
    assert "converged: release" in watched.deploy()


def test_network_that_is_not_declared_is_kept_out(watched: Watched) -> None:
    host = watched.host
    watched.write(**watched.reached("192.0.2.1"))
    began = host.now()
    watched.deploy()
    for port in (9100, 9400):
        with pytest.raises((TimeoutError, urllib.error.URLError)):
            watched.page(port, 2)
    # who may reach them is no option of theirs
    assert host.starts(f"{NODE}.service", began) == 0
    watched.write()
    watched.deploy()
    assert watched.page(9100)


def test_exporter_that_died_is_started_again(watched: Watched) -> None:
    watched.host.root(f"docker kill {NODE} >/dev/null")
    end = time.monotonic() + 30
    while watched.host.try_root(
        f"systemctl is-active {NODE} && curl -sf {watched.address}:9100/metrics >/dev/null"
    )[0]:
        assert time.monotonic() < end
        time.sleep(0.5)
    assert "converged: release" in watched.deploy()


def test_verification_notices_what_is_wrong(watched: Watched) -> None:
    """Each test of tests/verify/test_exporters.py fails on a host that is as it must not be."""
    host = watched.host
    host.root(
        # rights, and the address of all networks
        f"sed -i -e 's/--user 60603:60603/--user 0:0/; s/--cap-drop ALL//; s/={watched.address}:9100/=0.0.0.0:9100/' "
        f"/etc/{NODE}.sh; sed -i /GPU_TEMP/d {DATA_ROOT}/dcgm-counters.csv; systemctl restart {NODE} {DCGM}; "
        f"systemctl stop triton-metrics.timer; rm -f {TEXTS}/*; nft delete table inet tritonhost_triton"
    )
    done = host.verify("test_exporters", *watched.options)
    assert {test.partition("::")[2] for test in done.failed} == {
        "test_exporters_run_from_their_images_and_at_boot",
        "test_exporter_containers_have_no_rights",
        "test_exporters_listen_where_the_inventory_says",
        "test_exporters_can_connect_to_nobody",
        "test_node_exporter_shows_the_host_and_its_own_metrics",
        "test_dcgm_exporter_shows_each_gpu",
    }, done.output
    watched.deploy()
    host.root(f"systemctl restart {NODE} {DCGM}")
    host.verified("test_exporters or test_monitoring", *watched.options, features=("monitoring", "exporters"))


def test_removal_of_monitoring_leaves_nothing(watched: Watched) -> None:
    host = watched.host
    watched.write_data(None)
    watched.deploy()
    found = host.root(
        "ls -d /etc/*exporter* /etc/systemd/system/*exporter* /etc/systemd/system/*/*exporter* /run/*exporter* "
        f"/etc/systemd/system/*metrics* {DATA_ROOT}/monitoring {DATA_ROOT}/*counters* {TEXTS}/* 2>/dev/null; "
        "docker ps --all --format '{{.Names}}' | grep exporter; "
        "docker image ls --format '{{.Repository}}' | grep '^tritonhost/.*exporter'; "
        "systemctl list-units --all --plain --no-legend '*exporter*' | grep -v '^tritonhost-'; "
        "ss --listening --tcp --numeric --no-header 'sport = :9100 or sport = :9400'; "
        "nft list ruleset 2>/dev/null | grep -e 9100 -e 60603; :"
    )
    assert found == ""
    assert "converged: release" in watched.deploy()
