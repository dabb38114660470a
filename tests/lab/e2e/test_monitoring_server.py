"""Two hosts of one inventory: one serves behind a gateway and a door, the other runs Prometheus, Alertmanager and Grafana for it."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from operations.plan.monitoring import panels, rules, server
from tests.lab.e2e.conftest import KEEP
from tests.lab.e2e.one_host import OneHost, settings_of_lab
from tests.lab.e2e.test_second_run import MOST_COMMANDS
from tests.lab.settings import network_of
from tests.lab.standins import exporter_images, nginx_image, python_image
from tests.unit.certificates import API_KEY, gateway_files, pair

SCRAPER = "scraper-key-0123456789_ABCDEFGHIJKLMN"
KEYS = f"tests {API_KEY}\nprometheus {SCRAPER}\n"
PASSWORD, LATER = "correct-horse-battery", "another-staple-battery"
ROOT = "/var/lib/tritonhost-monitoring"
GATEWAY, GRAFANA = 8443, 3000
RECEIVERS = """route:
  receiver: site
receivers:
  - name: site
    webhook_configs:
      - url: http://127.0.0.1:9095/alerts
"""


class Fleet:
    """h1 serves, h2 watches."""

    def __init__(self, serving: OneHost, folder: Path) -> None:
        self.serving, self.folder = serving, folder
        self.watching = OneHost(serving.settings, 2)
        self.first, self.second = (serving.settings.address(number) for number in (1, 2))
        made = pair(addresses=[self.second])
        self.files = {
            "admin_password": self.secret("password", PASSWORD),
            "certificate": self.secret("grafana.crt", made.pem.decode()),
            "private_key": self.secret("grafana.key", made.key_pem().decode()),
            "gateway_key": self.secret("scraper", SCRAPER),
        }
        of_gateway = pair(addresses=[self.first])
        self.gateway = gateway_files(folder, of_gateway, KEYS)
        self.files["gateway_ca"] = self.gateway["certificate"]

    def secret(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    def write(self, **further: Any) -> None:
        """What the inventory says, and what is different in the next run."""
        site = f"{self.serving.settings.gateway}/32"
        table = {**self.files, "bind": self.second, "sources": [site], **further}
        self.serving.environment["LAB_MONITORING_SERVERS"] = json.dumps({"h2": table})
        node = {"image": f"{exporter_images.NODE_REPOSITORY}:{exporter_images.NODE_TAG}"}
        watcher = f"{self.second}/32"
        values = {
            "gateway": {**self.gateway, "image": f"{nginx_image.REPOSITORY}:{nginx_image.TAG}"},
            "door": {"image": f"{python_image.REPOSITORY}:{python_image.TAG}"},
            "bind_address": self.first,
            "allowed_sources": [site, watcher],
            "monitoring": {"exporters": {"node": node, "dcgm": {}}, "bind": self.first, "sources": [watcher]},
        }
        group = self.folder / "group_data"
        group.mkdir(exist_ok=True)
        text = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        (group / "all.py").write_text(text, encoding="utf-8")

    @property
    def options(self) -> list[str]:
        return ["--group-data", str(self.folder / "group_data")]

    def deploy(self, *options: str, code: int = 0) -> str:
        done = self.serving.deploy(*self.options, *options)
        assert done.code == code, done.output
        return done.output

    def grafana(self, path: str, password: str = PASSWORD, seconds: float = 20) -> Any:
        """What a person's browser gets, from this machine over TLS."""
        request = urllib.request.Request(f"https://{self.second}:{GRAFANA}{path}")
        word = base64.b64encode(f"{server.ADMINISTRATOR}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {word}")
        context = ssl.create_default_context(cafile=str(self.folder / "grafana.crt"))
        with urllib.request.urlopen(request, timeout=seconds, context=context) as answer:
            return json.load(answer)

    def series(self, expression: str) -> list[dict[str, Any]]:
        """Of a query, as the board asks it."""
        query = urllib.parse.quote(expression, safe="")
        path = f"/api/datasources/proxy/uid/tritonhost-prometheus/api/v1/query?query={query}"
        found: list[dict[str, Any]] = self.grafana(path)["data"]["result"]
        return found

    def chat(self) -> None:
        """An answer through gateway and door."""
        body = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        request = urllib.request.Request(
            f"https://{self.first}:{GATEWAY}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"},
        )
        context = ssl.create_default_context(cafile=self.gateway["certificate"])
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] > 0

    def container(self, name: str) -> str:
        """The id of a program's container: with another one it was started again."""
        return self.watching.root(f"docker container inspect --format '{{{{.Id}}}}' {name}")


