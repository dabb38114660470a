"""Three services on one host: one run makes all, a change of one is no request lost by the others, and each goes back alone.

It has its own lab, because the other tests' host has one service and one GPU. LAB_SERVICES_NET is its network.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.lab import skips
from tests.lab.e2e.one_host import DATA_ROOT, PYINFRA, STARTED, Done, OneHost, settings_of_lab
from tests.lab.faults.load import PATIENCE_SECONDS, Load, ask, patient_load
from tests.lab.settings import network_of
from tests.lab.standins import python_image

KEEP = bool(os.environ.get("LAB_E2E_KEEP"))
GPUS = "NVIDIA A10:3"
THREE: dict[str, dict[str, Any]] = {
    "llama": {"model": "smollm2-135m", "gpu_ids": [0]},
    "gpt": {
        "model": "gpt2-medium",
        "gpu_ids": [1],
        "http_port": 8010,
        "grpc_port": 8011,
        "metrics_port": 8012,
    },
    "search": {
        "model": "clip-search",
        "gpu_ids": [2],
        "http_port": 8020,
        "grpc_port": 8021,
        "metrics_port": 8022,
    },
}
# another release of the same engine, and one that answers otherwise than it should
NEXT: dict[str, Any] = {"repository": {"parameters": {"max_queue_delay_microseconds": 200}}}
OTHER: dict[str, Any] = {"repository": {"parameters": {"max_queue_delay_microseconds": 300}}}
BROKEN: dict[str, Any] = {
    "repository": {"parameters": {"max_queue_delay_microseconds": 400}},
    "golden": [{"prompt": "Machine learning is", "max_tokens": 4, "expect": "no model says this"}],
}
SEARCH = {"inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": ["a red square"]}]}
# what each test changed, and what the services beside it lost meanwhile
TABLE: list[tuple[str, str]] = []


class Host(OneHost):
    """The host; `services` is what its inventory says."""

    def use(self, services: Mapping[str, Any]) -> None:
        self.environment["LAB_SERVICES"] = json.dumps(services)

    def change(self, service: str, overrides: Mapping[str, Any]) -> None:
        """From now on the inventory has other keys of the profile for one of the services."""
        self.use({**THREE, service: {**THREE[service], "profile_overrides": dict(overrides)}})

    def state(self, service: str) -> tuple[str, str, str]:
        """Of a service: its container, since when it runs, and its release."""
        found = json.loads(self.root(f"docker container inspect {service}"))[0]
        return found["Id"], found["State"]["StartedAt"], found["Config"]["Labels"]["tritonhost.release"]

    def rollback(self, service: str) -> Done:
        words = ["-y", "inventories/lab.py", "operations.release.rollback", "--limit", f"h1/{service}"]
        return self.run(*PYINFRA, *words)


@pytest.fixture(scope="module")
def three() -> Iterator[Host]:
    ours = Host(settings_of_lab(network_of("LAB_SERVICES_NET"), LAB_GPUS=GPUS))
    ours.environment |= {"LAB_GPUS": GPUS}
    ours.use(THREE)
    if not KEEP:
        ours.lab("down")
    ours.lab("up", "1")
    yield ours
    for changed, lost in TABLE:
        print(f"services: {changed}: {lost}", file=sys.stderr)
    if not KEEP:
        ours.lab("down")


@pytest.fixture
def serving(three: Host) -> Host:
    """All three serve what THREE says."""
    three.use(THREE)
    three.converge()
    return three


def _search(endpoint: str) -> str:
    used = http.client.HTTPConnection(endpoint, timeout=PATIENCE_SECONDS)
    try:
        used.request("POST", "/v2/models/clip_search/infer", json.dumps(SEARCH))
        answer = used.getresponse()
        body = answer.read()
        return (
            "" if answer.status == 200 and b"document" in body else f"{answer.status} {body[:120].decode()}"
        )
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        used.close()


@contextmanager
def clients(host: Host, *services: str) -> Iterator[dict[str, Load]]:
    """Two clients of each of these services, each with one request at a time, while the block runs."""
    with ExitStack() as stack:
        found = {}
        for service in services:
            port = int(THREE[service].get("http_port", 8000))
            endpoint = stack.enter_context(host.http(port)).removeprefix("http://")
            found[service] = stack.enter_context(
                patient_load(endpoint, _search if service == "search" else ask)
            )
        yield found


def nothing_lost(changed: str, found: Mapping[str, Load]) -> None:
    """Records the row of the table, and fails for a lost request."""
    TABLE.append(
        (changed, ", ".join(f"{name} lost {len(one.lost)} of {one.asked}" for name, one in found.items()))
    )
    for name, one in found.items():
        assert one.asked > 10, f"{name}: no load"
        assert one.lost == [], f"{name}: {one.lost[:3]}"


# from one service to two of one model: the first keeps what it has
FIRST: dict[str, Any] = {"model": "gpt2-medium", "gpu_ids": [0]}
SECOND: dict[str, Any] = {
    "model": "gpt2-medium",
    "gpu_ids": [1],
    "http_port": 8030,
    "grpc_port": 8031,
    "metrics_port": 8032,
}
REMOVED = """
for unit in gateway front next database guard; do systemctl disable --now {0}-$unit; done 2>/dev/null
systemctl disable --now {0}
rm -f /etc/systemd/system/{0}.service /etc/systemd/system/{0}-*.service /etc/{0}-guard.nft && systemctl daemon-reload
nft delete table inet tritonhost_{0}
docker network rm {0}-network
"""


def test_host_with_one_service_gets_a_second(three: Host) -> None:
    del three.environment["LAB_SERVICES"]
    three.environment["LAB_MODEL"] = "gpt2-medium"
    three.converge()
    engine = three.root(f"ls {DATA_ROOT}/engines")
    alone = three.root(f"readlink {DATA_ROOT}/current")
    three.use({"triton": FIRST, "second": SECOND})
    refused = three.deploy()
    assert refused.code == 1 and "expected at_data_root = true" in refused.output, refused.output
    assert three.root("systemctl is-active triton") == "active"
    three.use({"triton": {**FIRST, "at_data_root": True}, "second": SECOND})
    done = three.converge()
    # its GPUs are named now, which is another release; the one before is kept to roll back to
    assert three.root(f"readlink {DATA_ROOT}/previous") == alone
    assert three.root(f"readlink {DATA_ROOT}/services/second/current").startswith("../../releases/")
    # both serve one engine, which was not made again
    assert three.root(f"ls {DATA_ROOT}/engines") == engine
    for service in ("triton", "second"):
        assert three.root(f"systemctl is-active {service}") == "active"
    assert three.converge().output.count("converged: release") == 2, done.output
    # as docs/how-to/services.md removes one
    for service in ("triton", "second"):
        three.root(REMOVED.format(service))
    three.root(f"rm -r {DATA_ROOT}/services/second && rm {DATA_ROOT}/current {DATA_ROOT}/previous")
    del three.environment["LAB_MODEL"]
    three.use(THREE)


def test_three_services_are_made_in_one_run(three: Host) -> None:
    since = three.now()
    done = three.converge()
    for service in THREE:
        assert f"h1/{service} " in done.output
        assert three.root(f"systemctl is-active {service}.service") == "active"
        assert three.root(f"readlink -f {DATA_ROOT}/services/{service}/current").startswith(
            f"{DATA_ROOT}/releases/"
        )
    # what they share is done once, and what two of them need is made once
    started = three.journal(since, f"MESSAGE_ID={STARTED}", "--output=json", "_PID=1")
    units = [unit for line in started if (unit := json.loads(line).get("UNIT", "")).startswith("tritonhost-")]
    assert len(units) == len(set(units)) > 10, sorted(units)
    assert three.try_root(f"test -e {DATA_ROOT}/current")[0] == 1
    # of the release of before, which nothing links to, only what another one needs is left
    assert len(three.root(f"ls {DATA_ROOT}/releases").split()) == len(THREE)


def test_second_run_changes_none_of_them(serving: Host) -> None:
    before = {service: serving.state(service) for service in THREE}
    again = serving.converge()
    assert again.output.count("converged: release") == len(THREE)
    assert "Starting operation" not in again.output
    assert {service: serving.state(service) for service in THREE} == before


def test_all_three_are_verified(serving: Host) -> None:
    done = serving.verify()
    assert done.code == 0, done.output
    assert len(done.passed) > 80
    assert done.skipped.keys() <= {skip.test for skip in skips.SKIPS}


def test_upgrade_of_one_loses_no_request_of_the_others(serving: Host) -> None:
    before = {service: serving.state(service) for service in THREE}
    serving.change("gpt", NEXT)
    with clients(serving, "llama", "search") as found:
        done = serving.converge()
    nothing_lost("upgrade of gpt", found)
    after = {service: serving.state(service) for service in THREE}
    assert after["gpt"][2] != before["gpt"][2]
    assert (after["llama"], after["search"]) == (before["llama"], before["search"])
    assert done.output.count("converged: release") == 2


def test_release_that_fails_is_put_back_alone(serving: Host) -> None:
    before = {service: serving.state(service) for service in THREE}
    serving.change("gpt", BROKEN)
    with clients(serving, "llama", "search") as found:
        done = serving.deploy()
    nothing_lost("failed upgrade of gpt, put back", found)
    assert done.code == 1
    after = {service: serving.state(service) for service in THREE}
    assert after["gpt"][2] == before["gpt"][2]
    assert (after["llama"], after["search"]) == (before["llama"], before["search"])


def test_rollback_of_one_leaves_the_others(serving: Host) -> None:
    serving.change("gpt", OTHER)
    serving.converge()
    before = {service: serving.state(service) for service in THREE}
    with clients(serving, "llama", "search") as found:
        done = serving.rollback("gpt")
    assert done.code == 0, done.output
    nothing_lost("rollback of gpt", found)
    after = {service: serving.state(service) for service in THREE}
    assert after["gpt"][2] != before["gpt"][2]
    assert (after["llama"], after["search"]) == (before["llama"], before["search"])
    # the others' releases and artifacts are not garbage of this one
    assert "converged: release" in serving.deploy("--limit", "h1/search").output


def test_stopped_service_is_repaired_alone(serving: Host) -> None:
    before = {service: serving.state(service) for service in THREE}
    serving.root("systemctl stop llama")
    with clients(serving, "gpt") as _, clients(serving, "search") as found:
        serving.converge()
    nothing_lost("llama stopped and repaired", found)
    after = {service: serving.state(service) for service in THREE}
    assert after["llama"][2] == before["llama"][2]
    assert (after["gpt"], after["search"]) == (before["gpt"], before["search"])


def test_upgrade_of_docker_waits_until_all_serve_again(serving: Host) -> None:
    """Docker's packages restart every service: the run ends when those that served before it serve again."""
    newer = {
        "docker-ce": "3:20.10.25-1.el{os_major}",
        "docker-ce-cli": "1:20.10.25-1.el{os_major}",
        "containerd.io": "1.6.21-1.el{os_major}",
    }
    done = serving.run(
        *PYINFRA, "-y", "inventories/lab.py", "deploy.py", "--data", f"docker_packages={json.dumps(newer)}"
    )
    assert done.code == 0, done.output
    assert "20.10.25" in serving.root("rpm -q docker-ce")
    for service in THREE:
        assert serving.root(f"systemctl is-active {service}.service") == "active"
    again = serving.run(
        *PYINFRA, "-y", "inventories/lab.py", "deploy.py", "--data", f"docker_packages={json.dumps(newer)}"
    )
    assert again.output.count("converged: release") == len(THREE), again.output


