"""Two hosts that serve behind a third, which takes their clients: deploy, an upgrade that nobody notices, a host that fails, removal."""

from __future__ import annotations

import json
import re
import ssl
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import tritonclient.grpc as triton

from tests.lab.e2e.conftest import KEEP
from tests.lab.e2e.one_host import OneHost, settings_of_lab
from tests.lab.settings import network_of
from tests.lab.standins import nginx_image, python_image
from tests.unit.certificates import API_KEY, gateway_files, pair

MODEL = "smollm2-135m"
NAME = "llm.example"
EVERY_SECONDS = 0.05
STREAMED: dict[str, Any] = {"repository": {"parameters": {"decoupled_mode": True}}}
RELEASE = "/v2/health/release"


@dataclass
class Fleet:
    """h1 and h2 serve, h3 is in front of them."""

    host: OneHost
    folder: Path

    def __post_init__(self) -> None:
        self.hosts = [OneHost(self.host.settings, number) for number in (1, 2, 3)]
        self.addresses = [self.host.settings.address(number) for number in (1, 2, 3)]
        self.front = self.addresses[2]
        site = f"{self.host.settings.gateway}/32"
        of_hosts = self.folder / "hosts"
        of_hosts.mkdir()
        self.gateway = gateway_files(of_hosts, pair(NAME, addresses=self.addresses[:2]))
        made = pair("front.example", addresses=[self.front])
        for name, content in (("front.crt", made.pem), ("front.key", made.key_pem())):
            (self.folder / name).write_bytes(content)
            (self.folder / name).chmod(0o600)
        self.balancer: dict[str, Any] = {
            "certificate": str(self.folder / "front.crt"),
            "private_key": str(self.folder / "front.key"),
            "gateway_ca": self.gateway["certificate"],
            "gateway_name": NAME,
            "bind": self.front,
            "sources": [site],
            # the lab's hosts may open fewer files than a real one
            "max_connections": 2000,
        }
        self.overrides: dict[str, Any] = STREAMED
        self.group: dict[str, Any] = {
            "gateway": {
                **self.gateway,
                "image": f"{nginx_image.REPOSITORY}:{nginx_image.TAG}",
                "proxies": [f"{self.front}/32"],
            },
            "door": {"image": f"{python_image.REPOSITORY}:{python_image.TAG}"},
        }
        self.sources = [site, f"{self.front}/32"]

    def write(self, **further: Any) -> None:
        """The inventory of the next run. `further`: of the load balancer."""
        own = {
            f"h{number}": {"bind_address": self.addresses[number - 1], "allowed_sources": self.sources}
            for number in (1, 2)
        }
        table = {**self.balancer, **further}
        self.host.environment["LAB_HOST_DATA"] = json.dumps({**own, "h3": {"load_balancer": table}})
        group = self.folder / "group_data"
        group.mkdir(exist_ok=True)
        values = {**self.group, "profile_overrides": self.overrides}
        text = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        (group / "all.py").write_text(text, encoding="utf-8")

    @property
    def options(self) -> list[str]:
        return ["--group-data", str(self.folder / "group_data")]

    def deploy(self, *options: str, code: int = 0) -> str:
        done = self.host.deploy(*self.options, *options)
        assert done.code == code, done.output
        return done.output

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "front.crt"))

    def get(self, path: str, key: str = "") -> httpx2.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx2.get(f"https://{self.front}{path}", headers=headers, verify=self.context, timeout=30)

    def client(self) -> openai.OpenAI:
        web = httpx2.Client(verify=self.context, timeout=60)
        return openai.OpenAI(
            base_url=f"https://{self.front}/v1", api_key=API_KEY, http_client=web, max_retries=0
        )

    def answered_by(self) -> list[str]:
        """The hosts whose answers haproxy has written down, in order."""
        lines = self.hosts[2].root(
            "journalctl --unit load-balancer --output=cat --no-pager | grep '^request '"
        )
        return re.findall(r"host=(\S+) status=200", lines)


@dataclass
class Clients:
    """What clients of the load balancer got. Times in seconds."""

    times: list[float] = field(default_factory=list)
    streams: int = 0
    lost: list[str] = field(default_factory=list)

    def p(self, share: float) -> float:
        return sorted(self.times)[int(share * (len(self.times) - 1))]