def until(found: Callable[[], Any], seconds: float) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()) and time.monotonic() < end:
        time.sleep(1)
    return value


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    ours = OneHost(settings_of_lab(network_of("LAB_E2E_NET")))
    if not KEEP:
        ours.lab("down")
    ours.lab("up", "2")
    made = Fleet(ours, tmp_path_factory.mktemp("monitoring"))
    made.write()
    yield made
    if not KEEP:
        ours.lab("down")


@pytest.fixture(scope="module")
def deployed(fleet: Fleet) -> Fleet:
    """Both, by one run."""
    output = fleet.deploy()
    assert "[h2] monitoring server: " in output
    assert "repaired: what differed is as it should be" in output
    return fleet


def test_plan_of_a_bare_host_changes_nothing(fleet: Fleet) -> None:
    output = fleet.deploy("--dry", "--limit", "h2")
    assert "[h2] monitoring server: " in output and "docker-ce" in output
    assert fleet.watching.try_root(f"test -e {ROOT}")[0] != 0


def test_both_hosts_are_verified(deployed: Fleet) -> None:
    features = ("gateway", "door", "monitoring", "exporters")
    deployed.serving.verified("", *deployed.options, features=features)


def test_next_run_changes_nothing_on_either_host(deployed: Fleet) -> None:
    hosts = (deployed.serving, deployed.watching)
    before = [host.now() for host in hosts]
    output = deployed.deploy("-vvv")
    assert "[h1] converged: release" in output
    assert "[h2] converged: Prometheus, Alertmanager and Grafana run" in output
    assert "Starting operation" not in output
    for host, since in zip(hosts, before, strict=True):
        # one look at each
        assert output.count(f"[h{host.number}] >>> ") <= MOST_COMMANDS
        assert host.units_touched(since) == []


# Metrics that this lab's host rightly has not: its Triton 24.10 has no histogram, reads no GPU, and an A10 has no sensor of its memory
WITHOUT_DATA = ("nv_inference_first_response_histogram_ms_bucket", "nv_gpu_", "DCGM_FI_DEV_MEMORY_TEMP")


def test_every_rule_and_every_picture_has_real_data(deployed: Fleet) -> None:
    """Scraped from real Triton, nginx, door and node_exporter of the other host."""
    for _ in range(6):
        deployed.chat()
    texts = [query.expression for query in panels.queries()]
    queries = {text.replace("$__rate_interval", "1m").replace("$host", ".*") for text in texts}
    asked = queries | {record.name for record in rules.RECORDS}
    wanted = {text for text in asked if not any(name in text for name in WITHOUT_DATA)}
    assert len(asked - wanted) == 5

    def silent() -> set[str]:
        deployed.chat()
        return {text for text in wanted if not deployed.series(text)}

    assert until(lambda: not silent(), 120) is True, sorted(silent())


def test_alert_is_raised_by_its_cause(deployed: Fleet) -> None:
    """Its `for` is longer than a test may take: that it is pending shows that the rule has seen it."""
    deployed.serving.root("systemctl stop triton.service")
    try:
        alerts = 'ALERTS{alertname="TritonhostDown",host="h1"}'
        assert until(lambda: deployed.series(alerts), 90)
    finally:
        deployed.serving.root("systemctl start triton.service", "")
        deployed.deploy()
    assert until(lambda: not deployed.series(alerts), 90) is True


def test_receivers_that_alertmanager_refuses_leave_what_runs(deployed: Fleet) -> None:
    before = deployed.watching.root(f"readlink {ROOT}/config/current")
    containers = {name: deployed.container(name) for name in server.SERVICES}
    deployed.write(
        receivers=deployed.secret("receivers.yml", RECEIVERS.replace("receiver: site", "receiver: nobody"))
    )
    output = deployed.deploy(code=1)
    assert "amtool says" in output and "what the programs read was left as it is" in output, output
    assert deployed.watching.root(f"readlink {ROOT}/config/current") == before
    assert {name: deployed.container(name) for name in server.SERVICES} == containers
    # the host that serves is not held up by it
    assert "[h1] converged: release" in output


