"""The board and the configuration, tried by a real Prometheus that scrapes what exporters print: every query returns data."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from operations.plan.catalog import gpu_counters
from operations.plan.monitoring import board, panels, prometheus, rules
from operations.plan.monitoring.panels import Query
from operations.plan.monitoring.site import Site, files
from operations.plan.monitoring.watched import JOBS, Target, Watched
from operations.scripts import host_script
from tests.unit.certificates import API_KEY, Pair, pair

CAPTURES = Path(__file__).parent / "captures" / "metrics"
SERVICE = (("host", "gpu-1"), ("service", "triton"), ("profile", "llama"))
HOST = (("host", "gpu-1"),)
WAIT_S = 30


# What is served


def later(text: str, times: int) -> str:
    """The same metrics after some time: counters and histograms have gone on, gauges have not."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    lines = []
    for line in text.splitlines():
        name = re.match(r"[A-Za-z_:][A-Za-z0-9_:]*", line)
        family = re.sub(r"_(bucket|sum|count)$", "", name[0]) if name else ""
        if (name and "counter" in (kinds.get(name[0]), kinds.get(family))) or kinds.get(
            family
        ) == "histogram":
            series, _, value = line.rpartition(" ")
            line = f"{series} {float(value) * times}"
        lines.append(line)
    return "\n".join(lines) + "\n"


