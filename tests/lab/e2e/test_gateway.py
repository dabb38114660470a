"""A gateway with TLS and API keys: access, changes of keys and certificates, upgrades behind it, and its removal.

Tested over the network with the usual clients: tritonclient over gRPC and HTTP, which check the certificate.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from operations.plan.exposure import gateway as plan
from tests.lab.e2e.one_host import OneHost, Verification, difference_rows
from tests.lab.e2e.test_canary_token import leaks, watched_deploy
from tests.lab.e2e.test_network import reaches
from tests.lab.faults.interrupt import delay
from tests.lab.settings import REPOSITORY
from tests.lab.standins import nginx_image
from tests.unit.certificates import API_KEY, Pair, gateway_files, pair

DIRECTORY = "/var/lib/tritonhost/gateway"
OTHER_KEY = API_KEY.swapcase()
PORT = 8443
REQUEST = {"text_input": "What is", "max_tokens": 1, "bad_words": "", "stop_words": ""}


class Gateway:
    """A gateway's files on this machine, and the group data that names them."""

    def __init__(self, host: OneHost, folder: Path) -> None:
        self.host, self.folder = host, folder
        self.address = host.settings.address(1)
        self.made = pair(addresses=[self.address])
        self.write(self.made)

    def write(self, made: Pair, keys: str = f"tests {API_KEY}\n", **data: Any) -> None:
        """Write the files and the group data for the next run."""
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

    def verify(self, keywords: str = "gateway or ports") -> Verification:
        return self.host.verify(keywords, *self.options)

    def verified(self, keywords: str = "gateway or ports") -> None:
        self.host.verified(keywords, *self.options, features=("gateway",))

    def container(self) -> str:
        return self.host.root("docker inspect --format '{{.Id}}' triton-gateway").strip()

    def context(self) -> ssl.SSLContext:
        # not from the file, which a test may just be replacing
        return ssl.create_default_context(cadata=self.made.pem.decode())

    def ask(self, key: str = API_KEY, path: str = "/v2/models/ensemble/generate") -> int | str:
        """The status of one request, or the error."""
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
        """Send one request after another while the block runs, each over its own connection; yields their results."""
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
    """The host behind a gateway; the inventory's state is restored at the end of the module."""
    site.converge()
    found = Gateway(site, tmp_path_factory.mktemp("gateway"))
    found.deploy()
    yield found
    site.converge()


@pytest.mark.smoke
def test_gateway_is_verified_and_next_run_changes_nothing(gateway: Gateway) -> None:
    gateway.verified("")
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


@pytest.mark.smoke
def test_clients_with_a_key_reach_only_the_models(gateway: Gateway) -> None:
    clients(gateway, "get_in_with_a_key_and_to_the_models_alone")