def test_changed_receivers_are_read_without_a_restart(deployed: Fleet) -> None:
    containers = {name: deployed.container(name) for name in server.SERVICES}
    deployed.write(receivers=deployed.secret("receivers.yml", RECEIVERS))
    deployed.deploy()
    status = json.loads(deployed.watching.root("curl --silent --fail http://127.0.0.1:9093/api/v2/status"))
    assert "receiver: site" in status["config"]["original"]
    assert {name: deployed.container(name) for name in server.SERVICES} == containers
    kept = deployed.watching.root(f"ls {ROOT}/config").split()
    # of the same name: what is in it is a secret, and no part of the name
    assert len(kept) == 2 and "current" in kept
    assert "nobody is told" not in deployed.deploy()


def test_changed_password_is_the_only_one_that_opens(deployed: Fleet) -> None:
    before = deployed.container(server.GRAFANA)
    deployed.files["admin_password"] = deployed.secret("password", LATER)
    deployed.write(receivers=str(deployed.folder / "receivers.yml"))
    output = deployed.deploy()
    assert LATER not in output and PASSWORD not in output
    assert deployed.grafana("/api/org", LATER)["id"] == 1
    with pytest.raises(urllib.error.HTTPError, match="401"):
        deployed.grafana("/api/org", PASSWORD)
    assert deployed.container(server.GRAFANA) == before
    deployed.secret("password", PASSWORD)
    deployed.deploy()
    assert deployed.grafana("/api/org")["id"] == 1


def test_nobody_else_reaches_grafana_and_nobody_prometheus(deployed: Fleet) -> None:
    """The other host is not among the declared sources."""
    question = f"curl --silent --insecure --max-time 4 --output /dev/null https://{deployed.second}:{GRAFANA}/api/health"
    assert deployed.serving.try_root(question)[0] != 0
    assert deployed.grafana("/api/health")["database"] == "ok"
    for port in (9090, 9093):
        with pytest.raises(OSError, match=r"refused|timed out|No route"):
            urllib.request.urlopen(f"http://{deployed.second}:{port}/-/ready", timeout=4)


def test_what_was_changed_on_the_host_is_repaired(deployed: Fleet) -> None:
    host = deployed.watching
    host.root(f"cd {ROOT}/config/current && printf '[]\\n' >targets/node.json")
    host.root(f"systemctl disable --now --quiet {server.ALERTMANAGER}; rm /etc/{server.PROMETHEUS}.sh")
    host.root("nft delete table inet tritonhost_monitoring")
    output = deployed.deploy()
    for what in ("configuration, targets/node.json", f"{server.ALERTMANAGER}.service", "nftables table"):
        assert what in output, output
    assert "[h2] converged" in deployed.deploy()
    chosen = "test_monitoring_server"
    done = host.verify(chosen, *deployed.options, environment=deployed.serving.environment)
    assert done.code == 0 and done.passed, done.output


def test_grafana_that_does_not_start_is_put_back(deployed: Fleet) -> None:
    before = deployed.watching.root(f"cat /run/{server.GRAFANA}")
    nowhere = f"{deployed.serving.settings.net}.250"
    deployed.write(receivers=str(deployed.folder / "receivers.yml"), bind=nowhere)
    output = deployed.deploy(code=1)
    assert f"{server.GRAFANA}.service: did not start with its new files" in output, output
    assert deployed.watching.root(f"cat /run/{server.GRAFANA}") == before
    deployed.write(receivers=str(deployed.folder / "receivers.yml"))
    deployed.deploy()
    assert deployed.grafana("/api/health")["database"] == "ok"


def test_programs_and_their_data_are_there_after_a_reboot(deployed: Fleet) -> None:
    deployed.watching.root("docker kill --signal KILL monitoring-prometheus")
    assert until(
        lambda: deployed.watching.try_root("curl --silent --fail http://127.0.0.1:9090/-/ready")[0] == 0, 60
    )
    since = time.time() - 60
    deployed.serving.lab("reboot", "2")
    assert until(lambda: _answers(deployed), 120)
    path = f"/api/datasources/proxy/uid/tritonhost-prometheus/api/v1/query?query=up&time={since}"
    assert deployed.grafana(path)["data"]["result"]
    assert "[h2] converged" in deployed.deploy()


def _answers(fleet: Fleet) -> bool:
    try:
        return bool(fleet.series("up"))
    except OSError:
        return False