@contextmanager
def served(text: str, tls: Path | None = None, path: str = "/metrics") -> Iterator[str]:
    """The metrics at a path of an address of this machine. `tls`: certificate and key; a key of the gateway is asked for, too."""
    count = iter(range(1, 10**6))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = tls is None or self.headers["Authorization"] == f"Bearer {API_KEY}"
            allowed = allowed and self.path == path
            content = later(text, next(count)).encode() if allowed else b""
            self.send_response(200 if allowed else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def own_metrics(folder: Path, certificate: Pair) -> str:
    """What files/host/metrics.sh prints over a data root that has everything."""
    for name, text in {
        "verdicts/a": "proven 2026-11-21T04:00:10Z \n",
        "verdicts/b": "failed 2026-11-20T04:00:10Z golden request to ensemble: found other words\n",
        "verdicts/c": "withdrawn 2026-11-19T04:00:10Z rolled back by hand\n",
        "measurements/a": "load_s=12.5 answer_s=0.25 first_token_s=0.05 gpu_mib=4096\n",
        "releases/a/release.json": '{\n  "model": "llama",\n  "service": "triton"\n}\n',
        "run": "start=1795233600\ndifferences=4\nconverged=1795233700\n",
        "tls.pem": certificate.pem.decode(),
        "bin/systemctl": "#!/bin/sh\ncase $2 in *=ActiveState) echo ActiveState=active ;; "
        '*) echo "ActiveEnterTimestamp=Sat 2026-11-21 04:00:00 UTC" ;; esac\n',
        "bin/curl": "#!/bin/sh\nprintf 200\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for program in (folder / "bin").iterdir():
        program.chmod(0o755)
    for link in ("current", "previous"):
        (folder / link).symlink_to("releases/a")
    place = str(folder)
    variables = {
        **{"DATA_ROOT": place, "STATE_ROOT": place, "SERVICE": "triton", "ALONE": "yes", "GPUS": "1"},
        **{"URLS": "ensemble\thttp://x", "CERTIFICATE": f"{place}/tls.pem", "EXPECTED": "", "OUTPUT": ""},
        "RUN": f"{place}/run",
    }
    script = host_script("metrics.sh", variables)
    path = {"PATH": f"{place}/bin:/usr/bin:/bin:/usr/sbin"}
    return subprocess.run(["sh", "-c", script], env=path, capture_output=True, text=True, check=True).stdout


# Prometheus


@dataclass
class Prometheus:
    """A running one."""

    address: str

    def ask(self, way: str, **words: str) -> Any:
        query = urllib.parse.urlencode(words)
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{way}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> list[tuple[dict[str, str], str]]:
        """The labels and the value of each series, NaN left out: nothing is drawn of it."""
        found = self.ask("query", query=expression)["result"]
        return [(one["metric"], one["value"][1]) for one in found if one["value"][1] != "NaN"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running(folder: Path) -> Iterator[Prometheus]:
    """Debian's Prometheus with the configuration of a folder."""
    program = shutil.which("prometheus")
    assert program, "install prometheus: tests/lab/lab packages --check --install"
    address = f"127.0.0.1:{free_port()}"
    command = [
        program,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Prometheus(address)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that has scraped two services, one of them and the door behind a gateway, with the generated configuration."""
    folder = tmp_path_factory.mktemp("prometheus")
    root = pair("root", addresses=["127.0.0.1"])
    tls = folder / "served.pem"
    tls.write_bytes(root.pem + root.key_pem())
    texts = {
        name: (CAPTURES / f"{name}.prom").read_text() for name in ("triton", "dcgm", "node", "load-balancer")
    }
    texts["node"] += own_metrics(folder / "root", root)
    with ExitStack() as stack:
        at = {name: stack.enter_context(served(text)) for name, text in texts.items()}
        at["triton-gateway"] = stack.enter_context(served(texts["triton"], tls))
        door = (CAPTURES / "door.prom").read_text()
        at["door"] = stack.enter_context(served(door, tls, JOBS["door"].path))
        behind = (("host", "gpu-2"), *SERVICE[1:])
        of = {"node": HOST, "dcgm": HOST, "triton-gateway": behind, "load-balancer": HOST}
        targets = tuple(Target(job, address, of.get(job, SERVICE)) for job, address in at.items())
        written = files([Watched("gpu-1", "triton", targets)], Site())
        written["prometheus.yml"] = written["prometheus.yml"].replace(f'"{prometheus.INTERVAL}"', '"200ms"')
        written[prometheus.KEY_FILE] = API_KEY
        written[prometheus.CA_FILE] = root.pem.decode()
        for name, text in written.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        own = stack.enter_context(running(folder))
        wait_for(own, folder)
        yield own


def wait_for(own: Prometheus, folder: Path) -> None:
    """Until all targets are up, and each recorded series has all its values: most need two scrapes of every target."""
    until = time.monotonic() + WAIT_S
    found: object = "no answer"
    while time.monotonic() < until:
        try:
            found = own.values("up")
            late = [
                record.name
                for record in rules.RECORDS
                if not 0 < len(own.values(record.expression)) == len(own.values(record.name))
            ]
            if len(own.values("up == 1")) == 6 and not late:
                return
            found = f"up: {found}; not yet: {late}"
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{found}\n{(folder / 'log').read_text()[-2000:]}")


def filled(expression: str) -> str:
    """A query as Grafana sends it."""
    text = expression.replace("$__rate_interval", "1m").replace("$host", ".*")
    assert "$" not in text, expression
    return text


# The tests


@pytest.mark.slow
@pytest.mark.parametrize("query", panels.queries(), ids=lambda query: query.expression[:50])
def test_every_query_of_the_board_returns_data(scraped: Prometheus, query: Query) -> None:
    found = scraped.values(filled(query.expression))
    assert found
    for labels, _ in found:
        for name in re.findall(r"{{(\w+)}}", query.legend):
            assert labels.get(name), (name, labels)


@pytest.mark.slow
@pytest.mark.parametrize("record", rules.RECORDS, ids=lambda record: record.name)
def test_every_recorded_series_has_data(scraped: Prometheus, record: rules.Record) -> None:
    assert scraped.values(record.name)
    # the same as its expression gives: no other rule writes it
    assert len(scraped.values(record.name)) == len(scraped.values(record.expression))


@pytest.mark.slow
@pytest.mark.parametrize("alert", rules.ALERTS, ids=lambda alert: alert.name)
def test_each_series_that_an_alert_names_is_scraped(scraped: Prometheus, alert: rules.Alert) -> None:
    selectors = re.findall(
        r"[A-Za-z_][A-Za-z0-9_:]*{[^}]*}|{[^}]*}|[a-zA-Z_]\w+:[\w:]+|tritonhost_\w+", alert.expression
    )
    assert selectors
    for selector in selectors:
        assert scraped.values(selector), selector


@pytest.mark.slow
def test_query_of_a_renamed_metric_returns_nothing(scraped: Prometheus) -> None:
    for query in panels.queries():
        renamed = re.sub(r"\b(nv_|DCGM_FI_|node_|tritonhost[_:]|up\b)", r"x_\1", filled(query.expression))
        assert renamed != filled(query.expression)
        assert not scraped.values(renamed), renamed


@pytest.mark.slow
def test_gateway_is_scraped_as_triton_itself(scraped: Prometheus) -> None:
    found = {
        labels["host"]: labels["job"] for labels, _ in scraped.values('up{service="triton",job="triton"}')
    }
    assert found == {"gpu-1": "triton", "gpu-2": "triton"}


@pytest.mark.slow
def test_no_rule_fails_in_prometheus(scraped: Prometheus) -> None:
    groups = scraped.ask("rules")["groups"]
    found = {rule["name"]: rule.get("lastError", "") for group in groups for rule in group["rules"]}
    wanted = [*(each.name for each in rules.RECORDS), *(each.name for each in rules.ALERTS)]
    assert sorted(found) == sorted(wanted)
    assert [name for name, error in found.items() if error] == []


def test_board_has_a_row_for_each_question() -> None:
    value = json.loads(board.board())
    rows = [panel["title"] for panel in value["panels"] if panel["type"] == "row"]
    assert rows == ["Is it up?", "Is it fast?", "Is it full?", "Is it hot?", "What changed?"]
    ids = [panel["id"] for panel in value["panels"]]
    assert len(ids) == len(set(ids))
    [annotation] = value["annotations"]["list"]
    assert annotation["expr"] == panels.ANNOTATION.expression and annotation["useValueForTime"]


def test_panels_of_the_board_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in json.loads(board.board())["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= board.WIDTH
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]


def test_panels_say_what_they_show() -> None:
    for panel in (panel for row in panels.ROWS for panel in row.panels):
        assert panel.queries and panel.steps[0][0] is None, panel.title
        limits = [limit for limit, _ in panel.steps[1:] if limit is not None]
        assert limits == sorted(limits)
        for query in panel.queries:
            assert "$host" in query.expression, query
            assert replace(query, legend="x") != query


def test_samples_are_what_the_exporters_print() -> None:
    """Each counter of the file for dcgm-exporter is in the sample, and the other way round."""
    sample = set(re.findall(r"^# TYPE (\S+)", (CAPTURES / "dcgm.prom").read_text(), re.MULTILINE))
    assert sample == {name for name, kind, _ in gpu_counters.COUNTERS if kind != "label"}