def clients(gateway: Gateway, check: str) -> None:
    """
    A check of gateway_clients.py succeeds.

    In about one of ten runs, a library ended the clients' process by abort() without a message; 900 attempts did not reproduce
    it. So the check runs a second time, and the test prints what is known about the first.
    """
    place, roots = f"{gateway.address}:{PORT}", str(gateway.folder / "certificate")
    argv = [sys.executable, "-X", "faulthandler", "-m", "tests.lab.e2e.gateway_clients", check]
    for _ in range(2):
        done = subprocess.run(
            [*argv, place, roots, API_KEY], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        if done.returncode >= 0:
            break
        print(f"{check}: ended by signal {-done.returncode}\n{done.stderr}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_oversized_requests_get_413_and_gateway_keeps_serving(gateway: Gateway) -> None:
    connection = http.client.HTTPSConnection(gateway.address, PORT, context=gateway.context(), timeout=60)
    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Length": str(65 * 2**20)}
    connection.request("POST", "/v2/models/ensemble/generate", headers=headers)
    assert connection.getresponse().status == 413
    connection.close()
    # without a key, no request body is accepted
    connection = http.client.HTTPSConnection(gateway.address, PORT, context=gateway.context(), timeout=60)
    connection.request("GET", "/v2/health/ready", headers={"Content-Length": "2000"})
    assert connection.getresponse().status == 413
    connection.close()
    assert gateway.ask() == 200


def test_a_stream_may_be_silent_for_longer_than_a_slow_client(gateway: Gateway) -> None:
    clients(gateway, "are_silent_for_longer_than_a_slow_client")


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

    # another certificate for the same address, and another API key: a client that trusts only this certificate is served
    gateway.write(pair(addresses=[gateway.address]), f"other {OTHER_KEY}\n")
    gateway.deploy()
    assert (gateway.ask(OTHER_KEY), gateway.ask(API_KEY)) == (200, 401)
    gateway.write(gateway.made)
    gateway.deploy()
    assert gateway.container() == before
    assert gateway.host.container()["Id"] == triton
    gateway.verified()


def test_next_run_loads_files_a_killed_run_did_not_load(gateway: Gateway) -> None:
    gateway.host.root(f"printf 'wrong' >{DIRECTORY}/keys.map; rm /run/triton-gateway")
    seen = gateway.verify()
    assert seen.names("test_gateway_files_match_and_its_secrets_are_private"), seen.output
    assert seen.names("test_gateway_runs_with_its_current_files"), seen.output
    rows = [row.split("  ")[0] for row in difference_rows(gateway.deploy())]
    assert rows == ["gateway", "gateway"]
    gateway.verified()


def test_failed_gateway_start_keeps_the_previous_gateway(gateway: Gateway) -> None:
    host = gateway.host
    # nginx listens on every address, and the port is in use on one of them; nginx' own test of its files does not notice
    host.root(f"systemd-run --quiet --unit=squatter python3 -m http.server {PORT} --bind 127.0.0.9")
    try:
        gateway.write(gateway.made, bind_address="0.0.0.0", expose=True)
        # on the command line: data of the lab's group wins over that of all hosts
        done = host.deploy(*gateway.options, "--data", 'preflight_waived=["disk space", "ports"]')
    finally:
        host.root("systemctl stop squatter")
    assert done.code == 1, done.output
    said = next((line for line in done.output.splitlines() if "did not start with its new files" in line), "")
    assert "bind() to 0.0.0.0:8443 failed" in said, done.output
    assert "what it ran with before is back, and it runs with it" in said
    assert host.try_root("ls /run/*.kept")[0] != 0
    assert gateway.ask() == 200
    gateway.write(gateway.made)
    gateway.deploy()
    gateway.verified()


RESTART_NO = "/run/systemd/system/triton-gateway.service.d"
# name -> what breaks the gateway, and the test that must fail
RELOAD = "docker kill --signal HUP triton-gateway && sleep 1"
BREAKAGES = {
    "its container is gone": (
        "docker kill triton-gateway",
        "test_gateway_shows_the_inventory_s_certificate",
    ),
    "it was stopped": ("systemctl stop triton-gateway", "test_gateway_shows_the_inventory_s_certificate"),
    "it does not start at boot": (
        "systemctl disable triton-gateway",
        "test_gateway_runs_with_its_current_files",
    ),
    "its private key can be read by everybody": (
        f"chmod 644 {DIRECTORY}/tls.pem",
        "test_gateway_files_match_and_its_secrets_are_private",
    ),
    "its directory is open": (
        f"chmod 755 {DIRECTORY}",
        "test_gateway_files_match_and_its_secrets_are_private",
    ),
    "another key was put in": (
        f"echo '\"~^Bearer another$\" x;' >>{DIRECTORY}/keys.map",
        "test_gateway_files_match_and_its_secrets_are_private",
    ),
    "its rules are gone": (
        "nft delete chain inet tritonhost_triton output",
        "test_guard_s_rules_are_in_the_kernel",
    ),
    "it has rights": (
        # the flags that its script gives to docker
        f"sed -i 's/--cap-drop ALL/--cap-drop NET_RAW/' {DIRECTORY}/{plan.SCRIPT} && systemctl restart triton-gateway",
        "test_gateway_container_has_no_rights",
    ),
    "it does not reach the server": (
        f"nft insert rule inet tritonhost_triton output meta skuid {plan.USER} drop",
        "test_gateway_can_connect_only_to_the_host",
    ),
    "it speaks old TLS": (
        f"sed -i 's/ssl_protocols .*/ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;/; "
        f"s/ssl_ciphers .*/ssl_ciphers DEFAULT@SECLEVEL=0;/' {DIRECTORY}/nginx.conf && {RELOAD}",
        "test_gateway_refuses_old_tls",
    ),
    "everybody is a client": (
        f'sed -i \'/map .http_authorization/,/}}/ s/default "";/default "anybody";/\' {DIRECTORY}/nginx.conf && {RELOAD}',
        "test_gateway_refuses_requests_without_a_key",
    ),
    "what is closed is open": (
        f"sed -i 's/return 404.*/return 200;/' {DIRECTORY}/nginx.conf && {RELOAD}",
        "test_gateway_keys_reach_only_the_models",
    ),
    "its journal has a key": (
        f"printf 'MESSAGE=%s\nOBJECT_SYSTEMD_UNIT=triton-gateway.service\n' {API_KEY} | logger --journald && journalctl --sync",
        "test_journal_contains_no_key",
    ),
}
# What a deploy does not repair
UNDO = {
    "it has rights": (
        f"sed -i 's/--cap-drop NET_RAW/--cap-drop ALL/' {DIRECTORY}/{plan.SCRIPT} && systemctl restart triton-gateway"
    ),
    "its journal has a key": "journalctl --rotate && journalctl --vacuum-time=1s",
}


@pytest.mark.parametrize("what", BREAKAGES)
def test_verification_finds_breakage_and_next_run_repairs_it(gateway: Gateway, what: str) -> None:
    script, seen_by = BREAKAGES[what]
    # systemd would restart a killed container before the test reads its state
    gateway.host.root(
        f"mkdir -p {RESTART_NO}; printf '[Service]\\nRestart=no\\n' >{RESTART_NO}/lab.conf; systemctl daemon-reload"
    )
    gateway.host.root(script)
    seen = gateway.verify("gateway or guard or journal")
    assert seen.names(seen_by), f"{what}: {seen.output}"
    gateway.host.root(f"rm -r {RESTART_NO}; systemctl daemon-reload; {UNDO.get(what, 'true')}")
    gateway.deploy()
    gateway.verified("gateway or guard or journal")


def test_every_test_of_the_gateway_has_a_breakage() -> None:
    tests = re.findall(
        r"^def (test_\w+)",
        (REPOSITORY / "tests" / "verify" / "test_gateway.py").read_text("utf-8"),
        re.MULTILINE,
    )
    assert set(tests) - {seen_by for _, seen_by in BREAKAGES.values()} == set()


def test_verification_passes_when_systemd_restarts_nothing(gateway: Gateway) -> None:
    """The tests above fail because of the breakages, not because of the setting that keeps systemd from restarting."""
    gateway.host.root(
        f"mkdir -p {RESTART_NO}; printf '[Service]\\nRestart=no\\n' >{RESTART_NO}/lab.conf; systemctl daemon-reload"
    )
    try:
        gateway.verified("gateway or guard")
    finally:
        gateway.host.root(f"rm -r {RESTART_NO}; systemctl daemon-reload")


def test_mismatched_key_is_refused_before_connecting(gateway: Gateway) -> None:
    before = gateway.container()
    Path(gateway.folder, "private_key").write_bytes(pair("other").key_pem())
    refused = gateway.host.deploy(*gateway.options)
    gateway.write(gateway.made)
    assert refused.code == 2, refused.output
    assert "found the key of another certificate" in refused.output
    assert gateway.container() == before
    assert gateway.ask() == 200


def test_gateway_secrets_are_found_only_where_they_belong(gateway: Gateway) -> None:
    own = pair(addresses=[gateway.address])
    key = "canary-" + OTHER_KEY
    # one line of the private key: the whole key would not occur as one string
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


def test_upgrade_behind_the_gateway_loses_no_request(gateway: Gateway) -> None:
    gateway.write(gateway.made, front="haproxy")
    gateway.deploy()
    before = gateway.host.running_release()
    with gateway.asked() as answers:
        output = gateway.deploy(overrides=delay(7))
    assert "side by side" in output, output
    assert gateway.host.running_release() != before
    assert len(answers) > 20
    assert set(answers) == {200}
    gateway.verified()


def test_gateway_cannot_be_bypassed_through_docker_ports(gateway: Gateway) -> None:
    host, port = gateway.host, 9009
    image = host.container()["Image"]
    host.root(
        f"docker run --detach --rm --name past --network triton-network --publish {gateway.address}:{port}:{port} "
        f"--entrypoint python3 {image} -m http.server {port}; "
        f"until docker exec past python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}))' "
        "2>/dev/null; do sleep 0.2; done"
    )
    try:
        assert not reaches_from(gateway, host.settings.gateway, port)
        # without the guard the port would be reachable
        host.root("nft insert rule inet tritonhost_triton to_server ct status dnat accept")
        assert reaches_from(gateway, host.settings.gateway, port)
    finally:
        host.root("docker rm --force past; systemctl reload triton-guard")
    assert gateway.ask() == 200
    gateway.verified("gateway or guard")


def test_gateway_serves_again_after_a_reboot(gateway: Gateway) -> None:
    gateway.host.lab("reboot", "1")
    deadline = time.monotonic() + 120
    while gateway.ask() != 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    gateway.verified("gateway")


def test_removed_gateway_leaves_nothing_behind(gateway: Gateway) -> None:
    site = gateway.host
    site.converge()
    assert site.try_root(f"test -e {DIRECTORY}")[0] != 0
    assert site.root("systemctl is-active triton-gateway || :").strip() == "inactive"
    assert site.root("systemctl is-enabled triton-gateway || :").strip() == "disabled"
    assert not reaches_from(gateway, site.settings.gateway, PORT)
    assert f"skuid {plan.USER}" not in site.root("nft list table inet tritonhost_triton")
    site.verified()
    assert "converged: release" in site.converge().output
