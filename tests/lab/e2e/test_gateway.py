"""TLS and API keys in front: who gets in, how keys and certificates change, what an upgrade behind it costs, what is left of it.

Seen from the wire, by the clients that people use: tritonclient over gRPC and HTTP, with the certificate checked.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from operations.plan import gateway as plan
from tests.lab.e2e.one_host import INVENTORY, OneHost, difference_rows
from tests.lab.e2e.test_canary_token import leaks, watched_deploy
from tests.lab.e2e.test_network import reaches
from tests.lab.faults.interrupt import delay
from tests.lab.standins import nginx_image
from tests.unit.certificates import API_KEY, Pair, gateway_files, pair

DIRECTORY = "/var/lib/tritonhost/gateway"
OTHER_KEY = API_KEY.swapcase()
PORT = 8443
# longer than nginx waits for the next bytes of an ordinary request
SILENCE_SECONDS = 65
REQUEST = {"text_input": "What is", "max_tokens": 1, "bad_words": "", "stop_words": ""}


class Gateway:
    """A gateway's files on this machine, and the group data that names them."""

    def __init__(self, host: OneHost, folder: Path) -> None:
        self.host, self.folder = host, folder
        self.address = host.settings.address(1)
        self.made = pair(addresses=[self.address])
        self.write(self.made)

    def write(self, made: Pair, keys: str = f"tests {API_KEY}\n", **data: Any) -> None:
        """What the next run is given."""
        self.made = made
        files = gateway_files(self.folder, made, keys)
        values = {
            "gateway": {**files, "image": f"{nginx_image.REPOSITORY}:{nginx_image.TAG}"},
            "bind_address": self.address,
            "allowed_sources": [f"{self.host.settings.gateway}/32"],
            **data,
        }
        group = self.folder / "group_data"
        group.mkdir(exist_ok=True)
        text = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        (group / "all.py").write_text(text, encoding="utf-8")

    @property
    def options(self) -> list[str]:
        return ["--group-data", str(self.folder / "group_data")]

    def deploy(self, overrides: dict[str, Any] | None = None) -> str:
        done = self.host.deploy(*self.options, overrides=overrides)
        assert done.code == 0, done.output
        assert API_KEY not in done.output
        return done.output

    def verify(self, keywords: str = "gateway or ports") -> int:
        command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/verify", "--inventory", INVENTORY]
        chosen = ["-k", keywords] if keywords else []
        return self.host.run(sys.executable, *command, *self.options, *chosen).code

    def container(self) -> str:
        return self.host.root("docker inspect --format '{{.Id}}' triton-gateway").strip()

    def context(self) -> ssl.SSLContext:
        # not of the file, which a test may be writing anew
        return ssl.create_default_context(cadata=self.made.pem.decode())

    def ask(self, key: str = API_KEY, path: str = "/v2/models/ensemble/generate") -> int | str:
        """The status of one request, or what went wrong."""
        connection = http.client.HTTPSConnection(self.address, PORT, context=self.context(), timeout=60)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        try:
            connection.request("POST", path, json.dumps(REQUEST), headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.close()

    @contextmanager
    def asked(self) -> Iterator[list[int | str]]:
        """One request after the other while the block runs, each over a connection of its own; what became of each."""
        found: list[int | str] = []
        stop = threading.Event()

        def on_and_on() -> None:
            while not stop.is_set():
                found.append(self.ask())
                time.sleep(0.02)

        threads = [threading.Thread(target=on_and_on) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            yield found
        finally:
            stop.set()
            for thread in threads:
                thread.join()


@pytest.fixture(scope="module")
def gateway(site: OneHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The host behind a gateway; back to its inventory when the module ends."""
    site.converge()
    found = Gateway(site, tmp_path_factory.mktemp("gateway"))
    found.deploy()
    yield found
    site.converge()


def test_it_is_verified_and_the_next_run_changes_nothing(gateway: Gateway) -> None:
    assert gateway.verify("") == 0
    unit = "/etc/systemd/system/triton-gateway.service"
    assert gateway.host.try_root(f"systemd-analyze verify {unit} 2>&1 >/dev/null") == (0, "")
    before = gateway.container()
    assert "converged: release" in gateway.deploy()
    assert gateway.container() == before
    assert [
        port
        for port in (8000, 8001, 8002, PORT)
        if reaches_from(gateway, gateway.host.settings.gateway, port)
    ] == [PORT]


def reaches_from(gateway: Gateway, source: str, port: int) -> bool:
    return reaches(source, gateway.address, port)


def test_people_s_clients_get_in_with_a_key_and_to_the_models_alone(gateway: Gateway) -> None:
    place, roots = f"{gateway.address}:{PORT}", str(gateway.folder / "certificate")
    with_key = {"authorization": f"Bearer {API_KEY}"}
    with tritonclient.grpc.InferenceServerClient(place, ssl=True, root_certificates=roots) as client:
        assert client.is_model_ready("ensemble", headers=with_key)
        assert answered_over_grpc(client, with_key)
        for headers, code in (({}, "UNAUTHENTICATED"), ({"authorization": "Bearer x"}, "UNAUTHENTICATED")):
            with pytest.raises(InferenceServerException) as error:
                client.is_model_ready("ensemble", headers=headers)
            assert code in str(error.value.status())
        closed: dict[str, Callable[[], object]] = {
            "index": lambda: client.get_model_repository_index(headers=with_key),
            "load": lambda: client.load_model("no-such-model", headers=with_key),
            "log": lambda: client.get_log_settings(headers=with_key),
            "configuration": lambda: client.get_model_config("ensemble", headers=with_key),
            "shared memory": lambda: client.get_system_shared_memory_status(headers=with_key),
        }
        for name, call in closed.items():
            with pytest.raises(InferenceServerException) as error:
                pytest.fail(f"{name}: answered {call()}")
            assert "UNIMPLEMENTED" in str(error.value.status()), name
    options = {"ca_certs": roots}
    with tritonclient.http.InferenceServerClient(place, ssl=True, ssl_options=options) as over_http:
        assert over_http.is_model_ready("ensemble", headers=with_key)
        assert not over_http.is_model_ready("ensemble")


def answered_over_grpc(client: Any, headers: dict[str, str], silence_s: float = 0) -> bool:
    """Whether a request over a stream, as a client of a language model asks, gets its answer; also after a silence."""
    import numpy as np

    done, texts = threading.Event(), []

    def take(result: Any, error: Any) -> None:
        texts.append(str(error) if error else result.as_numpy("text_output"))
        done.set()

    inputs = []
    for name, value, kind, triton_type in (
        ("text_input", b"What is", np.object_, "BYTES"),
        ("max_tokens", 1, np.int32, "INT32"),
        ("bad_words", b"", np.object_, "BYTES"),
        ("stop_words", b"", np.object_, "BYTES"),
    ):
        given = tritonclient.grpc.InferInput(name, [1, 1], triton_type)
        given.set_data_from_numpy(np.full([1, 1], value, dtype=kind))
        inputs.append(given)
    client.start_stream(callback=take, headers=headers)
    if silence_s:
        client.async_stream_infer("ensemble", inputs)
        assert done.wait(60)
        time.sleep(silence_s)
        done.clear()
        texts.clear()
    client.async_stream_infer("ensemble", inputs)
    assert done.wait(60)
    client.stop_stream()
    return not isinstance(texts[0], str)


def test_requests_are_bounded_and_the_server_stays(gateway: Gateway) -> None:
    connection = http.client.HTTPSConnection(gateway.address, PORT, context=gateway.context(), timeout=60)
    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Length": str(65 * 2**20)}
    connection.request("POST", "/v2/models/ensemble/generate", headers=headers)
    assert connection.getresponse().status == 413
    connection.close()
    # without a key, nothing of any size
    connection = http.client.HTTPSConnection(gateway.address, PORT, context=gateway.context(), timeout=60)
    connection.request("GET", "/v2/health/ready", headers={"Content-Length": "2000"})
    assert connection.getresponse().status == 413
    connection.close()
    assert gateway.ask() == 200


def test_a_stream_may_be_silent_for_longer_than_a_slow_client(gateway: Gateway) -> None:
    roots, place = str(gateway.folder / "certificate"), f"{gateway.address}:{PORT}"
    with tritonclient.grpc.InferenceServerClient(place, ssl=True, root_certificates=roots) as client:
        assert answered_over_grpc(client, {"authorization": f"Bearer {API_KEY}"}, silence_s=SILENCE_SECONDS)


def test_keys_and_certificate_change_without_a_lost_request(gateway: Gateway) -> None:
    before, triton = gateway.container(), gateway.host.container()["Id"]
    both = f"tests {API_KEY}\nother {OTHER_KEY}\n"
    with gateway.asked() as answers:
        gateway.write(gateway.made, both)
        output = gateway.deploy()
        rows = [row.split()[1] for row in difference_rows(output)]
        assert rows[0] == f"{DIRECTORY}/keys.map", output
        assert gateway.ask(OTHER_KEY) == 200
    assert len(answers) > 10
    assert set(answers) == {200}

    # the same key, another certificate for the same name: whoever trusts it alone is served
    gateway.write(pair(addresses=[gateway.address]), f"other {OTHER_KEY}\n")
    gateway.deploy()
    assert (gateway.ask(OTHER_KEY), gateway.ask(API_KEY)) == (200, 401)
    gateway.write(gateway.made)
    gateway.deploy()
    assert gateway.container() == before
    assert gateway.host.container()["Id"] == triton
    assert gateway.verify() == 0


def test_what_a_killed_run_left_unread_is_read_by_the_next(gateway: Gateway) -> None:
    gateway.host.root(f"printf 'wrong' >{DIRECTORY}/keys.map; rm /run/triton-gateway")
    assert gateway.verify() != 0
    rows = [row.split("  ")[0] for row in difference_rows(gateway.deploy())]
    assert rows == ["gateway", "gateway"]
    assert gateway.verify() == 0


BREAKAGES = {
    "its container is gone": "docker kill triton-gateway",
    "it was stopped": "systemctl stop triton-gateway",
    "it does not start at boot": "systemctl disable triton-gateway",
    "its private key can be read by everybody": f"chmod 644 {DIRECTORY}/tls.pem",
    "its directory is open": f"chmod 755 {DIRECTORY}",
    "another key was put in": f"echo '\"~^Bearer another$\" x;' >>{DIRECTORY}/keys.map",
    "its rules are gone": "nft delete chain inet tritonhost_triton output",
}


@pytest.mark.parametrize("what", BREAKAGES)
def test_verification_sees_what_is_broken_and_the_next_run_mends_it(gateway: Gateway, what: str) -> None:
    # systemd would start a killed container again before anybody looks
    gateway.host.root("mkdir -p /run/systemd/system/triton-gateway.service.d")
    gateway.host.root(
        "printf '[Service]\\nRestart=no\\n' >/run/systemd/system/triton-gateway.service.d/lab.conf; systemctl daemon-reload"
    )
    gateway.host.root(BREAKAGES[what])
    assert gateway.verify("gateway or guard") != 0, what
    gateway.host.root("rm -r /run/systemd/system/triton-gateway.service.d; systemctl daemon-reload")
    gateway.deploy()
    assert gateway.verify("gateway or guard") == 0, what


def test_files_that_cannot_be_are_refused_before_a_connection(gateway: Gateway) -> None:
    before = gateway.container()
    Path(gateway.folder, "private_key").write_bytes(pair("other").key_pem())
    refused = gateway.host.deploy(*gateway.options)
    gateway.write(gateway.made)
    assert refused.code == 2, refused.output
    assert "found the key of another certificate" in refused.output
    assert gateway.container() == before
    assert gateway.ask() == 200


def test_its_secrets_are_seen_nowhere_but_where_they_belong(gateway: Gateway) -> None:
    own = pair(addresses=[gateway.address])
    key = "canary-" + OTHER_KEY
    # a line of the private key: all of it would not be in one place
    secrets = (key, own.key_pem().decode().splitlines()[1])
    for options in (["-vvv", "--debug"], []):
        gateway.write(own, f"canary {key}\n")
        watched = watched_deploy(gateway.host, [*gateway.options, *options], {}, secrets=secrets)
        assert watched.code == 0, watched.output[-2000:]
        assert watched.rounds > 5
        found = [place for place in leaks(gateway.host, watched, secrets) if not place.startswith(DIRECTORY)]
        assert found == []
        gateway.write(gateway.made, "nobody " + API_KEY + "\n")
        gateway.deploy()
    gateway.write(pair(addresses=[gateway.address]))
    gateway.deploy()


def test_an_upgrade_behind_it_loses_no_request(gateway: Gateway) -> None:
    gateway.write(gateway.made, front="haproxy")
    gateway.deploy()
    before = gateway.host.running_release()
    with gateway.asked() as answers:
        output = gateway.deploy(overrides=delay(7))
    assert "side by side" in output, output
    assert gateway.host.running_release() != before
    assert len(answers) > 20
    assert set(answers) == {200}
    assert gateway.verify() == 0


def test_it_comes_back_after_a_boot(gateway: Gateway) -> None:
    gateway.host.lab("reboot", "1")
    deadline = time.monotonic() + 120
    while gateway.ask() != 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert gateway.verify("gateway") == 0


def test_nothing_is_left_of_it_in_the_end(gateway: Gateway) -> None:
    site = gateway.host
    site.converge()
    assert site.try_root(f"test -e {DIRECTORY}")[0] != 0
    assert site.root("systemctl is-active triton-gateway || :").strip() == "inactive"
    assert site.root("systemctl is-enabled triton-gateway || :").strip() == "disabled"
    assert not reaches_from(gateway, site.settings.gateway, PORT)
    assert f"skuid {plan.USER}" not in site.root("nft list table inet tritonhost_triton")
    site.verified()
    assert "converged: release" in site.converge().output