@contextmanager
def clients(fleet: Fleet) -> Iterator[Clients]:
    """While the block runs: 20 requests a second of four clients, and two that stream."""
    found, stop = Clients(), threading.Event()

    def asks(client: openai.OpenAI) -> None:
        while not stop.wait(4 * EVERY_SECONDS):
            began = time.monotonic()
            try:
                client.completions.create(model=MODEL, prompt="One two", max_tokens=2, temperature=0)
                found.times.append(time.monotonic() - began)
            except openai.OpenAIError as error:
                found.lost.append(f"{type(error).__name__}: {error}")

    def streams(client: openai.OpenAI) -> None:
        while not stop.wait(EVERY_SECONDS):
            try:
                parts = list(
                    client.completions.create(
                        model=MODEL,
                        prompt="Once",
                        max_tokens=40,
                        stream=True,
                        extra_body={"ignore_eos": True},
                    )
                )
                if parts[-1].choices[0].finish_reason is None:
                    found.lost.append("a stream without its end")
                found.streams += 1
            except (openai.OpenAIError, httpx2.HTTPError, IndexError) as error:
                found.lost.append(f"stream: {type(error).__name__}: {error}")

    threads = []
    for work in (asks, asks, asks, asks, streams, streams):
        threads.append(threading.Thread(target=work, args=(fleet.client(),)))
        threads[-1].start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    ours = OneHost(settings_of_lab(network_of("LAB_E2E_NET")))
    ours.environment["LAB_MODEL"] = MODEL
    if not KEEP:
        ours.lab("down")
    ours.lab("up", "3")
    made = Fleet(ours, tmp_path_factory.mktemp("front"))
    made.write()
    yield made
    if not KEEP:
        ours.lab("down")


@pytest.fixture(scope="module")
def deployed(fleet: Fleet) -> Fleet:
    """All three, by one run."""
    output = fleet.deploy()
    assert "[h3] load balancer: " in output
    return fleet