def test_services_that_share_a_gpu_or_a_port_are_refused(three: Host) -> None:
    three.use({**THREE, "gpt": {**THREE["gpt"], "gpu_ids": [0]}})
    done = three.deploy()
    assert done.code == 2 and "services.gpt.gpu_ids" in done.output and "Traceback" not in done.output
    three.use({**THREE, "gpt": {**THREE["gpt"], "grpc_port": 8001}})
    done = three.deploy()
    assert done.code == 2 and "port 8001" in done.output and "Traceback" not in done.output


def test_one_door_offers_each_service_by_its_model(serving: Host) -> None:
    """Of an engine, of another family, and of encoders: behind one address, by the name of the model."""
    image = f"{python_image.REPOSITORY}:{python_image.TAG}"
    door = {"image": image, "also": ["gpt", "search"]}
    serving.use({**THREE, "llama": {**THREE["llama"], "door": door}})
    before = {name: serving.state(name) for name in THREE}
    done = serving.converge()
    assert "the door gives the golden answers" in done.output
    # no server was started again for it
    assert {name: serving.state(name) for name in THREE} == before
    with serving.http(9000) as url:

        def asked(path: str, **body: Any) -> Any:
            data = json.dumps(body).encode() if body else None
            headers = {"Content-Type": "application/json"}
            with urllib.request.urlopen(
                urllib.request.Request(f"{url}{path}", data, headers), timeout=60
            ) as answer:
                return json.loads(answer.read())

        models = {service["model"] for service in THREE.values()}
        assert {each["id"] for each in asked("/v1/models")["data"]} == models
        for name in ("smollm2-135m", "gpt2-medium"):
            found = asked(
                "/v1/completions", model=name, prompt="Machine learning is", max_tokens=4, temperature=0
            )
            assert found["usage"]["completion_tokens"] == 4 and found["model"] == name
        vector = asked("/v1/embeddings", model="clip-search", input="a red square")["data"][0]["embedding"]
        assert len(vector) == 384 and any(vector)
    assert "converged: release" in serving.converge().output
    serving.use(THREE)
    serving.converge()
    assert serving.try_root("systemctl is-active llama-door")[1] == "inactive"