def until(what: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_clients_reach_both_hosts_by_every_protocol(deployed: Fleet) -> None:
    until(lambda: deployed.get(RELEASE).status_code == 200, 15)
    release = deployed.hosts[0].running_release()
    assert deployed.get(RELEASE).text == f"{release}\n"
    assert deployed.get("/v2/models/ensemble").status_code == 401
    assert deployed.get("/v2/models/ensemble", API_KEY).status_code == 200
    grpc = triton.InferenceServerClient(
        f"{deployed.front}:443", ssl=True, root_certificates=str(deployed.folder / "front.crt")
    )
    assert grpc.is_model_ready("ensemble", headers={"authorization": f"Bearer {API_KEY}"})
    with deployed.client() as client:
        for _ in range(20):
            client.completions.create(model=MODEL, prompt="One", max_tokens=1)
    assert {*deployed.answered_by()} == {"h1", "h2"}
    # whose request it is, and not the load balancer's
    lines = deployed.hosts[0].root(
        "journalctl --unit triton-gateway --output=cat --no-pager | grep key=tests"
    )
    clients = {line.split()[0] for line in lines.splitlines()}
    assert deployed.host.settings.gateway in clients
    assert deployed.front not in clients


def test_next_run_changes_nothing_and_hosts_are_verified(deployed: Fleet) -> None:
    output = deployed.deploy()
    assert "[h3] converged: load balancer of 2 hosts" in output
    assert "Load balancer |" not in output
    deployed.host.verified("", *deployed.options, features=("gateway", "door", "load balancer"))


def test_upgrade_is_not_noticed(deployed: Fleet) -> None:
    with clients(deployed) as before:
        time.sleep(10)
    deployed.overrides = {**STREAMED, "server": {"environment": {"NAME_OF_THE_UPGRADE": "one"}}}
    deployed.write()
    with clients(deployed) as found:
        output = deployed.deploy()
        time.sleep(2)
    assert re.findall(r"\[(h\d)\] nested release \w+: in place", output) == ["h1", "h2"]
    assert found.lost == []
    assert found.streams > 20
    assert before.lost == []
    print(
        f"requests {len(found.times)}, streams {found.streams}, lost 0; p50 {statistics.median(before.times):.3f} -> "
        f"{statistics.median(found.times):.3f} s, p99 {before.p(0.99):.3f} -> {found.p(0.99):.3f} s"
    )


def test_host_that_fails_its_gate_comes_back(deployed: Fleet) -> None:
    before = deployed.hosts[0].running_release()
    wrong = {"golden": [{"prompt": "Machine learning is", "max_tokens": 4, "expect": "Something else."}]}
    deployed.overrides = {**STREAMED, "server": {"environment": {"NAME_OF_THE_UPGRADE": "wrong"}}, **wrong}
    deployed.write()
    with clients(deployed) as found:
        output = deployed.deploy(code=1)
        until(lambda: deployed.hosts[0].root(f"cat {released()}") == before, 10)
        time.sleep(6)
    assert f"put back {before}" in output
    assert found.lost == []
    count = len(deployed.answered_by())
    with deployed.client() as client:
        for _ in range(10):
            client.completions.create(model=MODEL, prompt="One", max_tokens=1)
    assert {*deployed.answered_by()[count:]} == {"h1", "h2"}


def released() -> str:
    return "/var/lib/tritonhost/gateway/released"


def upgraded(name: str, **environment: str) -> dict[str, Any]:
    return {**STREAMED, "server": {"environment": {"NAME_OF_THE_UPGRADE": name, **environment}}}


def test_canary_gets_its_share_and_then_all(deployed: Fleet) -> None:
    deployed.overrides = upgraded("canary")
    deployed.group["rollout"] = {"canary": "20 %", "minutes": 0.5, "least_requests": 10, "slower": 5}
    deployed.write()
    with clients(deployed) as found:
        output = deployed.deploy()
    assert found.lost == []
    assert "canary: the release may have all requests" in output
    # h2 had the old release meanwhile
    numbers = re.search(r"requests (\d+), failed 0 \(others 0 of (\d+)\), .*\n.*canary: the release", output)
    assert numbers, output
    own, others = map(int, numbers.groups())
    assert 0.1 < own / (own + others) < 0.3
    print(f"canary: {own} of {own + others} requests")
    assert "converged" in deployed.deploy()


def test_canary_that_answers_wrongly_is_put_back(deployed: Fleet) -> None:
    """One of 25 answers is wrong: no gate sees that, and of one in a hundred three minutes need not show one."""
    before = deployed.hosts[0].running_release()
    deployed.overrides = upgraded("wrong", LAB_WRONG_EVERY="25")
    deployed.group["rollout"] = {"canary": "20 %", "minutes": 3, "least_requests": 10, "slower": 5}
    deployed.write()
    with clients(deployed) as found:
        output = deployed.deploy(code=1)
        time.sleep(5)
    assert "canary: golden request to ensemble: found" in output
    assert f"put back {before}: canary: golden request" in output, output[-3000:]
    assert "untouched: h1 failed before it" in output
    assert found.lost == []
    assert [each.running_release() for each in deployed.hosts[:2]] == [before, before]
    again = deployed.deploy(code=1)
    assert "found withdrawn" in again, again[-3000:]
    count = len(deployed.answered_by())
    with deployed.client() as client:
        for _ in range(10):
            client.completions.create(model=MODEL, prompt="One", max_tokens=1)
    assert {*deployed.answered_by()[count:]} == {"h1", "h2"}


def test_canary_that_nobody_asks_is_held(deployed: Fleet) -> None:
    deployed.overrides = upgraded("held")
    deployed.group["rollout"] = {"canary": "5 %", "minutes": 0.05, "least_requests": 10, "slower": 5}
    deployed.write()
    output = deployed.deploy(code=1)
    assert "held: canary: found 0 requests in 0.05 minutes, expected at least 10" in output
    assert "untouched: h1 failed before it" in output
    # the same command goes on
    deployed.group["rollout"] |= {"minutes": 0.5, "canary": "20 %"}
    deployed.write()
    with clients(deployed) as found:
        output = deployed.deploy()
    assert "release for load balancers" in output and "a canary" in output
    assert found.lost == []
    del deployed.group["rollout"]
    deployed.write()


def test_host_that_dies_is_left_out(deployed: Fleet) -> None:
    deployed.overrides = {**STREAMED, "server": {"environment": {"NAME_OF_THE_UPGRADE": "one"}}}
    deployed.write()
    deployed.deploy()
    deployed.host.lab("kill", "2")
    try:
        time.sleep(6)
        count = len(deployed.answered_by())
        with clients(deployed) as found:
            time.sleep(5)
        answered = deployed.answered_by()[count:]
    finally:
        deployed.host.lab("start", "2")
    assert found.lost == []
    assert {*answered} == {"h1"}


def test_bad_configuration_leaves_what_runs(deployed: Fleet) -> None:
    """Its address is on no interface: haproxy's check passes, and the listener fails."""
    deployed.sources.append("10.255.255.1/32")
    deployed.group["gateway"]["proxies"].append("10.255.255.1/32")
    deployed.write(bind="10.255.255.1")
    output = deployed.deploy("--limit", "h3", code=1)
    assert "haproxy does not run with its new files" in output
    assert deployed.get(RELEASE).status_code == 200
    deployed.write()
    output = deployed.deploy()
    assert deployed.get(RELEASE).status_code == 200


def test_load_balancer_that_reboots_in_an_upgrade(deployed: Fleet) -> None:
    """Clients wait for its boot. The run ends with a line or goes on; the next one leaves no host out of service."""
    before = deployed.hosts[0].running_release()
    deployed.overrides = upgraded("reboot")
    deployed.group.pop("rollout", None)
    deployed.write()
    done: list[Any] = []
    run = threading.Thread(target=lambda: done.append(deployed.host.deploy(*deployed.options)))
    run.start()
    # the first host has the new release, and no load balancer uses it yet
    until(lambda: deployed.hosts[0].running_release() != before, 240)
    deployed.host.lab("reboot", "3")
    run.join()
    assert "Traceback" not in done[0].output
    print("the run ended with", done[0].code, re.findall(r"^ +h\d .*$", done[0].output, re.MULTILINE)[-3:])
    if done[0].code:
        assert re.search(r"(load balancer|h3)", done[0].output.rpartition("What became of")[2]), done[
            0
        ].output[-3000:]
    until(lambda: deployed.get(RELEASE).status_code == 200, 30)
    deployed.deploy()
    [release] = {each.running_release() for each in deployed.hosts[:2]}
    assert release != before
    with clients(deployed) as found:
        time.sleep(4)
    assert found.lost == []
    # its journal may begin with its boot
    assert {*deployed.answered_by()[-40:]} == {"h1", "h2"}
